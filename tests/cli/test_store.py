"""Checkpoints, clips and lists named by their address in a store, and folders that cannot be in one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import vidtrain
from tests.cli.conftest import Call, error_line
from vidtrain.commands.eval import EvalCommandConfig, _folder

fsspec: Any = pytest.importorskip("fsspec")


@pytest.fixture
def store(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A store within this process, with the checkpoint and a clip of a finished run."""
    monkeypatch.setenv("VIDTRAIN_CACHE", str(tmp_path / "cache"))
    system = fsspec.filesystem("memory")
    system.pipe_file("/shop/run/best.pt", (trained / "best.pt").read_bytes())
    system.pipe_file("/shop/clip.mp4", Path(clip_of(trained)).read_bytes())
    yield "memory://shop"
    system.store.clear()


def clip_of(run: Path) -> str:
    lines = (run / "test" / "predictions.csv").read_text().splitlines()
    return lines[1].split(",")[1]


def test_predict_reads_both_from_the_store(trained: Path, store: str, call: Call, tmp_path: Path) -> None:
    here = call("predict", f"checkpoint={trained / 'best.pt'}", f"input={clip_of(trained)}").stdout
    there = call("predict", f"checkpoint={store}/run/best.pt", f"input={store}/clip.mp4", "output=it.csv")
    assert there.stdout == here.replace(clip_of(trained), f"{store}/clip.mp4")
    assert f"{store}/clip.mp4" in (tmp_path / "it.csv").read_text()
    one, other = (vidtrain.load(file) for file in (trained / "best.pt", f"{store}/run/best.pt"))
    assert other.predict(f"{store}/clip.mp4").top == one.predict(clip_of(trained)).top


def test_what_is_not_there_is_said_with_its_address(store: str, call: Call) -> None:
    said = error_line(call("predict", f"checkpoint={store}/no.pt", "input=a.mp4", check=2))
    assert said == f"{store}/no.pt: no such file in the store"
    said = error_line(call("predict", f"checkpoint={store}/run/best.pt", f"input={store}/no.mp4", check=2))
    assert said == f"{store}/no.mp4: no such file in the store"
    fsspec.filesystem("memory").pipe_file("/shop/run/best.pt", b"no checkpoint")
    said = error_line(call("predict", f"checkpoint={store}/run/best.pt", "input=a.mp4", check=2))
    assert said.startswith(f"{store}/run/best.pt: ")
    said = error_line(call("eval", f"checkpoint={store}/run/best.pt", "calibrate=true", check=2))
    assert said == f"calibrate is kept in the checkpoint: copy {store}/run/best.pt to this machine first"


@pytest.mark.parametrize(
    "words", [["train", "run_dir=s3://b/run"], ["train", "resume=s3://b/run"], ["predict", "output=gs://b/x.csv"]]
)
def test_nothing_is_written_to_a_store(call: Call, tmp_path: Path, words: list[str]) -> None:
    said = error_line(call(*words, check=2))
    assert said.startswith(f"{words[-1]}: vidtrain writes to folders of this machine, since stores neither append nor")
    assert not list(tmp_path.iterdir())


def test_a_run_folder_of_a_configuration_file(call: Call, tmp_path: Path) -> None:
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    (tmp_path / "conf" / "experiment" / "mine.yaml").write_text("# @package _global_\nrun_dir: s3://b/run\n")
    done = call("train", "--config-dir=conf", "experiment=mine", check=2)
    assert "run_dir=s3://b/run: vidtrain writes to folders of this machine" in done.stderr
    assert not (tmp_path / "s3:").exists()


def test_a_test_of_a_checkpoint_in_a_store_is_written_here(call: Call, tmp_path: Path) -> None:
    folder = _folder(EvalCommandConfig(checkpoint="s3://bucket/runs/c3d 1/best.pt"), None, "test")
    assert folder == Path("runs/eval/c3d_1_best.pt/test")
    assert (tmp_path / folder).is_dir()

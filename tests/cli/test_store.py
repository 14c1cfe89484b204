"""Checkpoints, clips and lists named by their address in a store, and folders that cannot be in one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import vidtrain
from tests.cli.conftest import Call, error_line
from vidtrain.commands.eval import EvalCommandConfig, _folder
from vidtrain.errors import VidtrainError
from vidtrain.hub_folder import CONFIG, WEIGHTS, is_hub_folder, load_trained
from vidtrain.models.layers.backbone2d import image_backbone
from vidtrain.models.weights.read import read_weights
from vidtrain.shell import cli

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


# ---------------------------------------------------------------- folders, and weights to start from


@pytest.fixture(scope="module")
def published(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `vidtrain publish`. Read it, do not change it."""
    folder = tmp_path_factory.mktemp("published") / "model"
    with pytest.raises(SystemExit):
        cli.main(["publish", f"checkpoint={trained / 'best.pt'}", f"output={folder}"])
    return folder


def put(folder: Path, home: str) -> None:
    for file in folder.iterdir():
        fsspec.filesystem("memory").pipe_file(f"/shop/{home}/{file.name}", file.read_bytes())


def weights_of(path: Path | str) -> list[torch.Tensor]:
    return list(vidtrain.load(path, device="cpu").model.state_dict().values())


def test_a_published_folder(store: str, trained: Path, published: Path, call: Call) -> None:
    here = weights_of(trained)
    for home in ("model", "model.v2"):
        put(published, home)
        assert is_hub_folder(f"{store}/{home}")
        assert all(map(torch.equal, weights_of(f"{store}/{home}/"), here))
    words = ["predict", f"input={clip_of(trained)}"]
    there = call(*words, f"model.weights={store}/model.v2").stdout
    assert there == call(*words, f"checkpoint={published}").stdout


def test_the_folder_of_a_run(store: str, trained: Path) -> None:
    """best.pt, and last.pt where there is none yet."""
    assert all(map(torch.equal, weights_of(f"{store}/run"), weights_of(trained / "best.pt")))
    system = fsspec.filesystem("memory")
    system.pipe_file("/shop/run/last.pt", (trained / "last.pt").read_bytes())
    system.rm_file("/shop/run/best.pt")
    assert all(map(torch.equal, weights_of(f"{store}/run"), weights_of(trained / "last.pt")))


def test_what_a_folder_lacks_is_said_with_its_address(store: str, published: Path, call: Call) -> None:
    put(published, "model")
    system = fsspec.filesystem("memory")

    def said(read: Callable[[str], Any] = load_trained, home: str = "model") -> str:
        with pytest.raises(VidtrainError) as error:
            read(f"{store}/{home}")
        return str(error.value)

    system.pipe_file(f"/shop/model/{WEIGHTS}", b"others")
    assert said().startswith(f"{store}/model/{WEIGHTS}: is not the file that {CONFIG} describes")
    assert said(read_weights).startswith(f"{store}/model/{WEIGHTS}: cannot be read as safetensors")
    system.pipe_file(f"/shop/model/{CONFIG}", b"{")
    assert said().startswith(f"{store}/model/{CONFIG}: cannot be read")
    system.rm_file(f"/shop/model/{WEIGHTS}")
    assert said().startswith(f"{store}/model: is a folder, and folders in a store are not listed")
    assert said(home="nothing") == said(read_weights, "nothing") == f"{store}/nothing: no such file in the store"
    line = error_line(call("predict", f"checkpoint={store}/model", "input=a.mp4", check=2))
    assert line.startswith(f"{store}/model: is a folder, and folders in a store are not listed")


def test_a_folder_of_another_kind_in_the_same_place(store: str, tmp_path: Path) -> None:
    """The copy of a folder holds what the store has now, and nothing of before."""
    system = fsspec.filesystem("memory")
    file = tmp_path / "weights.pt"
    for name, value in (("model.safetensors", 1), ("pytorch_model.bin", 2)):
        save = save_file if name.endswith("safetensors") else torch.save
        save({"layer.weight": torch.full((2, 2), float(value))}, file)
        system.pipe_file(f"/shop/hub/{name}", file.read_bytes())
        system.pipe_file(f"/shop/hub/{CONFIG}", b'{"id2label": {"0": "a", "1": "b"}}')
        found = read_weights(f"{store}/hub")
        assert found.source == f"{store}/hub/{name}"
        assert found.class_names == ("a", "b")
        assert found.said[CONFIG].name == f"{store}/hub/{CONFIG}"
        assert found.state["layer.weight"].unique().item() == value
        system.rm_file(f"/shop/hub/{name}")


@pytest.mark.parametrize(
    ("key", "name"),
    [("weights", "single_frame"), ("backbone_weights", "late_fusion"), ("inflate_from", "inflated")],
)
def test_a_model_starts_from_the_store(key: str, name: str, store: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"num_classes": 4, "num_frames": 8, "size": 32, "backbone": "tiny"}
    own = vidtrain.create_model("single_frame", **options)
    torch.save(own.state_dict() if key == "weights" else image_backbone("tiny").net.state_dict(), tmp_path / "it.pth")
    fsspec.filesystem("memory").pipe_file("/shop/it.pth", (tmp_path / "it.pth").read_bytes())
    states = []
    for start in ({}, {key: str(tmp_path / "it.pth")}, {key: f"{store}/it.pth"}):
        torch.manual_seed(0)
        states.append(list(vidtrain.create_model(name, **options, **start).state_dict().values()))
    assert all(map(torch.equal, states[1], states[2]))
    assert not all(map(torch.equal, states[0], states[2]))


# ---------------------------------------------------------------- a server that speaks S3


@pytest.mark.slow
def test_an_s3_server(
    trained: Path, published: Path, tiny: list[str], call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint, a published folder, weights to start from, a list of videos: by s3://, from moto's server."""
    pytest.importorskip("s3fs")
    moto = pytest.importorskip("moto.server")
    for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(key, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("VIDTRAIN_CACHE", str(tmp_path / "cache"))
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        monkeypatch.setitem(fsspec.config.conf, "s3", {"endpoint_url": f"http://{host}:{port}"})
        system = fsspec.filesystem("s3")
        system.mkdir("shop")
        for folder, home in ((published, "model"), (trained, "run")):
            for file in folder.iterdir():
                if file.is_file():
                    system.pipe_file(f"shop/{home}/{file.name}", file.read_bytes())
        here = weights_of(trained)
        for url in ("s3://shop/model", "s3://shop/model/", "s3://shop/run", "s3://shop/run/best.pt"):
            assert all(map(torch.equal, weights_of(url), here))
        words = ["predict", f"input={clip_of(trained)}"]
        there = call(*words, "model.weights=s3://shop/model").stdout
        assert there == call(*words, f"checkpoint={trained / 'best.pt'}").stdout
        start = [*tiny, "trainer.epochs=1", "trainer.max_batches=1", "trainer.test=false"]
        for number, weights in enumerate((trained / "best.pt", "s3://shop/run/best.pt")):
            call("train", *start, f"model.weights={weights}", f"run_dir={number}")
        ours, theirs = (torch.load(tmp_path / f"{n}" / "last.pt", weights_only=True)["model"] for n in range(2))
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
        for words in (
            ["predict", "checkpoint=s3://no/best.pt", "input=a.mp4"],
            ["train", "model.weights=s3://no/best.pt"],
        ):
            line = call(*words, check=2).stderr.splitlines()[-1]  # above it those of the server
            assert line == "vidtrain: error: s3://no/best.pt: no such file in the store"
    finally:
        server.stop()


@pytest.mark.parametrize(("command", "key"), [("report", "run"), ("compare", "runs"), ("label_errors", "runs")])
def test_runs_are_read_from_folders(command: str, key: str, call: Call) -> None:
    said = error_line(call(command, "file:///a/b", check=2))
    assert said.startswith("runs=['file:///a/b']" if key == "runs" else "run=file:///a/b")
    assert ": runs are read from folders of this machine: copy them first (" in said

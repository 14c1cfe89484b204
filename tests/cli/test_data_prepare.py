"""`vidtrain data prepare` from the command line, and training from what it leaves."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import NUMBERS_ONLY, Call, error_line
from vidtrain.data.manifest.index import read_index

SMALL = [
    *["sampler.num_frames=8", "sampler.stride=1", "transform.size=32", "transform.resize=32", "trainer.epochs=1"],
    *["trainer.batch_size=8", "trainer.num_workers=0", "eval.clips=2", "schedule.warmup_epochs=0"],
    *NUMBERS_ONLY,
]


@pytest.fixture
def motion(tiny: list[str]) -> list[str]:
    """Overrides of the tiny built-in dataset."""
    return ["data=motion", *(override for override in tiny if override.startswith("data."))]


@pytest.mark.parametrize("kind", ["video", "jpeg"])
def test_prepare_and_train(motion: list[str], call: Call, tmp_path: Path, kind: str) -> None:
    prepare = ["data", "prepare", *motion, "output=small copies", f"prepare.format={kind}", "num_workers=2"]
    out = call(*prepare).stdout.splitlines()
    copies = tmp_path / "small copies"
    total = sum(len(manifest) for manifest in read_index(copies).splits.values())
    assert out[0] == f"{total} of {total} videos are prepared in {copies} ({total} now, 0 before)"
    assert out[1].startswith("bytes: ")
    assert out[-1] == f"train from it with: vidtrain train data=index 'data.root={copies}'"
    assert call(*prepare).stdout.startswith(
        f"{total} of {total} videos are prepared in {copies} (0 now, {total} before)"
    )

    call("train", "data=index", f"data.root='{copies}'", *SMALL, "run_dir=r")
    result = json.loads((tmp_path / "r" / "result.json").read_text())
    assert (result["test"]["scored"], result["test"]["listed"]) == (8, 8)


def test_bad_files_are_named_and_do_not_stop_it(motion: list[str], call: Call, tmp_path: Path) -> None:
    call("data", "prepare", *motion, "output=all")
    for split in ("train", "test"):
        for number, file in enumerate(list(read_index(tmp_path / "all").splits[split].paths)[:8]):
            folder = tmp_path / "mine" / split / "ab"[number % 2]
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, folder / f"{number}.mp4")
        (tmp_path / "mine" / split / "a" / "0.mp4").write_bytes(b"broken")
    done = call("data", "prepare", "data=folder", "data.root=mine", "data.val_fraction=0", "output=out")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("14 of 16 videos are prepared")
    assert [line for line in lines if line.startswith("bad: ")] == [
        f"bad: {tmp_path}/mine/{split}/a/0.mp4: is not a video file that FFmpeg knows" for split in ("train", "test")
    ]
    call("train", "data=index", "data.root=out", *SMALL, "run_dir=r")
    result = json.loads((tmp_path / "r" / "result.json").read_text())
    assert (result["test"]["scored"], result["test"]["listed"]) == (7, 8)
    assert f"{tmp_path}/mine/test/a/0.mp4" in (tmp_path / "r" / "test" / "not_scored.csv").read_text()

    for file in (tmp_path / "mine").rglob("*.mp4"):
        file.write_bytes(b"broken")
    done = call("data", "prepare", "data=folder", "data.root=mine", "data.val_fraction=0", "output=none", check=2)
    assert "none of the 16 videos could be prepared; the first: " in error_line(done)


def test_one_split(motion: list[str], call: Call, tmp_path: Path) -> None:
    call("data", "prepare", *motion, "split=val", "output=out")
    assert list(read_index(tmp_path / "out").splits) == ["val"]


def test_mistakes_are_one_line(motion: list[str], call: Call) -> None:
    for wrong, message in (
        ("prepare.crf=99", "prepare.crf=99: must be at least 0 and at most 51"),
        ("prepare.format=gif", "prepare.format"),
        ("prepare.qulity=3", "qulity"),
        ("num_workers=0", "num_workers=0: must be at least 1"),
    ):
        assert message in error_line(call("data", "prepare", *motion, "output=out", wrong, check=2)), wrong


def test_help_tells_the_options(call: Call) -> None:
    out = call("data", "--help").stdout
    for option in ("format", "short_side", "crf", "gop", "quality", "min_psnr", "timeout"):
        assert f"prepare.{option}" in out, out

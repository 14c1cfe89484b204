"""`vidtrain data stats`: numbers, advice and a figure, from the probes of a check or without one."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import Call, error_line
from tests.videos import scene, write_video
from vidtrain.commands.run_dir import folder_name


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """left: 6 videos of 20 frames at 25 fps; right: 2 of 40 frames at 10 fps; one file is broken."""
    root = tmp_path_factory.mktemp("encoded") / "clips"
    for label, count, frames, fps in (("left", 6, 20, 25), ("right", 2, 40, 10)):
        (root / label).mkdir(parents=True)
        for number in range(count):
            pictures = scene(frames, seed=number)
            write_video(root / label / f"{number}.mp4", pictures, fps=fps, codec="libx264", options={})
    (root / "left/broken.mp4").write_bytes(b"")
    return root


@pytest.fixture
def clips(encoded: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(encoded, tmp_path / "clips"))


def options(clips: Path) -> list[str]:
    return ["data=folder", f"data.root={clips}", "data.val_fraction=0", "data.test_fraction=0", "num_workers=1"]


def test_numbers_advice_and_picture(call: Call, clips: Path, tmp_path: Path) -> None:
    out = call("data", "stats", *options(clips)).stdout
    lines = out.splitlines()
    assert lines[0] == "folder: 2 classes, videos: 9 train; 0.2 minutes that can be read"
    rows = {line.split()[0]: line.split()[1:] for line in lines if line.split()}
    assert rows["left"] == ["7"]
    assert rows["right"] == ["2"]
    assert rows["frames"] == ["20", "20", "20", "40", "40"]
    assert rows["fps"] == ["25", "(75", "%),", "10", "(25", "%)"]
    assert rows["codec"] == ["h264", "(100", "%)"]
    assert rows["size"] == ["64x48", "(100", "%)"]
    advice = [line for line in lines if line.startswith("- ")]
    assert "75 % of the videos are shorter (sampler.short=repeat_last); with sampler.stride=1" in advice[0]
    assert any("frame rates run from 10 to 25 fps" in line for line in advice)
    assert any("left has 7 videos, right has 2" in line for line in advice)
    assert any("unreadable videos: 1; " in line for line in advice)
    picture = Path(f"stats/folder_{folder_name(clips)}/stats.png")
    assert lines[-1] == f"plots: {picture}"
    assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")


def test_the_probes_of_a_check_are_used(call: Call, clips: Path, tmp_path: Path) -> None:
    call("data", "check", *options(clips))
    probes = tmp_path / f"check/folder_{folder_name(clips)}/probes.jsonl"
    before = probes.read_bytes()
    by_default = call("data", "stats", *options(clips)).stdout
    assert probes.read_bytes() == before  # nothing was opened

    # told where they are, and beside an index
    text = re.sub(r'"frames": 20\b', '"frames": 25', before.decode())
    (tmp_path / "else").mkdir()
    (tmp_path / "else/probes.jsonl").write_text(text)
    told = call("data", "stats", *options(clips), "stats.probes=else", "output=pictures").stdout
    assert told != by_default
    assert "64x48 (100 %)" in told
    assert re.search(r"frames +25 +25 +25 +40 +40", told)
    assert (tmp_path / "pictures/stats.png").is_file()
    assert call("data", "stats", "data=index", f"data.root=check/folder_{folder_name(clips)}").code == 0
    assert probes.read_bytes() == before


def test_one_split(call: Call, clips: Path) -> None:
    parts = ["data=folder", f"data.root={clips}", "split=test", "num_workers=1"]
    assert call("data", "stats", *parts).stdout.splitlines()[0].startswith("folder: 2 classes, videos: 2 test; ")


def test_wrong_options(call: Call, clips: Path, tmp_path: Path) -> None:
    done = call("data", "stats", *options(clips), "stats.probes=nowhere", check=2)
    assert error_line(done).startswith("stats.probes=nowhere: holds no probes.jsonl")
    done = call("data", "stats", *options(clips), "split=val", check=2)
    assert error_line(done) == "split=val: this dataset has train"
    for file in clips.rglob("*.mp4"):
        file.write_bytes(b"")
    done = call("data", "stats", *options(clips), check=2)
    assert error_line(done) == "no video of the dataset can be read; `vidtrain data check` says why"

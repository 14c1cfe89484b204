"""Probing many files, and going on where a run was ended."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.data.probed import OddFiles
from tests.videos import scene, write_video
from vidtrain.data.checks.probe_files import FILE, Probes, Settings
from vidtrain.data.checks.probe_video import Depth, Probe, probe
from vidtrain.data.readers.any_path import AnyReader
from vidtrain.data.readers.pyav.reader import PyAVReader

READER = AnyReader(PyAVReader())


def settings(depth: Depth = Depth.FULL, name: str = "pyav", timeout: float = 20.0) -> Settings:
    return Settings(READER, name, depth, timeout)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 frames of motion, H.264 with a keyframe every 10."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    return write_video(path, scene(30), codec="libx264", options={"crf": "20", "g": "10"})


def probed(folder: Path, paths: list[Path], wanted: Settings) -> tuple[dict[str, Probe], list[str]]:
    """All probes by name, and the names of those that were made now."""
    found = list(
        Probes(folder).complete([str(Path(path).absolute()) for path in paths], wanted, workers=2, what="checking")
    )
    assert len(found) == len(paths)
    return {Path(one.path).name: one.probe for one in found}, sorted(Path(o.path).name for o in found if not o.known)


@pytest.fixture
def three(clip: Path, tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{name}.mp4" for name in "abc"]
    for path in paths[:2]:
        shutil.copy(clip, path)
    paths[2].write_bytes(b"")
    return paths


def test_a_second_run_probes_what_is_new(three: list[Path], clip: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    first, new = probed(kept, three, settings())
    assert new == ["a.mp4", "b.mp4", "c.mp4"]
    assert first["c.mp4"] == Probe(error="the file is empty", fault="video")
    assert first["a.mp4"] == probe(str(clip), READER, Depth.FULL)
    second, new = probed(kept, three, settings())
    assert (second, new) == (first, [])

    shutil.copy(clip, tmp_path / "d.mp4")
    three[2].write_bytes(clip.read_bytes())
    os.utime(three[0], ns=(1, 1))
    third, new = probed(kept, [*three, tmp_path / "d.mp4"], settings())
    assert new == ["a.mp4", "c.mp4", "d.mp4"]
    assert third["c.mp4"].error is None


def test_what_else_makes_it_probe_again(three: list[Path], tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    probed(kept, three[:2], settings(Depth.SAMPLED))
    assert probed(kept, three[:2], settings(Depth.OPENED))[1] == []
    assert probed(kept, three[:2], settings(Depth.FULL))[1] == ["a.mp4", "b.mp4"]
    assert probed(kept, three[:2], settings(Depth.SAMPLED))[1] == []
    assert probed(kept, three[:2], settings(Depth.SAMPLED, name="decord"))[1] == ["a.mp4", "b.mp4"]


@pytest.mark.parametrize(
    "wrong",
    [{"frames": "x"}, {"fps": None}, {"times": "abcd"}, {"times": 3}, {"frames": True}, {"black": 1}, {"error": 1}],
)
def test_a_record_of_other_types_is_probed_again(three: list[Path], tmp_path: Path, wrong: dict[str, Any]) -> None:
    kept = tmp_path / "kept"
    first, _ = probed(kept, three[:1], settings())
    (file,) = (file for file in kept.rglob("*") if file.is_file())
    file.write_text(json.dumps({**json.loads(file.read_text()), **wrong}) + "\n")
    assert probed(kept, three[:1], settings()) == (first, ["a.mp4"])


@pytest.mark.parametrize("tail", ['{"v": 1, "path": "/half', "\udcff\n", "[]\n", '{"v": 1}\n', "\n\n"])
def test_a_torn_file_is_continued(three: list[Path], tmp_path: Path, tail: str) -> None:
    kept = tmp_path / "kept"
    probed(kept, three[:1], settings())
    with (kept / FILE).open("a", encoding="utf-8", errors="surrogateescape") as file:
        file.write(tail)
    assert probed(kept, three[:2], settings())[1] == ["b.mp4"]
    assert probed(kept, three[:2], settings())[1] == []


def test_hangs_and_crashes_are_recorded(clip: Path, tmp_path: Path) -> None:
    paths = [tmp_path / f"{name}.mp4" for name in ("crash", "good", "hang")]
    for path in paths:
        shutil.copy(clip, path)
    size = clip.stat().st_size / 2**20
    found, new = probed(tmp_path, paths, Settings(OddFiles(), "slow", Depth.OPENED, 0.5))
    assert len(new) == 3
    assert (found["hang.mp4"].fault, found["hang.mp4"].error) == ("timeout", f"took longer than {0.5 + size:.4g} s")
    assert found["crash.mp4"].fault == "crash"
    assert found["good.mp4"].frames == 30
    # a crash may have been chance; a hang is tried again when it is given more time
    assert probed(tmp_path, paths, Settings(OddFiles(), "slow", Depth.OPENED, 0.4))[1] == ["crash.mp4"]
    assert probed(tmp_path, paths, Settings(OddFiles(), "slow", Depth.OPENED, 0.6))[1] == ["crash.mp4", "hang.mp4"]


SCRIPT = """
import sys, time
from vidtrain.data.checks.probe_video import Depth
from vidtrain.data.checks.probe_files import Probes, Settings
from vidtrain.data.readers.pyav.reader import PyAVReader

class Reader:
    def open(self, path):
        time.sleep(0.05)
        return PyAVReader().open(path)

if __name__ == "__main__":
    settings = Settings(Reader(), "slow", Depth.FULL, 20.0)
    for found in Probes(sys.argv[1]).complete(sys.argv[2:], settings, workers=1, what="checking"):
        print(found.path, flush=True)
"""


@pytest.fixture
def killed(clip: Path, tmp_path: Path) -> tuple[list[Path], list[str]]:
    """Twelve files, and the names of those that a run reported before it was killed outright."""
    paths = [tmp_path / f"{number}.mp4" for number in range(12)]
    for path in paths:
        shutil.copy(clip, path)
    (tmp_path / "script.py").write_text(SCRIPT)
    process = subprocess.Popen(
        [sys.executable, tmp_path / "script.py", tmp_path / "kept", *paths],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(4)]
    process.kill()
    rest, _ = process.communicate()
    return paths, [Path(line.strip()).name for line in [*lines, *rest.splitlines()]]


def test_killed_and_continued(killed: tuple[list[Path], list[str]], tmp_path: Path) -> None:
    paths, done = killed
    assert 4 <= len(done) < 12
    _, new = probed(tmp_path / "kept", paths, settings(name="slow"))
    assert not set(done) & set(new)
    assert len(new) >= 12 - len(done) - 1  # one may have been kept and not yet reported
    lines = (tmp_path / "kept" / FILE).read_text().splitlines()
    assert sorted(Path(json.loads(line)["path"]).name for line in lines) == sorted(path.name for path in paths)

"""A cache of flow loses nothing when it is cut short, names what is bad, and refuses what does not fit."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from torchvision.models.optical_flow import raft_small

from tests.data.moving import moving
from tests.data.prepared import READER, as_data, made_folder
from tests.videos import info, write_video
from vidtrain.data.flow.cache import FlowMade, compute, make_flow
from vidtrain.data.flow.codes import encode
from vidtrain.data.flow.files import file_of, read_settings, video_id
from vidtrain.data.flow.methods import FlowMethod, OpenCVFlow, RaftFlow
from vidtrain.data.flow.source import CachedFlow
from vidtrain.data.jobs.output_files import Job
from vidtrain.data.readers.jpeg_pack import JpegPackReader
from vidtrain.data.settings import FlowCacheConfig
from vidtrain.errors import ConfigError, DataError

pytest.importorskip("cv2", reason="computing flow needs OpenCV")

SMALL = replace(FlowCacheConfig(), short_side=32)


def run(
    paths: list[Path], output: Path, settings: FlowCacheConfig = SMALL, method: FlowMethod | None = None
) -> FlowMade:
    return make_flow(as_data(paths).files(), output, settings, method or OpenCVFlow("dis"), READER, workers=1)


def report_of(output: Path) -> dict[str, dict[str, str]]:
    with (output / "report.csv").open(newline="", encoding="utf-8") as file:
        return {Path(row["path"]).name: row for row in csv.DictReader(file)}


def contents(output: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in output.rglob("*.flow")}


def some(folder: Path, count: int, frames: int = 5) -> list[Path]:
    made_folder(folder)
    return [write_video(folder / f"{n}.mp4", moving(frames, (1.0, 0.0), seed=n)) for n in range(count)]


def test_a_bad_video_is_listed_and_the_rest_is_made(tmp_path: Path) -> None:
    paths = some(tmp_path / "in", 2)
    copied = Path(shutil.copy(paths[0], tmp_path / "in" / "copy.mp4"))
    (tmp_path / "in" / "bad.mp4").write_bytes(b"no video")
    tiny = write_video(tmp_path / "in" / "tiny.mp4", moving(3, (1.0, 0.0), 8, 40))
    listed = [paths[0], tmp_path / "in" / "bad.mp4", copied, tmp_path / "gone.mp4", tiny, paths[1]]
    done = run(listed, tmp_path / "out")
    assert (done.made, done.kept) == (2, 0)  # the copy has the same content
    assert [Path(video.path).name for video in done.bad] == ["bad.mp4", "gone.mp4", "tiny.mp4"]
    assert done.bytes == sum(map(len, contents(tmp_path / "out").values())) > 0
    rows = report_of(tmp_path / "out")
    assert [rows[p.name]["status"] for p in listed] == ["made", "bad", "made", "bad", "bad", "made"]
    assert rows["copy.mp4"]["file"] == rows["0.mp4"]["file"]
    assert rows["gone.mp4"]["reason"] == "cannot be read (No such file or directory)"
    assert "requires frames of 16 x 16" in rows["tiny.mp4"]["reason"]
    assert not list((tmp_path / "out").rglob("*.part"))

    again = run([*listed, *some(tmp_path / "more", 1, 4)], tmp_path / "out")
    assert (again.made, again.kept, len(again.bad)) == (1, 2, 3)
    assert report_of(tmp_path / "out")["copy.mp4"]["status"] == "kept"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has none of these files")
def test_what_has_no_end_is_refused(tmp_path: Path) -> None:
    paths = some(tmp_path / "in", 1)
    pipe, zero, named, folder = (tmp_path / "in" / f"{name}.mp4" for name in ("pipe", "zero", "socket", "folder"))
    os.mkfifo(pipe)
    zero.symlink_to("/dev/zero")
    folder.mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(named))
        done = run([*paths, pipe, zero, named, folder], tmp_path / "out")
    assert done.made == 1
    reasons = {Path(video.path).name: video.reason for video in done.bad}
    assert [reasons[path.name] for path in (pipe, zero, named)] == ["is not a regular file"] * 3
    assert reasons["folder.mp4"].startswith("holds no ")


def test_a_file_holds_a_field_for_each_frame_but_the_last(tmp_path: Path) -> None:
    frames = moving(18, (1.0, 0.5), 48, 80)  # more than one batch of pairs, and another one of a single pair
    path = write_video(tmp_path / "a.mp4", frames)
    for name, settings in (("whole", replace(SMALL, short_side=48, quality=100)), ("small", SMALL)):
        run([path], tmp_path / name, settings)
        pack = info(file_of(tmp_path / name, video_id(str(path))), JpegPackReader())
        assert (pack.num_frames, pack.height) == (17, 2 * min(48, settings.short_side))
    with READER.open(str(path)) as video:
        _, codes = CachedFlow(tmp_path / "whole").read(str(path), video, np.arange(17), (48, 80))
    expected = encode(OpenCVFlow("dis")(frames[:-1], frames[1:]))
    assert np.abs(codes.astype(int) - expected).max() <= 2


def test_nothing_is_enlarged(tmp_path: Path) -> None:
    (path,) = some(tmp_path, 1)
    run([path], tmp_path / "out", replace(SMALL, short_side=128))
    assert info(file_of(tmp_path / "out", video_id(str(path))), JpegPackReader()).width == 64


def test_memory_does_not_grow_with_the_video(tmp_path: Path) -> None:
    """A video is never held whole: what is alive at once is a batch of pairs."""
    path = write_video(tmp_path / "a.mp4", moving(60, (1.0, 0.0), 32, 32))
    alive: list[int] = []

    class Counting:
        settings: ClassVar[dict[str, str]] = {"method": "counting"}

        def __call__(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
            alive.append(len(first))
            return np.zeros((*first.shape[:3], 2), np.float32)

    job = Job(str(path), str(tmp_path / "out.flow"), None)
    compute(job, method=Counting(), settings=replace(SMALL, batch_size=7), reader=READER, output=str(tmp_path))
    assert alive == [7] * 8 + [3]


def test_a_folder_made_otherwise_is_refused_in_one_line(tmp_path: Path) -> None:
    paths = some(tmp_path / "in", 1)
    run(paths, tmp_path / "out")
    assert read_settings(tmp_path / "out") == {"method": "dis", "version": 1, "short_side": 32, "quality": 95}
    for settings, method, message in (
        (replace(SMALL, short_side=40), "dis", "short_side=32, not 40"),
        (replace(SMALL, quality=90), "dis", "quality=95, not 90"),
        (SMALL, "farneback", "method=dis, not farneback"),
    ):
        with pytest.raises(ConfigError, match=f"its flow was made with {message}: give the same, or choose another"):
            run(paths, tmp_path / "out", settings, OpenCVFlow(method))
    (tmp_path / "out" / "flow.json").write_text("{")
    with pytest.raises(ConfigError, match=r"flow\.json: cannot be read"):
        run(paths, tmp_path / "out")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"short_side": 8}, r"flow\.short_side=8: must be at least 16 and at most 4320"),
        ({"quality": 0}, r"flow\.quality=0: must be at least 1 and at most 100"),
        ({"batch_size": 0}, r"flow\.batch_size=0: must be at least 1 and at most 4096"),
        ({"timeout": 0.0}, r"flow\.timeout=0\.0: must be above 0"),
    ],
)
def test_settings_that_cannot_be_used(settings: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        run([tmp_path / "a.mp4"], tmp_path / "out", replace(SMALL, **settings))  # type: ignore[arg-type]


def test_nothing_to_do_and_nothing_done(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no video"):
        run([], tmp_path / "out")
    (tmp_path / "a.mp4").write_bytes(b"x")
    with pytest.raises(DataError, match=r"none of the 1 videos could be used; the first: .*a\.mp4: "):
        run([tmp_path / "a.mp4"], tmp_path / "out")
    with pytest.raises(DataError, match=r"output=.*a\.mp4: cannot be written to"):
        run(some(tmp_path / "in", 1), tmp_path / "a.mp4")


def test_a_damaged_file_is_told(tmp_path: Path) -> None:
    (path,) = some(tmp_path / "in", 1)
    run([path], tmp_path / "out")
    file = file_of(tmp_path / "out", video_id(str(path)))
    data = bytearray(file.read_bytes())
    data[-40] ^= 255
    file.write_bytes(data)
    with READER.open(str(path)) as video, pytest.raises(Exception, match=r"\.flow: frame 3 of 4 is damaged"):
        CachedFlow(tmp_path / "out").read(str(path), video, np.array([3]), (48, 64))


def test_raft_fills_a_cache_in_this_process(tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch.save(raft_small(weights=None).state_dict(), tmp_path / "raft.pth")
    (path,) = some(tmp_path / "in", 1, 3)
    (tmp_path / "bad.mp4").write_bytes(b"x")
    method = RaftFlow("raft_small", str(tmp_path / "raft.pth"))
    data = as_data([path, tmp_path / "bad.mp4"])
    done = make_flow(data.files(), tmp_path / "out", SMALL, method, READER, workers=None)
    assert (done.made, len(done.bad)) == (1, 1)
    assert read_settings(tmp_path / "out")["model"] == "raft_small"


SCRIPT = """
    import sys
    from dataclasses import replace
    from pathlib import Path
    from vidtrain.data.flow.cache import make_flow
    from vidtrain.data.flow.methods import OpenCVFlow
    from vidtrain.data.readers.any_path import AnyReader
    from vidtrain.data.readers.pyav.reader import PyAVReader
    from vidtrain.data.settings import FlowCacheConfig

    if __name__ == "__main__":
        paths = sorted(map(str, Path(sys.argv[1]).iterdir()))
        settings = replace(FlowCacheConfig(), short_side=32)
        make_flow(paths, Path(sys.argv[2]), settings, OpenCVFlow("dis"), AnyReader(PyAVReader()), workers=1)
"""


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="kills a process group")
def test_killed_and_continued(tmp_path: Path) -> None:
    frames = moving(20, (1.0, 0.0))
    made_folder(tmp_path / "in")
    paths = [write_video(tmp_path / "in" / f"{n}.mp4", np.roll(frames, n, axis=0)) for n in range(6)]
    run(paths, tmp_path / "whole")
    (tmp_path / "run.py").write_text(textwrap.dedent(SCRIPT))
    command = [sys.executable, str(tmp_path / "run.py"), str(tmp_path / "in"), str(tmp_path / "out")]
    root = Path(__file__).parents[2]
    process = subprocess.Popen(command, cwd=root, start_new_session=True, env={**os.environ, "PYTHONPATH": str(root)})
    deadline = time.monotonic() + 60
    while len(contents(tmp_path / "out")) < 2 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)  # the worker, too, as a power cut would
    assert process.wait() == -signal.SIGKILL, "it was finished too early to be killed"

    whole, before = contents(tmp_path / "whole"), contents(tmp_path / "out")
    assert 2 <= len(before) < 6
    assert all(whole[name] == data for name, data in before.items())  # whatever has its name is whole
    done = run(paths, tmp_path / "out")
    assert (done.kept, done.made, done.bad) == (len(before), 6 - len(before), ())
    assert contents(tmp_path / "out") == whole
    assert not list((tmp_path / "out").rglob("*.part"))

"""predict of a stream: the numbers of a timeline, JSON lines, alarms, what is late, secrets, signals."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vidtrain
from tests.cli.conftest import Call, Done, environment, error_line, own_threads
from tests.live.served import served
from tests.videos import scene, write_video
from vidtrain.commands import live as live_module
from vidtrain.commands.live_answers import Answer
from vidtrain.commands.live_output import LiveFiles, Said
from vidtrain.commands.predictor import Predictor
from vidtrain.commands.timeline import Slider
from vidtrain.errors import ConfigError
from vidtrain.live.decoding_thread import LiveFrame
from vidtrain.live.sources import masked
from vidtrain.tasks.segments.online import OnlineSegments
from vidtrain.tasks.settings import SegmentsConfig


@pytest.fixture(scope="module")
def clf(trained: Path) -> Predictor:
    return vidtrain.load(trained)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("long")
    return write_video(folder / "long.ts", scene(70), codec="libx264", options={"g": "30", "bf": "2"})


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    times = np.cumsum(np.where(np.arange(70) % 7 < 3, 1, 4)).tolist()
    folder = tmp_path_factory.mktemp("uneven")
    return write_video(folder / "uneven.mkv", scene(70), options={"qp": "0", "g": "30"}, times=times)


Piped = Callable[..., Done]


@pytest.fixture
def piped(call: Call, trained: Path, monkeypatch: pytest.MonkeyPatch) -> Piped:
    """predict with a file as its standard input."""

    def run(file: Path, *options: str, check: int = 0) -> Done:
        with file.open("rb") as stdin:
            monkeypatch.setattr("sys.stdin", stdin)
            return call("predict", f"checkpoint={trained / 'best.pt'}", "input=-", *options, check=check)

    return run


def lines(done: Done) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize(
    ("which", "fps", "hop"),
    [
        ("video", None, 3),
        ("uneven", 9.0, "0.25s"),
        pytest.param("video", 9.0, 4, marks=pytest.mark.slow),
        pytest.param("uneven", None, "0.2s", marks=pytest.mark.slow),
    ],
)
def test_a_file_played_as_a_stream_has_the_numbers_of_its_timeline(
    clf: Predictor, piped: Piped, which: str, fps: float | None, hop: Any, request: pytest.FixtureRequest
) -> None:
    path = request.getfixturevalue(which)
    options = [f"eval.hop={hop}", "sampler.stride=2", f"sampler.fps={'null' if fps is None else fps}", "top=8"]
    done = piped(path, *options, "output=out", "segments.threshold=0")
    config = clf.config.sampler
    clf.config.sampler = type(config)(num_frames=8, stride=2, fps=fps)
    try:
        timeline = clf.timeline(path, hop=hop, threshold=0)
    finally:
        clf.config.sampler = config
    windows = timeline.windows
    found = lines(done)
    assert len(found) == len(windows) > 4
    assert np.allclose([line["start"] for line in found], windows.starts, atol=6e-4)
    probs = np.array([[dict(map(tuple, line["top"]))[name] for name in clf.class_names] for line in found])
    assert np.abs(probs - windows.probs).max() <= 1e-5
    assert all(line["prob"] == max(dict(map(tuple, line["top"])).values()) for line in found)
    assert {line["dropped_frames"] for line in found} == {0}
    with Path("out/segments.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["file"], row["label"]) for row in rows] == [("stdin", s.label) for s in timeline.segments]
    assert {row["time"] for row in rows} == {""}  # a pipe is read as fast as it can be
    ends = [(float(row["start"]), float(row["end"])) for row in rows]
    # what a window lasts is known of evenly spaced frames only; where they are not, the next is not yet there
    assert np.allclose(ends, [(s.start, s.end) for s in timeline.segments], atol=6e-4 if which == "video" else 0.09)
    written = Path("out/windows.jsonl").read_text(encoding="utf-8").splitlines()
    assert written == done.stdout.splitlines()
    assert "stdin: 70 frames, " in done.stderr.splitlines()[-1]


def test_files_are_added_to(tmp_path: Path) -> None:
    def write() -> None:
        files = LiveFiles(tmp_path, "camera 0", OnlineSegments(["a", "b"], SegmentsConfig()), timed=True)
        frame = LiveFrame(np.zeros((1, 1, 3), np.uint8), 7, 1.5, 1, None, 0.0, 1000.0)
        files.add(["{}"], Answer(1, 0.5, 1.5, np.array([0.8, 0.2], np.float32), frame, 0.0))
        files.close()

    write()
    write()
    rows = (tmp_path / "segments.csv").read_text().splitlines()
    assert rows[0] == "file,start,end,label,score,time"
    assert rows[1] == rows[2]
    assert rows[1].startswith("camera 0,0.500,1.500,a,0.8000,19")
    assert datetime.fromisoformat(rows[1].split(",")[-1]).timestamp() == 1000 - 1.5 + 0.5
    assert (tmp_path / "windows.jsonl").read_text() == "{}\n{}\n"
    (tmp_path / "windows.jsonl").unlink()
    (tmp_path / "windows.jsonl").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match=r"windows\.jsonl: is a link"):
        write()
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a disk that is always full")
def test_a_full_disk_is_named(tmp_path: Path) -> None:
    files = LiveFiles(tmp_path, "camera 0", OnlineSegments(["a", "b"], SegmentsConfig()), timed=True)
    files._lines.close()
    files._lines = Path("/dev/full").open("w")  # noqa: SIM115 - closed by close
    frame = LiveFrame(np.zeros((1, 1, 3), np.uint8), 7, 1.5, 1, None, 0.0, 1000.0)
    answer = Answer(1, 0.5, 1.5, np.array([0.8, 0.2], np.float32), frame, 0.0)
    for work in (lambda: files.add(["{}"], answer), files.close):
        with pytest.raises(OSError, match=re.escape(f"No space left on device: '{tmp_path}'")):
            work()
    assert files._rows.closed


def test_an_alarm_is_a_line(piped: Piped, video: Path, clf: Predictor) -> None:
    name = clf.class_names[0]
    alarm = [f"live.alarm.classes=[{name}]", "live.alarm.threshold=0.0", "live.alarm.cool_down=1"]
    found = lines(piped(video, *alarm, "eval.hop=5"))
    alarms = [line for line in found if "alarm" in line]
    ends = [line["end"] for line in found if "alarm" not in line]
    assert [a["alarm"] for a in alarms] == [name] * len(alarms)
    assert alarms[0] == {**alarms[0], "end": ends[2], "windows": 3, "of": 5}
    assert len(alarms) > 1
    assert all(b["end"] - a["end"] >= 1 for a, b in pairwise(alarms))
    place = found.index(alarms[0])
    assert found[place - 1]["end"] == ends[2]  # behind the window that raises it


def test_what_is_late_is_dropped_and_counted(call: Call, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that is slower than its camera answers for the newest window, and says what it has not seen."""
    seconds = 0.35

    class Slow(Slider):
        def probabilities(self, *args: Any, **kwargs: Any) -> Any:
            time.sleep(seconds)
            return super().probabilities(*args, **kwargs)

    monkeypatch.setattr(live_module, "Slider", Slow)
    camera = "input='lavfi:testsrc=size=64x48:rate=50,realtime,trim=duration=3'"
    options = [f"checkpoint={trained / 'best.pt'}", camera, "live.reconnect=0", "live.late=0.2", "eval.hop=4"]
    done = call("predict", *options, check=2)
    found = lines(done)
    assert 3 <= len(found) <= 12
    assert sum(line["dropped_windows"] for line in found) > 10
    frames = sum(line["dropped_frames"] for line in found)
    gaps = [round(50 * (b["start"] - a["end"])) for a, b in pairwise(found)]
    assert frames == sum(gap for gap in gaps if gap > 0) + round(50 * found[0]["start"])
    assert frames > 20
    assert f"{frames} frames dropped with them" in done.stderr
    assert all(line["latency_ms"] >= 1000 * seconds for line in found)
    # never older than what it waits for, the pass before it and its own; and the machine is busy
    assert np.median([line["latency_ms"] for line in found]) < 1000 * (0.2 + 3 * seconds)


def test_an_address_with_a_password(call: Call, trained: Path, video: Path, tmp_path: Path) -> None:
    data = video.read_bytes()
    with served(lambda number, write: write(b"" if number else data)) as (address, _):
        secret = address.replace("http://", "http://me:s3cret@") + "?password=s3cret&x=1"
        options = [f"checkpoint={trained / 'best.pt'}", f"input={secret}", "output=out"]
        done = call("predict", *options, "live.reconnect=1", "live.backoff=0.01", check=2)
    assert lines(done)
    everything = done.stdout + done.stderr + "".join(f.read_text() for f in (tmp_path / "out").iterdir())
    assert "s3cret" not in everything
    assert f"{address.replace('http://', 'http://***@')}?password=***&x=1" in done.stderr
    refused = call("predict", options[0], "input=rtsp://me:s3cret@127.0.0.1:1/x", check=2)
    assert error_line(refused) == "rtsp://***@127.0.0.1:1/x: does not open (Connection refused)"


@pytest.mark.parametrize("timed", [True, False])
def test_times_of_segments_are_those_of_a_clock(timed: bool, tmp_path: Path) -> None:
    """Ten answers a second apart that are read a tenth of a second apart, then the stream is opened again, later."""
    names = ["a", "b"]
    files = LiveFiles(tmp_path, "camera 0", OnlineSegments(names, SegmentsConfig()), timed=timed)
    for n in range(20):
        wall = 1000 + 0.1 * n if n < 10 else 1030 + 0.1 * n
        frame = LiveFrame(np.zeros((1, 1, 3), np.uint8), n, n + 1.0, 1 + n // 10, None, 0.0, wall)
        probs = np.array([0.9, 0.1] if n % 2 else [0.1, 0.9], np.float32)
        files.add([], Answer(n, float(n), n + 1.0, probs, frame, 0.0))
    files.close()
    with (tmp_path / "segments.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 20
    if not timed:
        assert {row["time"] for row in rows} == {""}
        return
    times = [datetime.fromisoformat(row["time"]).timestamp() for row in rows]
    assert np.allclose(np.diff(times[:9]), 1)
    assert np.allclose(times[0], 999)  # the frame that came at 1000 is at second 1
    assert (np.diff(times) > 0).all()
    assert np.allclose(times[-1], 1031 - 11 + 19)


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("rtsp://a/b", "rtsp://a/b"),
        ("rtsp://u:p@a/b", "rtsp://***@a/b"),
        ("rtsp://u:p@ss@a/b@c", "rtsp://***@c"),  # rather too much than too little
        ("rtsp://u:p?x@a/b", "rtsp://***@a/b"),
        ("http://u:p#x@a/b?q=1", "http://***@a/b?q=1"),
        ("http://a/b?q=1&token=abc&user=me&auth=x;y=2", "http://a/b?q=1&token=***&user=***&auth=***;y=2"),
        ("rtsp://a/user=me&password=X&channel=1?b=2", "rtsp://a/user=***&password=***&channel=1?b=2"),
        ("rtsp://a:554/live/user=me_password=X_channel=1.sdp", "rtsp://a:554/live/user=***"),
        ("rtsp://auth.example/stream=1/id=2", "rtsp://auth.example/stream=1/id=2"),
        ("clip.mp4", "clip.mp4"),
    ],
)
def test_masks(address: str, shown: str) -> None:
    assert masked(address) == shown


def test_no_camera(call: Call, trained: Path) -> None:
    if Path("/dev/video97").exists():
        pytest.skip("this machine has it")
    line = error_line(call("predict", f"checkpoint={trained / 'best.pt'}", "input=97", check=2))
    if sys.platform == "linux":
        assert line.startswith("camera 97: does not open (No such file or directory: /dev/video97); this machine has ")


def test_ctrl_c_ends_it_in_this_process(call: Call, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[Any] = []

    class Ending(Said):
        def add(self, answer: Any) -> None:
            super().add(answer)
            said.append(answer)
            if len([one for one in said if one is not None]) == 2:
                os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(live_module, "Said", Ending)
    camera = "input=lavfi:testsrc=size=64x48:rate=25,realtime"
    before = own_threads()
    done = call("predict", f"checkpoint={trained / 'best.pt'}", camera, "output=out")
    assert len(lines(done)) == 2
    assert ": 2 windows".removeprefix(":") in done.stderr
    assert own_threads() <= before  # nothing goes on behind it


def test_a_pipe_of_which_no_frame_comes(
    call: Call, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An MP4 has its index at its end, and what was before it is gone then."""
    noise = np.random.default_rng(0).integers(0, 256, (60, 48, 64, 3), np.uint8)
    data = write_video(tmp_path / "a.mp4", noise, codec="libx264", options={"qp": "10"}).read_bytes()
    assert len(data) > 200_000  # more than FFmpeg looks back in
    out, into = os.pipe()

    def write() -> None:
        with contextlib.suppress(BrokenPipeError), open(into, "wb") as pipe:  # noqa: PTH123 - a handle
            pipe.write(data)

    writer = threading.Thread(target=write)
    writer.start()
    with open(out, "rb") as stdin:  # noqa: PTH123 - a handle
        monkeypatch.setattr("sys.stdin", stdin)
        done = call("predict", f"checkpoint={trained / 'best.pt'}", "input=-", check=2)
    writer.join()
    assert done.stdout == ""
    assert "no frame came out of it; an MP4 or MOV whose index stands at its end" in done.stderr.splitlines()[-1]


def test_ctrl_c_before_a_pipe_has_a_writer(call: Call, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Ending(Said):
        def add(self, answer: Any) -> None:
            super().add(answer)
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(live_module, "Said", Ending)
    os.mkfifo("pipe")
    done = call("predict", f"checkpoint={trained / 'best.pt'}", "input=pipe")
    assert done.stdout == ""
    assert done.stderr.splitlines()[-1].endswith("pipe: 0 frames, 0 windows")


@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="the memory of a process is read from /proc")
@pytest.mark.parametrize(
    ("frames", "options"),
    [
        (2_000, ["live.drop=false"]),
        pytest.param(100_000, ["live.drop=false"], marks=pytest.mark.slow),
        pytest.param(100_000, ["live.drop=true"], marks=pytest.mark.slow),
    ],
)
def test_memory_is_flat(
    piped: Piped, frames: int, options: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Black frames without end, a window every 100 of them, segments and lines to files."""
    used: list[int] = []
    pages = Path("/proc/self/statm")

    class Measured(Said):
        def add(self, answer: Any) -> None:
            super().add(answer)
            if answer is not None:
                used.append(int(pages.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
                if answer.last.number >= frames:
                    os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(live_module, "Said", Measured)
    raw = ["live.format=rawvideo", "live.options={video_size: 32x32, pixel_format: rgb24}", "live.options.framerate=25"]
    done = piped(Path("/dev/zero"), *raw, *options, "eval.hop=100", "output=out", "live.report=0.5")
    count = len(lines(done))
    assert count > frames / 100 if "live.drop=false" in options else count > 3
    half = len(used) // 2
    assert max(used[half:]) - max(used[:half]) < 4 << 20, [n >> 20 for n in used]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_a_summary(trained: Path, tmp_path: Path, number: int) -> None:
    camera = "input=lavfi:testsrc=size=64x48:rate=25,realtime"
    command = [sys.executable, "-m", "vidtrain", "predict", f"checkpoint={trained / 'best.pt'}", camera, "output=out"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=environment()
    )
    assert process.stdout is not None
    first = json.loads(process.stdout.readline())
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert all(json.loads(line) for line in out.splitlines())
    assert first["label"]
    assert " windows, latency p50 " in err.splitlines()[-1] or " window, latency p50 " in err.splitlines()[-1]
    assert (tmp_path / "out" / "windows.jsonl").read_text().count("\n") == 1 + len(out.splitlines())


@pytest.mark.slow
def test_stdout_that_is_closed_ends_it_quietly(trained: Path, tmp_path: Path) -> None:
    camera = "input=lavfi:testsrc=size=64x48:rate=25,realtime"
    command = [sys.executable, "-m", "vidtrain", "predict", f"checkpoint={trained / 'best.pt'}", camera]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=environment()
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=60) == 0
    (line,) = process.stderr.read().splitlines()
    assert line.endswith(", 64 x 48 pixels, 25 frames/s")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["live.alarm.classes=[fal]"], "live.alarm.classes=fal: no such class"),
        (["overlay=true"], "overlay=true draws over files: a stream is none"),
        (["live.late=0"], "live.late=0.0: must be above 0"),
    ],
)
def test_mistakes_are_one_line(piped: Piped, video: Path, options: list[str], message: str) -> None:
    assert error_line(piped(video, *options, check=2)).startswith(message)

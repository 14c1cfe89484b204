"""A reader in a process of its own: it may hang or crash, and the run goes on."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from tests.data.hanging import GUARDED, OddReader, process_of
from tests.videos import scene, write_video
from vidtrain.data.jobs.killable import Worker
from vidtrain.data.readers.guarded import Guarded
from vidtrain.data.readers.pyav.reader import PyAVReader
from vidtrain.errors import ConfigError, VideoError

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the misbehaving reader calls the C library's sleep")


def gone(process: int, seconds: float) -> bool:
    """Whether a process ends within some time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            state = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


@pytest.fixture
def needs_proc() -> None:
    if not Path("/proc/self/stat").exists():
        pytest.skip("needs /proc")


def test_nothing_is_imported_from_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A numpy.py or av.py that lies beside the videos, an innocent one too, is not what the child imports."""
    for name in ("numpy", "av", "pickle", "io", "signal", "tests", "vidtrain", "encodings"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'a').write({name!r})\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    with Guarded(OddReader(), timeout=0.75).open("sound") as video:  # a reader of its own: the child is a fresh one
        assert video.info.num_frames == 200
    assert not (tmp_path / "ran").exists()


def test_what_this_process_finds_its_child_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module of the user's in a folder that is named relatively, and one of the folder that "" stands for."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "odd_one.py").write_text(
        "from tests.data.hanging import OddReader\nclass One(OddReader): pass\n"
    )
    (tmp_path / "odd_two.py").write_text("from tests.data.hanging import OddReader\nclass Two(OddReader): pass\n")
    monkeypatch.chdir(tmp_path)
    for entry, module, name in (("lib", "odd_one", "One"), ("", "odd_two", "Two")):
        monkeypatch.syspath_prepend(entry)
        reader = getattr(__import__(module), name)()
        with Guarded(reader, timeout=0.75).open("sound") as video:
            assert video.info.num_frames == 200


def test_frames_and_errors_cross_whole(tmp_path: Path) -> None:
    with GUARDED.open("sound") as video:
        assert video.info.num_frames == 200
        frames = video.read(np.array([7, 3, 7]), (2, 5))
        assert frames.shape == (3, 2, 5, 3)
        assert frames.flags.writeable
        assert frames[:, 0, 0, 0].tolist() == [7, 3, 7]
        assert video.read(np.array([], np.int64)).shape == (0, 4, 6, 3)
        with pytest.raises(IndexError, match="sound: frame 200 was asked for"):
            video.read(np.array([200]))
    with pytest.raises(VideoError, match=r"^broken: is broken$"):
        GUARDED.open("broken")
    with pytest.raises(KeyError, match="a bug") as caught:
        GUARDED.open("bug")
    assert "hanging.py" in str(caught.value.__cause__)  # where it is


@pytest.mark.parametrize("action", ["open", "read"])
def test_a_hang_is_ended(action: str) -> None:
    begin = time.monotonic()
    with pytest.raises(VideoError, match=rf"^hang_{action}: took more than 0.5 s to {action}: reading it was ended$"):
        GUARDED.open(f"hang_{action}").read(np.arange(2))
    assert time.monotonic() - begin < 60  # it hangs for 1,000
    with GUARDED.open("sound") as video:
        assert video.read(np.array([9]))[0, 0, 0, 0] == 9


@pytest.mark.parametrize("action", ["open", "read"])
def test_waiting_for_a_processor_does_not_count(action: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """1.2 s where 0.5 s are allowed."""
    begin = time.monotonic()
    monkeypatch.setattr(Worker, "waited", property(lambda worker: 0.7 * (time.monotonic() - begin)))
    with GUARDED.open(f"slow_{action}") as video:
        assert len(video.read(np.arange(2))) == 2
    monkeypatch.setattr(Worker, "waited", 0.0)
    with pytest.raises(VideoError, match=r"took more than 0\.5 s"):
        GUARDED.open(f"slow_{action}").read(np.arange(2))


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs a process bound to a processor")
def test_a_busy_machine_refuses_nothing(needs_proc: None) -> None:
    """Three processes share a processor: 0.35 s of work take a second."""
    worker, allowed = process_of(GUARDED), os.sched_getaffinity(0)
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    try:
        for process in (worker, *(other.pid for other in others)):
            os.sched_setaffinity(process, {min(allowed)})
        begin = time.monotonic()
        for _ in range(3):
            GUARDED.open("busy_open").close()
        assert time.monotonic() - begin > 2
        assert process_of(GUARDED) == worker
    finally:
        for other in others:
            other.kill()
            other.wait()
        os.sched_setaffinity(worker, allowed)


@pytest.mark.parametrize(("fate", "how"), [("crash", "SIGABRT"), ("exit", "exit code 3")])
@pytest.mark.parametrize("action", ["open", "read"])
def test_a_crash_is_the_files_fault(fate: str, how: str, action: str) -> None:
    with pytest.raises(VideoError, match=rf"^{fate}_{action}: the reader crashed on it \({how}\)$"):
        GUARDED.open(f"{fate}_{action}").read(np.arange(2))
    with GUARDED.open("sound") as video:
        assert video.read(np.array([9]))[0, 0, 0, 0] == 9


def test_other_videos_survive() -> None:
    """One that was open in a child that had to be ended is opened again in the next."""
    with GUARDED.open("sound") as first, GUARDED.open("another") as second:
        with pytest.raises(VideoError):
            GUARDED.open("crash_open")
        assert first.read(np.array([1]))[0, 0, 0, 0] == 1
        assert second.read(np.array([2]))[0, 0, 0, 0] == 2


def test_one_child_for_all_files(needs_proc: None) -> None:
    process = process_of(GUARDED)
    for _ in range(5):
        assert process_of(GUARDED) == process
    assert process != os.getpid()
    GUARDED.open("badclose").close()  # a bug, whose traceback is on the screen
    assert process_of(GUARDED) == process
    os.kill(process, signal.SIGKILL)
    assert process_of(GUARDED) != process


def test_settings_have_their_own(needs_proc: None) -> None:
    with pytest.raises(ConfigError, match=r"^the library is not installed$"):
        Guarded(OddReader(missing=True), 1.0).open("sound")
    assert pickle.loads(pickle.dumps(GUARDED)) == GUARDED


def test_threads_take_turns() -> None:
    def work(number: int) -> int:
        with GUARDED.open(f"sound{number}") as video:
            return int(video.read(np.array([number] * 50), (40, 60)).mean())

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, range(40))) == list(range(40))


def test_relative_paths_follow_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = scene(3)
    guarded = Guarded(PyAVReader(), 5.0)
    guarded.open(str(write_video(tmp_path / "a.mp4", frames))).close()
    monkeypatch.chdir(tmp_path)
    np.testing.assert_array_equal(guarded.open("a.mp4").read(np.arange(3)), frames)
    with pytest.raises(VideoError, match=r"^b\.mp4: no such file$"):
        guarded.open("b.mp4")


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
def test_a_fork_gets_a_child_of_its_own(needs_proc: None) -> None:
    ours = process_of(GUARDED)
    context = multiprocessing.get_context("fork")
    receive, send = context.Pipe(duplex=False)
    fork = context.Process(target=lambda: send.send(process_of(GUARDED)))
    fork.start()
    assert receive.poll(20)
    theirs = receive.recv()
    fork.join()
    assert theirs != ours
    assert gone(theirs, 3)
    assert process_of(GUARDED) == ours


class Clips(Dataset[tuple[str, int]]):
    """What reading a file comes to, and the child that did it."""

    files = ("sound", "hang_open", "sound", "crash_read", "sound", "hang_read", "sound", "broken") * 2

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, row: int) -> tuple[str, int]:
        try:
            with GUARDED.open(self.files[row]) as video:
                return self.files[row], int(torch.from_numpy(video.read(np.array([row]))).float().mean())
        except VideoError as error:
            return error.reason, -1


@pytest.mark.parametrize("start", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_in_the_workers_of_a_loader(start: str) -> None:
    """Workers are daemons, which may not have children of multiprocessing."""
    if start not in multiprocessing.get_all_start_methods():
        pytest.skip(f"needs {start}")
    loader = DataLoader(Clips(), batch_size=None, num_workers=2, multiprocessing_context=start)
    reasons = {
        "hang_open": "took more than 0.5 s to open: reading it was ended",
        "hang_read": "took more than 0.5 s to read: reading it was ended",
        "crash_read": "the reader crashed on it (SIGABRT)",
        "broken": "is broken",
    }
    expected = [(reasons.get(name, name), row if name == "sound" else -1) for row, name in enumerate(Clips.files)]
    assert [(text, int(number)) for text, number in loader] == expected


@pytest.mark.parametrize("state", ["idle", "busy", "forked"])
def test_the_child_ends_with_its_parent(state: str, needs_proc: None) -> None:
    """Even when the parent is killed, while the child hangs, and while a fork of the parent lives on."""
    script = (
        "import os, time; from tests.data.hanging import GUARDED, process_of; print(process_of(GUARDED), flush=True)\n"
    )
    script += {
        "idle": "time.sleep(100)",
        "busy": "GUARDED.open('hang_open')",
        "forked": "fork = os.fork()\nif fork: print(fork, flush=True)\ntime.sleep(100)",
    }[state]
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=environment) as parent:
        assert parent.stdout
        child = int(parent.stdout.readline())
        fork = int(parent.stdout.readline()) if state == "forked" else None
        time.sleep(0.1)
        parent.kill()
        try:
            assert gone(child, 5)
        finally:
            if fork is not None:
                os.kill(fork, signal.SIGKILL)

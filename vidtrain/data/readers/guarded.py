"""Reading videos in a process of their own, which is killed when it takes too long.

decord and torchcodec can hang inside native code, where no exception and no signal handler reaches them. The workers
of a DataLoader may not have children of multiprocessing; so the reader runs in a plain subprocess (see `child`), one
for each process that reads and each reader's settings, used for one file after the other:

    this process                         child
    open, path              ------->     reader.open(path)
                            <-------     VideoInfo, or the error
    read, indices, size     ------->     video.read(indices, size)
                            <-------     shape, then the bytes of the frames, straight into the result

A child that does not answer in time, or that crashes twice, becomes a VideoError of the file it was reading; the next
file gets a fresh child. The child ends when its standard input does, and by itself when a request outlasts its time.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import os
import pickle
import signal
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, TypeVar, cast

import numpy as np

from vidtrain.children import command
from vidtrain.data.readers.base import VideoReader
from vidtrain.data.readers.pyav.reader import slots_of
from vidtrain.errors import VideoError, VidtrainError
from vidtrain.types import Frames, Indices, VideoInfo

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_T = TypeVar("_T")

_START: Final = "from vidtrain.data.readers.child import main; main()"
_START_SECONDS: Final = 120.0  # importing torch from a slow disk
_BYTES_A_SECOND: Final = 1e6  # what opening reads at least
_PIXELS_A_SECOND: Final = 2e7  # what decoding yields at least, on a busy machine
_GRACE: Final = 1.0  # seconds that a child may take to end by itself
_PIPE_BYTES: Final = 1 << 20


@dataclass(frozen=True)
class Guarded:
    """Opens videos with `reader`, in a child process.

    reader: pickled to the child. Its method `prepare`, if it has one, is called there once and before the time counts.
    timeout: seconds that opening a file or one read may take. Large files get more: a second for each megabyte to
        open, and one for each 20 megapixels of the whole video to read.
    """

    reader: VideoReader
    timeout: float

    def open(self, path: str) -> GuardedVideo:
        """Open a file, see `VideoReader.open`.

        Raises:
            VideoError: what the reader says, or that it took too long or crashed.
        """
        return GuardedVideo(self, path)


class GuardedVideo:
    """A video that is open in a child, see `vidtrain.data.readers.base.OpenVideo`."""

    def __init__(self, settings: Guarded, path: str) -> None:
        self._settings = settings
        self._path = path
        self._child, self._number, self._info = self._twice(self._open)

    @property
    def info(self) -> VideoInfo:
        return self._info

    def read(self, indices: Indices, size: tuple[int, int] | None = None) -> Frames:
        """The frames `indices` as RGB uint8 (N, H, W, 3), see `OpenVideo.read`."""
        indices = np.asarray(indices, dtype=np.int64)
        slots_of(self._path, indices, self._info.num_frames)  # checks them
        pixels = self._info.num_frames * self._info.height * self._info.width
        seconds = max(self._settings.timeout, pixels / _PIXELS_A_SECOND)

        def read_here() -> Frames:
            if not self._child.usable:  # another file has taken it along
                self._child, self._number, self._info = self._open()
            frames: Frames = self._child.ask(self._path, seconds, "read", self._number, indices, size)
            return frames

        return self._twice(read_here)

    def close(self) -> None:
        if self._number >= 0 and self._child.usable:
            self._child.tell("close", self._number)
        self._number = -1

    def __enter__(self) -> GuardedVideo:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self) -> tuple[_Child, int, VideoInfo]:
        size = 0
        with contextlib.suppress(OSError, ValueError):  # the reader says what is wrong
            size = Path(self._path).stat().st_size
        seconds = max(self._settings.timeout, size / _BYTES_A_SECOND)
        child = _child_of(self._settings.reader)
        number, info = child.ask(self._path, seconds, "open", str(Path(self._path).absolute()))
        return child, number, info

    def _twice(self, work: Callable[[], _T]) -> _T:
        """A second try in a fresh child: the first may have died of something else, such as a lack of memory."""
        try:
            return work()
        except EOFError:
            pass
        try:
            return work()
        except EOFError as error:
            raise VideoError(self._path, f"the reader crashed on it ({error})") from None


class _Child:
    """One child process; used by one thread at a time."""

    def __init__(self, settings: bytes) -> None:
        self._owner = os.getpid()
        self._lock = threading.Lock()
        self._killed = False
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command(_START), stdin=pipe, stdout=pipe, bufsize=0)
        assert self._process.stdin
        assert self._process.stdout
        self._to, self._from = self._process.stdin, io.BufferedReader(cast(io.RawIOBase, self._process.stdout))
        if hasattr(fcntl, "F_SETPIPE_SZ"):
            with contextlib.suppress(OSError):  # the user has too many pipes
                fcntl.fcntl(self._from, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        try:
            fine, error = self._answer(_START_SECONDS, settings)
        except EOFError:
            raise VidtrainError(
                f"the process that reads videos does not start ({self.end()}): see its message above"
            ) from None
        if not fine:
            self.end()
            raise error

    @property
    def usable(self) -> bool:
        """Belongs to this process (not to the one that this was forked from) and has not ended."""
        return self._owner == os.getpid() and not self._killed and self._process.poll() is None

    def ask(self, path: str, seconds: float, *request: Any) -> Any:
        """What the child answers, within `seconds`; its exceptions are raised here.

        Raises:
            EOFError: the child has crashed, on this or before it.
        """
        with self._lock:
            try:
                fine, answer = self._answer(seconds, (seconds, *request))
            except EOFError:
                timed_out = self._killed
                how = self.end()
                if timed_out:
                    reason = f"took more than {seconds:g} s to {request[0]}: reading it was ended"
                    raise VideoError(path, reason) from None
                raise EOFError(how) from None
            except BaseException:  # such as a KeyboardInterrupt: what is under way would answer the next question
                self._process.kill()
                self.end()
                raise
        if fine:
            return answer
        if isinstance(answer, VideoError):
            raise VideoError(path, answer.reason)
        raise answer

    def tell(self, *request: Any) -> None:
        """A request without an answer."""
        with self._lock, contextlib.suppress(OSError):
            self._send((_START_SECONDS, *request))

    def end(self) -> str:
        """Let it end by itself, and soon; says how it did."""
        self._close()
        try:
            code = self._process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        if code >= 0:
            return f"exit code {code}"
        return signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"

    def abandon(self) -> None:
        """After a fork, in the new process: it is the parent's child, which has to notice when the parent is gone."""
        self._close()
        self._process.returncode = 0  # not ours to wait for

    def _answer(self, seconds: float, request: Any) -> tuple[bool, Any]:
        """Raises EOFError when the child has ended, or was ended by the alarm."""
        alarm = threading.Timer(seconds, self._kill)
        alarm.daemon = True
        alarm.start()
        try:
            self._send(request)
            kind, answer = pickle.load(self._from)
            if kind == "frames":
                answer = self._frames(answer)
        except (OSError, pickle.UnpicklingError) as error:
            raise EOFError from error
        finally:
            alarm.cancel()
        return kind != "error", answer

    def _frames(self, shape: tuple[int, ...]) -> Frames:
        frames = np.empty(shape, np.uint8)
        if frames.size and self._from.readinto(frames.data.cast("B")) < frames.size:
            raise EOFError
        return frames

    def _send(self, request: Any) -> None:
        data = memoryview(pickle.dumps(request, protocol=pickle.HIGHEST_PROTOCOL))
        while len(data):
            data = data[self._to.write(data) :]

    def _kill(self) -> None:
        self._killed = True
        self._process.kill()

    def _close(self) -> None:
        """Close our ends of the pipes, without a word to the other side."""
        self._killed = True
        for pipe in (self._to, self._from.raw):
            with contextlib.suppress(OSError):
                pipe.close()


_children: dict[bytes, _Child] = {}
_starting = threading.Lock()


def _child_of(reader: VideoReader) -> _Child:
    """This process's child for a reader with these settings."""
    settings = pickle.dumps(reader)
    with _starting:
        child = _children.get(settings)
        if child is None or not child.usable:
            child = _children[settings] = _Child(settings)
        return child


@atexit.register
def _end_children() -> None:
    while _children:
        _children.popitem()[1].end()


def _after_fork() -> None:
    global _starting
    _starting = threading.Lock()
    while _children:
        _children.popitem()[1].abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

"""Reading videos in a process of their own, which is killed when it takes too long.

decord and torchcodec can hang inside native code, where no exception and no signal handler reaches them. So they run in
a worker (see `vidtrain.data.jobs.killable`), one for each process that reads and each reader's settings, used for one
file after the other.

A worker that does not answer in time, or that crashes twice, becomes a VideoError of the file it was reading; the next
file gets a fresh one.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np

from vidtrain.data.jobs.killable import START_SECONDS, TookTooLong, Worker, WorkerDied
from vidtrain.data.readers.base import OpenVideo, VideoReader
from vidtrain.data.readers.pyav.reader import slots_of
from vidtrain.errors import VideoError
from vidtrain.tar_members import size_of
from vidtrain.types import Frames, Indices, VideoInfo

_T = TypeVar("_T")

_BYTES_A_SECOND: Final = 1e6  # what opening reads at least
_PIXELS_A_SECOND: Final = 2e7  # what decoding yields at least, on a busy machine


@dataclass(frozen=True)
class Guarded:
    """Opens videos with `reader`, in a worker.

    reader: pickled to the worker. Its method `prepare`, if it has one, is called there once and before the time counts.
    timeout: seconds that opening a file or one read may take, what it waits for a processor aside (on Linux). Large
        files get more: a second for each megabyte to open, and one for each 20 megapixels of the whole video to read.
    """

    reader: VideoReader
    timeout: float

    def open(self, path: str) -> GuardedVideo:
        """Open a file, see `VideoReader.open`.

        Raises:
            VideoError: what the reader says, or that it took too long or crashed.
        """
        return GuardedVideo(self, path)


class GuardedVideo(OpenVideo):
    """A video that is open in a worker, see `vidtrain.data.readers.base.OpenVideo`."""

    def __init__(self, settings: Guarded, path: str) -> None:
        self._settings = settings
        self._path = path
        self._worker, self._number, self.info = self._twice(self._open)

    def read(self, indices: Indices, size: tuple[int, int] | None = None) -> Frames:
        """The frames `indices` as RGB uint8 (N, H, W, 3), see `OpenVideo.read`."""
        indices = np.asarray(indices, dtype=np.int64)
        slots_of(self._path, indices, self.info.num_frames)  # checks them
        pixels = self.info.num_frames * self.info.height * self.info.width
        seconds = max(self._settings.timeout, pixels / _PIXELS_A_SECOND)

        def read_here() -> Frames:
            if not self._worker.usable:  # another file has taken it along
                self._worker, self._number, self.info = self._open()
            frames: Frames = self._ask(self._worker, seconds, "read", self._number, indices, size)
            return frames

        return self._twice(read_here)

    def close(self) -> None:
        if self._number >= 0 and self._worker.usable:
            self._worker.tell(START_SECONDS, "close", self._number)
        self._number = -1

    def _open(self) -> tuple[Worker, int, VideoInfo]:
        size = 0
        with contextlib.suppress(OSError, ValueError):  # the reader says what is wrong
            size = size_of(self._path)
        seconds = max(self._settings.timeout, size / _BYTES_A_SECOND)
        worker = _worker_of(self._settings.reader)
        number, info = self._ask(worker, seconds, "open", str(Path(self._path).absolute()))
        return worker, number, info

    def _ask(self, worker: Worker, seconds: float, *request: Any) -> Any:
        try:
            return worker.ask(seconds, *request)
        except TookTooLong:
            reason = f"took more than {seconds:g} s to {request[0]}: reading it was ended"
            raise VideoError(self._path, reason) from None
        except VideoError as error:
            raise VideoError(self._path, error.reason) from None

    def _twice(self, work: Callable[[], _T]) -> _T:
        """A second try in a fresh worker: the first may have died of something else, such as a lack of memory."""
        try:
            return work()
        except WorkerDied:
            pass
        try:
            return work()
        except WorkerDied as error:
            raise VideoError(self._path, f"the reader crashed on it ({error})") from None


class _Videos:
    """At the other end: the reader, and the videos that are open."""

    def __init__(self, reader: VideoReader) -> None:
        self._reader = reader
        self._videos: dict[int, OpenVideo] = {}

    def prepare(self) -> None:
        getattr(self._reader, "prepare", lambda: None)()

    def __call__(self, action: str, *arguments: Any) -> Any:
        return getattr(self, f"_{action}")(*arguments)

    def _open(self, path: str) -> tuple[int, VideoInfo]:
        number = max(self._videos, default=-1) + 1
        self._videos[number] = self._reader.open(path)
        return number, self._videos[number].info

    def _read(self, number: int, indices: Indices, size: tuple[int, int] | None) -> Frames:
        return np.ascontiguousarray(self._videos[number].read(indices, size))

    def _close(self, number: int) -> None:
        self._videos.pop(number).close()


_workers: dict[bytes, Worker] = {}
_starting = threading.Lock()


def _worker_of(reader: VideoReader) -> Worker:
    """This process's worker for a reader with these settings."""
    settings = pickle.dumps(reader)
    with _starting:
        worker = _workers.get(settings)
        if worker is None or not worker.usable:
            worker = _workers[settings] = Worker().ready(_Videos(reader))
        return worker


def _after_fork() -> None:
    global _starting
    _starting = threading.Lock()
    _workers.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

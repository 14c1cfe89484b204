"""Readers that misbehave as native code can, by the name of the file. For test_readers_guarded.py."""

from __future__ import annotations

import ctypes
import os
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np

from vidtrain.data.readers.base import VideoReader
from vidtrain.data.readers.guarded import Guarded
from vidtrain.errors import ConfigError, VideoError
from vidtrain.types import Frames, Indices, VideoInfo


@dataclass(frozen=True)
class OddReader:
    """Sound files give pictures of their indices; others hang or crash in `open` or `read`, as their names say."""

    missing: bool = False

    def prepare(self) -> None:
        if self.missing:
            raise ConfigError("the library is not installed")

    def open(self, path: str) -> OddVideo:
        name = Path(path).name
        _misbehave(name, "open")
        if "broken" in name:
            raise VideoError(path, "is broken")
        if "bug" in name:
            raise KeyError("a bug")
        return OddVideo(name)


class OddVideo:
    def __init__(self, name: str) -> None:
        self._name = name
        print("libraries print things")
        self.info = VideoInfo(num_frames=200, fps=25.0, height=4, width=6)

    def read(self, indices: Indices, size: tuple[int, int] | None = None) -> Frames:
        _misbehave(self._name, "read")
        frames = np.zeros((len(indices), *(size or (4, 6)), 3), np.uint8)
        frames[:] = np.asarray(indices, np.uint8)[:, None, None, None]
        if "pid" in self._name:
            frames.reshape(-1)[:8] = np.frombuffer(os.getpid().to_bytes(8, "little"), np.uint8)
        return frames

    def close(self) -> None:
        if "badclose" in self._name:
            raise OSError("close fails")

    def __enter__(self) -> OddVideo:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _misbehave(name: str, action: str) -> None:
    if f"hang_{action}" in name:
        ctypes.PyDLL(None).sleep(1000)  # PyDLL keeps the interpreter's lock: not even another thread runs
    if f"slow_{action}" in name:
        time.sleep(1.2)
    if f"busy_{action}" in name:
        end = time.process_time() + 0.35
        while time.process_time() < end:
            pass
    if f"crash_{action}" in name:
        os.abort()
    if f"exit_{action}" in name:
        os._exit(3)


GUARDED = Guarded(OddReader(), timeout=0.5)


def process_of(reader: VideoReader) -> int:
    """The child's process id."""
    with reader.open("pid") as video:
        return int.from_bytes(video.read(np.arange(3)).reshape(-1)[:8].tobytes(), "little")

"""What a user names as videos: input= of `vidtrain predict`, query= of search, the videos of a Predictor's methods."""

from __future__ import annotations

import glob
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from vidtrain.data.manifest.files import VIDEO_SUFFIXES, list_videos, suffix_of
from vidtrain.data.readers.arrays import ArrayReader, as_frames
from vidtrain.errors import ConfigError, DataError, VideoError
from vidtrain.remote import is_url
from vidtrain.store_cache import local_file
from vidtrain.terminal import printable
from vidtrain.types import BadVideo, Frames


def find_inputs(text: str, key: str = "input") -> list[str]:
    """The files that an option names: one file, here or in a store, all videos below a folder, or what a glob matches.

    key: the option, for messages.

    Raises:
        DataError: there is none. VideoError, ConfigError: as `store_cache.local_file`.
    """
    if is_url(text):
        local_file(text)  # who reads it finds the copy
        return [text]
    path = Path(text)
    if path.exists() and not path.is_dir():  # a pipe is refused by who reads it
        return [str(path)]
    if path.is_dir():
        found = list_videos(path)
        if not found:
            raise DataError(f"{key}={text}: no video below this folder")
        return found
    # a pattern may be absolute, which Path.glob refuses
    found = sorted(p for p in glob.glob(str(path), recursive=True) if Path(p).is_file())  # noqa: PTH207
    if not found:
        raise DataError(f"{key}={text}: no such file, and no file matches it as a glob")
    return found


def refuse_bad(bad: Sequence[BadVideo], count: int) -> None:
    """Raise for videos, of `count`, that gave no answer: for one what is wrong with it; of more each is printed."""
    if len(bad) == 1:
        raise VideoError(bad[0].path, bad[0].reason)
    for video in bad:
        print(printable(f"vidtrain: {video.path}: {video.reason}"), file=sys.stderr)
    if bad:
        raise DataError(f"{len(bad)} of {count} videos could not be read or have no finite scores")


def is_stored_video(text: str) -> bool:
    """Whether input= is the address of a video file, and not of a stream; MPEG-TS is taken for a stream."""
    return is_url(text) and suffix_of(text) in VIDEO_SUFFIXES - {".ts", ".m2ts", ".mts"}


class Inputs:
    """What a user may call videos, as paths; files that are needed for it are there while it is entered.

    Attributes:
        single: it is one video, not a list, a folder or a glob.
        paths: of the videos, each once; of those in memory, names that stand for it. names: what the user calls them.
        reader: of those in memory; None where there are none. rateless: nobody has said how fast those are.
    """

    def __init__(self, videos: Any, fps: float | None) -> None:
        several = isinstance(videos, (list, tuple))
        if isinstance(videos, (str, os.PathLike)):
            found: Sequence[Any] = find_inputs(os.fspath(videos))
            # a pipe too, which the reader refuses
            self.single = is_url(videos) or (Path(videos).exists() and not Path(videos).is_dir())
        else:
            found, self.single = (videos if several else [videos]), not several
        if not len(found):
            raise DataError("no videos: the list is empty")
        self._stack = ExitStack()
        self._found = found
        self._fps = fps
        self.paths: list[str] = []
        self.names: list[str] = []
        self.reader: ArrayReader | None = None
        self.rateless = False

    def __enter__(self) -> Inputs:
        with self._stack as stack:  # undone, if one of them is none
            arrays: dict[str, Frames] = {}
            for number, video in enumerate(self._found):
                self._add(number, video, arrays, stack)
            if arrays:
                self.rateless = self._fps is None
                self.reader = ArrayReader(arrays, 30.0 if self._fps is None else self._fps)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def _add(self, number: int, video: Any, arrays: dict[str, Frames], stack: ExitStack) -> None:
        name = f"video {number}"
        if isinstance(video, (str, os.PathLike)):
            path = name = os.fspath(video)
        elif callable(getattr(video, "read", None)):
            name = str(getattr(video, "name", name))
            path = self._copied(video, name, stack)
        elif hasattr(video, "shape"):
            path = name
            arrays[path] = as_frames(name, video)
        else:
            raise ConfigError(
                f"{name}: expected a path, an array, a tensor or a binary file, got {type(video).__name__}"
            )
        self.paths.append(path)
        self.names.append(name)

    def _copied(self, file: Any, name: str, stack: ExitStack) -> str:
        """A file object's rest in a file of its own, where every reader finds it."""
        copy = stack.enter_context(tempfile.NamedTemporaryFile(suffix=suffix_of(name)))  # noqa: SIM115
        try:
            shutil.copyfileobj(file, copy)
        except TypeError:
            raise ConfigError(f"{name}: is open as text; open it with mode 'rb'") from None
        copy.flush()
        return copy.name

"""Features of videos on disk, as `vidtrain extract` writes them and `data=features` reads them.

    <folder>/features.json           what made them, their length and type
    <folder>/videos/3f/<name>.npy    one file per video: float16 or float32 (clips, D), of tokens (clips, P, D)
    <folder>/videos.jsonl            the journal: a line for each finished video
    <folder>/index.json, *.npy       classes, splits, labels and files, see `vidtrain.data.manifest.index`
    <folder>/<split>.seconds.npy     float64 (clips, 2): first and last second of each clip, video after video,
    <folder>/<split>.clips.npy       int64 (videos + 1): where each video's clips begin among them
    <folder>/report.csv              a line per video: made, kept from before, or bad and why

Why .npy: a training item is a stretch of consecutive clips of one video. That is one read of a memory-mapped file,
without parsing, without a further package, and np.load opens it anywhere. The shape stands in front, so a file is
written clip by clip while the video is decoded. A file is written under another name and renamed when it is whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt

from vidtrain.data.jobs.journal import Journal, Stamp, stamp_of
from vidtrain.data.jobs.parts import Part, writer
from vidtrain.data.manifest.manifest import FeatureInfo
from vidtrain.data.readers.timeline import Seconds, packed, unpacked
from vidtrain.errors import ConfigError, DataError, VideoError
from vidtrain.runs.atomic import make_parent, named_when_full, settle, whole_file
from vidtrain.runs.sole_writer import LOCK, sole_writer
from vidtrain.untrusted_data import as_dataclass, has_types, map_array, read_mapping

FILE: Final = "features.json"
JOURNAL: Final = "videos.jsonl"
_VERSION: Final = 1
_SUFFIX: Final = ".npy"
_PART: Final = ".part"
_FILE_OF_ONE: Final = re.compile(r"videos/[0-9a-f]{2}/[\w.-]+\.npy")
Features = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Video:
    """A stretch of a file whose features are wanted: the whole of it where start and end are None. Seconds."""

    path: str
    start: float | None = None
    end: float | None = None

    @property
    def key(self) -> str:
        """The same for the same stretch of the same file."""
        identity = [os.path.abspath(self.path), self.start, self.end]  # noqa: PTH100 - keeps links as they are
        return hashlib.blake2b(json.dumps(identity).encode(), digest_size=10).hexdigest()

    @property
    def file(self) -> str:
        """Below the folder, with slashes; readable, and unique whatever files have one name."""
        stem = re.sub(r"[^\w.-]+", "_", Path(self.path).stem)[:40]
        return f"videos/{self.key[:2]}/{stem}-{self.key}{_SUFFIX}"


@dataclass(frozen=True)
class Done:
    """A line of the journal. frames, fps: of the whole source. start, end: as in Video. times: `timeline.packed`."""

    key: str
    path: str
    start: float | None
    end: float | None
    stamp: Stamp
    file: str
    clips: int
    bytes: int
    frames: int
    fps: float
    times: str = ""


class FeatureFolder:
    """A folder being filled: what is there, and how more is added.

    Args:
        made_by: the settings, flat; a folder made with others is refused.
        dtype: "float16" or "float32".
        checkpoint: the file whose network makes them, for `vidtrain search`.
        part: of the videos, that this process does; others may write to the folder beside it.

    Raises:
        ConfigError: the folder holds features made with other settings, or something else.
        VidtrainError: another process writes to it.
    """

    def __init__(
        self,
        folder: Path,
        made_by: Mapping[str, Any],
        dtype: str,
        *,
        checkpoint: str | None = None,
        part: Part | None = None,
    ) -> None:
        self.folder, self._part = folder, part
        self.made_by = json.loads(json.dumps(made_by))
        self._dtype = np.dtype(dtype)
        self._checkpoint = checkpoint
        self._open: dict[str, _Part] = {}
        self.tokens: int | None = None
        self.length: int | None = None
        self._check()
        folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as hold:
            hold.enter_context(writer(folder, "output", part, begin=self._begin))
            self._hold = hold.pop_all()

    def _begin(self) -> None:
        """Clear away what a killed run has left, and open the journal."""
        self.length = self._check()  # another process may have made it meanwhile
        self._journal = Journal(self.folder / JOURNAL, "key", _read_done, part=self._part)
        if self._part is None:
            for part in self.folder.glob(f"videos/*/*{_PART}"):  # of a run that was killed
                part.unlink()
            self._journal.take_in_parts()
        self._write_settings()

    def _settle_length(self, features: Features) -> None:
        """Of the first features of the folder, unless another part has just written some."""
        with nullcontext() if self._part is None else sole_writer(self.folder, "output"):
            self.length = self._check()
            if self.length is None:
                self.length = int(features.shape[-1])
                self.tokens = int(features.shape[1]) if features.ndim == 3 else None
                self._write_settings()

    def _check(self) -> int | None:
        """The length of the features that are there, None where there are none."""
        if not (self.folder / FILE).is_file():
            if self.folder.is_dir() and not all(entry.name.startswith(LOCK) for entry in self.folder.iterdir()):
                raise ConfigError(f"output={self.folder}: holds something else than features; choose a new folder")
            return None
        content = _read_settings(self.folder)
        before = content["made_by"]
        for key in [*self.made_by, *before]:
            old, new = before.get(key), self.made_by.get(key)
            if old != new:
                raise ConfigError(
                    f"output={self.folder}: holds features made with {key}={_shown(old)}, now it is {_shown(new)}: "
                    "choose another output, or the same settings"
                )
        self.tokens = content.get("tokens")
        return None if content["length"] is None else int(content["length"])

    def _write_settings(self) -> None:
        content = {
            "version": _VERSION,
            "length": self.length,
            "tokens": self.tokens,
            "dtype": self._dtype.name,
            "made_by": self.made_by,
            "checkpoint": self._checkpoint,
        }
        with whole_file(self.folder / FILE, "w", encoding="utf-8") as file:
            file.write(json.dumps(content, indent=1) + "\n")

    def finished(self, video: Video) -> Done | None:
        """What the journal says of a video whose file is there, whole, and whose source has not changed since."""
        done = self._journal.entries.get(video.key)
        if done is None or done.stamp != stamp_of(video.path):
            return None
        found = stamp_of(str(self.folder / done.file))
        return done if found is not None and found.size == done.bytes else None

    def add(self, video: Video, number: int, total: int, features: Features) -> None:
        """Write clips of a video, from its clip `number` on, of `total`; number 0 begins it, or begins it again.

        Args:
            features: (n, D), or of tokens (n, P, D), of the folder's type.

        Raises:
            DataError: D or P is not that of the others.
        """
        if self.length is None:
            self._settle_length(features)
        assert self.length is not None
        if features.shape[1:] != _shape(self.length, self.tokens):
            found, others = _shown_shape(features.shape[1:]), _shown_shape(_shape(self.length, self.tokens))
            raise DataError(f"{video.path}: its features have length {found}, the others {others}")
        if number == 0:
            self.discard(video)
            make_parent(self.folder / video.file, self.folder)
            self._open[video.key] = _Part(self.folder / video.file, (total, *features.shape[1:]), self._dtype)
        self._open[video.key].write(number, features)

    def finish(self, video: Video, *, clips: int, frames: int, fps: float, times: Seconds | None = None) -> Done:
        """All clips of a video have been added. frames, fps, times: of the source, as in `VideoInfo`."""
        written = self._open.pop(video.key).close()
        stamp = stamp_of(video.path)
        if stamp is None:
            raise DataError(f"{video.path}: is gone")
        place = video.key, video.path, video.start, video.end
        done = Done(*place, stamp, video.file, clips, written, frames, fps, packed(times))
        self._journal.add(done)
        return done

    def discard(self, video: Video) -> None:
        """Forget what was written of a video that has turned out bad."""
        part = self._open.pop(video.key, None)
        if part is not None:
            part.discard()

    def close(self) -> None:
        for part in self._open.values():
            part.discard()
        self._open.clear()
        self._journal.close()
        self._hold.close()


class _Part:
    """A file being written."""

    def __init__(self, target: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._target, self._path = target, target.with_name(f"{target.name}{_PART}")
        self._dtype, self._shape, self._rows = dtype, shape, 0
        self._path.unlink(missing_ok=True)  # of a part that was killed, or a stranger's link to something else
        self._file: BinaryIO = self._path.open("xb")
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        with named_when_full(target):
            np.lib.format.write_array_header_1_0(self._file, header)

    def write(self, number: int, features: Features) -> None:
        assert number == self._rows, f"clip {number} after {self._rows}"
        assert features.dtype == self._dtype, f"{features.dtype}, expected {self._dtype}"
        with named_when_full(self._target):
            self._file.write(np.ascontiguousarray(features).data)
        self._rows += len(features)

    def close(self) -> int:
        """Bytes of the finished file."""
        assert self._rows == self._shape[0], f"{self._rows} clips of {self._shape[0]}"
        with named_when_full(self._target):
            self._file.close()
        return settle(self._path, self._target)

    def discard(self) -> None:
        with suppress(OSError):  # of what was still to be written
            self._file.close()
        self._path.unlink(missing_ok=True)


def read_info(folder: Path, max_clips: int | None = None) -> FeatureInfo:
    """What the features in a folder are.

    Raises:
        DataError: there are none, or none that this version can read.
    """
    if not (folder / FILE).is_file():
        raise DataError(f"{folder}: holds no {FILE}; `vidtrain extract` writes one")
    content = _read_settings(folder)
    if content["length"] is None:
        raise DataError(f"{folder}: holds no features yet; run `vidtrain extract` to its end")
    return FeatureInfo(
        int(content["length"]), content["made_by"], max_clips, content["tokens"], content.get("checkpoint")
    )


def open_features(path: str, length: int, tokens: int | None = None) -> Features:
    """(clips, D), or (clips, tokens, D), memory-mapped.

    Raises:
        VideoError: no such file, not one of features, or of another length.
    """
    try:
        found: Features = map_array(path)
    except (OSError, ValueError) as error:
        raise VideoError(path, f"not a file of features that can be read ({error})") from None
    expected = _shape(length, tokens)
    if found.shape[1:] != expected or not found.ndim or not len(found) or found.dtype.kind != "f":
        shape, wanted = _shown_shape(found.shape), _shown_shape(expected)
        raise VideoError(path, f"holds {shape} {found.dtype}, expected clips x {wanted} of a float type")
    return found


def _shape(length: int, tokens: int | None) -> tuple[int, ...]:
    """Of what is kept of one clip."""
    return (length,) if tokens is None else (tokens, length)


def _shown_shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _read_settings(folder: Path) -> dict[str, Any]:
    file = folder / FILE
    try:
        content = read_mapping(file)
        if content["version"] != _VERSION:
            raise DataError(f"{file}: version {content['version']}, this vidtrain reads {_VERSION}; extract again")
    except (KeyError, ValueError, OSError) as error:
        raise DataError(f"{file}: cannot be read ({error}); extract into a new folder") from None
    length = content.get("length")
    sizes = [size for size in (length, content.setdefault("tokens", None)) if size is not None]
    whole, text = (int, type(None)), (str, type(None))
    kinds: dict[str, Any] = {"made_by": dict, "length": whole, "tokens": whole, "checkpoint": text}
    if not has_types(content, **kinds) or not all(0 < size < 1 << 31 for size in sizes):
        raise DataError(f"{file}: its made_by, length, tokens or checkpoint is none; extract into a new folder")
    return content


def _read_done(content: Any) -> Done:
    done = as_dataclass(Done, content)
    if not _FILE_OF_ONE.fullmatch(done.file):  # a journal may name no other file
        raise ValueError(done.file)
    unpacked(done.times, done.frames)  # raises for what are no times
    return done


def _shown(value: Any) -> str:
    return "null" if value is None else str(value)

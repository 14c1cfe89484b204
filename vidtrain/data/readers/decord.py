"""The reader for those who want decord 0.6: the same contract as `pyav`, fewer files, slower.

The frames shown, their rate and their size are found as the PyAV reader finds them, because decord's own length counts
packets. Files that decord is known to hang on or to return wrong frames of are refused before it sees them:
MPEG streams, several streams of video, palettes that a container holds, frames hidden by an edit list (cut without
re-encoding), open GOPs, packets that are marked as keyframes and are none (intra refresh, MP4 without a table of them),
most codecs in AVI, packed AVI with several keyframes, mirrored frames.

Pixels: of x264's MP4 files they equal those of `pyav` at the video's own size. Scaled ones differ where the stream
notes where its chroma samples sit, as H.264 does: newer FFmpegs honour that note and decord's does not (measured on
a 340x256 clip scaled to 112x112: 0.4 levels of 255 on average, 11 at most).
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from types import ModuleType
from typing import Annotated, Any, Final

import numpy as np

from vidtrain.data.readers.base import OpenVideo
from vidtrain.data.readers.checked_video import CheckedVideo
from vidtrain.data.readers.guarded import Guarded
from vidtrain.data.readers.pyav.packet_table import PacketTable, false_keys, loses_palette
from vidtrain.data.readers.pyav.reader import PyAVVideo
from vidtrain.data.readers.pyav.to_rgb import scaled
from vidtrain.errors import ConfigError, VideoError
from vidtrain.ranges import LONGEST, Range
from vidtrain.tar_members import open_bytes, stretch_of
from vidtrain.types import Frames, Indices

_CONTAINERS: Final = ("mov", "matroska", "avi", "flv")


@dataclass(frozen=True)
class DecordReader:
    """Opens videos with decord, one thread.

    timeout: seconds that opening a file or one read may take (large files get more, see `guarded.Guarded`). decord then
        runs in a process of its own, which is killed when it hangs. None: in this process, where nothing ends a hang.
    """

    timeout: Annotated[float | None, Range(above=0, most=LONGEST)] = 5.0

    def open(self, path: str) -> OpenVideo:
        """Open a file and find the frames it shows.

        Raises:
            ConfigError: decord is not installed.
            VideoError: not a video that can be read, or not one that decord can be trusted with.
        """
        if self.timeout is not None:
            return Guarded(DecordReader(timeout=None), self.timeout).open(path)
        self.prepare()
        return DecordVideo(path)

    def prepare(self) -> None:
        """Import what takes its time; raises ConfigError."""
        _import_decord()


class DecordVideo(CheckedVideo):
    """A video being read, see `vidtrain.data.readers.base.OpenVideo`."""

    library = "decord"

    def _why_not(self, probe: PyAVVideo) -> str:
        return _why_not(probe)

    def _batch(self, wanted: Indices, size: tuple[int, int]) -> Frames:
        """decord fails at some widths (its rows are padded): then scale its own size here."""
        decord, native = _import_decord(), (self.info.height, self.info.width)
        try:
            frames: Frames = self._sized(size).get_batch(wanted.tolist()).asnumpy()
        except (decord.DECORDError, RuntimeError, IndexError) as error:
            self._opened = None
            if "size must exactly match" not in str(error):
                raise VideoError(self._path, f"decord: {_gist(error)} (decoder=pyav may read it)") from None
            if size == native:
                reason = f"decord cannot deliver frames {size[1]} pixels wide: use decoder=pyav"
                raise VideoError(self._path, reason) from None
            return scaled(self._batch(wanted, native), size)
        return frames

    def _open(self, size: tuple[int, int]) -> Any:
        height, width = size
        whole = stretch_of(self._path).size is None
        with nullcontext(f"file:{self._path}") if whole else open_bytes(self._path) as source:  # read into memory
            return _import_decord().VideoReader(source, num_threads=1, height=height, width=width)


def _import_decord() -> ModuleType:
    try:
        import decord  # absolute: the library, not this module
    except (ImportError, OSError):
        raise ConfigError(
            "decoder=decord needs the package decord, which has wheels for Linux and Windows on x86-64 and for macOS "
            "on x86-64 up to Python 3.8: use decoder=pyav"
        ) from None
    decord.logging.set_level(decord.logging.QUIET)
    module: ModuleType = decord
    return module


def _why_not(probe: PyAVVideo) -> str:
    """What is wrong with the file for decord, '' when nothing is."""
    container, table = probe.file.container.format.name, probe.frames.table
    if not container.startswith(_CONTAINERS):
        return f"decord may hang on this kind of file ({container})"
    if probe.file.streams > 1:
        return f"decord cannot be told which of the {probe.file.streams} video streams to read"
    if probe.orientation.mirrored:
        return "decord does not mirror frames"
    if loses_palette(probe.file):
        return "decord loses the palette of this file when it seeks"
    if table is not None and table.false_keys:
        return f"{false_keys(table)}, to which decord seeks"
    if table is None:
        return "decord cannot be trusted to count the frames of this file"
    if probe.frames.packed:
        several = len(np.unique(table.start)) > 1
        return (
            "decord returns wrong frames behind the keyframes of an AVI whose packets hold two frames"
            if several
            else ""
        )
    if table.damaged:
        return f"has {table.damaged} damaged packets among {len(table.pts)}, which decord may show"
    if len(table.pts) > len(table.shown):
        return f"decord counts {len(table.pts)} frames, {len(table.shown)} are shown"
    if (np.diff(table.start) < 0).any():
        return "decord returns wrong frames next to the keyframes of an open GOP"
    if container == "avi" and not _seeks_in_avi(probe.file.stream.codec_context.name, table):
        return "decord returns wrong frames of AVI files with this codec"
    return ""


def _seeks_in_avi(decoder: str, table: PacketTable) -> bool:
    """True for MPEG-4 without B-frames and for codecs with keyframes only."""
    in_order = (np.diff(table.shown) > 0).all()
    only_keys = len(np.unique(table.start)) == len(table.start)
    return bool(only_keys or (decoder == "mpeg4" and in_order))


def _gist(error: Exception) -> str:
    """The first line of decord's message, without the places in its source."""
    line = next(iter(str(error).splitlines()), type(error).__name__)
    return line.rsplit(".cc:", 1)[-1].split(": ", 1)[-1].strip()

"""One reader for all that a path can be: a video file, a folder of images, a pack of JPEGs, here or in a store."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vidtrain.data.manifest.files import PACK_EXTENSION
from vidtrain.data.readers.base import OpenVideo, VideoReader
from vidtrain.errors import VideoError
from vidtrain.remote import is_url
from vidtrain.store_cache import Cache
from vidtrain.types import Frames, Indices


@dataclass(frozen=True)
class AnyReader:
    """Folders and packs are read here, everything else by `video`, the reader that the user chose."""

    video: VideoReader

    def open(self, path: str) -> OpenVideo:
        """Open what `path` names; raises VideoError as the readers do, and where a store does not give it."""
        if is_url(path):
            return FetchedVideo(path, self)
        if path.endswith(PACK_EXTENSION):
            from vidtrain.data.readers.jpeg_pack import JpegPackReader

            return JpegPackReader().open(path)
        if Path(path).is_dir():
            from vidtrain.data.readers.image_folder import FrameFolderReader

            return FrameFolderReader().open(path)
        return self.video.open(path)


class FetchedVideo(OpenVideo):
    """A video of a store, read from the copy that this machine keeps; errors name the video, not the copy."""

    def __init__(self, path: str, reader: VideoReader) -> None:
        self._path = path
        file = str(Cache.of_this_machine().fetch(path))
        try:
            self._video = reader.open(file)
        except VideoError as error:
            raise VideoError(path, error.reason) from None
        self.info = self._video.info

    def read(self, indices: Indices, size: tuple[int, int] | None = None) -> Frames:
        """The frames `indices` as RGB uint8 (N, H, W, 3), see `OpenVideo.read`."""
        try:
            return self._video.read(indices, size)
        except VideoError as error:
            raise VideoError(self._path, error.reason) from None

    def close(self) -> None:
        self._video.close()

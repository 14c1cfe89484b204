"""One reader for all that a path can be: a video file, a folder of images, a pack of JPEGs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vidtrain.data.manifest.files import PACK_EXTENSION
from vidtrain.data.readers.base import OpenVideo, VideoReader


@dataclass(frozen=True)
class AnyReader:
    """Folders and packs are read here, everything else by `video`, the reader that the user chose."""

    video: VideoReader

    def open(self, path: str) -> OpenVideo:
        """Open what `path` names; raises VideoError as the readers do."""
        if path.endswith(PACK_EXTENSION):
            from vidtrain.data.readers.jpeg_pack import JpegPackReader

            return JpegPackReader().open(path)
        if Path(path).is_dir():
            from vidtrain.data.readers.image_folder import FrameFolderReader

            return FrameFolderReader().open(path)
        return self.video.open(path)

"""Which file of a cache holds the flow of a video: the one named after what is in the video (`video_id`).

Where the video lies does not count: neither renaming the videos nor moving the cache loses a file, and the flow of a
video that is written again is computed again.
"""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import Any, Final

from vidtrain.errors import ConfigError, VideoError
from vidtrain.untrusted_data import read_mapping

SETTINGS: Final = "flow.json"
_GLANCE: Final = 1 << 14  # bytes at either end of a video that its id is made of


def video_id(path: str) -> str:
    """A name for what is in a video: its size and both ends; of a folder, the names and sizes of its files.

    Raises:
        VideoError: it cannot be read, or is a pipe, a device or a socket, of which no end may ever come.
    """
    digest = hashlib.blake2b(digest_size=16)
    try:
        mode = Path(path).stat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise VideoError(path, "is not a regular file")
        if stat.S_ISDIR(mode):
            with os.scandir(path) as entries:
                for name, size in sorted((entry.name, entry.stat().st_size) for entry in entries):
                    digest.update(f"{size} {name}\n".encode("utf-8", "surrogateescape"))
        else:
            with Path(path).open("rb", buffering=0) as file:
                size = file.seek(0, 2)
                digest.update(str(size).encode())
                for place in (0, max(0, size - _GLANCE)):
                    file.seek(place)
                    digest.update(file.read(_GLANCE))
    except (OSError, ValueError) as error:
        raise VideoError(path, f"cannot be read ({getattr(error, 'strerror', None) or error})") from None
    return digest.hexdigest()


def file_of(root: Path, identity: str) -> Path:
    """Where the flow of a video lies in a cache."""
    return root / identity[:2] / f"{identity}.flow"


def read_settings(root: Path) -> dict[str, Any]:
    """How a cache was made: its method and all that the flow depends on.

    Raises:
        ConfigError: the folder is not a cache.
    """
    file = root / SETTINGS
    try:
        found = read_mapping(file)
    except FileNotFoundError:
        raise ConfigError(
            f"flow.root={root}: holds no {SETTINGS}: make the flow with `vidtrain data flow data=... output={root}`"
        ) from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file}: cannot be read ({error}); delete the folder and make the flow again") from None
    if not isinstance(found.get("method"), str):
        raise ConfigError(f"{file}: says no method; delete the folder and make the flow again")
    return found

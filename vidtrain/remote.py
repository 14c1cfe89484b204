"""Files in an object store or on a web server, whatever fsspec knows.

    s3://bucket/shards/train-000003.tar@1536+203984/archery/v_12.mp4    a member of a tar file: one range read
    https://server/clips/v_12.mp4                                       a whole file

Keys and passwords are the machine's matter and not that of a run's configuration. What is read is kept: `store_cache`.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable
from typing import Any, Final, TypeVar

from vidtrain.errors import ConfigError, DataError, VideoError
from vidtrain.members import BLOCK, check_header, name_of, stretch_of
from vidtrain.terminal import printable

_T = TypeVar("_T")

_URL: Final = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_SECRET: Final = re.compile(r"://[^/@]*@|\?")
_TRIES: Final = 3
_PAUSE: Final = 0.5  # seconds before the second try, twice that before the third
_BEFORE: Final = 3 * BLOCK  # bytes read before a member: its header, and the extended one of a long name
_held: dict[int, Any] = {}
"""fsspec's file systems. In a forked process fsspec forgets those of the parent, and s3fs closes the connections of one
that nobody has: the parent's, in a loop that is not theirs, with a page of complaints for each worker."""
_SEEN: Final = ("etag", "md5", "digest", "modified", "mtime", "updated", "created", "generation")


def is_url(path: str | os.PathLike[str]) -> bool:
    """Whether a path names something in a store."""
    return _URL.match(os.fspath(path)) is not None


def check_url(url: str) -> None:
    """Raise ConfigError for an address with a password or a signature in it: reports and configurations show paths."""
    if _SECRET.search(url):
        shown = printable(_SECRET.sub(lambda match: "://***@" if match[0] != "?" else "?", url).partition("?")[0])
        raise ConfigError(
            f"{shown}: an address with a password or a query would stand in configurations and reports: give the store "
            "its credentials by environment variables or in fsspec's configuration (~/.config/fsspec)"
        )


def refuse_store(key: str, path: str) -> None:
    """Raise ConfigError for a folder in a store that is to be written to."""
    if is_url(path):
        raise ConfigError(
            f"{key}={path}: vidtrain writes to folders of this machine, since stores neither append nor rename: give a "
            "local folder, and copy it when it is done, or while it runs (aws s3 sync, gsutil rsync, rclone sync)"
        )


def read_bytes(path: str, seconds: float) -> bytes:
    """The bytes of a file or a member in a store, in three tries of `seconds` each.

    Raises:
        VideoError: it is not there, is not allowed, or the store does not answer.
        ConfigError: fsspec lacks what it needs for this kind of store.
    """
    return _tried(path, seconds, lambda: _read(path))


def _tried(path: str, seconds: float, work: Callable[[], _T]) -> _T:
    reason = ""
    for number in range(_TRIES):
        if number:
            time.sleep(_PAUSE * 2 ** (number - 1))
        try:
            return _within(seconds, work)
        except FileNotFoundError:
            raise VideoError(path, "no such file in the store") from None
        except PermissionError:
            raise VideoError(path, "the store does not allow to read it") from None
        except (ConfigError, DataError):
            raise
        except TimeoutError:
            reason = f"no answer within {seconds:g} s"
        except Exception as error:  # of whatever library the store is reached with
            reason = printable(f"{type(error).__name__}: {error}".splitlines()[0][:200])
    raise VideoError(path, f"cannot be fetched ({_TRIES} tries; {reason})")


def _read(path: str) -> bytes:
    stretch = stretch_of(path)
    start, size = stretch.start, stretch.size
    system, name = _system(stretch.file)
    if size is None:
        whole: bytes = system.cat_file(name)
        return whole
    # with what is before it, which tells whether the tar file is still the one that was listed
    head = min(start, _BEFORE)
    found: bytes = system.cat_file(name, start=start - head, end=start + size)

    def before(count: int) -> bytes:
        if head < min(count, start):  # of a name of more than 500 bytes, or where a member has other records besides
            more: bytes = system.cat_file(name, start=max(0, start - count), end=start)
            return more
        return found[max(0, head - count) : head]

    if len(found) >= head:
        check_header(before, size, name_of(path))
    if len(found) != head + size:
        raise OSError(f"got {len(found)} of {head + size} bytes")
    return found[head:]


def seen_of(url: str, seconds: float) -> tuple[str, int]:
    """What shows that a whole file has not changed, "" where the store says nothing of the kind; and its size in bytes.

    Raises:
        VideoError, ConfigError: as `read_bytes`.
    """
    return _tried(url, seconds, lambda: _seen(url))


def _seen(url: str) -> tuple[str, int]:
    system, name = _system(url)
    info = system.info(name)
    if info.get("type") == "directory":
        raise FileNotFoundError
    told = {key: str(value) for key, value in info.items() if any(word in key.lower() for word in _SEEN)}
    size = info.get("size") or 0
    return repr((sorted(told.items()), size)) if told else "", size


def _system(url: str) -> tuple[Any, str]:
    """fsspec's file system for an address, and what it calls the file."""
    check_url(url)
    try:
        import fsspec  # type: ignore[import-untyped]

        system, name = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        kind = url.partition("://")[0]
        raise ConfigError(f"{kind}://: {error}; pip install 'vidtrain[store]' brings s3 and http") from None
    _held[id(system)] = system
    return system, name


def _within(seconds: float, work: Callable[[], _T]) -> _T:
    """What `work` returns; TimeoutError where that takes longer: it is then left alone, since nothing can end it."""
    found: list[_T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            found.append(work())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not found:
        raise TimeoutError
    return found[0]

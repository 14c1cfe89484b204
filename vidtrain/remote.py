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
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

from vidtrain.errors import ConfigError, DataError, VideoError, did_you_mean
from vidtrain.signed_ranges import SignedRanges
from vidtrain.tar_members import BLOCK, check_header, name_of, stretch_of
from vidtrain.terminal import printable

_T = TypeVar("_T")

_URL: Final = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_SECRET: Final = re.compile(r"://[^/@]*@|\?")
_FILE: Final = re.compile(r"(file|local)://", re.IGNORECASE)
_TRIES: Final = 3
_PAUSE: Final = 0.5  # seconds before the second try, twice that before the third
_BEFORE: Final = 3 * BLOCK  # bytes read before a member: its header, and the extended one of a long name
_PIECE: Final = 1 << 23  # bytes asked for at a time: after each it is seen whether anybody still waits for them
_held: dict[int, Any] = {}
"""fsspec's file systems. In a forked process fsspec forgets those of the parent, and s3fs closes the connections of one
that nobody has: the parent's, in a loop that is not theirs, with a page of complaints for each worker."""
_signed: dict[int, SignedRanges] = {}  # those of `_held` that are S3
_SEEN: Final = ("etag", "md5", "digest", "modified", "mtime", "updated", "created", "generation")


class NoFileError(VideoError):
    """Nothing at an address that can be read as a file: it is not there, may not be read, or is a folder."""


def is_url(path: str | os.PathLike[str]) -> bool:
    """Whether a path names something in a store."""
    return _URL.match(os.fspath(path)) is not None


def check_url(url: str) -> None:
    """Raise ConfigError for an address that names nothing, and for one with a password or a signature in it, which
    reports and configurations would show."""
    if not url.partition("://")[2].strip("/"):
        raise ConfigError(f"{url}: names nothing in the store: file:///FOLDER/FILE, s3://BUCKET/FILE")
    found = _SECRET.search(url)
    if found and not (found[0] == "?" and _FILE.match(url)):  # a file's name may have one, and has no query
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


def read_bytes(path: str, seconds: float, most: int) -> bytes:
    """The bytes of a file or a member in a store; arguments and errors as of `fetch`."""
    return fetch(path, seconds, most, b"".join)


def fetch(path: str, seconds: float, most: int, keep: Callable[[Iterator[bytes]], _T]) -> _T:
    """Read a file or a member in a store, in three tries of `seconds` each.

    Args:
        most: bytes that are read where the store does not say how many there are.
        keep: is given the bytes in pieces, in each try those from the first on, and returns what this returns. In a try
            that took too long it is left alone, and the next piece raises.

    Raises:
        VideoError: it is not there, is not allowed, is no regular file, or the store does not answer.
        ConfigError: fsspec lacks what it needs for this kind of store.
    """

    def work(abandoned: threading.Event) -> _T:
        return keep(_while_wanted(_pieces(path, most), abandoned))

    return _tried(path, seconds, work)


def _while_wanted(pieces: Iterable[bytes], abandoned: threading.Event) -> Iterator[bytes]:
    for piece in pieces:
        if abandoned.is_set():
            raise TimeoutError
        yield piece


def _tried(path: str, seconds: float, work: Callable[[threading.Event], _T]) -> _T:
    reason = ""
    for number in range(_TRIES):
        if number:
            time.sleep(_PAUSE * 2 ** (number - 1))
        try:
            return _within(seconds, work)
        except (FileNotFoundError, NotADirectoryError):
            raise NoFileError(path, "no such file in the store") from None
        except PermissionError:
            raise NoFileError(path, "the store does not allow to read it") from None
        except (ConfigError, DataError):
            raise
        except TimeoutError:
            reason = f"no answer within {seconds:g} s"
        except Exception as error:  # of whatever library the store is reached with
            reason = printable(f"{type(error).__name__}: {error}".splitlines()[0][:200])
    raise VideoError(path, f"cannot be fetched ({_TRIES} tries; {reason})")


def _pieces(path: str, most: int) -> Iterator[bytes]:
    stretch = stretch_of(path)
    start, size = stretch.start, stretch.size
    system, name = _system(stretch.file)
    _check_regular(stretch.file, name)
    if size is None:
        yield from _whole(path, system, name, most)
        return
    if "s3" in system.protocol:
        system = _signed.get(id(system)) or _signed.setdefault(id(system), SignedRanges(system))
    # with what is before it, which tells whether the tar file is still the one that was listed
    head, end = min(start, _BEFORE), start + min(size, _PIECE)
    found: bytes = system.cat_file(name, start=start - head, end=end)

    def before(count: int) -> bytes:
        if head < min(count, start):  # of a name of more than 500 bytes, or where a member has other records besides
            more: bytes = system.cat_file(name, start=max(0, start - count), end=start)
            return more
        return found[max(0, head - count) : head]

    if len(found) >= head:
        check_header(before, size, name_of(path))
    if len(found) != head + end - start:
        raise OSError(f"got {len(found)} of {head + size} bytes")
    yield found[head:]
    yield from _ranges(system, name, end, start + size)


def _whole(path: str, system: Any, name: str, most: int) -> Iterator[bytes]:
    """All of a file. A small one is asked for at once, without a question for its size."""
    if "http" in system.protocol:  # servers need not know ranges
        with system.open(name, "rb", block_size=0) as file:
            at, size = 0, file.size
            while piece := file.read(_PIECE):
                at += len(piece)
                _check_most(path, at, size, most)
                yield piece
        if size is not None and at != size:
            raise OSError(f"got {at} of {size} bytes")
        return
    try:
        piece = system.cat_file(name, start=0, end=_PIECE)
    except (FileNotFoundError, PermissionError):
        raise
    except Exception:
        if system.info(name).get("size") != 0:  # of an empty object S3 has no range
            raise
        piece = b""
    yield piece
    if len(piece) != _PIECE:
        return
    at, size = _PIECE, system.info(name).get("size")
    if size:
        yield from _ranges(system, name, at, size)
        return
    while len(piece) == _PIECE:
        piece = system.cat_file(name, start=at, end=at + _PIECE)
        at += len(piece)
        _check_most(path, at, None, most)
        yield piece


def _ranges(system: Any, name: str, start: int, end: int) -> Iterator[bytes]:
    for at in range(start, end, _PIECE):
        piece = system.cat_file(name, start=at, end=min(at + _PIECE, end))
        if len(piece) != min(_PIECE, end - at):
            raise OSError(f"got {at + len(piece)} of {end} bytes")
        yield piece


def _check_most(path: str, count: int, size: int | None, most: int) -> None:
    if size is not None and count > size:
        raise OSError(f"got more than its {size} bytes")
    if size is None and count > most:
        raise VideoError(path, f"has more than the {most:,} bytes that the cache holds: raise VIDTRAIN_CACHE_GB")


def _check_regular(url: str, name: str) -> None:
    """Refuse a device or a pipe of this machine, as the plain path is refused: it may have no end, or wait for one."""
    if _FILE.match(url) and Path(name).exists() and not (Path(name).is_file() or Path(name).is_dir()):
        raise VideoError(url, "is not a regular file")


def seen_of(url: str, seconds: float) -> tuple[str, int]:
    """What shows that a whole file has not changed, "" where the store says nothing of the kind; and its size in bytes.

    Raises:
        VideoError, ConfigError: as `fetch`.
    """
    return _tried(url, seconds, lambda _: _seen(url))


def _seen(url: str) -> tuple[str, int]:
    system, name = _system(url)
    _check_regular(url, name)
    info = system.info(name)
    if info.get("type") == "directory":
        raise NoFileError(url, "is a folder, and folders in a store are not listed: name a file")
    told = {key: str(value) for key, value in info.items() if any(word in key.lower() for word in _SEEN)}
    size = info.get("size") or 0
    return repr((sorted(told.items()), size)) if told else "", size


def _system(url: str) -> tuple[Any, str]:
    """fsspec's file system for an address, and what it calls the file."""
    check_url(url)
    scheme, there, rest = url.partition("://")
    kind = scheme.lower()
    try:
        import fsspec  # type: ignore[import-untyped]

        fsspec.get_filesystem_class(kind)
    except ValueError:
        near = did_you_mean(kind, fsspec.available_protocols())
        raise ConfigError(
            f"{scheme}://: no kind of store that is known{near}: s3, gs, az, http, https, file or another of fsspec's"
        ) from None
    except ImportError as error:
        raise ConfigError(f"{scheme}://: {_fix(kind, str(error))}") from None
    try:
        system, name = fsspec.core.url_to_fs(f"{kind}{there}{rest}")
    except (ImportError, ValueError) as error:
        raise ConfigError(f"{scheme}://: {error}") from None
    _held[id(system)] = system
    return system, name


def _fix(kind: str, error: str) -> str:
    """What to install for a kind of store that fsspec knows."""
    from fsspec.registry import known_implementations  # type: ignore[import-untyped]

    package = known_implementations.get(kind, {}).get("class", "fsspec").partition(".")[0]
    if kind in ("s3", "s3a", "http", "https"):
        return "requires vidtrain's extra for stores: pip install 'vidtrain[store]'"
    return error if package == "fsspec" else f"requires the package {package}: pip install {package}"


def _within(seconds: float, work: Callable[[threading.Event], _T]) -> _T:
    """What `work` returns; TimeoutError where that takes longer: it is then left alone and told so by the event."""
    abandoned = threading.Event()
    found: list[_T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            found.append(work(abandoned))
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not found:
        abandoned.set()
        raise TimeoutError
    return found[0]

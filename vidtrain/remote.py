"""Files in an object store or on a web server: fetched once into a folder of this machine that keeps to a size.

    s3://bucket/shards/train-000003.tar@1536+203984/archery/v_12.mp4    a member of a tar file: one range read
    https://server/clips/v_12.mp4                                       a whole file

Whatever fsspec knows is a store. What was fetched is a plain file from then on, which every reader reads as any other.
Videos of a dataset are taken to stay as they are; what a user names (a checkpoint, a list, a clip) is asked for again.
Where it lies is the machine's matter and not that of a run's configuration, and so are keys and passwords:

    VIDTRAIN_CACHE            its folder; else vidtrain in XDG_CACHE_HOME or ~/.cache
    VIDTRAIN_CACHE_GB         its size, 50; what was not used for the longest time is deleted
    VIDTRAIN_STORE_SECONDS    how long one try may take, 60; there are three

Several processes may share a cache: files get their names when they are whole. It holds to its size but for what the
processes have fetched since each last looked, a hundredth of it each.

A process that knows what it will need says so by `fetch_ahead`: `Cache.fetch` then waits for what is on its way.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final, TypeVar

from filelock import FileLock

from vidtrain.errors import ConfigError, DataError, VideoError
from vidtrain.members import BLOCK, check_header, name_of, stretch_of
from vidtrain.runs.atomic import settle
from vidtrain.terminal import printable

_T = TypeVar("_T")

_URL: Final = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_SECRET: Final = re.compile(r"://[^/@]*@|\?")
_TRIES: Final = 3
_PAUSE: Final = 0.5  # seconds before the second try, twice that before the third
_BEFORE: Final = 3 * BLOCK  # bytes read before a member: its header, and the extended one of a long name
_KEPT: Final = 0.9  # share of the size that is left when files are deleted
_THREADS: Final = 8  # files that a process fetches at a time ahead of their use
_MOST_AHEAD: Final = 1 << 26  # bytes of members that are fetched ahead, since they are held in memory meanwhile
_UNKNOWN: Final = 1 << 23  # bytes that a whole file counts as, whose size nobody has asked for
_BYTES_A_SECOND: Final = 1e6  # that a store gives at least of what may be large
_SEEN: Final = ("etag", "md5", "digest", "modified", "mtime", "updated", "created", "generation")
_written: dict[str, int] = {}  # bytes that this process has fetched into a cache since it last looked


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


@dataclass(frozen=True)
class Cache:
    """Where fetched files lie. folder: made when the first is fetched. most: bytes. seconds: that one try may take."""

    folder: Path
    most: int
    seconds: float

    @classmethod
    def of_this_machine(cls) -> Cache:
        """The one that the environment asks for; raises ConfigError."""
        home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        folder = os.environ.get("VIDTRAIN_CACHE") or f"{home}/vidtrain"
        most = int(_positive("VIDTRAIN_CACHE_GB", 50) * 10**9)
        return cls(Path(folder).expanduser().absolute(), most, _positive("VIDTRAIN_STORE_SECONDS", 60))

    def fetch(self, path: str) -> Path:
        """The file with the bytes of `path`, a file or a member of a tar file in a store, fetched unless it is there.

        Raises:
            VideoError: it cannot be fetched.
            ConfigError: fsspec lacks what it needs for this kind of store.
        """
        with _lock:
            coming = _coming.pop(path, None)
        if coming is not None:
            file = coming.result()
            if self.has(path):  # else it had to make room meanwhile
                return file
        return self._fetch_now(path)

    def current(self, url: str) -> Path:
        """A whole file as the store has it now: fetched unless the store says that the copy here is of the same one.

        Raises:
            VideoError, ConfigError: as `fetch`.
        """
        seen, size = _tried(url, self.seconds, lambda: _seen(url))
        file = self._file(url)
        note = file.with_suffix(".seen")  # what the store said of the copy
        with suppress(OSError):
            if seen and note.read_text(encoding="utf-8") == seen and self.has(url):
                return file
        self._write(file, read_bytes(url, self.seconds + size / _BYTES_A_SECOND), url)
        note.write_text(seen, encoding="utf-8")
        return file

    def has(self, path: str) -> bool:
        """Whether it lies here, from now on used last."""
        try:
            os.utime(self._file(path))
        except OSError:
            return False
        return True

    def _fetch_now(self, path: str) -> Path:
        file = self._file(path)
        if not self.has(path):
            self._write(file, read_bytes(path, self.seconds), path)
        return file

    def _file(self, path: str) -> Path:
        name = hashlib.sha256(path.encode("utf-8", "surrogateescape")).hexdigest()
        return self.folder / "files" / name[:2] / f"{name}{Path(path).suffix[:16]}"

    def _write(self, file: Path, content: bytes, path: str) -> None:
        part = file.with_name(f".{file.name}.{os.getpid()}-{threading.get_ident()}.part")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            part.write_bytes(content)
            settle(part, file)
        except OSError as error:
            with suppress(OSError):
                part.unlink(missing_ok=True)
            raise VideoError(path, f"cannot be kept in {self.folder} ({error.strerror or error})") from None
        key = str(self.folder)
        _written[key] = _written.get(key, self.most) + len(content)  # looks at its first file, too
        if _written[key] > self.most // 100:
            _written[key] = 0
            self._shrink()

    def _shrink(self) -> None:
        """Delete what was not used for the longest time, where all together is too large."""
        with FileLock(self.folder / ".lock"):
            found = []
            for file in (self.folder / "files").glob("*/*"):
                with suppress(OSError):  # deleted by somebody else
                    status = file.stat()
                    found.append((status.st_mtime_ns, status.st_size, file))
            total = sum(size for _, size, _ in found)
            if total <= self.most:
                return
            for _, size, file in sorted(found)[:-1]:  # never the one that was fetched just now
                with suppress(OSError):
                    file.unlink()
                total -= size
                if total <= _KEPT * self.most:
                    return


# ---------------------------------------------------------------- ahead of their use


_coming: dict[str, Future[Path]] = {}
_orders: SimpleQueue[tuple[Future[Path], Cache, str]] = SimpleQueue()
_lock = threading.Lock()
_threads: list[threading.Thread] = []


def fetch_ahead(paths: Iterable[str]) -> None:
    """Begin to fetch files into this machine's cache, in this order, and forget what was asked for before them.

    What goes wrong is raised by `Cache.fetch`, if it is called for the file at all.
    """
    cache, size = Cache.of_this_machine(), 0
    wanted: list[str] = []
    for path in dict.fromkeys(paths):
        size += stretch_of(path).size or _UNKNOWN
        if size > _MOST_AHEAD:
            break
        wanted.append(path)
    with _lock:
        for path in _coming.keys() - set(wanted):
            _coming.pop(path).cancel()
        missing = [path for path in wanted if path not in _coming and not cache.has(path)]
        for path in missing:
            future: Future[Path] = Future()
            _coming[path] = future
            _orders.put((future, cache, path))
        for _ in range(min(_THREADS, len(missing)) - len(_threads)):
            # no pool of concurrent.futures, which an ending process waits for: a store may not answer
            _threads.append(threading.Thread(target=_carry_out, daemon=True))
            _threads[-1].start()


def _carry_out() -> None:
    while True:
        future, cache, path = _orders.get()
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(cache._fetch_now(path))
            except BaseException as error:
                future.set_exception(error)


def _after_fork() -> None:
    """Threads do not come along."""
    global _lock, _orders
    _lock, _orders = threading.Lock(), SimpleQueue()
    _coming.clear()
    _threads.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


# ---------------------------------------------------------------- the store


def read_bytes(path: str, seconds: float) -> bytes:
    """The bytes of a file or a member in a store, in three tries of `seconds` each.

    Raises:
        VideoError: it is not there, is not allowed, or the store does not answer.
        ConfigError: fsspec lacks what it needs for this kind of store.
    """
    return _tried(path, seconds, lambda: _read(path))


def local_file(path: str | os.PathLike[str]) -> Path:
    """The file itself, or, of an address in a store, this machine's copy, see `Cache.current`."""
    return Cache.of_this_machine().current(os.fspath(path)) if is_url(path) else Path(path)


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


def _seen(url: str) -> tuple[str, int]:
    """What shows that a file has not changed, "" where the store says nothing of the kind; and its size in bytes."""
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


def _positive(name: str, default: float) -> float:
    text = os.environ.get(name, "")
    try:
        value = float(text) if text else default
    except ValueError:
        value = 0.0
    if not 0 < value < 10**9:
        raise ConfigError(f"{name}={text}: expected a number above 0")
    return value

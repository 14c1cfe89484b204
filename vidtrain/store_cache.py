"""This machine's copies of what lies in stores: fetched once into a folder that keeps to a size.

What was fetched is a plain file from then on, which every reader reads as any other. Videos of a dataset are taken to
stay as they are; what a user names (a checkpoint, a list, a clip) is asked for again. Where copies lie is the machine's
matter and not that of a run's configuration:

    VIDTRAIN_CACHE            their folder; else vidtrain in XDG_CACHE_HOME or ~/.cache
    VIDTRAIN_CACHE_GB         its size, 50; what was not used for the longest time is deleted
    VIDTRAIN_STORE_SECONDS    how long one try may take, 60; there are three

Several processes may share a cache: files get their names when they are whole. It holds to its size but for what the
processes have fetched and not yet told each other of, a thousandth of it each.

A process that knows what it will need says so by `fetch_ahead`: `Cache.fetch` then waits for what is on its way.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from queue import SimpleQueue
from typing import Final

from filelock import FileLock

from vidtrain.errors import CheckpointError, ConfigError, VideoError
from vidtrain.remote import NoFileError, check_url, fetch, is_url, seen_of
from vidtrain.runs.atomic import settle
from vidtrain.tar_members import stretch_of

_KEPT: Final = 0.9  # share of the size that is left when files are deleted
_SKEW: Final = 60 * 10**9  # nanoseconds by which the clocks of machines that share the folder may differ
_THREADS: Final = 8  # files that a process fetches at a time ahead of their use
_MOST_AHEAD: Final = 1 << 26  # bytes of members that are fetched ahead, since they are held in memory meanwhile
_UNKNOWN: Final = 1 << 23  # bytes that a whole file counts as, whose size nobody has asked for
_BYTES_A_SECOND: Final = 1e6  # that a store gives at least of what may be large
_written: dict[str, int] = {}  # bytes that this process has fetched into a cache and not told the others of


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
        seen, size = seen_of(url, self.seconds)
        file = self._file(url)
        note = file.with_suffix(".seen")  # what the store said of the copy
        with suppress(OSError):
            if seen and note.read_text(encoding="utf-8") == seen and self.has(url):
                return file
        self._check_most(url, size, f"has {size:,} bytes")
        self._write(file, url, self.seconds + size / _BYTES_A_SECOND)
        with writing(note):
            note.write_text(seen, encoding="utf-8")
        return file

    def current_folder(self, url: str, one_of: Sequence[str], beside: Sequence[str]) -> Path | None:
        """A folder here with the first of the files `one_of` that a folder in a store has, and all of `beside` that it
        has; None where it has none of `one_of`. Arguments and errors as of `folder_or_file`."""
        home = url.rstrip("/")
        copies = dict([found] if (found := self._first(home, one_of)) else [])
        if not copies:
            return None
        for name in beside:
            copies |= dict([found] if (found := self._first(home, [name])) else [])
        if not all(copy.exists() for copy in copies.values()):
            self._check_most(url, self.most + 1, f"has {', '.join(copies)}, together more")
        folder = self.folder / "folders" / hashlib.sha256("\n".join([home, *one_of]).encode()).hexdigest()
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            for name in {*one_of, *beside} - copies.keys():
                (folder / name).unlink(missing_ok=True)
            for name, copy in copies.items():
                link = folder / f".{name}.{os.getpid()}-{threading.get_ident()}"
                link.symlink_to(copy)
                link.replace(folder / name)
        return folder

    def _check_most(self, path: str, size: int, has: str) -> None:
        """Raise VideoError for more bytes than the cache holds, of which nothing would be left when it is read."""
        if size > self.most:
            raise VideoError(path, f"{has}; the cache holds {self.most:,}: raise VIDTRAIN_CACHE_GB")

    def _first(self, folder: str, names: Sequence[str]) -> tuple[str, Path] | None:
        for name in names:
            with suppress(NoFileError):
                return name, self.current(f"{folder}/{name}")
        return None

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
            self._write(file, path, self.seconds)
        return file

    def _file(self, path: str) -> Path:
        name = hashlib.sha256(path.encode("utf-8", "surrogateescape")).hexdigest()
        return self.folder / "files" / name[:2] / f"{name}{Path(path).suffix[:16]}"

    def _write(self, file: Path, path: str, seconds: float) -> None:
        def keep(pieces: Iterator[bytes]) -> tuple[Path, int]:
            # each try has its own thread, and one that was left alone may still write
            part, size = file.with_name(f".{file.name}.{os.getpid()}-{threading.get_ident()}.part"), 0
            piece: bytes | None = next(pieces, b"")  # nothing is made here before something has come
            try:
                with self._keeping(path):
                    file.parent.mkdir(parents=True, exist_ok=True)
                    target = part.open("wb")
                with target:
                    while piece is not None:
                        with self._keeping(path):
                            target.write(piece)
                            target.flush()
                        size += len(piece)
                        self._check_most(path, size, f"has {size:,} bytes or more")
                        piece = next(pieces, None)
            except BaseException:
                with suppress(OSError):
                    part.unlink(missing_ok=True)
                raise
            return part, size

        part, size = fetch(path, seconds, self.most, keep)
        with self._keeping(path):
            settle(part, file)
        key = str(self.folder)
        _written[key] = _written.get(key, 0) + size
        if _written[key] > self.most // 1000:
            self._account(_written.pop(key))

    @contextmanager
    def _keeping(self, path: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise VideoError(path, f"cannot be kept in {self.folder} ({error.strerror or error})") from None

    def _account(self, size: int) -> None:
        """Take `size` bytes from the room that all processes share; where there is none left, look what is there.

        Looking takes a second for 200,000 files, so that it must not be done by each of many processes all the time.
        """
        file = self.folder / ".room"  # "MOST LEFT", bytes
        with ExitStack() as held:
            with writing(self.folder / ".lock"):
                held.enter_context(FileLock(self.folder / ".lock"))
            try:
                most, left = map(int, file.read_text(encoding="ascii").split())
            except (OSError, ValueError):
                most, left = 0, 0
            left -= size
            if most != self.most or left < 0:
                left = self._shrink()
            with writing(file):
                file.write_text(f"{self.most} {left}", encoding="ascii")

    def _shrink(self) -> int:
        """Delete what was not used for the longest time, where all together is too large; returns the room left."""
        room, found = self.folder / ".room", []
        with writing(room):
            room.touch()  # its time is now, by the clock that the others have theirs from: a file server's, perhaps
            soon = room.stat().st_mtime_ns + _SKEW
        for file in (self.folder / "files").glob("*/*"):
            with suppress(OSError):  # deleted by somebody else
                status = file.stat()
                used = status.st_mtime_ns
                # behind what was fetched just now, where the clock was ahead before
                found.append((used if used < soon else 0, status.st_size, file))
        total = sum(size for _, size, _ in found)
        if total > self.most:
            for _, size, file in sorted(found)[:-1]:  # never the one that was fetched just now
                with suppress(OSError):
                    file.unlink()
                total -= size
                if total <= _KEPT * self.most:
                    break
        return max(0, self.most - total)


def local_file(path: str | os.PathLike[str]) -> Path:
    """The file itself, or, of an address in a store, this machine's copy, see `Cache.current`."""
    return Cache.of_this_machine().current(os.fspath(path)) if is_url(path) else Path(path)


def folder_or_file(path: str | os.PathLike[str], one_of: Sequence[str], beside: Sequence[str] = ()) -> Path:
    """As `local_file`, where an address may also be that of a folder with one of certain files.

    A name without a suffix is taken for a folder's first, as web servers answer such a one with a page.

    Args:
        one_of: names of files; the first that is there comes along.
        beside: of files that come with it where they are there.

    Raises:
        VideoError, ConfigError: as `Cache.current`; of a folder without these files, that it is no file.
    """
    url = os.fspath(path)
    if not is_url(url):
        return Path(url)
    check_url(url)
    cache = Cache.of_this_machine()
    if not PurePosixPath(url).suffix or url.endswith("/"):
        return cache.current_folder(url, one_of, beside) or cache.current(url)
    try:
        return cache.current(url)
    except NoFileError:
        folder = cache.current_folder(url, one_of, beside)
        if folder is None:
            raise
        return folder


@contextmanager
def named_as(path: str | os.PathLike[str], copy: Path) -> Iterator[None]:
    """Around code that reads this machine's copy of what is at `path`, by which a CheckpointError then calls it."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(as_named(str(error), path, copy)) from None


def as_named(text: str, path: str | os.PathLike[str], copy: Path) -> str:
    """The text with the address in the place of this machine's copy of it."""
    return text.replace(str(copy), os.fspath(path).rstrip("/"))


@contextmanager
def writing(file: Path) -> Iterator[None]:
    """Write the cache's own `file`; raises ConfigError, naming it, for an OSError on the way."""
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"{file}: cannot be written ({error.strerror or error}): make room or remove it, or give another folder "
            "for what is fetched from stores, VIDTRAIN_CACHE=FOLDER"
        ) from None


def _positive(name: str, default: float) -> float:
    text = os.environ.get(name, "")
    try:
        value = float(text) if text else default
    except ValueError:
        value = 0.0
    if not 0 < value < 10**9:
        raise ConfigError(f"{name}={text}: expected a number above 0")
    return value


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

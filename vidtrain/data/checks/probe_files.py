"""Probing many files, and remembering what was found: a second run looks only at what is new or has changed.

    <folder>/probes.jsonl    a line per file, appended as it comes: whatever kills the run, what is there is kept

A line counts as long as the file has its size and its time of change, the reader is the same and was to look no
deeper. A folder of images has the time of the folder itself, which changes with files added or removed.
"""

from __future__ import annotations

import stat
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from vidtrain.data.checks.probe_video import Depth, Probe, probe
from vidtrain.data.jobs.journal import Journal
from vidtrain.data.jobs.parts import Part
from vidtrain.data.jobs.pool import Executor, Outcome, run
from vidtrain.data.jobs.progress import ProgressBar
from vidtrain.data.readers.base import VideoReader
from vidtrain.data.readers.timeline import unpacked
from vidtrain.tar_members import size_of, stretch_of
from vidtrain.untrusted_data import as_dataclass, has_types

FILE: Final = "probes.jsonl"
_VERSION: Final = 2  # 2: with the times of the frames
_FIELDS: Final = asdict(Probe()).keys()
_MB: Final = 1 << 20


@dataclass(frozen=True)
class Settings:
    """How files are probed.

    reader: opens them; name: tells it from other readers.
    depth: how much of a file is looked at.
    timeout: seconds that a file may take, and one more for each MB of it.
    """

    reader: VideoReader
    name: str
    depth: Depth
    timeout: float

    def limit(self, size: int) -> float:
        """Seconds for a file of `size` bytes."""
        return self.timeout + size / _MB


@dataclass(frozen=True)
class _Stat:
    """What shows that a file is the one that was probed."""

    length: int
    mtime: int
    ctime: int

    @classmethod
    def of(cls, path: str) -> _Stat:
        try:
            found = Path(stretch_of(path).file).stat()
            size = 0 if stat.S_ISDIR(found.st_mode) else size_of(path)
        except (OSError, ValueError):
            return cls(0, 0, 0)
        return cls(size, found.st_mtime_ns, found.st_ctime_ns)


class Probes:
    """The probes of a folder, in memory and on disk."""

    def __init__(self, folder: str | Path, part: Part | None = None) -> None:
        """Read what is there; the folder is made when something is to be kept. part: of the work that this run does."""
        self._journal = Journal(Path(folder) / FILE, "path", _record_of, dict, part)
        self.file = self._journal.file

    def __len__(self) -> int:
        return len(self._journal.entries)

    def take_in_parts(self) -> None:
        """See `Journal.take_in_parts`."""
        with closing(self._journal):
            self._journal.take_in_parts()

    def _known(self, path: str, stats: _Stat, settings: Settings) -> Probe | None:
        """What is known of a file (an absolute path) as it is now; None when it has to be probed."""
        record = self._journal.entries.get(path)
        return None if record is None else _usable(record, stats, settings)

    def complete(
        self, paths: Sequence[str], settings: Settings, *, workers: int | Executor | None, what: str
    ) -> Generator[Found, None, None]:
        """Probe the files that are not known, and keep what comes.

        Args:
            paths: absolute, each once.
            settings: how.
            workers: processes, or what has others do it.
            what: the word before the progress bar.

        Yields:
            Each path once, the known ones first.
        """
        new: dict[str, _Stat] = {}  # as they are before they are read, in case they change meanwhile
        bad = 0
        for path in paths:
            stats = _Stat.of(path)
            known = self._known(path, stats, settings)
            if known is None:
                new[path] = stats
            else:
                bad += known.error is not None or known.corrupt > 0
                yield Found(path, known, known=True)
        if not new:
            return
        with closing(self._journal), ProgressBar(len(paths), what, done=len(paths) - len(new)) as progress:
            for path, found in _probe_all(new, settings, workers, progress):
                bad += found.error is not None or found.corrupt > 0
                progress.note = f"{bad} cannot be read or have broken frames" if bad else ""
                self._journal.add(_record(path, new[path], settings, found))
                yield Found(path, found, known=False)


@dataclass(frozen=True)
class Found:
    """What `Probes.complete` yields. known: from an earlier run."""

    path: str
    probe: Probe
    known: bool


def _probe_all(
    files: Mapping[str, _Stat], settings: Settings, workers: int | Executor | None, progress: ProgressBar
) -> Iterator[tuple[str, Probe]]:
    function = partial(probe, reader=settings.reader, depth=settings.depth)
    paths = list(files)

    def limit(path: str) -> float:
        return settings.limit(files[path].length)

    with closing(run(function, paths, workers=workers, timeout=limit, progress=progress)) as outcomes:
        for outcome in outcomes:
            yield paths[outcome.index], _result(outcome)


def _result(outcome: Outcome[Probe]) -> Probe:
    return outcome.value if outcome.value is not None else Probe(error=outcome.error, fault=outcome.fault)


_NOTHING: Final = Probe()


def _record(path: str, stats: _Stat, settings: Settings, found: Probe) -> dict[str, Any]:
    """A line of the file: of the probe only what differs from one that knows nothing."""
    content = {name: value for name, value in asdict(found).items() if value != getattr(_NOTHING, name)}
    return {"v": _VERSION, "path": path, **asdict(stats), **_asked(settings, stats), **content}


def _asked(settings: Settings, stats: _Stat) -> dict[str, Any]:
    return {"reader": settings.name, "depth": int(settings.depth), "limit": settings.limit(stats.length)}


def _usable(record: dict[str, Any], stats: _Stat, settings: Settings) -> Probe | None:
    asked = _asked(settings, stats)
    same = record["length"] == stats.length and record["mtime"] == stats.mtime and record["reader"] == asked["reader"]
    if not same or record["depth"] < asked["depth"]:
        return None
    fault = record.get("fault", "")
    if fault == "timeout" and record["limit"] < asked["limit"]:
        return None
    # a crash may have been another program's hunger for memory; permissions change the ctime and nothing else
    if fault == "crash" or (fault and record["ctime"] != stats.ctime):
        return None
    try:
        found = as_dataclass(Probe, {name: record[name] for name in _FIELDS & record.keys()})
        unpacked(found.times, found.frames)
    except ValueError:
        return None
    return found


def _record_of(content: Any) -> dict[str, Any]:
    """A line of this version; what it says of the probe is looked at when it is needed."""
    if not isinstance(content, dict) or content.get("v") != _VERSION or not has_types(content, **_KEYS):
        raise ValueError("another version")
    return content


_KEYS: Final[dict[str, Any]] = {
    "path": str,
    "reader": str,
    "limit": (int, float),
    **dict.fromkeys(("length", "mtime", "ctime", "depth"), int),
}

"""What is finished, so that a second run goes on where the first one ended; and what came of each file, as a table.

The journal is a file of lines of JSON, only ever appended to, after what a line tells of is safely on the disk. A run
that is killed loses the line it was at; of several lines with one key the last one holds. Parts of the work that are
done beside each other write a file each (see `parts`), and all are read.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Generic, TextIO, TypeVar

from vidtrain.data.jobs.parts import Part, files_of_parts
from vidtrain.errors import DataError
from vidtrain.runs.atomic import named_when_full, to_disk, write_csv
from vidtrain.tar_members import size_of, stretch_of
from vidtrain.untrusted_data import parse_json

Entry = TypeVar("Entry")

REPORT: Final = "report.csv"


@dataclass(frozen=True)
class Stamp:
    """What shows that a source has not changed. A folder of images: bytes in all and the latest change.

    size: bytes. mtime_ns: nanoseconds. folder: whether it is one.
    """

    size: int
    mtime_ns: int
    folder: bool = False


def stamp_of(path: str) -> Stamp | None:
    """The stamp of a file or a folder; None where there is nothing to be read."""
    try:
        found = Path(stretch_of(path).file).stat()
        if not stat.S_ISDIR(found.st_mode):
            return Stamp(size_of(path), found.st_mtime_ns)
        with os.scandir(path) as entries:
            inside = [entry.stat() for entry in entries]
    except (OSError, ValueError):
        return None
    return Stamp(sum(s.st_size for s in inside), max(s.st_mtime_ns for s in (found, *inside)), folder=True)


class Journal(Generic[Entry]):
    """The entries of a file and of those that parts have written, in memory and on disk.

    entries: by key, the last of each. replaced: those that a later one from a part stands for.
    """

    def __init__(
        self,
        file: Path,
        key: str,
        read: Callable[[Any], Entry],
        write: Callable[[Entry], dict[str, Any]] = asdict,  # type: ignore[assignment]
        part: Part | None = None,
    ) -> None:
        """Read what is there; nothing is written before the first entry is added.

        Args:
            file: of runs over all the work.
            key: the value of a line that names it.
            read: from what a line holds, whoever wrote it; ValueError for what is no entry.
            write: the other way.
            part: that this run does; its entries go to a file of its own.
        """
        self.file = file
        self.entries: dict[str, Entry] = {}
        self._key, self._read, self._write, self._part = key, read, write, part
        self._out: TextIO | None = None
        self.replaced: list[Entry] = []
        for one in (file, *files_of_parts(file)):
            found = self._entries_of(one)
            self.replaced += [self.entries[key] for key in self.entries.keys() & found.keys()]
            self.entries |= found

    def _entries_of(self, file: Path) -> dict[str, Entry]:
        found: dict[str, Entry] = {}
        if not file.is_file():
            return found
        with file.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                try:
                    content = parse_json(line)
                    found[content[self._key]] = self._read(content)
                except (ValueError, TypeError, KeyError):  # also the half line of a run that was killed
                    continue
        return found

    def take_in_parts(self) -> None:
        """Write what parts have finished into the one file, and remove theirs. For the only writer of the folder."""
        for file in files_of_parts(self.file):
            for entry in self._entries_of(file).values():
                self.add(entry)
            if self._out is not None:
                to_disk(self._out)
            file.unlink()

    def add(self, entry: Entry) -> None:
        if self._out is None:
            self._out = _appending(self.file if self._part is None else self._part.file(self.file))
        content = self._write(entry)
        self.entries[content[self._key]] = entry
        # escapes all but ASCII, so that names that are not UTF-8 come through, too
        with named_when_full(self.file):
            self._out.write(json.dumps(content) + "\n")
            self._out.flush()  # a line that the system has is not lost when this process is killed

    def close(self) -> None:
        if self._out is not None:
            with named_when_full(self.file):
                self._out.close()
            self._out = None


def _appending(file: Path) -> TextIO:
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.is_symlink():
        raise DataError(f"{file}: is a link to {file.readlink()}, and lines would be written there: remove it")
    out = file.open("a+", encoding="ascii", errors="replace")
    end = out.seek(0, os.SEEK_END)
    if end:
        out.seek(end - 1)
        if out.read(1) != "\n":  # the run before was killed within a line
            out.write("\n")
    return out


def write_report(folder: Path, columns: Sequence[str], lines: Iterable[Mapping[str, Any]]) -> None:
    """<folder>/report.csv: a line per video; a column that a line has not stays empty."""
    write_csv(folder / REPORT, columns, ([line.get(column, "") for column in columns] for line in lines))

"""A work list in parts, which processes on several machines do beside each other in one folder.

Part K of N has every Nth item of the list, from the Kth on: which ones depends on the list alone, not on what is
finished. Each part has a lock and a journal of its own, so that no file has two writers:

    <folder>/.lock                 held by a run over the whole list; by a part only while it begins
    <folder>/.lock.3-of-8          held by part 3 of 8
    <folder>/copies.jsonl          of runs over the whole list
    <folder>/copies.3-of-8.jsonl   of that part; the next run over the whole list takes it into copies.jsonl

Every run reads all the journals. A whole run does not begin while a part is at work, nor parts of two divisions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from vidtrain.errors import ConfigError, VidtrainError
from vidtrain.runs.sole_writer import LOCK, is_held, sole_writer
from vidtrain.types import BadVideo

Item = TypeVar("Item")

_PART: Final = re.compile(r"([0-9]{1,6})/([0-9]{1,6})")
_NAMED: Final = re.compile(r"\.([0-9]{1,6})-of-([0-9]{1,6})(?=\.|\Z)")


@dataclass(frozen=True)
class Part:
    """number: 1 to count."""

    number: int
    count: int

    @classmethod
    def of(cls, text: str) -> Part:
        """jobs.part as it is given; raises ConfigError."""
        found = _PART.fullmatch(text)
        part = None if found is None else cls(int(found[1]), int(found[2]))
        if part is None or not 1 <= part.number <= part.count:
            raise ConfigError(
                f"jobs.part={text}: expected K/N, such as 3/8 for the third of eight parts, K from 1 to N"
            )
        return part

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """Those of a list that are this part's."""
        return items[self.number - 1 :: self.count]

    def file(self, whole: Path) -> Path:
        """Of a file of the whole run, this part's own: copies.jsonl -> copies.3-of-8.jsonl."""
        return whole.with_name(f"{whole.stem}.{self.number}-of-{self.count}{whole.suffix}")


@dataclass(frozen=True)
class PartMade:
    """What came of a part. made, kept: files made now, and those finished before. bad: what could not be made."""

    made: int
    kept: int
    bad: tuple[BadVideo, ...]


def files_of_parts(whole: Path) -> list[Path]:
    """Those of a file that parts have written, the one written last at the end."""
    pattern = re.compile(f"{re.escape(whole.stem)}{_NAMED.pattern}{re.escape(whole.suffix)}")
    found = []
    for file in whole.parent.glob(f"{whole.stem}.*-of-*{whole.suffix}"):
        if pattern.fullmatch(file.name) and file.is_file():
            found.append((file.stat().st_mtime_ns, file.name, file))
    return [file for _, _, file in sorted(found)]


@contextmanager
def writer(folder: Path, key: str, part: Part | None, begin: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Hold `folder` as its only writer (part: None), or as that of one part of the work.

    Args:
        folder: is there.
        key: that it was given by, for the message.
        begin: called first, while no other process begins: to look at what all parts share, and to write it.

    Raises:
        VidtrainError: a process is writing there that does not go with this one.
    """
    with ExitStack() as held, ExitStack() as whole:
        whole.enter_context(sole_writer(folder, key))
        _refuse_others(folder, key, part)
        if part is not None:
            held.enter_context(sole_writer(folder, key, f"{LOCK}.{part.number}-of-{part.count}"))
        begin()
        if part is not None:
            whole.close()
        yield


def _refuse_others(folder: Path, key: str, part: Part | None) -> None:
    for lock in folder.glob(f"{LOCK}.*-of-*"):
        found = _NAMED.search(lock.name)
        other = None if found is None else Part(int(found[1]), int(found[2]))
        if other is None or (part is not None and other.count == part.count):
            continue
        if is_held(folder, lock.name):
            way_out = "wait for its end" + ("" if part is None else f", or make it parts of {other.count}, too")
            raise VidtrainError(f"{key}={folder}: part {other} of it is at work there: {way_out}")
        if part is None:  # a part begins with the lock of the folder, which this run has
            lock.unlink(missing_ok=True)

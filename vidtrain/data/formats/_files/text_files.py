"""Reading annotation files: encodings, line ends, JSON, bad rows that are named by file and line."""

from __future__ import annotations

import functools
import gc
import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, overload

from vidtrain.errors import DataError, did_you_mean
from vidtrain.remote import check_url, is_url
from vidtrain.store_cache import local_file
from vidtrain.untrusted_data import check_regular

_Options = ParamSpec("_Options")
_Result = TypeVar("_Result")

_FILLING = " \t\x0b\x0c\x1c\x1d\x1e\x1f\x85\xa0\u2002\u2003\u2009\u3000" + ',;"'  # all there is in an empty row
_SEPARATOR_LINE = re.compile(r'"?sep=[,;\t]"?[,;\s]*')
_DIGITS = 18  # of the longest number that a list has; Python itself raises ValueError for thousands of them
_NUMBERED = re.compile(rf"(\d{{1,{_DIGITS}}})\s+(\S.*)")


def find_file(name: str | Path, root: Path | str, key: str) -> Path:
    """An annotation file the user named: below the data root, or else from the working directory.

    Args:
        name: as the user wrote it; or an address in a store.
        root: the root of the dataset, or its address in a store.
        key: the option it was given in, for the message.
    """
    if is_url(name):
        return local_file(name)
    name = Path(name).expanduser()
    if is_url(root):
        return name if name.is_file() else local_file(f"{str(root).rstrip('/')}/{name}")
    root = Path(root)
    for path in (root / name, name):
        if path.is_file():
            return path
        if path.exists() and not path.is_dir():
            raise DataError(f"{path}: is not a regular file")
    folder = (root / name).parent
    near = did_you_mean(name.name, [p.name for p in folder.iterdir()] if folder.is_dir() else [])
    raise DataError(f"{key}={name}: no such file below {root} or in the working directory{near}")


@overload
def check_root(root: str | Path) -> Path: ...


@overload
def check_root(root: str | Path, *, stores: bool) -> Path | str: ...


def check_root(root: str | Path, *, stores: bool = False) -> Path | str:
    """The root as a Path, ~ being the user's home, or a DataError when it is not a folder.

    stores: an address in a store will do, too, and comes back as it is.
    """
    if stores and is_url(root):
        check_url(str(root))
        return str(root)
    if is_url(root):
        raise DataError(
            f"{root}: this format reads a folder of this machine; of a store data=shards and data=index read what "
            "`vidtrain data shard` has written, and data=list and data=table name videos there"
        )
    root = Path(root).expanduser()
    if not root.exists():
        raise DataError(f"{root}: no such folder; set data.root to where the videos are")
    if not root.is_dir():
        raise DataError(f"{root}: is a file; set data.root to the folder with the videos")
    return root


def read_text(path: Path) -> str:
    """The text of a file, with line ends as in Python. UTF-8, with or without byte order mark.

    Bytes that are not UTF-8 come back as they were when the text is used as a file name.
    """
    try:
        check_regular(path)
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    if data.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in data:
        raise DataError(f"{path}: not UTF-8 text; save it as UTF-8")
    text = data.decode("utf-8", "surrogateescape").removeprefix("\ufeff")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_lines(path: Path) -> list[tuple[int, str]]:
    """(line number from 1, text) of each line that is not blank, see `read_text`. Any line end will do.

    Spreadsheets write separators for empty rows, and Excel may name its separator in a first line of its own.
    """
    # not splitlines(): it also cuts at characters that file names may hold
    lines = read_text(path).split("\n")
    if _SEPARATOR_LINE.fullmatch(lines[0]):
        lines[0] = ""
    return [(number, line) for number, line in enumerate(lines, 1) if line.strip(_FILLING)]


def whole(text: str) -> int | None:
    """The number that decimal digits are; None for other text, and for more digits than any list has."""
    return int(text) if text.isdecimal() and len(text) <= _DIGITS else None


def without_gc(function: Callable[_Options, _Result]) -> Callable[_Options, _Result]:
    """Switch the garbage collector off while a function makes objects by the million.

    The collector looks through all of them again and again as they become more: a third of the time that a list of
    240,000 videos takes. None of them is garbage before the function is done.
    """

    @functools.wraps(function)
    def quick(*args: _Options.args, **options: _Options.kwargs) -> _Result:
        on = gc.isenabled()
        gc.disable()
        try:
            return function(*args, **options)
        finally:
            if on:
                gc.enable()

    return quick


def read_json_text(path: Path) -> Any:
    """What an annotation file of JSON holds, however large it is; a DataError with the line where it is none."""
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{error.lineno}: not JSON: {error.msg} (column {error.colno})") from None
    except ValueError:
        raise DataError(f"{path}: not an annotation file: a number of thousands of digits") from None
    except RecursionError:
        raise DataError(f"{path}: not an annotation file: lists within lists without end") from None


def find_list(root: Path, key: str, pattern: str, given: str | None, folders: Sequence[str]) -> Path | None:
    """An annotation file: the one that the user named, or the one whose name fits.

    Args:
        root: of the dataset.
        key: the option that names the file, for messages.
        pattern: regular expression on the whole file name, capitals ignored.
        given: what the user set the option to; None: look for it.
        folders: where it may be below root, "." for root itself.

    Returns:
        None when none is given and none is there.

    Raises:
        DataError: the file given is not there, or several fit.
    """
    if given is not None:
        return find_file(given, root, key)
    fits = re.compile(pattern, re.IGNORECASE)
    homes = [root / name for name in folders]
    found = sorted({p for home in homes if home.is_dir() for p in home.iterdir() if fits.fullmatch(p.name)})
    if len(found) > 1:
        names = some([str(path.relative_to(root)) for path in found])
        raise DataError(f"{root}: several lists for {key} ({names}); choose with data.{key}")
    return found[0] if found else None


def read_classes(path: Path) -> tuple[str, ...]:
    """Class names, one per line, or `number name` as in UCF101's classInd.txt."""
    names = [line.strip() for _, line in read_lines(path)]
    if not names:
        raise DataError(f"{path}: empty; expected class names, one per line")
    numbered = {int(match.group(1)): match.group(2) for match in map(_NUMBERED.fullmatch, names) if match}
    # only when the numbers form a row: a class may be called "2 handed throw"
    if len(numbered) == len(names) and max(numbered) - min(numbered) == len(names) - 1 and min(numbered) < 2:
        names = [numbered[number] for number in sorted(numbered)]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(f"{path}: class {twice[0]!r} is there twice; class names must differ")
    return tuple(names)


@dataclass
class BadRows:
    """Collects the rows that cannot be used: the first is reported, and how many more there are."""

    first: str = ""
    count: int = 0

    def add(self, path: Path, number: int, line: str, expected: str, *, entry: bool = False) -> None:
        """Note line `number` of `path`, with its content and what was expected instead.

        entry: the number is that of an entry, in a file that has no lines of its own (JSON, Parquet), from 1.
        """
        self.count += 1
        if not self.first:
            shown = line if len(line) <= 120 else line[:117] + "..."
            where = f"{path}: entry {number}" if entry else f"{path}:{number}"
            self.first = f"{where}: got {shown!r}, expected {expected}"

    def check(self) -> None:
        """Raise a DataError when there is one."""
        if self.count:
            raise DataError(self.first + (f" (and {self.count - 1} more such lines)" if self.count > 1 else ""))


def some(names: Sequence[str], limit: int = 3) -> str:
    """'a, b, c, ...' for a message."""
    return ", ".join(names[:limit]) + (", ..." if len(names) > limit else "")

"""What comes out of a file is data: plain values of bounded size and depth, whoever wrote them."""

from __future__ import annotations

import json
import math
import stat
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import lru_cache
from pathlib import Path, PurePath, PurePosixPath
from types import UnionType
from typing import TYPE_CHECKING, Any, Final, TypeVar, Union, get_args, get_origin, get_type_hints

if TYPE_CHECKING:
    import numpy.typing as npt

Kind = TypeVar("Kind")

MOST_NODES: Final = 20_000
"""Values of a configuration, one that stands in several places counted each time. vidtrain writes about 150."""
MOST_DEPTH: Final = 16
"""Lists and mappings within each other. vidtrain writes 4."""
LONGEST_TEXT: Final = 65_536
"""Characters of a text or a key."""
_LARGEST_INT: Final = 1 << 63
_LARGEST_JSON: Final = 1 << 26  # bytes


def are_texts(value: Any) -> bool:
    """A list of texts, none of them longer than LONGEST_TEXT."""
    return type(value) is list and all(type(text) is str and len(text) <= LONGEST_TEXT for text in value)


def check_plain(value: Any, name: str) -> None:
    """Refuse anything but None, bool, int, float, str, and lists, tuples and dicts with text keys of these.

    Takes time in proportion to MOST_NODES at most: a list that contains another one twice, which contains a third one
    twice, and so on, is a small file and an endless walk.

    Args:
        name: of the value, to begin the names in messages with.

    Raises:
        ValueError: what is wrong and where, in one line.
    """
    seen, rest = 1, [(value, name, 0)]
    while rest:
        one, where, depth = rest.pop()
        kind = type(one)
        if kind is dict or kind is list or kind is tuple:
            seen += len(one)
            if seen > MOST_NODES:
                raise ValueError(f"{name}: more than {MOST_NODES} values")
            if depth == MOST_DEPTH:
                raise ValueError(f"{where[:80]}: lists and mappings more than {MOST_DEPTH} deep")
            if kind is dict:
                for key in one:
                    if type(key) is not str:
                        raise ValueError(f"{where[:80]}: expected text keys, got {str(key)[:40]!r}")
                    _check_text(key, f"a key of {where[:80]}")
                rest += [(inner, f"{where}.{key}"[:200], depth + 1) for key, inner in one.items()]
            else:
                rest += [(inner, f"{where}[{n}]"[:200], depth + 1) for n, inner in enumerate(one)]
        elif kind is str:
            _check_text(one, where[:80])
        elif kind is int:
            if not -_LARGEST_INT <= one < _LARGEST_INT:
                raise ValueError(f"{where[:80]}: a number of more than 64 bits")
        elif kind is float:
            if math.isnan(one):
                raise ValueError(f"{where[:80]}: not a number (nan)")
        elif one is not None and kind is not bool:
            raise ValueError(f"{where[:80]}: expected a plain value, got {kind.__module__}.{kind.__qualname__}")


def _check_text(text: str, where: str) -> None:
    if len(text) > LONGEST_TEXT:
        raise ValueError(f"{where}: a text of {len(text)} characters, at most {LONGEST_TEXT} are read")
    if "\0" in text:
        raise ValueError(f"{where}: a text with a null character")


def check_regular(file: Path | str) -> None:
    """Raise OSError for a pipe, a device or a socket, whose end may never come. A folder is left to who opens it."""
    mode = Path(file).stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise OSError("is not a regular file")


def read_small(file: Path, most: int) -> str:
    """The text of a file.

    Raises:
        ValueError: more than `most` bytes, or no UTF-8.
        OSError: it cannot be read.
    """
    check_regular(file)
    size = file.stat().st_size
    if size > most:
        raise ValueError(f"{size} bytes, expected {most} at most")
    return file.read_text(encoding="utf-8")


def parse_json(text: str | bytes) -> Any:
    """What a JSON text holds.

    Raises:
        ValueError: it is none; lists within lists without end, too, which Python reports as a RecursionError.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("lists or mappings within each other without end") from None


def read_json(file: Path) -> Any:
    """What a small JSON file of vidtrain's own holds.

    Raises:
        ValueError: not JSON, or far too large for one.
        OSError: it cannot be read.
    """
    return parse_json(read_small(file, _LARGEST_JSON))


def read_mapping(file: Path) -> dict[str, Any]:
    """As `read_json`, of a file that holds a mapping of plain values.

    Raises:
        ValueError, OSError: as there.
    """
    content = read_json(file)
    if not isinstance(content, dict):
        raise ValueError(f"expected a mapping, got {type(content).__name__}")  # noqa: TRY004 - one type for the callers
    check_plain(content, "it")
    return content


def read_small_yaml(file: Path) -> Any:
    """Plain values, of a file that is no larger than any command line.

    Raises:
        ValueError: not YAML, or larger.
        OSError: it cannot be read.
    """
    import yaml  # type: ignore[import-untyped]

    text = read_small(file, LONGEST_TEXT)
    try:
        content = yaml.safe_load(text)  # aliases stay shared here, and are counted below
        check_plain(content, "it")
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"no YAML of one's own: {str(error).splitlines()[0]}") from None
    return content


def read_texts(file: Path) -> list[str]:
    """A YAML file that holds a list of texts, as Hydra keeps a run's overrides; numbers and the like as text, too.

    Raises:
        ValueError: it holds something else, or more than any command line does.
        OSError: it cannot be read.
    """
    content = read_small_yaml(file)
    if not isinstance(content, list) or any(isinstance(one, (dict, list)) for one in content):
        raise ValueError("expected a list of texts")
    return [str(one) for one in content]


def is_number(value: Any) -> bool:
    """Whether it is a number that a float holds: neither nan, nor infinite, nor true or false."""
    return type(value) in (int, float) and abs(value) < 1e300


def is_below(name: Any) -> bool:
    """Whether a path out of a file stays below the folder that it is meant for."""
    if not isinstance(name, str) or not name or "\0" in name:
        return False
    ways = (PurePosixPath(name), PurePath(name))
    return not any(way.is_absolute() or way.drive or way.root or ".." in way.parts for way in ways)


def has_types(content: Mapping[str, Any], /, **expected: type | tuple[type, ...]) -> bool:
    """Whether these values of a parsed file have these very types, a bool not being an int."""

    def fits(value: Any, wanted: type | tuple[type, ...]) -> bool:
        return type(value) in (wanted if isinstance(wanted, tuple) else (wanted,))

    return all(fits(content.get(key), wanted) for key, wanted in expected.items())


def as_dataclass(kind: type[Kind], content: Any) -> Kind:
    """What `asdict` of a dataclass of plain values, or of dataclasses of these, became in a file of somebody's.

    A whole number may stand where a float is expected, since other programs write 25.0 as 25; a field with a default
    may be missing.

    Raises:
        ValueError: it is something else.
    """
    expected, required = _fields_of(kind)  # type: ignore[arg-type]
    if not isinstance(content, dict) or not required <= content.keys() <= expected.keys():
        raise ValueError(f"not the fields of {kind.__name__}")
    values = {}
    for name, value in content.items():
        wanted = expected[name]
        if is_dataclass(wanted):
            value = as_dataclass(wanted, value)  # type: ignore[arg-type]
        elif type(value) not in wanted:
            raise ValueError(f"{name}: {type(value).__name__}")
        values[name] = value
    return kind(**values)


@lru_cache
def _fields_of(kind: Any) -> tuple[dict[str, Any], set[str]]:
    """Of each field its dataclass or the types that it may have; and the fields without a default."""
    hints = get_type_hints(kind)

    def types(hint: Any) -> Any:
        if is_dataclass(hint):
            return hint
        parts = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
        plain = [get_origin(part) or part for part in parts]
        return {int if part is float else dict if part is Mapping else part for part in plain} | {*plain}

    required = {f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING}
    return {name: types(hint) for name, hint in hints.items()}, required


def map_array(file: Path | str) -> npt.NDArray[Any]:
    """A .npy file, memory-mapped read-only; as a plain array, since indexing a numpy.memmap costs three times as much.

    Raises:
        ValueError: not such a file, one of Python objects, or its header claims more than it holds.
        OSError: it cannot be read.
    """
    import numpy as np

    check_regular(file)
    stamp = file_stamp(file)
    try:
        found = np.load(file, mmap_mode="r", allow_pickle=False)
    except OSError:
        raise
    except Exception as error:  # numpy parses the header with Python's own parser, which raises half a dozen types
        raise ValueError(f"not an array of numpy: {str(error) or type(error).__name__}") from None
    if not isinstance(found, np.memmap):
        raise ValueError("an archive, expected one array")  # noqa: TRY004
    found.stamp = stamp  # type: ignore[attr-defined]  # of the base of the view, for data/manifest/shared_columns.py
    return found.view(np.ndarray)


def file_stamp(file: Path | str) -> tuple[int, ...] | None:
    """What shows that a file has not been replaced or changed; None where there is none."""
    try:
        found = Path(file).stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns

"""A configuration of another program as plain values. Nothing in it is run: Python files are parsed, not executed."""

from __future__ import annotations

import ast
import copy
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml  # type: ignore[import-untyped]

from vidtrain.errors import ConfigError
from vidtrain.options.option_texts import leaves
from vidtrain.untrusted_data import MOST_DEPTH, MOST_NODES, check_plain, read_small

_LARGEST: Final = 1 << 20  # bytes of a file
_MOST_BASES: Final = 16  # files that a Python configuration is based on, in all
_LARGEST_NUMBER: Final = 1e12
_NUMBER: Final = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_SAYS_NOTHING: Final = (ast.Import, ast.ImportFrom, ast.Pass, ast.Delete)
_ARITHMETIC: Final[Mapping[type[ast.operator], Callable[[Any, Any], Any]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


@dataclass(frozen=True)
class ForeignChoice:
    """A key of an experiment, "/GROUP" for the choice of a group; its value; where it comes from."""

    key: str
    value: Any
    why: str


@dataclass
class Foreign:
    """Nested plain values, with a note of what has been read of them."""

    values: dict[str, Any]
    read: set[str] = field(default_factory=set)
    refused: dict[str, Any] = field(default_factory=dict)
    """What was looked for and is no number that it can be, with where it stands; it counts as not read."""

    def get(self, key: str, default: Any = None) -> Any:
        """The value of a dotted key, a text that is a number as a number; `default` where there is none."""
        self.read.add(key)
        node: Any = self.values
        for part in key.split("."):
            if not isinstance(node, dict) or part not in node:
                return default
            node = node[part]
        return as_number(node)

    def number(self, key: str) -> float | None:
        """The value where it is a number from 0 on, else None, and it is not taken over."""
        return self.checked(key, self.get(key))

    def count(self, key: str) -> int | None:
        """The value where it is a whole number from 1 on, else None, and it is not taken over."""
        return self.counted(key, self.get(key))

    def checked(self, place: str, value: Any) -> float | None:
        """`number` of a value that was read before. place: where it stands, for the list of what is not taken over."""
        if value is None or (is_number(value) and value >= 0):
            return value
        self.refused[place] = value
        return None

    def counted(self, place: str, value: Any) -> int | None:
        """`count` of a value that was read before."""
        number = self.checked(place, value)
        if number is None or (number >= 1 and number == int(number)):
            return number if number is None else int(number)
        self.refused[place] = value
        return None

    def ignore(self, *keys: str) -> None:
        """Say nothing of these: they have no counterpart that a user would miss."""
        self.read.update(keys)

    def left(self) -> list[str]:
        """Dotted keys, with their values, that nothing has read."""
        rest = [(key, value) for key, value in leaves(self.values) if not self._was_read(key)]
        return [f"{key}={value}" for key, value in [*self.refused.items(), *rest]]

    def _was_read(self, key: str) -> bool:
        parts = key.split(".")
        return any(".".join(parts[:count]) in self.read for count in range(1, len(parts) + 1))


def is_number(value: Any) -> bool:
    """Whether it is a number of a size that a configuration may hold: neither infinite nor NaN."""
    return (
        isinstance(value, (int, float)) and not isinstance(value, bool) and -_LARGEST_NUMBER < value < _LARGEST_NUMBER
    )


def are_numbers(values: Any) -> bool:
    """Whether it is a list of such numbers, and not an empty one."""
    return isinstance(values, list) and bool(values) and all(map(is_number, values))


def as_number(value: Any) -> Any:
    """YAML reads 1e-4, without a point, as a text."""
    return float(value) if isinstance(value, str) and _NUMBER.fullmatch(value) else value


def read_yaml(file: Path) -> dict[str, Any]:
    """Raises ConfigError: not a YAML file of a mapping, or a larger or deeper one than any configuration."""
    try:
        content = yaml.safe_load(_text(file))
        check_plain(content, file.name)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        line = " ".join(str(error).split())
        raise ConfigError(f"config={file}: cannot be read as YAML: {line[:200]}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"config={file}: expected a mapping of sections, got {type(content).__name__}")
    return content


def read_python(file: Path) -> dict[str, Any]:
    """The names that a configuration of MMAction2 assigns, laid over those of the files in its `_base_`.

    What is no literal, dict(...), list, name assigned before, f-string of these or arithmetic of numbers has no value,
    and stands as its text in angle brackets.

    Raises:
        ConfigError: no Python file, a base that is not there, or one that is based on itself.
    """
    return _read_python(file, (), {})


def _read_python(file: Path, above: tuple[Path, ...], known: dict[Path, dict[str, Any]]) -> dict[str, Any]:
    """above: the files that lead here. known: what was read, of all files, each of which is read once."""
    if file in known:
        return known[file]
    if file in above or len(above) + len(known) > _MOST_BASES:
        raise ConfigError(f"config={file}: based on itself, or on more than {_MOST_BASES} files")
    try:
        tree = ast.parse(_text(file))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ConfigError(f"config={file}: not a Python file: {str(error)[:200]}") from None
    own: dict[str, Any] = {}
    budget = [MOST_NODES]
    for node in tree.body:
        where = _assigned(node.targets[0], own) if isinstance(node, ast.Assign) and len(node.targets) == 1 else None
        if isinstance(node, ast.Assign) and where is not None:
            value = _value(node.value, own, budget, file)
            # to a part a copy: what is assigned to a part of itself would have no end
            where[0][where[1]] = value if where[0] is own else copy.deepcopy(value)
        elif not isinstance(node, _SAYS_NOTHING) and not _is_text(node):
            own[f"{file.name}:{node.lineno}"] = " ".join(ast.unparse(node).split())[:80]  # is not carried out
    merged: dict[str, Any] = {}
    for below in _bases(own.pop("_base_", []), file):
        merged = _over(_read_python(below, (*above, file), known), merged)
    known[file] = _over(own, merged)
    return known[file]


def _assigned(target: ast.expr, own: dict[str, Any]) -> tuple[Any, Any] | None:
    """The dictionary or list, and the key or index, of x, x["key"], x[0]["key"] on the left; None: something else."""
    if isinstance(target, ast.Name):
        return own, target.id
    if not isinstance(target, ast.Subscript) or not isinstance(target.slice, ast.Constant):
        return None
    above = _assigned(target.value, own)
    key: Any = target.slice.value
    try:
        inside = above[0][above[1]] if above is not None else None
        if isinstance(inside, dict):
            return inside, str(key)
        return (inside, key) if isinstance(inside, list) and inside[key] is not None else None
    except (KeyError, IndexError, TypeError):
        return None


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _bases(given: Any, file: Path) -> list[Path]:
    """The files of `_base_`, which are there."""
    names = [given] if isinstance(given, str) else given
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or len(names) > _MOST_BASES:
        got = str(given)[:80]
        raise ConfigError(f"config={file}: _base_: expected a path or a list of at most {_MOST_BASES}, got {got}")
    found = []
    for name in names:
        below = file if "\0" in name else (file.parent / name).resolve()
        if "\0" in name or below.suffix != ".py" or not below.is_file():
            raise ConfigError(f"config={file}: its _base_ {name} is not there: keep the folders as they are")
        found.append(below)
    return found


def _text(file: Path) -> str:
    if not file.is_file():
        raise ConfigError(f"config={file}: no such file")
    try:
        return read_small(file, _LARGEST)
    except (OSError, ValueError) as error:
        raise ConfigError(f"config={file}: cannot be read: {error}") from None


def _value(node: ast.expr, names: Mapping[str, Any], budget: list[int], file: Path, depth: int = 0) -> Any:
    """budget: values that may still be made, as names may be used again and again."""
    budget[0] -= 1
    if budget[0] < 0 or depth > MOST_DEPTH * 2:
        raise ConfigError(f"config={file}: more or deeper values than any configuration")

    def inner(part: ast.expr) -> Any:
        return _value(part, names, budget, file, depth + 1)

    if isinstance(node, ast.Constant) and (node.value is None or isinstance(node.value, (bool, int, float, str))):
        if isinstance(node.value, int) and node.value.bit_length() > 64:
            raise ConfigError(f"config={file}: a number of more than 64 bits")
        return node.value
    if isinstance(node, (ast.List, ast.Tuple)):
        return [inner(part) for part in node.elts]
    if isinstance(node, ast.Dict) and all(isinstance(key, ast.Constant) for key in node.keys):
        return {str(key.value): inner(part) for key, part in zip(node.keys, node.values, strict=True)}  # type: ignore[union-attr]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict" and not node.args:
        made: dict[str, Any] = {}
        for word in node.keywords:
            value = inner(word.value)
            made |= {word.arg: value} if word.arg is not None else value if isinstance(value, dict) else {}
        return made
    if isinstance(node, ast.Name) and node.id in names:
        _spend(names[node.id], budget, file)
        return names[node.id]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = inner(node.operand)
        return -value if isinstance(value, (int, float)) else f"<{ast.unparse(node)[:80]}>"
    if isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
        left, right = inner(node.left), inner(node.right)
        if isinstance(node.op, ast.Add) and isinstance(left, str) and isinstance(right, str):
            return (left + right)[:1000]
        numbers = all(type(side) in (int, float) and abs(side) < _LARGEST_NUMBER for side in (left, right))
        if numbers and not (isinstance(node.op, ast.Div) and right == 0):
            return _ARITHMETIC[type(node.op)](left, right)
    if isinstance(node, ast.JoinedStr):
        parts = [inner(p.value) if isinstance(p, ast.FormattedValue) else inner(p) for p in node.values]
        return "".join(str(part)[:1000] for part in parts)
    return f"<{ast.unparse(node)[:80]}>"


def _spend(value: Any, budget: list[int], file: Path) -> None:
    """Charge what a value holds, twice where its name is used twice: lists of lists may be a small file without end."""
    rest = [value]
    while rest:
        one = rest.pop()
        budget[0] -= 1
        if budget[0] < 0:
            raise ConfigError(f"config={file}: more or deeper values than any configuration")
        rest += one.values() if isinstance(one, dict) else one if isinstance(one, list) else ()


def _over(above: Any, below: Any) -> Any:
    """mmengine's rule: mappings are merged key by key, `_delete_` takes the lower one away, all else replaces it."""
    if not isinstance(above, dict) or not isinstance(below, dict) or above.get("_delete_"):
        return {key: value for key, value in above.items() if key != "_delete_"} if isinstance(above, dict) else above
    merged = {key: _over(value, below[key]) if key in below else value for key, value in above.items()}
    return {**below, **merged}

"""What result.json of a test holds, part by part: docs/testing.md in checks. Whoever wrote a file, what has passed here
has the types, sizes and ranges that its readers rely on."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

from vidtrain.plain import are_texts, check_plain

RESULT_FORMAT: Final = 2
"""Of result.json; 1 had no number for it."""
_MOST_ROWS: Final = 100_000
_LARGEST: Final = 1 << 53
_LONG = ("class_names", "not_finite", "classes", "confusion")  # what check_plain has no room for

Check = Callable[[Any], bool]


def check_result(content: dict[str, Any]) -> None:
    """Raise ValueError, which names the part, unless every part is as described; parts that nobody knows may be any
    plain values."""
    check_plain({key: value for key, value in content.items() if key not in _LONG}, "it")
    _fields(content, "", split=_text, protocol=_text, multi_label=_flag, class_names=are_texts, not_finite=are_texts)
    _fields(content, "", scored=_count, listed=_count, missing=_count, unreadable=_count)
    for key, value in content.items():
        if type(value) in (int, float) and not _number(value):
            raise ValueError(f"{key}: not a finite number")
    names = content["class_names"]
    if not 0 < len(names) <= _MOST_ROWS or len(set(names)) < len(names):
        raise ValueError(f"class_names: {len(names)} names, expected 1 to {_MOST_ROWS}, each once")
    for part, check in _PARTS.items():
        if content.get(part) is not None:
            check(content[part], part)
    if [row["name"] for row in content.get("classes") or ()] not in ([], names):
        raise ValueError("classes: not the rows of class_names, in their order")
    confusion = content.get("confusion") or []
    square = type(confusion) is list and len(confusion) in (0, len(names)) and all(type(r) is list for r in confusion)
    if not square or any(len(row) != len(names) or not all(map(_count, row)) for row in confusion):
        raise ValueError(f"confusion: not {len(names)} rows of {len(names)} counts")


def _number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _share(value: Any) -> bool:
    return _number(value) and 0 <= value <= 1


def _count(value: Any) -> bool:
    return type(value) is int and 0 <= value < _LARGEST


def _text(value: Any) -> bool:
    return type(value) is str


def _flag(value: Any) -> bool:
    return type(value) is bool


def _or_none(check: Check) -> Check:
    return lambda value: value is None or check(value)


def _range(value: Any) -> bool:
    return type(value) is list and len(value) == 2 and all(map(_number, value)) and value[0] <= value[1]


def _fields(content: Any, where: str, **checks: Check) -> None:
    if type(content) is not dict:
        raise ValueError(f"{where}: expected a mapping")
    for key, check in checks.items():
        name = f"{where}.{key}" if where else key
        if key not in content:
            raise ValueError(f"{name}: missing")
        if not check(content[key]):
            raise ValueError(f"{name}: {str(content[key])[:60]!r} is not what belongs here")


def _rows(content: Any, where: str, **checks: Check) -> None:
    if type(content) is not list or len(content) > _MOST_ROWS:
        raise ValueError(f"{where}: expected a list of at most {_MOST_ROWS} rows")
    for number, row in enumerate(content):
        _fields(row, f"{where}[{number}]", **checks)


def _intervals(content: Any, where: str) -> None:
    _fields(content, where, level=_share, resamples=_count, over=_text, count=_count, values=lambda v: type(v) is dict)
    _fields(content["values"], f"{where}.values", **dict.fromkeys(content["values"], _range))


def _classes(content: Any, where: str) -> None:
    shares = dict.fromkeys(("precision", "recall", "f1", "average_precision", "auc"), _or_none(_share))
    _rows(content, where, name=_text, support=_count, predicted=_count, **shares)


def _views(content: Any, where: str) -> None:
    _rows(content, where, views=_count, top1=_share)


def _calibration(content: Any, where: str) -> None:
    number = _or_none(_number)
    _fields(content, where, temperature=number, ece=number, ece_uncalibrated=number)
    shares = {"confidence": _or_none(_share), "accuracy": _or_none(_share)}
    _rows(content.get("bins"), f"{where}.bins", low=_share, high=_share, count=_count, **shares)


def _rejection(content: Any, where: str) -> None:
    _fields(content, where, threshold=_share, wanted_precision=_share, precision=_or_none(_share), coverage=_share)
    _rows(content.get("curve"), f"{where}.curve", threshold=_share, coverage=_share, precision=_or_none(_share))


def _conformal(content: Any, where: str) -> None:
    _fields(content, where, wanted_coverage=_share, threshold=_share, coverage=_or_none(_share), mean_size=_number)


_PARTS: Final[Mapping[str, Callable[[Any, str], None]]] = {
    "intervals": _intervals,
    "classes": _classes,
    "views": _views,
    "calibration": _calibration,
    "rejection": _rejection,
    "conformal": _conformal,
}

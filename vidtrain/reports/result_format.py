"""What result.json of a test holds, part by part: docs/testing.md in checks. Whoever wrote a file, what has passed here
has the types, sizes and ranges that its readers rely on."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

from vidtrain.untrusted_data import are_texts, check_plain, is_number

RESULT_FORMAT: Final = 2
"""Of result.json; 1 had no number for it."""
_MOST_ROWS: Final = 100_000
_LARGEST: Final = 1 << 53
_LONG = ("class_names", "not_finite", "classes", "confusion", "segment_classes", "worst")
"""What check_plain has no room for."""
_MOST_DRAWN: Final = 1000  # segments of a video

Check = Callable[[Any], bool]


def check_result(content: dict[str, Any]) -> None:
    """Raise ValueError, which names the part, unless every part is as described; parts that nobody knows may be any
    plain values."""
    _check_common(content)
    _fields(content, "", multi_label=_flag, class_names=are_texts)
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


def check_segments_result(content: dict[str, Any]) -> None:
    """As `check_result`, of a test with task=segments."""
    _check_common(content)
    _fields(content, "", segments=_count, segments_found=_count, least_score=_share, background=_or_none(_share))
    rows, shares = content.get("segment_classes"), dict.fromkeys(("ap_50", "ap_75"), _or_none(_share))
    _rows(rows, "segment_classes", name=_name, segments=_count, found=_count, **shares)
    if not rows or len({row["name"] for row in rows}) < len(rows):
        raise ValueError("segment_classes: expected a row or more, each name once")
    for part in ("map_by_overlap", "map_by_overlap_thumos_kit"):
        _fields(content.get(part), part)
        for overlap, value in content[part].items():
            if not _or_none(_share)(value) or not _share(_as_number(overlap)):
                raise ValueError(f"{part}: {overlap[:20]}: {str(value)[:20]}, expected overlap and precision in [0, 1]")
    _rows(content.get("worst"), "worst", video=_name, frame_accuracy=_share, seconds=is_number)
    for number, video in enumerate(content["worst"]):
        for part, length in (("truth", 3), ("found", 4)):
            segments = video.get(part)
            if type(segments) is not list or len(segments) > _MOST_DRAWN:
                raise ValueError(f"worst[{number}].{part}: expected a list of at most {_MOST_DRAWN} segments")
            if not all(_is_segment(one, length, len(rows)) for one in segments):
                raise ValueError(f"worst[{number}].{part}: expected [start, end, class] with numbers below {len(rows)}")


def check_run(content: dict[str, Any]) -> None:
    """As `check_result`, of what sweeps and their tables read of a training's result.json."""
    _fields(content, "", primary=_text, checkpoint=_text, summary=_texts, val=_scores, test=_scores)
    checks: dict[str, Check] = {"titles": _texts, "best_epoch": _or_none(_count)}
    _fields(content, "", **{key: check for key, check in checks.items() if key in content})
    if (intervals := (content["test"] or {}).get("intervals")) is not None:
        _intervals(intervals, "test.intervals")


def _is_segment(value: Any, length: int, classes: int) -> bool:
    """[start, end, row of segment_classes], of those found [..., score]."""
    if type(value) is not list or len(value) != length or not all(map(is_number, value)):
        return False
    start, end, label, *score = value
    return 0 <= start <= end and type(label) is int and 0 <= label < classes and all(map(_share, score))


def _as_number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _check_common(content: dict[str, Any]) -> None:
    check_plain({key: value for key, value in content.items() if key not in _LONG}, "it")
    _fields(content, "", split=_text, protocol=_text, not_finite=are_texts)
    _fields(content, "", scored=_count, listed=_count, missing=_count, unreadable=_count)
    for key, value in content.items():
        if type(value) in (int, float) and not is_number(value):
            raise ValueError(f"{key}: not a finite number")


def _share(value: Any) -> bool:
    return is_number(value) and 0 <= value <= 1


def _count(value: Any) -> bool:
    return type(value) is int and 0 <= value < _LARGEST


def _text(value: Any) -> bool:
    return type(value) is str


def _texts(value: Any) -> bool:
    return type(value) is dict and are_texts([*value.values()])


def _scores(value: Any) -> bool:
    return value is None or type(value) is dict


def _name(value: Any) -> bool:
    return are_texts([value])


def _flag(value: Any) -> bool:
    return type(value) is bool


def _or_none(check: Check) -> Check:
    return lambda value: value is None or check(value)


def _range(value: Any) -> bool:
    return type(value) is list and len(value) == 2 and all(map(is_number, value)) and value[0] <= value[1]


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
    number = _or_none(is_number)
    _fields(content, where, temperature=number, ece=number, ece_uncalibrated=number)
    shares = {"confidence": _or_none(_share), "accuracy": _or_none(_share)}
    _rows(content.get("bins"), f"{where}.bins", low=_share, high=_share, count=_count, **shares)


def _rejection(content: Any, where: str) -> None:
    _fields(content, where, threshold=_share, wanted_precision=_share, precision=_or_none(_share), coverage=_share)
    _rows(content.get("curve"), f"{where}.curve", threshold=_share, coverage=_share, precision=_or_none(_share))


def _conformal(content: Any, where: str) -> None:
    _fields(content, where, wanted_coverage=_share, threshold=_share, coverage=_or_none(_share), mean_size=is_number)


_PARTS: Final[Mapping[str, Callable[[Any, str], None]]] = {
    "intervals": _intervals,
    "classes": _classes,
    "views": _views,
    "calibration": _calibration,
    "rejection": _rejection,
    "conformal": _conformal,
}

"""What a sweep optimises: names and directions from its options, values from what its runs wrote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from vidtrain.engine.hooks import VALIDATIONS
from vidtrain.errors import ConfigError
from vidtrain.options.schema import SweepDirection
from vidtrain.reports.results import read_result
from vidtrain.reports.table import counted
from vidtrain.tasks.classification.intervals import share_interval
from vidtrain.untrusted_data import is_number, parse_json

PRIMARY: Final = "primary"
"""The objective where none is named: the validation metric that chooses best.pt."""
COSTS: Final = ("gmac", "params", "minutes")
"""Numbers of result.json that are the better the smaller they are."""
_OF_THE_RUN: Final = (*COSTS, "clips_per_second")
_SHARES: Final = ("top1", "top5")
"""Metrics of a validation that are shares of its videos."""
_LARGEST: Final = 1 << 24  # bytes of validations.jsonl


def chosen_objectives(names: Sequence[str], directions: Sequence[str]) -> list[tuple[str, str]]:
    """(name, maximize or minimize) of each.

    Raises:
        ConfigError: there are not as many directions, or a name comes twice.
    """
    names = list(names) or [PRIMARY]
    if directions and len(directions) != len(names):
        raise ConfigError(
            f"sweep.directions={list(map(str, directions))}: expected one per objective; there are {len(names)}"
        )
    if len(set(names)) < len(names):
        raise ConfigError(f"sweep.objectives={names}: a name comes twice")
    usual = [SweepDirection.minimize if _is_cost(name) else SweepDirection.maximize for name in names]
    return list(zip(names, map(str, directions or usual), strict=True))


def _is_cost(name: str) -> bool:
    return name in COSTS or name.rpartition(".")[2] == "loss"


def values_of(folder: Path, names: Sequence[str]) -> list[float]:
    """The objectives of the finished run in `folder`.

    Raises:
        ConfigError: it has not one of them; the message says which it has. Or one is NaN or infinite.
    """
    result = read_result(folder)
    known = {} if result is None else _known(result, validations(folder))
    missing = [name for name in names if name not in known]
    if missing and has_all(folder, missing[:1]):
        raise ConfigError(f"sweep.objectives: '{missing[0]}' of the run is not a number")
    if missing:
        hint = "" if PRIMARY in known else "; without a val split there is only the test's, such as test.top1"
        raise ConfigError(f"sweep.objectives: the run has no '{missing[0]}'; it has {', '.join(known) or 'none'}{hint}")
    return [known[name] for name in names]


@dataclass(frozen=True)
class ObjectiveInterval:
    """Where the objective of a run may be for other videos of the kind, in 95 of 100 cases. units: '40 videos'."""

    low: float
    high: float
    units: str

    def __str__(self) -> str:
        return f"95 % interval {self.low:.2f}-{self.high:.2f} over {self.units}"


def interval_of(folder: Path, name: str) -> ObjectiveInterval | None:
    """Of an objective of the finished run in `folder`: its test's own, or that of a share of validation videos;
    None for what has none, such as a loss."""
    result = read_result(folder) or {}
    split, _, metric = name.rpartition(".")
    if split == "test":
        test = result.get("test")
        found = test.get("intervals") if isinstance(test, dict) else None
        if not isinstance(found, dict) or metric not in found["values"]:
            return None
        low, high = found["values"][metric]
        return ObjectiveInterval(low, high, f"{found['count']} {found['over']}")
    known = _known(result, validations(folder)) if result else {}
    metric = result.get("primary", "") if metric == PRIMARY else metric
    videos = int(known.get("scored", 0))  # without those that cannot be read
    if metric not in _SHARES or name not in known or videos < 1 or not 0 <= known[name] <= 1:
        return None
    low, high = share_interval(known[name], videos)
    return ObjectiveInterval(low, high, counted(videos, "video"))


def _known(result: Mapping[str, Any], found: Mapping[int, Mapping[str, float]]) -> dict[str, float]:
    known: dict[str, Any] = dict(found.get(result.get("best_epoch", 0), {}))
    if isinstance(result["val"], dict):
        known |= result["val"]
        known[PRIMARY] = result["val"].get(result["primary"])
    known |= {name: result.get(name) for name in _OF_THE_RUN}
    if isinstance(result["test"], dict):
        known |= {f"test.{name}": value for name, value in result["test"].items()}
    return {name: float(value) for name, value in known.items() if is_number(value)}


def has_all(folder: Path, names: Sequence[str]) -> bool:
    """Whether the finished run in `folder` knows every one of the names, be its value a number or NaN."""
    result = read_result(folder)
    if result is None:
        return True
    val, test = result["val"], result["test"]
    known = set(_OF_THE_RUN).union(*_validated(folder).values())
    known |= {PRIMARY, *val} if isinstance(val, dict) else set()
    known |= {f"test.{name}" for name in test} if isinstance(test, dict) else set()
    return known.issuperset(names)


def validations(folder: Path) -> dict[int, dict[str, float]]:
    """Epoch -> what its validation found, of the run in `folder`, which may be writing it: a torn line is skipped."""
    return {
        epoch: {name: float(value) for name, value in values.items() if is_number(value)}
        for epoch, values in _validated(folder).items()
    }


def _validated(folder: Path) -> dict[int, dict[str, Any]]:
    """Epoch -> what `validations` has of it, whatever is written for a value."""
    file = folder / VALIDATIONS
    try:
        if file.stat().st_size > _LARGEST:
            return {}
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    found: dict[int, dict[str, Any]] = {}
    for line in lines:
        try:
            values: Any = parse_json(line)
        except ValueError:
            continue
        if isinstance(values, dict) and type(values.get("epoch")) is int and values["epoch"] >= 0:
            found[values.pop("epoch")] = values
    return found


def describe(values: Sequence[float], objectives: Sequence[tuple[str, str]]) -> str:
    """'top1 0.500, gmac 1.2'."""
    return ", ".join(f"{name} {value:.4g}" for value, (name, _) in zip(values, objectives, strict=True))


def best_of(scored: Mapping[int, Sequence[float]], objectives: Sequence[tuple[str, str]]) -> list[int]:
    """The numbers of the runs that no other one beats in every objective; of one objective the first of the best."""

    def better(one: Sequence[float]) -> tuple[float, ...]:
        signs = (1 if direction == SweepDirection.maximize else -1 for _, direction in objectives)
        return tuple(sign * value for sign, value in zip(signs, one, strict=True))

    ranked = {number: better(values) for number, values in scored.items()}
    if len(objectives) == 1:
        return [max(ranked, key=lambda number: (ranked[number], -number))] if ranked else []
    return [number for number, mine in ranked.items() if not any(_dominates(other, mine) for other in ranked.values())]


def _dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(a >= b for a, b in zip(one, other, strict=True)) and tuple(one) != tuple(other)

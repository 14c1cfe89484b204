"""What a sweep varies: read from overrides in Hydra's grammar, and from the option sweep.space of a YAML."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vidtrain.errors import ConfigError
from vidtrain.options.option_texts import leaves

OF_THE_SWEEP = ("sweep.", "resume", "hydra.", "hydra/")
"""Options, or the beginnings of their names, that say how a sweep is carried out, not what its runs are."""
_MOST_VALUES = 1_000_000  # of one option: they are listed
MOST_RUNS = 100_000
"""Of one sweep."""
_INSTEAD = {"run_dir": "hydra.sweep.dir", "resume": "sweep.resume"}  # of a run -> of a sweep


@dataclass(frozen=True)
class Axis:
    """An option and what it is varied over.

    key: with Hydra's + and ++. text: the values as they were given. values: all of them, each as an override has it,
    or None of an interval from low to high, but for one of whole numbers. step: of a range of numbers, None: any one.
    integer: whole numbers only. log: drawn evenly in its logarithm.
    """

    key: str
    text: str
    values: tuple[str, ...] | None = None
    low: float = 0.0
    high: float = 0.0
    step: float | None = None
    integer: bool = False
    log: bool = False

    @property
    def name(self) -> str:
        """The option, as tables and figures show it."""
        return self.key.lstrip("+")

    @property
    def is_range(self) -> bool:
        """Whether it is a range of numbers, in which one value is near another."""
        return self.high > self.low

    def takes(self, text: str) -> bool:
        """Whether it is one of the values, as an override has it."""
        if self.values is not None:
            return text in self.values
        try:
            return self.low <= (int if self.integer else float)(text) <= self.high
        except ValueError:
            return False

    @property
    def ends(self) -> tuple[str, str]:
        """Two values, as different as they can be, as overrides have them."""
        return (str(self.low), str(self.high)) if self.values is None else (self.values[0], self.values[-1])


@dataclass(frozen=True)
class Space:
    """The overrides of a sweep: key -> value of those that all runs share, and the axes.

    order: the keys of both, as they were given.
    """

    fixed: Mapping[str, str] = field(default_factory=dict)
    axes: tuple[Axis, ...] = ()
    order: tuple[str, ...] = ()

    def overrides(self, varied: Mapping[str, str]) -> list[str]:
        """Of the run with these values of the axes."""
        values = {**self.fixed, **varied}
        return [f"{key}={values[key]}" if not key.startswith("~") else key for key in self.order]

    def grid(self) -> Iterator[dict[str, str]]:
        """The values of the axes of every run of the grid; the last axis varies fastest.

        Raises:
            ConfigError: an axis is an interval.
        """
        for axis in self.axes:
            if axis.values is None:
                raise ConfigError(
                    f"{axis.name}={axis.text}: a grid takes no interval: give values, or draw them with "
                    "hydra/sweeper=optuna"
                )
        for chosen in itertools.product(*(axis.values or () for axis in self.axes)):
            yield dict(zip((axis.key for axis in self.axes), chosen, strict=True))

    def size(self) -> float:
        """How many runs the grid has; infinity where an axis is an interval."""
        return math.prod(math.inf if axis.values is None else len(axis.values) for axis in self.axes)

    def check_grid(self) -> None:
        """Raises ConfigError: a sweep cannot make every run of the grid."""
        if MOST_RUNS < self.size() < math.inf:
            raise ConfigError(
                f"{', '.join(axis.name for axis in self.axes)}: {self.size()} combinations, at most {MOST_RUNS} can be "
                "made: give fewer values, or have some drawn by hydra/sweeper=optuna sweep.trials=N"
            )


def read_space(arguments: Sequence[str], more: Mapping[str, Any], loader: Any = None) -> Space:
    """The space of a command line.

    Args:
        arguments: overrides in Hydra's grammar; of an option that is given twice the last counts.
        more: sweep.space, option -> its values: a text in the grammar, or a list. The command line goes first.
        loader: Hydra's config loader, for glob(...).

    Raises:
        ConfigError: what it says cannot be varied over.
        hydra.errors.HydraException: it is not in the grammar.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser

    given = [f"{key}={_written(key, values)}" for key, values in leaves(more)]
    parsed = OverridesParser.create(config_loader=loader).parse_overrides([*given, *arguments])
    last = {override.get_key_element(): override for override in parsed}
    fixed, axes = {}, []
    for key, override in last.items():
        name = key.lstrip("+")
        if _holds_sweep(getattr(override.value(), "list", override.value())):
            raise ConfigError(f"{name}={override.get_value_string()}: an interval or a range must be all of the value")
        if override.is_sweep_override():
            if name.startswith((*OF_THE_SWEEP, *_INSTEAD)):
                raise ConfigError(f"{name}={override.get_value_string()}: is not an option to vary: give one value")
            if loader and not override.is_choice_sweep() and loader.get_group_options(override.key_or_group):
                raise ConfigError(f"{name}={override.get_value_string()}: expected names, such as {name}=a,b")
            axes.append(_axis(key, override))
        else:
            fixed[key] = "" if override.is_delete() else override.get_value_element_as_str()
            if name in _INSTEAD and fixed[key] not in ("null", "auto"):
                raise ConfigError(f"{name}={fixed[key]}: is of a single run; a sweep has {_INSTEAD[name]}")
    return Space(fixed, tuple(axes), tuple(last))


def _axis(key: str, override: Any) -> Axis:
    text, swept = override.get_value_string(), override.value()
    log = "log" in getattr(swept, "tags", ())
    name = key.lstrip("+")
    if override.is_interval_sweep():
        low, high = swept.start, swept.end
        if not (math.isfinite(high - low) and low < high and (low > 0 or not log)):
            allowed = "two numbers, the lower one first" + (" and above 0, because of its tag log" if log else "")
            raise ConfigError(f"{name}={text}: expected {allowed}")
        integer = isinstance(low, int) and isinstance(high, int)
        listed = tuple(map(str, range(low, high + 1))) if integer and high - low < _MOST_VALUES else None
        return Axis(key, text, listed, low, high, integer=integer, log=log)
    try:
        listed = override.sweep_iterator(_element) if override.is_choice_sweep() else override.sweep_string_iterator()
        found = itertools.islice(listed, _MOST_VALUES + 1)
        values = tuple(dict.fromkeys(found if not override.is_range_sweep() else map(_rounded, found)))
    except (ValueError, ArithmeticError):  # of Python's range, or of decimals
        raise ConfigError(f"{name}={text}: expected numbers, and a step other than 0") from None
    if len(values) > _MOST_VALUES:
        raise ConfigError(f"{name}={text}: more than {_MOST_VALUES} values; interval(LOW, HIGH) needs no list of them")
    if not values:
        raise ConfigError(f"{name}={text}: holds no value")
    if not override.is_range_sweep() or swept.shuffle or len(values) < 2:
        return Axis(key, text, values)
    numbers = sorted(float(value) for value in values)
    if log and numbers[0] <= 0:
        raise ConfigError(f"{name}={text}: expected numbers above 0, because of its tag log")
    integer = all(isinstance(number, int) for number in (swept.start, swept.stop, swept.step))
    return Axis(
        key, text, values, numbers[0], numbers[-1], abs(float(swept.step)), integer, log and abs(swept.step) == 1
    )


def _holds_sweep(value: Any) -> bool:
    """Whether a range, an interval or the like is among the elements of a list or mapping."""
    from hydra.core.override_parser.types import Sweep

    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(isinstance(one, Sweep) or _holds_sweep(one) for one in inner)


def _rounded(number: str) -> str:
    """Without what adding up the step has left: 0.3 for 0.30000000000000004."""
    return number if number.lstrip("-").isdecimal() else repr(float(f"{float(number):.12g}"))


def _written(key: str, values: Any) -> str:
    """As an override has it."""
    if isinstance(values, str):
        return values
    if not isinstance(values, (list, tuple)) or not values:
        raise ConfigError(f"sweep.space: {key}: expected a text in Hydra's grammar or a list of values, got {values!r}")
    text = ",".join(map(_element, values))
    return text if len(values) > 1 or values[0] is None else f"choice({text})"  # which takes no null


def _element(value: Any) -> str:
    """One value as an override has it, with quotes around texts that Hydra would read as something else."""
    from hydra.core.override_parser.types import Override

    return Override._get_value_element_as_str(_in_quotes(value))


def _in_quotes(value: Any) -> Any:
    """The same value, with Hydra's quotes where it is, or has, a text such as '', 'it's', '1' or 'null'."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import Override, Quote, QuotedString
    from hydra.errors import HydraException

    if isinstance(value, (list, tuple)):
        return [_in_quotes(one) for one in value]
    if isinstance(value, Mapping):
        return {key: _in_quotes(one) for key, one in value.items()}
    if not isinstance(value, str):
        return value
    try:
        text = f"key=[{Override._get_value_element_as_str(value)}]"
        read = OverridesParser.create().parse_override(text).value()
    except HydraException:
        read = None
    return value if read == [value] else QuotedString(value, Quote.single)

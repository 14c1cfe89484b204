"""What a sweep varies, read from overrides."""

from __future__ import annotations

import math

import pytest

from vidtrain.commands.sweeps.space import Axis, read_space
from vidtrain.errors import ConfigError


def axis(text: str) -> Axis:
    [found] = read_space([f"x={text}"], {}).axes
    return found


def test_fixed_options_and_axes_are_kept_apart_and_in_order() -> None:
    space = read_space(["a=1", "+b=x,y", "c='p q'", "~d", "e=[1,2]", "a=2"], {})
    assert space.fixed == {"a": "2", "c": "'p q'", "~d": "", "e": "[1,2]"}
    assert [(one.key, one.name, one.values) for one in space.axes] == [("+b", "b", ("x", "y"))]
    assert space.overrides({"+b": "y"}) == ["a=2", "+b=y", "c='p q'", "~d", "e=[1,2]"]


def test_the_last_axis_of_a_grid_varies_fastest() -> None:
    space = read_space(["m=a,b", "n=range(1,4)", "k=choice(u,u)"], {})
    assert [tuple(run.values()) for run in space.grid()][:4] == [
        ("a", "1", "u"),
        ("a", "2", "u"),
        ("a", "3", "u"),
        ("b", "1", "u"),
    ]
    assert space.size() == 6


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("interval(0.5,2)", (0.5, 2.0, None, False, False)),
        ("tag(log, interval(1e-3, 1))", (1e-3, 1.0, None, False, True)),
        ("int(interval(1,8))", (1, 8, None, True, False)),
        ("range(1,8,2)", (1, 7, 2, True, False)),
        ("tag(log,range(1,9))", (1, 8, 1, True, True)),
        ("range(0.1,0.5,0.1)", (0.1, 0.4, 0.1, False, False)),
    ],
)
def test_a_range_of_numbers(text: str, expected: tuple[object, ...]) -> None:
    one = axis(text)
    assert one.is_range
    low, high, step, integer, log = expected
    assert (one.low, one.high) == pytest.approx((low, high))
    assert one.step == (None if step is None else pytest.approx(step))
    assert (one.integer, one.log) == (integer, log)


def test_values_of_a_yaml_are_texts_of_the_grammar_or_lists_and_the_command_line_wins() -> None:
    more = {"optimizer": {"lr": "tag(log, interval(1e-4, 0.1))"}, "model": ["c3d", "a b"], "n": "1,2"}
    space = read_space(["n=3,4"], more)
    assert {one.key: one.values for one in space.axes} == {
        "optimizer.lr": None,
        "model": ("c3d", "a\\ b"),
        "n": ("3", "4"),
    }
    assert math.isinf(space.size())


@pytest.mark.parametrize("text", ["interval(2,1)", "tag(log,interval(0,1))", "interval(1,1)"])
def test_an_interval_that_is_none(text: str) -> None:
    with pytest.raises(ConfigError, match=r"x=.*expected two numbers, the lower one first"):
        axis(text)


def test_a_grid_takes_no_interval() -> None:
    with pytest.raises(ConfigError, match=r"x=interval\(0,1\): a grid takes no interval"):
        list(read_space(["x=interval(0,1)"], {}).grid())


@pytest.mark.parametrize("values", [3, [], {"a": None}])
def test_a_space_of_a_yaml_that_is_none(values: object) -> None:
    with pytest.raises(ConfigError, match="expected a text in Hydra's grammar or a list of values"):
        read_space([], {"x": values})

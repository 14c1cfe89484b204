"""What a sweep varies, read from overrides."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from vidtrain.commands.sweeps import search_space as spaces
from vidtrain.commands.sweeps.search_space import Axis, read_space
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
        ("range(1,0,-0.3)", (0.1, 1, 0.3, False, False)),
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


@pytest.mark.parametrize(
    "value", ["", " a", "it's", 'a "b"', "1", "null", "True", "a,b", "[x]", "interval(0,1)", "\\'", 1, None]
)
def test_a_value_of_a_list_arrives_as_it_is(value: object) -> None:
    parser = OverridesParser.create()
    [one] = read_space([], {"x": [value, [value], {"k": value}]}).axes
    assert one.values is not None
    assert [parser.parse_override(f"x={text}").value() for text in one.values] == [value, [value], {"k": value}]
    if isinstance(value, str):
        [one] = read_space([], {"x": [value]}).axes
        assert [parser.parse_override(f"x={text}").value() for text in one.values or ()] == [value]


def test_a_list_of_null_alone_is_null() -> None:
    assert read_space([], {"x": [None]}).fixed == {"x": "null"}


def test_a_group_takes_names_not_numbers() -> None:
    loader = SimpleNamespace(get_group_options=lambda group: ["c3d"] if group == "model" else [])
    assert read_space(["model=c3d,s3d", "seed=range(1,3)"], {}, loader).size() == 4
    with pytest.raises(ConfigError, match=r"^model=interval\(1,2\): expected names, such as model=a,b$"):
        read_space(["model=interval(1,2)"], {}, loader)


def test_values_are_what_was_meant_not_what_adding_up_leaves() -> None:
    assert axis("range(0,1,0.3)").values == ("0.0", "0.3", "0.6", "0.9")
    assert axis("range(1,0,-0.3)").values == ("1.0", "0.7", "0.4", "0.1")
    assert axis("range(1,1000000,999998)").values == ("1", "999999")
    assert axis("int(interval(1,3))").values == ("1", "2", "3")


@pytest.mark.parametrize("text", ["interval(2,1)", "tag(log,interval(0,1))", "interval(1,1)", "interval(-1e308,1e308)"])
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


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("x=tag(log,range(0,9))", r"x=tag\(log,range\(0,9\)\): expected numbers above 0, because of its tag log"),
        ("x=range(0,10000000000)", r"more than 1000 values; interval\(LOW, HIGH\) needs no list"),
        ("x=range(0,1,0)", r"^x=range\(0,1,0\): expected numbers, and a step other than 0$"),
        ("x=range(nan,1,1)", r"^x=range\(nan,1,1\): expected numbers, and a step other than 0$"),
        ("x=interval(1,2),3", r"^x=interval\(1,2\),3: an interval or a range must be all of the value$"),
        ("x=[1,{a:range(1,3)}]", "an interval or a range must be all of the value"),
        ("sweep.trials=1,2", "sweep.trials=1,2: is not an option to vary: give one value"),
        ("resume=auto,null", "resume=auto,null: is not an option to vary"),
        ("run_dir=a,b", "run_dir=a,b: is not an option to vary"),
        ("run_dir=a", "run_dir=a: is of a single run; a sweep has hydra.sweep.dir"),
        ("resume=a", "resume=a: is of a single run; a sweep has sweep.resume"),
    ],
)
def test_what_cannot_be_varied_or_given_is_refused(argument: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spaces, "_MOST_VALUES", 1000)
    with pytest.raises(ConfigError, match=said):
        read_space([argument], {})
    read_space(["resume=auto", "run_dir=null", "x=tag(log,range(1,9))"], {})


def test_a_grid_has_an_end() -> None:
    read_space(["a=range(0,1000)", "b=range(0,100)"], {}).check_grid()
    read_space(["a=interval(0,1)"], {}).check_grid()  # refused where the grid is listed
    with pytest.raises(ConfigError, match=r"^a, b: 101000 combinations, at most 100000 can be made: give fewer values"):
        read_space(["a=range(0,1000)", "b=range(0,101)"], {}).check_grid()

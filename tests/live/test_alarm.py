"""N of M windows, and the cool-down."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidtrain.errors import ConfigError
from vidtrain.live.alarm import Alarms
from vidtrain.live.settings import AlarmConfig


def raised(config: AlarmConfig, probs: list[float], step: float = 1.0) -> list[int]:
    """The windows at which the class a raises an alarm."""
    alarms = Alarms(config)
    return [n for n, prob in enumerate(probs) if alarms.add(n * step, {"a": prob, "b": 1 - prob})]


def test_the_third_of_five() -> None:
    config = AlarmConfig(["a"], threshold=0.8, windows=3, of=5, cool_down=100)
    assert raised(config, [0.9, 0.1, 0.8, 0.1, 0.95]) == [4]
    assert raised(config, [0.9, 0.1, 0.79, 0.1, 0.95]) == []
    assert raised(config, [0.9, 0.9, 0.1, 0.1, 0.1, 0.9]) == []  # the first is no longer among five
    together = Alarms(config)
    found = [alarm for n, p in enumerate([0.9, 0.97, 0.85]) for alarm in together.add(2.0 * n, {"a": p})]
    assert [(a.label, a.seconds, a.prob, a.hits, a.of) for a in found] == [("a", 4.0, 0.97, 3, 5)]


def test_the_cool_down() -> None:
    config = AlarmConfig(["a"], threshold=0.5, windows=1, of=1, cool_down=3)
    assert raised(config, [1.0] * 9) == [0, 3, 6]
    assert raised(AlarmConfig(["a"], windows=1, of=1, cool_down=0), [1.0] * 3) == [0, 1, 2]


@settings(max_examples=60)
@given(
    probs=st.lists(st.floats(0, 1), max_size=60),
    threshold=st.floats(0, 1),
    windows=st.integers(1, 5),
    more=st.integers(0, 4),
    cool_down=st.integers(0, 10),
)
def test_what_holds_of_every_alarm(
    probs: list[float], threshold: float, windows: int, more: int, cool_down: int
) -> None:
    of = windows + more
    at = raised(AlarmConfig(["a"], threshold, windows, of, cool_down), probs)
    enough = [sum(p >= threshold for p in probs[max(0, n + 1 - of) : n + 1]) >= windows for n in range(len(probs))]
    assert all(enough[n] for n in at)
    assert all(later - earlier >= cool_down for earlier, later in pairwise(at))
    for n in range(len(probs)):  # and none is missing
        if enough[n] and n not in at:
            assert any(n - cool_down < earlier < n for earlier in at)


def test_two_classes_are_watched_apart() -> None:
    alarms = Alarms(AlarmConfig(["a", "b"], 0.5, 1, 1, 100))
    assert [a.label for a in alarms.add(0, {"a": 0.9, "b": 0.1})] == ["a"]
    assert [a.label for a in alarms.add(1, {"a": 0.9, "b": 0.9})] == ["b"]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (AlarmConfig(["fal"]), r"live\.alarm\.classes=fal: no such class \(did you mean fall\?\); classes: fall, walk"),
        (AlarmConfig(["fall"], windows=6), r"live\.alarm\.windows=6: must be at most live\.alarm\.of=5"),
    ],
)
def test_mistakes(config: AlarmConfig, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config.check(["fall", "walk"])

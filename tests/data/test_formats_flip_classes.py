from __future__ import annotations

import json
from pathlib import Path

import pytest

from vidtrain.data.formats._files.flip_classes import flip_pairs


@pytest.mark.parametrize(
    ("names", "pairs", "lonely"),
    [
        (["run", "swipe left", "swipe right"], [("swipe left", "swipe right")], []),
        (["swipe_right", "swipe_left"], [("swipe_right", "swipe_left")], []),
        (["SwipeLeft", "SwipeRight"], [("SwipeLeft", "SwipeRight")], []),
        (["LEFT hand", "RIGHT hand"], [("LEFT hand", "RIGHT hand")], []),
        (["left to right", "right to left"], [("left to right", "right to left")], []),
        (["Turn clockwise", "Turn counter-clockwise"], [("Turn clockwise", "Turn counter-clockwise")], []),
        (["anticlockwise", "clockwise"], [("anticlockwise", "clockwise")], []),
        (["turn left", "turn up"], [], ["turn left"]),
        (["eat leftovers", "bright", "upright", "copyright", "cleft"], [], []),
        (["pulling it right out", "right away"], [], []),
        (["swipe left", "wipe right"], [], ["swipe left", "wipe right"]),
    ],
)
def test_pairs(names: list[str], pairs: list[tuple[str, str]], lonely: list[str]) -> None:
    assert flip_pairs(names) == (tuple(pairs), lonely)


def test_the_real_classes(test_videos: Path) -> None:
    annotations = test_videos / "annotations"
    something = json.loads((annotations / "ssv2" / "something-something-v2-labels.json").read_text())
    pairs, lonely = flip_pairs(list(something))
    assert pairs == (
        ("Pulling something from left to right", "Pulling something from right to left"),
        ("Pushing something from left to right", "Pushing something from right to left"),
        ("Turning the camera left while filming something", "Turning the camera right while filming something"),
    )
    assert not lonely  # "... but pulling it right out as you remove your hand" is no direction
    jester = (annotations / "jester" / "jester-v1-labels.csv").read_text().splitlines()
    assert flip_pairs(jester) == (
        (
            ("Swiping Left", "Swiping Right"),
            ("Sliding Two Fingers Left", "Sliding Two Fingers Right"),
            ("Turning Hand Clockwise", "Turning Hand Counterclockwise"),
        ),
        [],
    )
    for name in ("kinetics_label_map_k700", "ucf101_label_map", "hmdb51_label_map"):
        assert flip_pairs((annotations / "label_maps" / f"{name}.txt").read_text().splitlines()) == ((), [])


def test_turning_is_known_by_its_abbreviations() -> None:
    assert flip_pairs(["turn_cw", "turn_ccw", "TurnCW", "TurnACW"])[0] == (
        ("turn_cw", "turn_ccw"),
        ("TurnCW", "TurnACW"),
    )


def test_an_article_is_no_abbreviation() -> None:
    names = ["draw a clockwise circle", "draw a counterclockwise circle"]
    assert flip_pairs(names) == ((tuple(names),), [])

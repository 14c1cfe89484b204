"""A checkpoint tested on data whose classes are numbered otherwise: names decide."""

from __future__ import annotations

import dataclasses

import pytest

from vidtrain.class_names import with_classes_of
from vidtrain.data.manifest.manifest import IntLists, Manifest, VideoData
from vidtrain.errors import DataError


def test_labels_are_renumbered_by_name() -> None:
    data = VideoData(("b", "d"), {"test": Manifest.of(["x", "y", "z"], [0, 1, -1])}, flip_pairs=(("b", "d"),))
    found = with_classes_of(data, ["a", "b", "c", "d"])
    assert found.class_names == ("a", "b", "c", "d")
    assert found.splits["test"].labels.tolist() == [1, 3, -1]
    assert list(found.splits["test"].paths) == ["x", "y", "z"]
    assert found.flip_pairs == ()
    assert with_classes_of(data, ["b", "d"]) is data


def test_several_labels_are_renumbered_by_name() -> None:
    tags = IntLists.of([[0, 1], [], [1]])
    rows = dataclasses.replace(Manifest.of(["x", "y", "z"], [0, -1, 1]), tags=tags)
    found = with_classes_of(VideoData(("b", "a"), {"test": rows}), ["a", "b", "c"])
    assert found.splits["test"].tags is not None
    assert [each.tolist() for each in found.splits["test"].tags] == [[0, 1], [], [0]]
    assert found.splits["test"].labels.tolist() == [1, -1, 0]


def test_a_class_that_the_checkpoint_does_not_know_is_refused() -> None:
    data = VideoData(("a", "new"), {"test": Manifest.of(["x"], [1])})
    with pytest.raises(DataError, match=r"has 1 classes that the checkpoint does not know: new; .*trained on: a, b"):
        with_classes_of(data, ["a", "b"])

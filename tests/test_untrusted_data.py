"""What comes out of a file is data: what is let through, and what is refused, on both sides of each bound."""

from __future__ import annotations

import json
import os
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vidtrain import untrusted_data as untrusted
from vidtrain.untrusted_data import check_plain, has_types, is_below, map_array, parse_json, read_json, read_mapping


def nested(depth: int, kind: type = list) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"a": value} if kind is dict else [value]
    return value


@pytest.mark.parametrize(
    "value",
    [
        *(None, True, 0, -(2**63), 2**63 - 1, 1.5, float("inf"), "", "x" * untrusted.LONGEST_TEXT, "${a}", "\n"),
        *([], (), {}, [(1, {"a": [None]})], {"": 1}, {"x" * untrusted.LONGEST_TEXT: 1}),
        *(
            [0] * (untrusted.MOST_NODES - 1),
            [[]] * (untrusted.MOST_NODES - 1),
            nested(untrusted.MOST_DEPTH),
        ),
        nested(untrusted.MOST_DEPTH, dict),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_plain_values(value: Any) -> None:
    check_plain(value, "it")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (2**63, "it: a number of more than 64 bits"),
        (-(2**63) - 1, "it: a number of more than 64 bits"),
        ({"a": [float("nan")]}, r"it\.a\[0\]: not a number \(nan\)"),
        ({"a": "x" * (untrusted.LONGEST_TEXT + 1)}, r"it\.a: a text of 65537 characters, at most 65536"),
        ({"x" * (untrusted.LONGEST_TEXT + 1): 1}, "a key of it: a text of 65537 characters"),
        (["a\0"], r"it\[0\]: a text with a null character"),
        ({"a\0": 1}, "a key of it: a text with a null character"),
        ([0] * untrusted.MOST_NODES, "it: more than 20000 values"),
        ({str(n): n for n in range(untrusted.MOST_NODES)}, "it: more than 20000 values"),
        ([[0] * 10_000, (0,) * 10_000], "it: more than 20000 values"),
        (nested(untrusted.MOST_DEPTH + 1), "lists and mappings more than 16 deep"),
        (nested(untrusted.MOST_DEPTH + 1, dict), "lists and mappings more than 16 deep"),
        ({1: 2}, "it: expected text keys, got '1'"),
        ({"a": {(1, 2): 2}}, r"it\.a: expected text keys, got '\(1, 2\)'"),
        ({1, 2}, "it: expected a plain value, got builtins.set"),
        (b"a", "it: expected a plain value, got builtins.bytes"),
        (OrderedDict(a=1), "it: expected a plain value, got collections.OrderedDict"),
        (np.float64(1.0), "it: expected a plain value, got numpy.float64"),
        (type("Text", (str,), {})("a"), "it: expected a plain value, got .*Text"),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_what_is_not_plain(value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_plain(value, "it")


def test_lists_that_share_each_other_are_counted_each_time() -> None:
    shared: Any = []
    for _ in range(untrusted.MOST_DEPTH - 1):
        shared = [shared] * 9  # 9 ** 15 values in a file of a kilobyte
    with pytest.raises(ValueError, match="more than 20000 values"):
        check_plain(shared, "it")


def test_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.json"
    for text in ("[" * 100_000, '{"a":' * 100_000):
        with pytest.raises(ValueError, match="within each other without end"):
            parse_json(text)
    file.write_text('{"a": [1]}')
    assert read_json(file) == read_mapping(file) == {"a": [1]}
    monkeypatch.setattr(untrusted, "_LARGEST_JSON", 9)
    with pytest.raises(ValueError, match="10 bytes, expected 9 at most"):
        read_json(file)
    file.write_text("[1]")
    with pytest.raises(ValueError, match="expected a mapping, got list"):
        read_mapping(file)
    monkeypatch.undo()
    file.write_text(json.dumps({"a": nested(20)}))
    assert read_json(file)
    with pytest.raises(ValueError, match="more than 16 deep"):
        read_mapping(file)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has none of these files")
def test_pipes_are_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for read in (read_json, read_mapping, map_array, untrusted.read_texts, untrusted.check_regular):
        with pytest.raises(OSError, match="is not a regular file"):
            read(tmp_path / "pipe")
    untrusted.check_regular(tmp_path)


@pytest.mark.parametrize(
    ("name", "below"),
    [
        *(("a.mp4", True), ("a/b..c/d", True), ("..a", True), ("a b", True), ("./a", True)),
        *(("", False), ("..", False), ("../a", False), ("a/../../b", False), ("a/..", False), ("/a", False)),
        *(("a\0", False), (3, False), (None, False), (b"a", False)),
    ],
)
def test_names_below_a_folder(name: Any, below: bool) -> None:
    assert is_below(name) is below


def test_types_of_a_parsed_file() -> None:
    content = {"n": 1, "b": True, "t": "x", "f": 1.5}
    assert has_types(content, n=int, b=bool, t=str, f=(int, float), gone=(str, type(None)))
    for wrong in ({"b": int}, {"n": bool}, {"n": (str, float)}, {"gone": str}, {"f": int}):
        assert not has_types(content, **wrong)  # type: ignore[arg-type]


def test_arrays(tmp_path: Path) -> None:
    file = tmp_path / "a.npy"
    np.save(file, np.arange(6).reshape(2, 3))
    found = map_array(file)
    assert type(found) is np.ndarray
    assert found.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert not found.flags.writeable
    np.save(file, np.array([print], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="objects"):
        map_array(file)
    np.savez(tmp_path / "a.npz", a=np.arange(2))
    with pytest.raises(ValueError, match="an archive, expected one array"):
        map_array(tmp_path / "a.npz")
    for data in (b"", b"\x93NUMPY", b"\x93NUMPY\x01\x00\x10\x27" + b"(" * 10_000, b"\x93NUMPY\x09\x00"):
        file.write_bytes(data)
        with pytest.raises(ValueError, match=r"not an array of numpy: .|Cannot|version"):
            map_array(file)
    with pytest.raises(FileNotFoundError):
        map_array(tmp_path / "gone.npy")

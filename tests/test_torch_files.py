"""Files of torch.save: what trainings write is read as it is, and what asks for more than it holds is named."""

from __future__ import annotations

import argparse
import io
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from vidtrain import torch_files
from vidtrain.torch_files import UnreadableError, load


def saved(tmp_path: Path, value: Any, **options: Any) -> Path:
    torch.save(value, tmp_path / "a.pt", **options)
    return tmp_path / "a.pt"


def zipped(tmp_path: Path, parts: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(tmp_path / "a.pt", "w", compression) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    return tmp_path / "a.pt"


def pickled(tmp_path: Path, program: bytes) -> Path:
    return zipped(tmp_path, {"archive/data.pkl": b"\x80\x02" + program + b".", "archive/version": b"3\n"})


@pytest.mark.parametrize("old", [False, True])
def test_what_trainings_write(tmp_path: Path, old: bool) -> None:
    shared = torch.arange(6.0)
    content = {
        "model": OrderedDict(a=shared[:3], b=shared, c=torch.nn.Parameter(torch.ones(2)), d=torch.zeros(1).expand(5)),
        "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"params": [0, 1], "betas": (0.9,)}]},
        "half": torch.ones(2, dtype=torch.bfloat16),
        "size": torch.Size([1, 2]),
        "values": [1, 2.5, True, None, "x", {"a": (1, 2)}, {1, 2}],
    }
    found = load(saved(tmp_path, content, _use_new_zipfile_serialization=not old))
    assert found["values"] == content["values"]
    assert found["optimizer"] == content["optimizer"]
    for name, value in content["model"].items():  # type: ignore[union-attr]
        assert torch.equal(found["model"][name], value)
    if old:
        with pytest.raises(zipfile.BadZipFile):
            load(tmp_path / "a.pt", zipped=True)


def test_a_type_is_read_where_it_is_known(tmp_path: Path) -> None:
    file = saved(tmp_path, {"args": argparse.Namespace(lr=1.0)})
    assert load(file, known=[argparse.Namespace])["args"].lr == 1.0
    with pytest.raises(Exception, match="Namespace"):
        load(file)


def test_a_changed_bit_is_seen_by_the_checksums(tmp_path: Path) -> None:
    file = saved(tmp_path, {"w": torch.full((1000,), 3.0)})
    data = bytearray(file.read_bytes())
    data[data.index(b"\x00\x00\x40\x40" * 10) + 6] ^= 1
    file.write_bytes(data)
    assert len(set(load(file)["w"].tolist())) == 2
    with pytest.raises(zipfile.BadZipFile, match="data/0"):
        load(file, check_sums=True)


def shared_lists(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value, value]
    return value


def deep(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: shared_lists(30), "holds more than 50000 values"),
        (lambda: deep(66), "mappings more than 64 deep"),
        (lambda: argparse.Namespace(a=deep(66)), "mappings more than 64 deep"),
        (lambda: {"a": [torch.zeros(1).expand(10**10)]}, "claim far more numbers than the file holds"),
        (lambda: [torch.zeros(1).expand(1 << 27) for _ in range(3)], "claim far more numbers than the file holds"),
        (lambda: torch.zeros(1).expand(10**10), "claim far more numbers than the file holds"),
        (
            lambda: {"w": torch.sparse_coo_tensor([[0]], [1.0], (10**9,))},
            "sparse, quantised, nested, complex or without numbers",
        ),
        (lambda: torch.zeros(2, 2).to_sparse_csr(), "sparse, quantised, nested, complex or without numbers"),
        (lambda: {"w": torch.empty(10**9, device="meta")}, "sparse, quantised, nested, complex or without numbers"),
        (lambda: {"w": torch.zeros(2, dtype=torch.complex64)}, "nested, complex or without"),
        (lambda: torch.quantize_per_tensor(torch.zeros(1), 1.0, 0, torch.qint8), "sparse, quantised, nested"),
    ],
    ids=range(11),
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_content_that_is_more_than_the_file(
    tmp_path: Path, make: Callable[[], Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_files, "_MOST_VALUES", 50_000)  # as they are counted, which takes seconds of more
    with pytest.raises(UnreadableError, match=message):
        load(saved(tmp_path, make()), known=[argparse.Namespace])


def test_content_at_the_bounds(tmp_path: Path) -> None:
    load(saved(tmp_path, deep(63)))
    found = load(saved(tmp_path, [torch.zeros(1).expand(1 << 26) for _ in range(4)]))  # 1 GiB, less 16 bytes
    assert sum(t.numel() for t in found) == 1 << 28


TUPLES = b"})" + b"q\x00h\x00\x86" * 60 + b"K\x01s"
"""((((),()),((),())),...) as a key of a dict: its hash takes 2 ** 60 steps."""


@pytest.mark.parametrize(
    "program",
    [
        TUPLES,
        TUPLES.replace(b"h\x00\x86", b"h\x00h\x00\x87"),
        b"})" + b"q\x00(h\x00h\x00t" * 60 + b"K\x01s",
        b"})" + b"2\x86" * 60 + b"K\x01s",  # by DUP
        b"})" + b"r\x00\x00\x00\x00j\x00\x00\x00\x00\x86" * 60 + b"K\x01s",
        b"})" + b"p0\ng0\n\x86" * 60 + b"K\x01s",
        # of objects: OrderedDict(x) within each other
        b"}ccollections\nOrderedDict\n" + b")" + b"q\x00h\x00\x86" * 60 + b"RK\x01s",
    ],
    ids=range(7),
)
@pytest.mark.parametrize("old", [False, True])
def test_tuples_that_share_each_other(tmp_path: Path, program: bytes, old: bool) -> None:
    file = pickled(tmp_path, program)
    if old:
        file.write_bytes(b"\x80\x02" + program + b".")
    with pytest.raises(UnreadableError, match="holds a tuple of more than 100000 values"):
        load(file)


def test_the_third_pickle_of_the_old_format_is_looked_at(tmp_path: Path) -> None:
    file = tmp_path / "a.pt"
    file.write_bytes(b"\x80\x02K\x01." * 3 + b"\x80\x02" + TUPLES + b".")
    with pytest.raises(UnreadableError, match="holds a tuple of more than"):
        load(file)


def test_archives_that_hold_more_than_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnreadableError, match="compressed or overlapping parts"):
        load(zipped(tmp_path, {"archive/data.pkl": b"\x80\x02}.", "archive/data/0": b"\0" * 9}, zipfile.ZIP_DEFLATED))
    file = pickled(tmp_path, b"}")
    data = bytearray(file.read_bytes())
    at = data.index(b"PK\x01\x02")  # the directory: its first part claims another size
    data[at + 20 : at + 28] = (10**6).to_bytes(4, "little") * 2
    file.write_bytes(data)
    with pytest.raises(UnreadableError, match="compressed or overlapping parts"):
        load(file)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in ("data.pkl", "dat_.pkl"):
            archive.writestr(f"archive/{name}", b"\x80\x02}.")
    file.write_bytes(buffer.getvalue().replace(b"dat_", b"data"))
    with pytest.raises(UnreadableError, match="several parts of one name"):
        load(file)
    monkeypatch.setattr(torch_files, "_LARGEST_PICKLE", 1000)
    with pytest.raises(UnreadableError, match=r"data\.pkl has 2004 bytes beside the tensors"):
        load(pickled(tmp_path, b"U\x01a0" * 500 + b"}"))


def test_bytes_held_counts_each_piece_once() -> None:
    whole = torch.zeros(10)
    assert torch_files.bytes_held([whole, whole[:3], whole.view(2, 5), torch.zeros(1)]) == 44

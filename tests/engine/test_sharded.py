"""Shards: what is beside the tensors is data, and one changed bit is noticed."""

from __future__ import annotations

import io
import logging
import os
import pickle
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed.checkpoint.metadata import _MEM_FORMAT_ENCODING

from vidtrain.engine.checkpoints import shards as sharded
from vidtrain.engine.checkpoints.checkpoint import Checkpoints, load_checkpoint, save_checkpoint
from vidtrain.engine.devices.distributed import World
from vidtrain.errors import CheckpointError

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
Sums = dict[str, str]


def parts(seed: int = 0) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1 + seed)
    model(torch.rand(5, 4)).square().sum().backward()
    optimizer.step()
    return model, optimizer


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, Sums]:
    folder = tmp_path / "last.3.shards"
    return folder, sharded.save_shards(folder, sharded.parts_of(*parts(), None), World())


def load(folder: Path) -> tuple[nn.Module, torch.optim.Optimizer]:
    model, optimizer = parts(1)
    sharded.load_shards(folder, model, optimizer, None)
    return model, optimizer


def test_what_was_saved_is_read(saved: tuple[Path, Sums]) -> None:
    folder, sums = saved
    assert sorted(sums) == [".metadata", "__0_0.distcp"]
    sharded.check_shards(folder, sums, World())
    (model, optimizer), (expected, expected_optimizer) = load(folder), parts()
    for one, other in zip(model.state_dict().values(), expected.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    one, other = optimizer.state_dict(), expected_optimizer.state_dict()
    assert one["param_groups"] == other["param_groups"]
    assert one["param_groups"][0]["betas"] == (0.9, 0.999)
    assert all(torch.equal(one["state"][0][key], value) for key, value in other["state"][0].items())


def test_one_flipped_bit_is_refused(saved: tuple[Path, Sums]) -> None:
    folder, sums = saved
    draw = random.Random(0)
    for name in sums:
        content = (folder / name).read_bytes()
        for place in [0, len(content) - 1, *draw.sample(range(len(content)), 30)]:
            damaged = bytearray(content)
            damaged[place] ^= 1 << draw.randrange(8)
            (folder / name).write_bytes(damaged)
            with pytest.raises(CheckpointError, match=f"{name}: was changed or damaged: its checksum is not the one"):
                sharded.check_shards(folder, sums, World())
        (folder / name).write_bytes(content[:-1])
        with pytest.raises(CheckpointError, match="was changed or damaged"):
            sharded.check_shards(folder, sums, World())
        (folder / name).unlink()
        with pytest.raises(CheckpointError, match=r"cannot be read \(No such file"):
            sharded.check_shards(folder, sums, World())
        (folder / name).write_bytes(content)
    sharded.check_shards(folder, sums, World())


@pytest.mark.parametrize("sums", [None, [], {}, {"__0_0.distcp": ""}, {".metadata": "", "../../x": ""}, {3: ""}])
def test_sums_of_something_else(saved: tuple[Path, Sums], sums: Any) -> None:
    with pytest.raises(CheckpointError, match="holds no checksums of its files"):
        sharded.check_shards(saved[0], sums, World())


def test_damaged_shards_lose_one_checkpoint_not_the_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    checkpoints = Checkpoints(tmp_path, keep_last=2)
    checkpoints.sharded = True  # as in a world of several
    content = {"config": {}, "class_names": ["a"]}
    for update in (1, 2):
        checkpoints.save_last({**content, "progress": {"update": update, "epoch": update}}, *parts(), None)
    found = checkpoints.load_last()
    assert found is not None
    assert found["progress"]["update"] == 2
    file = tmp_path / "last.2.shards" / "__0_0.distcp"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with caplog.at_level(logging.WARNING):
        found = checkpoints.load_last()
    assert found is not None
    assert found["progress"]["update"] == 1
    assert "__0_0.distcp: was changed or damaged" in caplog.text


class Runs:
    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call[0], self.call[1:]


def test_a_member_of_an_enumeration_as_early_releases_of_python_3_11_write_it() -> None:
    member = _MEM_FORMAT_ENCODING.TORCH_CONTIGUOUS_FORMAT
    written = pickle.dumps(Runs(getattr, _MEM_FORMAT_ENCODING, member.name))
    assert sharded._MetadataUnpickler(io.BytesIO(written)).load() is member


def test_metadata_import_nothing(saved: tuple[Path, Sums], tmp_path: Path) -> None:
    folder, _ = saved
    good = sharded._read_metadata(folder)
    for evil in (
        Runs(os.system, f"touch {tmp_path / 'ran'}"),
        Runs(eval, f"open({str(tmp_path / 'ran')!r}, 'w')"),
        Runs(io.open, str(tmp_path / "ran"), "w"),
        Runs(torch.load, str(tmp_path / "x")),
        Runs(Path.touch, tmp_path / "ran"),
        Runs(getattr, "text", "upper"),
        Runs(getattr, _MEM_FORMAT_ENCODING, "mro"),
        Runs(getattr, _MEM_FORMAT_ENCODING, ["mro"]),
    ):
        for where in ("planner_data", "storage_meta", "version", "whole"):
            setattr(good, where, evil)
            (folder / ".metadata").write_bytes(pickle.dumps(evil if where == "whole" else good))
            with pytest.raises(CheckpointError, match="cannot be read: its metadata hold"):
                load(folder)
            setattr(good, where, None)
    assert not (tmp_path / "ran").exists()


def test_metadata_name_no_file_outside(saved: tuple[Path, Sums], tmp_path: Path) -> None:
    folder, _ = saved
    for name in ("../../outside", str(tmp_path / "outside"), "", "__0_0.distcp/../../x", 3):
        metadata = sharded._read_metadata(folder)
        next(iter(metadata.storage_data.values())).relative_path = name
        (folder / ".metadata").write_bytes(pickle.dumps(metadata))
        with pytest.raises(CheckpointError, match="cannot be read: its metadata name the file"):
            load(folder)
        next(iter(metadata.storage_data.values())).relative_path = "__0_0.distcp"
        (folder / ".metadata").write_bytes(pickle.dumps(metadata))
    for content in (b"", b"{}", pickle.dumps({"a": 1}), pickle.dumps([[]] * 3), pickle.dumps(torch.float32)):
        (folder / ".metadata").write_bytes(content)
        with pytest.raises(CheckpointError, match="cannot be read: its metadata are"):
            load(folder)


def test_what_is_no_tensor_is_read_as_plain_values(saved: tuple[Path, Sums], tmp_path: Path) -> None:
    """torch's own planner reads the numbers of an optimizer with weights_only=False."""
    folder, _ = saved
    metadata = sharded._read_metadata(folder)
    key = next(
        k for k in metadata.storage_data if k.fqn == "optimizer.param_groups.0.weight.lr" or k.fqn.endswith(".lr")
    )
    evil = io.BytesIO()
    torch.save(Runs(os.system, f"touch {tmp_path / 'ran'}"), evil)
    part = folder / "__0_0.distcp"
    info = metadata.storage_data[key]
    info.offset, info.length = part.stat().st_size, len(evil.getvalue())
    part.write_bytes(part.read_bytes() + evil.getvalue())
    (folder / ".metadata").write_bytes(pickle.dumps(metadata))
    with pytest.raises(CheckpointError, match="cannot be read"):
        load(folder)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["../../x.shards", "/tmp/x.shards", "last.1.shards/../..", "last.1.shards\n", 3])
def test_the_folder_of_shards_lies_beside_last_pt(tmp_path: Path, name: Any) -> None:
    save_checkpoint(tmp_path / "last.pt", {"model": {}, "config": {}, "class_names": [], "sharded": name})
    with pytest.raises(CheckpointError, match="its sharded is no name of a folder of shards"):
        load_checkpoint(tmp_path / "last.pt")

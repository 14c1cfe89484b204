"""Checkpoints of a model whose weights are spread over several processes (FSDP2): each writes its part.

Written by torch.distributed.checkpoint, which puts the parts together again for any number of processes. Its own reader
unpickles what is beside the tensors; here they are read as the data that they are, once their checksums are right.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import pickle
import re
import shutil
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any, Final

import torch
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from vidtrain import torch_files
from vidtrain.engine.checkpoints.content_checks import Average
from vidtrain.engine.devices.distributed import World
from vidtrain.errors import CheckpointError
from vidtrain.untrusted_data import check_regular

log = logging.getLogger("vidtrain")

SUFFIX = ".shards"
_METADATA: Final = ".metadata"
_PART: Final = re.compile(r"__(\d+)_\d+\.distcp")  # the number of the process that has written it
_PIECE: Final = 1 << 22  # bytes read at a time

_METADATA_HOLDS: Final = {
    **dict.fromkeys(
        ("Metadata", "TensorStorageMetadata", "BytesStorageMetadata", "TensorProperties", "ChunkStorageMetadata"),
        "torch.distributed.checkpoint.metadata",
    ),
    **dict.fromkeys(("MetadataIndex", "StorageMeta", "_MEM_FORMAT_ENCODING"), "torch.distributed.checkpoint.metadata"),
    "_StorageInfo": "torch.distributed.checkpoint.filesystem",
    "Size": "torch",
    "_get_layout": "torch.serialization",
}
"""Every class and function in the metadata of shards, besides torch's types of numbers; each but holds values."""


def full_weights(model: nn.Module) -> dict[str, Any]:
    """All weights on the CPU of the main process; nothing in the others. To be called by all."""
    return get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))


def parts_of(model: nn.Module, optimizer: torch.optim.Optimizer, ema: Average | None) -> dict[str, Any]:
    """What this process keeps of the model, its optimizer and its average, in the same memory."""
    state: dict[str, Any] = {
        "model": get_model_state_dict(model),
        "optimizer": get_optimizer_state_dict(model, optimizer),
    }
    if ema is not None:
        state["average"] = ema.state_dict()["average"]  # read in place
    return state


def copied_parts(state: dict[str, Any]) -> dict[str, Any]:
    """A copy of what `parts_of` returned in the CPU's memory, as torch's own dcp.async_save makes it."""
    stager = DefaultStager(StagingOptions(False, False, False, False))
    copy = stager.stage(state)
    stager.close()  # it would keep the copy
    assert isinstance(copy, dict)  # no Future, as without use_async_staging
    return copy


def save_shards(folder: Path, state: dict[str, Any], world: World) -> dict[str, str]:
    """Write `folder`, complete or not at all. To be called by all.

    Args:
        state: of `parts_of`.

    Returns:
        The SHA-256 of each of its files, for `check_shards`.
    """
    temporary = folder.with_name(f".{folder.name}.tmp")
    if world.is_main:
        shutil.rmtree(temporary, ignore_errors=True)
    world.any(True)
    problem, own = "", {}
    try:
        with world.together():
            dcp.save(state, checkpoint_id=temporary, process_group=world.group)
        own = {file.name: _sha256(file) for file in temporary.iterdir() if _writer(file.name) == world.rank}
    except (Exception, CheckpointException) as error:  # torch's is no Exception
        problem = str(error).strip().splitlines()[-1]
    found = world.gather((problem, own))
    problem = next((text for text, _ in found if text), "")
    if problem:
        raise CheckpointError(f"cannot write {folder}: {problem}")
    if world.is_main:
        shutil.rmtree(folder, ignore_errors=True)
        temporary.replace(folder)
    world.any(True)
    return {name: digest for _, sums in found for name, digest in sums.items()}


def check_shards(folder: Path, sums: Any, world: World) -> None:
    """Compare the files with the sums that `save_shards` returned. To be called by all, who share the work.

    Raises:
        CheckpointError: in all of them: a file is missing or was changed.
    """
    if not isinstance(sums, dict) or not all(_writer(str(name)) is not None for name in sums) or _METADATA not in sums:
        raise CheckpointError(f"{folder}: last.pt holds no checksums of its files: written by an earlier vidtrain?")
    problem = ""
    for name in sorted(sums)[world.rank :: world.size]:
        try:
            if _sha256(folder / name) != sums[name]:
                problem = f"{folder / name}: was changed or damaged: its checksum is not the one of last.pt"
        except OSError as error:
            problem = f"{folder / name}: cannot be read ({error.strerror or error})"
    problem = next((text for text in world.gather(problem) if text), "")
    if problem:
        raise CheckpointError(problem)


def load_shards(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, ema: Average | None) -> None:
    """Read what `save_shards` wrote, with this or another number of processes. To be called by all."""
    state = parts_of(model, optimizer, ema)
    try:
        # read here: torch's own log shows what goes wrong in there with its traceback
        reader = _Reader(folder, _read_metadata(folder))
        with contextlib.redirect_stdout(io.StringIO()):
            dcp.load(state, storage_reader=reader, planner=_Planner())
        set_model_state_dict(model, state["model"])
        set_optimizer_state_dict(model, optimizer, state["optimizer"])
    except (Exception, CheckpointException) as error:  # torch's is no Exception
        raise CheckpointError(f"{folder}: cannot be read: {str(error).strip().splitlines()[-1]}") from error


def _read_metadata(folder: Path) -> Metadata:
    """What dcp.save wrote beside the shards; nothing in it imports anything or names a file outside of the folder."""
    with (folder / _METADATA).open("rb") as file:
        if not torch_files.check_pickle(file):
            raise pickle.UnpicklingError("its metadata are no pickle")
        file.seek(0)
        metadata = _MetadataUnpickler(file).load()
    if type(metadata) is not Metadata or not isinstance(metadata.storage_data, Mapping):
        raise pickle.UnpicklingError("its metadata are those of something else")
    for info in metadata.storage_data.values():
        if not _PART.fullmatch(str(info.relative_path)) or getattr(info, "transform_descriptors", None):
            raise pickle.UnpicklingError(f"its metadata name the file {str(info.relative_path)[:80]!r}")
    return metadata


class _Reader(dcp.FileSystemReader):
    """Reads tensors by metadata that have been looked at; torch's own reader would unpickle them."""

    def __init__(self, folder: Path, metadata: Metadata) -> None:
        super().__init__(folder)
        self._metadata = metadata

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        return self._metadata


class _Planner(dcp.DefaultLoadPlanner):
    """Reads what is no tensor (numbers of the optimizer) as plain values; torch's own planner unpickles anything."""

    def load_bytes(self, read_item: Any, value: io.BytesIO) -> None:
        plain = io.BytesIO()
        torch.save(torch.load(value, weights_only=True), plain)
        plain.seek(0)
        super().load_bytes(read_item, plain)


class _MetadataUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if _METADATA_HOLDS.get(name) == module:
            return super().find_class(module, name)
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        if module.startswith("pathlib") and name in ("PosixPath", "WindowsPath"):  # the folder it was written to
            return lambda *parts: "/".join(map(str, parts))
        if (module, name) == ("builtins", "getattr"):
            return _member
        raise pickle.UnpicklingError(f"its metadata hold {module}.{name}")


def _member(kind: Any, name: Any) -> Enum:
    """A member of an enumeration, which the first releases of Python 3.11 pickle as getattr(kind, name)."""
    if isinstance(kind, type) and issubclass(kind, Enum) and isinstance(name, str) and name in kind.__members__:
        return kind.__members__[name]
    raise pickle.UnpicklingError("its metadata hold builtins.getattr")


def _writer(name: str) -> int | None:
    """The number of the process that writes a file of this name; None for a file that is none of a checkpoint's."""
    if name == _METADATA:
        return 0
    found = _PART.fullmatch(name)
    return int(found.group(1)) if found else None


def _sha256(file: Path) -> str:
    check_regular(file)
    digest = hashlib.sha256()
    with file.open("rb") as handle:
        while piece := handle.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()

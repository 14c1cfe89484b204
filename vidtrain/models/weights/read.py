"""Reading the file of published weights: whatever it is wrapped in, a flat dict of named tensors comes out."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from vidtrain import torch_files
from vidtrain.errors import CheckpointError, one_of
from vidtrain.models.weights.metadata import CONFIGS, Beside, beside_folder, beside_state, class_names, published_config
from vidtrain.remote import is_url
from vidtrain.runs.names import BEST
from vidtrain.store_cache import as_named, folder_or_file, named_as

_WRAPPERS = (
    *("target_encoder", "ema_encoder", "encoder"),  # of V-JEPA, what it classifies with first
    "state_dict",
    "model_state",
    "model_state_dict",
    "model",
    "module",
    "net",
    "weights",
)
"""Keys under which training code keeps the tensors, most telling first."""

_PREFIXES = ("module.", "_orig_mod.", "model.", "network.", "backbone.")
"""What wrappers (DistributedDataParallel, torch.compile, Lightning, ...) put in front of every key."""

_IN_A_FOLDER = ("model.safetensors", "pytorch_model.bin")
"""A model folder of the Hugging Face hub."""


@dataclass(frozen=True)
class Weights:
    """The tensors of a file, under the file's own names."""

    source: str
    state: dict[str, torch.Tensor]
    left_out: tuple[tuple[str, str], ...] = ()
    """(key, why) of what is not a tensor."""
    config: Mapping[str, Any] | None = None
    """The configuration of a checkpoint of vidtrain, or of a folder that `vidtrain publish` has written."""
    said: Mapping[str, Beside] = field(default_factory=dict)
    """Configurations beside the tensors, by the name of their file or key: config.json, cfg."""
    class_names: tuple[str, ...] = ()
    """In the order of the head's outputs; () where the file has none."""


def read_weights(source: str | Path | Mapping[str, Any]) -> Weights:
    """Read .pt, .pth, .pyth, .pt.tar, .bin (never more than plain values and tensors), .safetensors, a folder of the
    Hugging Face hub or of a run, each also by its address in a store; or a state dict in memory.

    Raises:
        CheckpointError: no such file, damaged, or not weights.
    """
    if isinstance(source, Mapping):
        return _unwrap(source, "the state dict")
    if is_url(source):
        return _of_a_store(os.fspath(source))
    path = Path(os.path.expanduser(source))  # noqa: PTH111 - Path.expanduser raises for ~x without a user x
    if path.is_dir():
        path = next((path / name for name in (*_IN_A_FOLDER, BEST) if (path / name).is_file()), path)
    if path.is_dir():
        raise CheckpointError(
            f"{path} is a folder without {', '.join(_IN_A_FOLDER)} or {BEST}: name the file of the weights"
        )
    if not path.is_file():
        raise CheckpointError(f"{path}: {'is not a regular file' if path.exists() else 'no such file'}")
    content = _safetensors(path) if path.suffix == ".safetensors" else _pickle(path)
    weights = _unwrap(content, str(path))
    said = beside_folder(path.parent) if path.name in _IN_A_FOLDER else {}
    whole = content if isinstance(content, Mapping) else {}
    said |= beside_state(whole, str(path))
    config = published_config(said) or weights.config
    return replace(weights, config=config, said=said, class_names=class_names(whole, said))


def _of_a_store(url: str) -> Weights:
    copy = folder_or_file(url, (*_IN_A_FOLDER, BEST), CONFIGS)
    with named_as(url, copy):
        weights = read_weights(copy)
    said = {key: replace(one, name=as_named(one.name, url, copy)) for key, one in weights.said.items()}
    return replace(weights, source=as_named(weights.source, url, copy), said=said)


def without_prefix(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The state without one prefix that all its keys have in common; the same where there is none."""
    for prefix in _PREFIXES:
        if state and all(key.startswith(prefix) for key in state):
            return {key[len(prefix) :]: tensor for key, tensor in state.items()}
    return dict(state)


def _safetensors(path: Path) -> Any:
    try:
        return torch_files.load_safetensors(path)
    except Exception as error:  # also of torch: a type that it does not know
        reason = str(error).split("\n", 1)[0]
        raise CheckpointError(f"{path}: cannot be read as safetensors ({_size(path)}): {reason}") from error


def _pickle(path: Path) -> Any:
    try:
        return torch_files.load(path, known=[argparse.Namespace])  # plain values in a shell: VideoMAE's files have it
    except torch_files.UnreadableError as error:
        raise CheckpointError(f"{path}: not a file of weights: {error}") from error
    except Exception as error:  # torch raises half a dozen types for a damaged file
        strangers = _strangers(path)
        if strangers:
            raise CheckpointError(
                f"{path}: besides tensors it holds Python objects ({one_of(strangers, 3)}), and reading those could "
                "run a stranger's code: where you trust it, save its state_dict alone with torch.save"
            ) from error
        raise CheckpointError(
            f"{path}: cannot be read as weights ({_size(path)}): truncated, or another kind of file"
        ) from error


def _strangers(path: Path) -> list[str]:
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # damaged, or too old a format to be looked into
        return []


def _unwrap(content: Any, source: str) -> Weights:
    config = content.get("config") if isinstance(content, Mapping) and "class_names" in content else None
    seen: list[str] = []
    while isinstance(content, Mapping):
        tensors = {str(key): value for key, value in content.items() if isinstance(value, torch.Tensor)}
        inner = next((key for key in _WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if inner is None or (tensors and len(tensors) > len(content) // 2):
            if not tensors:
                break
            rest = tuple((str(key), "not a tensor") for key in content if str(key) not in tensors)
            return Weights(source, tensors, rest, config if isinstance(config, Mapping) else None)
        seen.append(inner)
        content = content[inner]
    held = f"its keys: {one_of(map(str, content), 6)}" if isinstance(content, Mapping) else type(content).__name__
    where = f" under {'.'.join(seen)}" if seen else ""
    raise CheckpointError(f"{source}: no tensors in it{where}, {held}; expected a state dict, or one under "
                          f"{one_of(_WRAPPERS)}")  # fmt: skip


def _size(path: Path) -> str:
    return f"{path.stat().st_size} bytes"

"""A trained network as a folder in the style of the Hugging Face hub, written by `vidtrain publish` and read wherever a
checkpoint is.

    model.safetensors          the weights; of a network that transformers has, under its names
    config.json                id2label, what transformers builds the network from, and under "vidtrain" all else
    preprocessor_config.json   the clips for other programs; vidtrain reads its own section of config.json
    README.md                  the model card

The folder is a stranger's data as a checkpoint is: plain values and tensors, whose configuration is checked where it is
called. Nothing in it names code to import but `_target_`, which calls what a checkpoint's may; "auto_map" is not read.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import torch

from vidtrain import torch_files
from vidtrain.engine.checkpoints.checkpoint import FORMAT, load_checkpoint
from vidtrain.engine.checkpoints.content_checks import check_content
from vidtrain.errors import CheckpointError, VidtrainError
from vidtrain.export.onnx_file import read_onnx
from vidtrain.models.weights.metadata import SECTION, Beside, class_names
from vidtrain.remote import is_url
from vidtrain.runs.atomic import part_file, whole_file, write_json
from vidtrain.runs.names import BEST, LAST, newest_run
from vidtrain.store_cache import folder_or_file, named_as
from vidtrain.untrusted_data import are_texts, read_mapping

log = logging.getLogger("vidtrain")

WEIGHTS: Final = "model.safetensors"
CONFIG: Final = "config.json"
PREPROCESSORS: Final = ("preprocessor_config.json", "video_preprocessor_config.json")
CARD: Final = "README.md"
TRANSFORMERS: Final = "transformers"
"""Value of the section's "names": whose names the tensors have, where they are not vidtrain's own."""

_FOLDER_FORMAT: Final = 1
_OF_THE_FOLDER: Final = ("folder_format", "names", "sha256", "card_sha256")
"""Keys of the section that describe the folder; all others are those of a checkpoint."""


def is_hub_folder(path: str | os.PathLike[str], *, damaged: bool = True) -> bool:
    """Whether `vidtrain publish` has written this folder, here or in a store.

    damaged: the answer of one whose config.json cannot be read, with weights beside it; `read_folder` says why.
    """
    path = _copy_of(path)
    if not (path / CONFIG).is_file():
        return False
    try:
        return isinstance(read_mapping(path / CONFIG).get(SECTION), dict)
    except (OSError, ValueError):
        return damaged and (path / WEIGHTS).is_file()


def checkpoint_file(path: str | os.PathLike[str]) -> str:
    """The checkpoint that a path names: of a run's folder its best.pt, or last.pt where it has none yet; of
    runs/DATA/MODEL that of the newest run; a file, an address in a store, or a folder that `vidtrain publish` has
    written, as it is.

    Raises:
        CheckpointError: a folder of something else.
    """
    if is_url(path):
        return os.fspath(path)
    path = Path(path)
    if not path.is_dir() or is_hub_folder(path):
        return str(path)
    found = next((file for name in (BEST, LAST) if (file := path / name).is_file()), None)
    if found is None and (run := newest_run(path, BEST)) is not None:
        found = run / BEST
        log.info("%s: its newest run, %s", path, found)
    if found is None:
        raise CheckpointError(
            f"{path}: holds neither {BEST} nor {LAST} nor runs that do (runs/DATA/MODEL), and `vidtrain publish` has "
            "not written it; a folder of somebody else's weights is model=NAME model.weights=FOLDER"
        )
    return str(found)


def load_trained(path: str | Path, *, exported: bool = False) -> dict[str, Any]:
    """The content of a checkpoint, or of a folder that `vidtrain publish` has written: the same keys.

    Args:
        path: see `checkpoint_file`; in a store a file, a run's folder, or one that `vidtrain publish` has written.
        exported: also of an ONNX file that `vidtrain export` has written, which has no weights to give.

    Raises:
        CheckpointError: see `load_checkpoint`; a folder that is damaged; an ONNX file, see `read_onnx`.
    """
    if is_url(path):
        copy = _copy_of(path)
        with named_as(path, copy):
            return load_trained(copy, exported=exported)
    path = Path(checkpoint_file(path))
    if path.suffix == ".onnx":
        if not exported:
            raise CheckpointError(
                f"{path}: an ONNX file answers (vidtrain predict, eval, vidtrain.load), it has no weights or layers to "
                "give: take the checkpoint that it was exported from"
            )
        return read_onnx(path)
    content = read_folder(path) if is_hub_folder(path) else load_checkpoint(path)
    names = content.get("class_names", [])
    if type(content.get("multi_label", False)) is not bool:
        raise CheckpointError(f"{path}: multi_label: expected true or false")
    if are_texts(names) and len(set(names)) != len(names):
        raise CheckpointError(f"{path}: class_names: expected a list of different names")
    return content


def read_folder(folder: Path) -> dict[str, Any]:
    """The folder's network as a checkpoint has it: format, config, class_names, model (vidtrain's own names), ...

    Raises:
        CheckpointError: a file is missing, damaged or not what config.json says, or the format is a newer one.
    """
    file, weights = folder / CONFIG, folder / WEIGHTS
    try:
        config = read_mapping(file)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file}: cannot be read as a configuration: {error}") from None
    section = config.get(SECTION)
    if not isinstance(section, dict):
        raise CheckpointError(f"{file}: has no section {SECTION}: `vidtrain publish` has not written this folder")
    if section.get("folder_format") != _FOLDER_FORMAT:
        raise CheckpointError(
            f"{file}: folder_format {str(section.get('folder_format'))[:40]}, this vidtrain reads {_FOLDER_FORMAT}: "
            "update vidtrain"
        )
    names = class_names({}, {CONFIG: Beside(str(file), config)})
    own = {key: value for key, value in section.items() if key not in _OF_THE_FOLDER}
    content = {**own, "format": FORMAT, "class_names": list(names), "model": _weights(weights, section)}
    try:
        check_content({"config": None, **content})
    except ValueError as error:
        raise CheckpointError(f"{file}: section {SECTION}: {error}") from None
    return content


def write_folder(
    folder: Path,
    content: Mapping[str, Any],
    state: Mapping[str, torch.Tensor],
    *,
    transformers: Mapping[str, Any] | None = None,
    preprocessors: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
    card: str = "",
) -> bool:
    """Write what `read_folder` reads, each file whole; config.json, which the weights are checked by, last.

    Args:
        content: what a checkpoint would hold besides the weights: config, class_names, and other plain values.
        state: the weights; with `transformers`, the fields of its config.json, under its names.
        preprocessors: of PREPROCESSORS, by name. card: README.md.

    Returns whether the card was written: one that somebody has edited stays.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    section = {key: value for key, value in content.items() if key not in ("class_names", "model", "format")}
    try:
        with part_file(folder / WEIGHTS) as part:
            # safetensors takes no tensors that share memory or lie in another order than their axes
            save_file({key: _copy(tensor) for key, tensor in state.items()}, part, metadata={"format": "pt"})
            beside = {"names": TRANSFORMERS if transformers else "vidtrain", "sha256": _sha256(part)}
            os.umask(mask := os.umask(0))
            part.chmod(0o666 & ~mask)  # safetensors makes a file that nobody else may read
    except SafetensorError as error:  # a full disk
        raise VidtrainError(f"{folder / WEIGHTS}: cannot be written: {error}") from None
    for name in PREPROCESSORS:
        if name in preprocessors:
            write_json(folder / name, preprocessors[name])
        else:
            (folder / name).unlink(missing_ok=True)
    fresh, written = card.encode("utf-8"), not is_edited(folder)
    if written:
        with whole_file(folder / CARD) as file:
            file.write(fresh)
        beside["card_sha256"] = hashlib.sha256(fresh).hexdigest()
    names = content["class_names"]
    classes = {"id2label": dict(enumerate(names)), "label2id": {name: number for number, name in enumerate(names)}}
    own = {"folder_format": _FOLDER_FORMAT, **beside, **section}
    write_json(folder / CONFIG, {**(transformers or {}), **classes, SECTION: own})
    return written


def is_edited(folder: Path) -> bool:
    """Whether the folder's README.md is another one than `write_folder` has written there."""
    card = folder / CARD
    if not card.is_file():
        return False
    try:
        written = read_mapping(folder / CONFIG)[SECTION].get("card_sha256")
    except (OSError, ValueError, LookupError, AttributeError):
        return True
    return written != _sha256(card)


def _weights(file: Path, section: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The tensors under vidtrain's names, once the file is known to be the one that config.json was written with."""
    if not file.is_file():
        raise CheckpointError(f"{file}: {'is not a regular file' if file.exists() else 'no such file'}")
    if _sha256(file) != section.get("sha256"):
        raise CheckpointError(
            f"{file}: is not the file that {CONFIG} describes (its SHA-256 is another): damaged, or changed since; "
            f"weights of your own become a folder by `vidtrain publish`"
        )
    try:
        state = torch_files.load_safetensors(file)
    except (torch_files.UnreadableError, OSError) as error:
        raise CheckpointError(f"{file}: cannot be read as safetensors: {error}") from error
    if section.get("names") != TRANSFORMERS:
        return state
    from vidtrain.models.weights.to_transformers import from_transformers  # with all architectures and layouts

    return from_transformers(state, str(file))


def _copy_of(path: str | os.PathLike[str]) -> Path:
    """The path itself, or this machine's copy of a file or a folder in a store."""
    return folder_or_file(path, (WEIGHTS, BEST, LAST), (CONFIG,))


def _copy(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as content:
        while piece := content.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()

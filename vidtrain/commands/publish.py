"""vidtrain publish: a trained network as a folder for the Hugging Face hub, with a model card.

What is written is read back and compared before the command ends.
"""

from __future__ import annotations

import copy
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Final

import torch
from omegaconf import MISSING
from torch import nn

from vidtrain import build
from vidtrain.commands.publish_card import card_of
from vidtrain.data.flow.methods import OPENCV
from vidtrain.data.settings import FlowSourceName
from vidtrain.engine.preprocess import model_inputs
from vidtrain.errors import ConfigError, VidtrainError
from vidtrain.hub_folder import (
    CARD,
    PREPROCESSORS,
    checkpoint_file,
    is_hub_folder,
    load_trained,
    read_folder,
    write_folder,
)
from vidtrain.models.weights.expected_clips import Expects
from vidtrain.models.weights.to_transformers import NotInTransformersError, TransformersModel, to_transformers
from vidtrain.options.checkpoint_config import checkpoint_config
from vidtrain.options.instantiate import from_file, nothing_for
from vidtrain.options.invocation import Invocation
from vidtrain.options.path_options import annotation
from vidtrain.published import clips_of
from vidtrain.runs.atomic import prepare_folder
from vidtrain.types import FilePath, Text
from vidtrain.untrusted_data import check_plain

log = logging.getLogger("vidtrain")

_SECTIONS: Final = (
    *("task", "model", "data", "decoder", "sampler", "transform", "flow", "eval"),  # of every question to the network
    *("tune", "optimizer", "schedule", "trainer"),  # how it was trained
)
"""Of a run's configuration. Loggers and hooks are its author's own: their options may hold an account, or a key."""
_OF_A_TRAINING: Final = ("optimizer", "ema", "progress", "scaler", "ranks", "compiled", "sharded", "choices")
_NOT_COPIED: Final = ("format", "model", "config", "versions", *_OF_A_TRAINING)
_MACHINE: Final = {"device": "auto", "num_workers": None}
"""What of `trainer` says something of the machine that trained."""


@dataclass
class PublishConfig:
    checkpoint: FilePath = MISSING
    """The .pt file to publish, or the folder of its run; low-rank updates (tune=lora) are merged."""
    output: FilePath = MISSING
    """Folder to write: a new one, an empty one, or one that an earlier publish has written."""
    result: FilePath | None = None
    """Folder of a test, or its result.json, for the model card; null: that of the run which the checkpoint lies in."""
    license: Text | None = None
    """Of the weights, for the model card: apache-2.0, cc-by-nc-4.0 ...; null: the card says that none is stated."""
    title: Text | None = None
    """Of the model card; null: the model's name."""
    dataset: Text | None = None
    """What the model card calls the data; null: their format, ucf101 or folder. It never names your own folders."""
    trust: list[str] = field(default_factory=list)
    """Modules outside vidtrain that the checkpoint's configuration may call."""


def run(call: Invocation[PublishConfig]) -> None:
    """Write the folder, read it back, and say what reads it."""
    file = checkpoint_file(call.options.checkpoint)
    options = replace(call.options, checkpoint=file)
    output = Path(options.output)
    content = load_trained(file)
    config = checkpoint_config(content, file=file, trust=options.trust)
    with torch.random.fork_rng(devices=[]):  # building it draws weights, which the file's replace
        model, _ = build.load_model(file, trust=options.trust, content=content)
    state = model.state_dict()
    clips = clips_of(config)
    theirs, reason = _in_transformers(model, state, clips)
    kept = {"config": portable(content["config"], file, options.trust), **_more(content)}
    card = card_of(vars(options), content, config, model, theirs)
    _check_output(output)
    written = write_folder(
        prepare_folder(output, "output"),
        {**kept, "class_names": content["class_names"]},
        state if theirs is None else theirs.state,
        transformers=None if theirs is None else _with_task(theirs, multi_label=bool(content.get("multi_label"))),
        preprocessors=_preprocessors(clips, theirs) if model_inputs(model) != ("features",) else {},
        card=card,
    )
    if not written:
        log.warning("%s: somebody has edited it, so it stays; remove it for one of these results", output / CARD)
    _compare(output, content["class_names"], state)
    loads = "" if theirs is None else f", in transformers as {theirs.config['architectures'][0]}"
    load = "load_model" if model_inputs(model) == ("features",) else "load"  # there are no clips to ask it about
    print(f"{output}: {len(state)} tensors, {len(content['class_names'])} classes; loads by vidtrain.{load}{loads}")
    if reason:
        print(f"not in transformers: {reason}")


def portable(stored: Mapping[str, Any], file: str, trust: Sequence[str] = ()) -> dict[str, Any]:
    """A run's configuration without what belongs to the machine it ran on: paths, devices, loggers.

    A path is null, so data.root has to be given where the data is read. What the weights came from is null, too.
    """
    config: dict[str, Any] = {name: copy.deepcopy(stored[name]) for name in _SECTIONS if stored.get(name)}
    config["model"] |= nothing_for(from_file(config["model"], file, trust), build.starts_from(config["model"]))
    for name, section in config.items():
        target = section.get("_target_")
        kinds = {key: annotation("train", f"{name}.{key}", target=target) or "" for key in section}
        config[name] = {key: None if _is_path(value, kinds[key]) else value for key, value in section.items()}
    config["trainer"] = {**config.get("trainer", {}), **_MACHINE}
    flow = config.get("flow", {})
    if flow.get("source") == FlowSourceName.cache and flow.get("method") in OPENCV:
        config["flow"] = {**flow, "source": str(flow["method"])}  # what the cache held is computed
    return config


def _more(content: Mapping[str, Any]) -> dict[str, Any]:
    """The other plain values of a checkpoint, such as multi_label."""
    found = {}
    for key, value in content.items():
        try:
            check_plain(value, key)
        except ValueError:
            continue
        if key not in (*_NOT_COPIED, "class_names") and not _holds_path(value):
            found[key] = value
    return found


def _is_path(value: Any, kind: str) -> bool:
    """Whether an option of a section belongs to the machine. kind: of its type, see `annotation`; "": no path.

    data.group_by, a Regex, does not: by it a test cuts the splits, and counts groups, as the run did.
    """
    if "Regex" in kind and re.search(r"[\\(\[*+?|^$]", str(value)):
        return False
    return bool(kind) or _holds_path(value)


def _holds_path(value: Any) -> bool:
    """Whether a text in it is the path of a file from the root of a disk, or from somebody's home."""
    return any(
        text.startswith("~") or PurePosixPath(text).is_absolute() or PureWindowsPath(text).is_absolute()
        for text in _texts(value)
    )


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield str(key)
            yield from _texts(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _texts(inner)


def _in_transformers(
    model: nn.Module, state: Mapping[str, torch.Tensor], clips: Expects
) -> tuple[TransformersModel | None, str]:
    """The network as transformers has it; else None, and why where it has one of its kind."""
    try:
        return to_transformers(model, state, num_frames=clips.num_frames or 1, size=clips.size or 1), ""
    except NotInTransformersError as error:
        return None, str(error)


def _with_task(theirs: TransformersModel, *, multi_label: bool) -> dict[str, Any]:
    kind = "multi_label_classification" if multi_label else "single_label_classification"
    return {**theirs.config, "problem_type": kind}


def _preprocessors(clips: Expects, theirs: TransformersModel | None) -> dict[str, dict[str, Any]]:
    """The preprocessing in the hub's words: scale the frame, cut the middle, to [0, 1], less mean, by std."""
    assert clips.mean is not None
    assert clips.std is not None
    height, _, width = str(clips.resize).partition("x")
    mean, std, factor = list(clips.mean), list(clips.std), 1 / 255
    if signed := theirs is not None and theirs.signed:  # Vivit's processor subtracts 1 before it normalises
        mean, std, factor = [2 * value - 1 for value in mean], [2 * value for value in std], 2 / 255
    fields: dict[str, Any] = {
        **({} if theirs is None else theirs.processors),
        "do_resize": True,
        "size": {"height": int(height), "width": int(width)} if width else {"shortest_edge": int(height)},
        "do_center_crop": True,
        "crop_size": {"height": clips.size, "width": clips.size},
        "do_rescale": True,
        "rescale_factor": factor,
        **({"offset": True} if signed else {}),
        "do_normalize": True,
        "image_mean": mean,
        "image_std": std,
        "num_frames": clips.num_frames,
    }
    return {PREPROCESSORS[0]: fields}


def _check_output(folder: Path) -> None:
    """Refuse a folder that holds anything but what an earlier publish has written."""
    if not folder.exists() or is_hub_folder(folder, damaged=False):
        return
    if not folder.is_dir():
        raise ConfigError(f"output={folder}: is a file, expected a folder")
    if any(folder.iterdir()):
        raise ConfigError(
            f"output={folder}: holds files that `vidtrain publish` has not written (no config.json with a section "
            "vidtrain): choose another folder, or empty this one"
        )


def _compare(folder: Path, names: list[str], state: Mapping[str, torch.Tensor]) -> None:
    """What was written is what was meant, to the bit."""
    found = read_folder(folder)
    same = found["model"].keys() == state.keys() and found["class_names"] == names
    if not same or not all(torch.equal(found["model"][key], tensor.cpu()) for key, tensor in state.items()):
        raise VidtrainError(f"{folder}: what was written does not read back as the checkpoint: the disk is damaged?")

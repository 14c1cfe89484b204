"""The only module that turns configuration into objects, and the library's front door:

model = vidtrain.create_model("c3d", num_classes=101)
names = vidtrain.list_models("*fusion")
model, content = vidtrain.load_model("best.pt")
"""

from __future__ import annotations

import fnmatch
import inspect
import types
import typing
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import nn

from vidtrain.config import TrainConfig
from vidtrain.data.augment import Augment, Colours
from vidtrain.data.manifest import VideoData
from vidtrain.data.readers.base import VideoReader
from vidtrain.data.readers.kinds import AnyReader
from vidtrain.data.sampling import ClipSpec
from vidtrain.data.settings import SamplerConfig, TransformConfig
from vidtrain.data.transforms import TestCuts, TrainCut
from vidtrain.engine.checkpoint import load_checkpoint
from vidtrain.engine.settings import EvalConfig
from vidtrain.errors import CheckpointError, ConfigError, did_you_mean, one_of
from vidtrain.help import conf_dir

# What a configuration that came with a checkpoint may call, section by section. Narrow on purpose: torch.hub.load
# also starts with "torch.".
_CHECKPOINT_MAY_CALL = {
    "model": ("vidtrain.models.", "torchvision.models."),
    "data": ("vidtrain.data.",),
    "decoder": ("vidtrain.data.readers.",),
}
# keys of a data set's YAML that the loop reads, not the function that lists the videos
_DATA_KEYS = ("max_bad_fraction",)


# ---------------------------------------------------------------- calling what a `_target_` names


def call(node: Mapping[str, Any] | DictConfig, section: str, **given: Any) -> Any:
    """Call the function that `node._target_` names with the other keys of the node and `given`.

    Raises:
        ConfigError: no such function, or a key that is not one of its options.
    """
    options = {str(key): value for key, value in node.items()}
    target = options.pop("_target_", None)
    if not isinstance(target, str):
        raise ConfigError(f"{section}._target_ is not set: name the function, for instance vidtrain.models.c3d.c3d")
    function = locate(target, section)
    parameters = inspect.signature(function).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for key in options:
        if key not in parameters and not takes_any:
            raise ConfigError(
                f"no key '{section}.{key}'{did_you_mean(key, parameters)}; {target} takes: {one_of(parameters)}"
            )
    _check_types(function, options, section)
    try:
        inspect.signature(function).bind(**options, **given)
    except TypeError as error:
        raise ConfigError(f"{section}: {target}: {error}") from error
    return function(**options, **given)


def _check_types(function: Any, options: Mapping[str, Any], section: str) -> None:
    """YAML and the command line carry any type: hold the plain ones against the function's annotations."""
    try:
        hints = typing.get_type_hints(function.__init__ if inspect.isclass(function) else function)
    except (NameError, TypeError):  # a user's function may annotate with names that exist only for a type checker
        return
    for key, value in options.items():
        if key in hints and not _fits(value, hints[key]):
            wanted = _type_name(hints[key])
            raise ConfigError(f"{section}.{key}={value!r}: wants {wanted}, got {type(value).__name__}")


def _type_name(hint: Any) -> str:
    """'int | None', the same on every Python."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " | ".join(_type_name(argument) for argument in typing.get_args(hint))
    if hint is type(None):
        return "None"
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")


def _fits(value: Any, hint: Any) -> bool:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, argument) for argument in arguments)
    if origin is typing.Literal:
        return value in arguments
    if hint is type(None):
        return value is None
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint in (str, bool):
        return isinstance(value, hint)
    return hint is not Path or isinstance(value, (str, Path))


def locate(target: str, section: str) -> Any:
    """The object with this dotted name."""
    module_name, _, name = target.rpartition(".")
    try:
        return getattr(import_module(module_name), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"{section}._target_={target}: cannot be imported: {error}") from error


def refuse_untrusted(config: Mapping[str, Any], trust: Sequence[str], source: str) -> None:
    """Raise ConfigError when a stranger's configuration names code outside vidtrain and torchvision."""
    for section, prefixes in _CHECKPOINT_MAY_CALL.items():
        for target in _targets(config.get(section)):
            module = target.rpartition(".")[0]
            if any(module == name or module.startswith(name + ".") for name in trust):
                continue
            known = any(target.startswith(prefix) for prefix in prefixes)
            if not known or not str(getattr(locate(target, section), "__module__", "")).startswith(prefixes):
                raise ConfigError(
                    f"{source} wants to call {section}._target_={target}, which is not part of vidtrain; if you trust "
                    f"it, add trust=[{target.split('.', 1)[0]}]"
                )


def _targets(node: Any) -> list[str]:
    if isinstance(node, Mapping):
        own = [str(node["_target_"])] if "_target_" in node else []
        return own + [t for value in node.values() for t in _targets(value)]
    if isinstance(node, (list, tuple)):
        return [t for value in node for t in _targets(value)]
    return []


# ---------------------------------------------------------------- the parts of a run


def build_model(node: Any, num_classes: int) -> nn.Module:
    """The network of a `model` section."""
    return call(node, "model", num_classes=num_classes)


def build_data(node: Any) -> VideoData:
    """The splits of a `data` section."""
    return call({k: v for k, v in dict(node).items() if k not in _DATA_KEYS}, "data")


def build_reader(node: Any) -> VideoReader:
    """The reader of a `decoder` section; folders of pictures and JPEG packs are read whatever it says."""
    return AnyReader(call(node, "decoder"))


def build_spec(sampler: SamplerConfig) -> ClipSpec:
    return ClipSpec(
        num_frames=sampler.num_frames,
        stride=sampler.stride,
        fps=sampler.fps,
        short=sampler.short.value,
        window=sampler.window,
        mode=sampler.mode.value,
    )


def build_train_cut(transform: TransformConfig) -> TrainCut:
    area, aspect = _pair("area", transform.area), _pair("aspect", transform.aspect)
    return TrainCut(
        transform.size,
        transform.resize,
        transform.resize_max,
        transform.flip,
        transform.squash,
        area if transform.crop.value == "resized" else None,
        aspect,
    )


def build_augment(transform: TransformConfig) -> Augment:
    colours = Colours(transform.colour, transform.grayscale, transform.hue)
    return Augment(colours, transform.policy.value, transform.magnitude, transform.num_ops, transform.erasing)


def build_test_cuts(transform: TransformConfig, crops: int) -> TestCuts:
    return TestCuts(transform.size, transform.resize, crops, transform.squash)


def _pair(key: str, values: Sequence[float]) -> tuple[float, float]:
    if len(values) != 2:
        raise ConfigError(f"transform.{key}={list(values)}: two numbers, from and to")
    return values[0], values[1]


def build_optimizer(node: Any, model: nn.Module) -> torch.optim.Optimizer:
    parameters = [p for p in model.parameters() if p.requires_grad]
    try:
        return call(node, "optimizer", params=parameters)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"optimizer: {node.get('_target_')!s}: {error}") from error


def flip_labels(data: VideoData) -> np.ndarray | None:
    """int64 (K,): the class of a mirrored clip, None when mirroring changes no class."""
    if not data.flip_pairs:
        return None
    number = {name: n for n, name in enumerate(data.class_names)}
    labels = np.arange(data.num_classes)
    for left, right in data.flip_pairs:
        labels[number[left]], labels[number[right]] = number[right], number[left]
    return labels


def protocol(sampler: SamplerConfig, transform: TransformConfig, evaluation: EvalConfig) -> str:
    """How a number was measured, in the field's notation: '16x2 clips at 112 px, 10x1 views, ...'."""
    rate = f"{sampler.num_frames}x{sampler.stride} clips"
    if sampler.mode.value == "segments":
        rate = f"{sampler.num_frames} segments"
    elif sampler.window is not None:
        rate = f"clips of {sampler.num_frames} frames over {sampler.window}"
    elif sampler.fps is not None:
        rate = f"clips of {sampler.num_frames} frames at {sampler.fps:g} fps"
    side = "squashed to" if transform.squash else "short side"
    views = f"{evaluation.clips}x{evaluation.crops} views (clips x crops)"
    if evaluation.hop is not None:
        views = f"a clip every {evaluation.hop} frames x {evaluation.crops} crops"
    return f"{rate} at {transform.size} px ({side} {transform.resize}), {views}, probabilities averaged"


# ---------------------------------------------------------------- models by name, models from files


def list_models(pattern: str = "*") -> list[str]:
    """Names that create_model knows, in alphabetical order, that match a shell pattern."""
    return sorted(fnmatch.filter((file.stem for file in (conf_dir() / "model").glob("*.yaml")), pattern))


def create_model(name: str, *, num_classes: int = 400, **options: Any) -> nn.Module:
    """A model of the catalogue with fresh weights.

    Args:
        name: one of list_models().
        options: what the model's YAML lists. num_frames=16 and size=112 are the clip it will see; models that fit
            any clip ignore them.

    Raises:
        ConfigError: an unknown name or option.
    """
    if name not in list_models():
        raise ConfigError(f"no model '{name}'{did_you_mean(name, list_models())}; models: {one_of(list_models(), 60)}")
    clip = {"num_frames": options.get("num_frames", 16), "size": options.get("size", 112)}
    node = OmegaConf.load(conf_dir() / "model" / f"{name}.yaml")
    root = OmegaConf.create(
        {"model": node, "sampler": {"num_frames": clip["num_frames"]}, "transform": {"size": clip["size"]}}
    )
    resolved = OmegaConf.to_container(root.model, resolve=True)
    assert isinstance(resolved, dict)
    given = {key: value for key, value in options.items() if key in resolved or key not in clip}
    return build_model({**resolved, **given}, num_classes)


def load_model(
    checkpoint: str | Path, *, trust: Sequence[str] = (), content: dict[str, Any] | None = None
) -> tuple[nn.Module, dict[str, Any]]:
    """The model of a checkpoint in eval mode, and the checkpoint's content (config, class_names, versions, ...).

    Args:
        trust: modules outside vidtrain and torchvision that the checkpoint's model may come from.
        content: the checkpoint, when it has been loaded already.
    """
    content = load_checkpoint(checkpoint) if content is None else content
    refuse_untrusted(content["config"], trust, str(checkpoint))
    model = build_model(content["config"]["model"], len(content["class_names"]))
    try:
        model.load_state_dict(content["model"])
    except RuntimeError as error:
        first = str(error).split("\n")[1:2]
        raise CheckpointError(
            f"{checkpoint}: its weights are not those of {content['config']['model'].get('_target_')}: "
            f"{' '.join(first).strip()}"
        ) from error
    return model.eval(), content


def checkpoint_config(content: Mapping[str, Any], composed: DictConfig, choices: Mapping[str, Any]) -> DictConfig:
    """A checkpoint's configuration with the command line's changes on top.

    Args:
        composed: what Hydra composed: only sections and keys that the user gave.
        choices: Hydra's group choices; a group that the user chose replaces the checkpoint's section.
    """
    config = OmegaConf.merge(OmegaConf.structured(TrainConfig), OmegaConf.create(content["config"]))
    assert isinstance(config, DictConfig)
    OmegaConf.set_struct(config, True)
    for section in composed:
        name = str(section)
        if name not in config or composed[name] is None or not OmegaConf.is_config(composed[name]):
            continue
        if choices.get(name) is not None:
            OmegaConf.update(config, name, composed[name], merge=name in ("sampler", "transform", "eval"))
        else:
            _merge_keys(config, name, composed[name])
    return config


def _merge_keys(config: DictConfig, section: str, given: DictConfig) -> None:
    allowed = [str(key) for key in config[section]]
    for key, value in ((str(key), value) for key, value in given.items()):
        if key not in allowed:
            hint = did_you_mean(key, allowed)
            raise ConfigError(f"no key '{section}.{key}'{hint}; the checkpoint's {section} has: {one_of(allowed)}")
        try:
            OmegaConf.update(config, f"{section}.{key}", value, merge=True)
        except OmegaConfBaseException as error:
            raise ConfigError(f"{section}.{key}: {str(error).splitlines()[0]}") from error

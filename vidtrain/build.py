"""The only module that turns configuration into objects, and the library's front door:

model = vidtrain.create_model("c3d", num_classes=101)
names = vidtrain.list_models("*fusion")
model, content = vidtrain.load_model("best.pt")
"""

from __future__ import annotations

import fnmatch
import logging
from collections.abc import Mapping, Sequence
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
from vidtrain.engine.parameters import parameter_groups
from vidtrain.engine.settings import EvalConfig
from vidtrain.errors import CheckpointError, ConfigError, did_you_mean, one_of
from vidtrain.help import conf_dir
from vidtrain.models.weights.load import load_weights
from vidtrain.targets import call, refuse_untrusted

log = logging.getLogger("vidtrain")

MODEL_KEYS = ("weights", "inflate_from")
"""Keys that every model takes beside those of its factory: a published file, or a 2D network to start from."""
_STARTS = (*MODEL_KEYS, "pretrained")
# keys of an optimizer's YAML that say how the parameters are grouped
_GROUP_KEYS = ("layer_decay", "decay_norms")
# keys of a data set's YAML that the loop reads, not the function that lists the videos
_DATA_KEYS = ("max_bad_fraction",)


# ---------------------------------------------------------------- the parts of a run


def build_model(node: Any, num_classes: int) -> nn.Module:
    """The network of a `model` section, with the weights that it names."""
    options = {str(key): value for key, value in node.items()}
    weights, source = (options.pop(key, None) for key in MODEL_KEYS)
    model: nn.Module = call(options, "model", num_classes=num_classes)
    if weights is not None and source is not None:
        raise ConfigError(f"model.weights={weights} and model.inflate_from={source}: a model starts from one of them")
    if source is not None:
        from vidtrain.models.inflate import inflate_from

        log.info("%s", inflate_from(model, source).to_text())
    if weights is not None:
        log.info("%s", load_weights(model, Path(str(weights)).expanduser()).to_text())
    return model


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
    """The optimizer of an `optimizer` section; the keys in _GROUP_KEYS say how parameters are grouped."""
    options = {str(key): value for key, value in node.items()}
    grouping = {key: options.pop(key) for key in _GROUP_KEYS if key in options}
    parameters: Any = [p for p in model.parameters() if p.requires_grad]
    if grouping.get("layer_decay") is not None or not grouping.get("decay_norms", True):
        if not isinstance(options.get("lr"), (int, float)):
            raise ConfigError("optimizer.layer_decay and optimizer.decay_norms need optimizer.lr, a number")
        decay = options.get("weight_decay", 0.0)
        parameters = parameter_groups(model, lr=options["lr"], weight_decay=decay, **grouping)
    try:
        return call(options, "optimizer", params=parameters)
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
            any clip ignore them. weights=PATH loads a published file, inflate_from=NAME_OR_PATH starts a 3D network
            from a 2D one.

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
    # the checkpoint's own weights replace those it started from, whose file may be gone
    node = {k: None if k in _STARTS else v for k, v in content["config"]["model"].items()}
    model = build_model(node, len(content["class_names"]))
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

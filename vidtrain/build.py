"""The only module that turns configuration into objects, and the library's front door:

model = vidtrain.create_model("c3d", num_classes=101)
names = vidtrain.list_models("*fusion")
model, content = vidtrain.load_model("best.pt")
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from vidtrain.data.clips.dataset import ClipParts, TrainClips
from vidtrain.data.clips.transforms import EvalCrops
from vidtrain.data.clips.windows import TrainWindows
from vidtrain.data.features.sequences import TrainSequences
from vidtrain.data.flow.files import read_settings
from vidtrain.data.flow.methods import OPENCV, OpenCVFlow
from vidtrain.data.flow.source import CachedFlow, ComputedFlow, FlowSource
from vidtrain.data.manifest.manifest import VideoData
from vidtrain.data.manifest.splits import StrangersRegex
from vidtrain.data.readers.any_path import AnyReader
from vidtrain.data.readers.base import VideoReader
from vidtrain.data.settings import (
    EvalConfig,
    EvalProtocol,
    FlowConfig,
    FlowSourceName,
    SampleMode,
    SamplerConfig,
    TransformConfig,
)
from vidtrain.engine.checkpoints.content_checks import check_size
from vidtrain.engine.parameters import Grid, parameter_groups
from vidtrain.engine.preprocess import model_inputs
from vidtrain.errors import CheckpointError, ConfigError, did_you_mean, one_of
from vidtrain.hub_folder import load_trained
from vidtrain.models.settings import START_KEYS
from vidtrain.models.tuning import as_stored, plain_weights
from vidtrain.models.weights.initial_weights import initialise
from vidtrain.options.instantiate import ORIGIN, call, from_file, may_call, nothing_for, option_names, with_text
from vidtrain.options.presets import list_models, model_options
from vidtrain.tasks.task import Task
from vidtrain.terminal import said_when_slow
from vidtrain.untrusted_data import are_texts

log = logging.getLogger("vidtrain")

_T = TypeVar("_T")

STARTS = re.compile(r"(.*_)?(weights|pretrained|inflate_from)")
"""Names of a model's options that say where weights come from: START_KEYS, and what an own model's options end in."""
# keys of an optimizer's YAML that say how the parameters are grouped
_GROUP_KEYS = ("layer_decay", "decay_norms")
# those that can do their update in one kernel, on CPU, CUDA and Apple's GPUs
_FUSED = ("torch.optim.SGD", "torch.optim.Adam", "torch.optim.AdamW")
_FUSED_SHARDED = ("torch.optim.Adam", "torch.optim.AdamW")  # whose kernels torch 2.6 to 2.14 call on FSDP's weights
# keys of a dataset's YAML that the loop reads, not the function that lists the videos
_DATA_KEYS = ("max_bad_fraction",)


# ---------------------------------------------------------------- the parts of a run


def build_model(node: Mapping[str, Any], num_classes: int) -> nn.Module:
    """The network of a `model` section, with the weights that it names."""
    options = {str(key): value for key, value in node.items()}
    own = option_names(options, "model")
    starts: dict[str, Any] = {key: options.pop(key) for key in START_KEYS if key in options and key not in own}
    model: nn.Module = call(options, "model", num_classes=num_classes)
    if starts.get("weights") is not None and not isinstance(getattr(model, "head_name", None), str):
        raise ConfigError(
            f"model.weights={starts['weights']}: vidtrain loads a file into networks with the attribute head_name, the "
            f"name of their last layer, which {type(model).__name__} lacks; or give {options['_target_']} an option of "
            "its own named weights, which then gets the value"
        )
    for report in initialise(model, {} if ORIGIN in options else starts):  # a file's own section opens no other file
        log.info(report.to_text())
    return model


def bare_model(node: Mapping[str, Any], num_classes: int) -> nn.Module:
    """The same without reading the weights that it starts from, which a checkpoint replaces and which may be gone.

    Options named weights, pretrained or inflate_from, or ending so, become None, or False where the factory expects a
    bool; one that may be neither keeps its value.
    """
    options = {str(key): value for key, value in node.items()}
    return build_model({**options, **nothing_for(options, starts_from(options))}, num_classes)


def starts_from(node: Mapping[str, Any]) -> list[str]:
    """The options of a `model` section that say where its weights come from, those that are set."""
    options = ((str(key), value) for key, value in node.items())
    return [key for key, value in options if STARTS.fullmatch(key) and value and isinstance(value, (str, bool, Path))]


def fit_to_data(node: dict[str, Any], data: VideoData) -> None:
    """Fill in the length of features and number of videos that a `model` section reads; refuse what does not fit."""
    facts = {"support": len(data.splits.get("train", ())), "in_features": data.features and data.features.length}
    node.update({key: value for key, value in facts.items() if value and node.get(key, 0) is None})
    _check_length(node.get("in_features"), data, str(node.get("_target_")))


def check_reads(model: nn.Module, data: VideoData) -> None:
    """Raise ConfigError unless a model that reads features, or clips, can read the data."""
    in_features = getattr(model, "in_features", None) if model_inputs(model) == ("features",) else None
    _check_length(in_features, data, name := type(model).__name__)
    if data.features is not None and data.features.tokens is not None and not getattr(model, "reads_tokens", False):
        raise ConfigError(f"the data hold tokens, {name} reads one vector per clip: use model=probe or tokens=false")


def _check_length(in_features: int | None, data: VideoData, model: str) -> None:
    length = None if data.features is None else data.features.length
    if in_features == length:
        return
    if length is None:
        raise ConfigError(f"{model} reads features of length {in_features}, the data are videos: give data=features")
    if in_features is None:
        raise ConfigError(f"data=features holds vectors of length {length}, {model} reads clips: use model=probe")
    raise ConfigError(f"{model} reads features of length {in_features}, the data have {length}: extracted otherwise?")


def build_data(node: Mapping[str, Any]) -> VideoData:
    """The splits of a `data` section. Numbers count as text where text is expected: data.root=2019 is a folder."""
    options = {str(k): v for k, v in dict(node).items() if k not in _DATA_KEYS}
    if ORIGIN in options and isinstance(options.get("group_by"), str):
        options["group_by"] = StrangersRegex(options["group_by"])
    with said_when_slow("listing the videos of the dataset"):
        return call(with_text(options), "data")


def build_task(node: Mapping[str, Any], class_names: Sequence[str], *, multi_label: bool, **more: Any) -> Task:
    """The task of a `task` section, for the classes of a dataset or of a checkpoint. more: for those that take it."""
    more = {key: value for key, value in more.items() if key in option_names(node, "task")}
    return call(node, "task", class_names=class_names, multi_label=multi_label, **more)


def build_reader(node: Mapping[str, Any]) -> VideoReader:
    """The reader of a `decoder` section; folders of images and JPEG packs are read whatever it says."""
    return AnyReader(call(node, "decoder"))


def build_flow(flow: FlowConfig, *, complete: bool = False) -> FlowSource | None:
    """What gives clips their optical flow; None for RGB only.

    complete: compute what a cache lacks, in the way the cache was made.
    """
    if flow.source is FlowSourceName.none:
        return None
    if flow.source is not FlowSourceName.cache:
        return ComputedFlow(OpenCVFlow(flow.source))
    root, method = _flow_root(flow), flow.method
    if not complete:
        read_settings(root)
    elif method in OPENCV:
        return CachedFlow(root, ComputedFlow(OpenCVFlow(method)))
    return CachedFlow(root)


def note_flow(flow: FlowConfig) -> None:
    """Write down for a checkpoint where its cache of flow lies, from any working directory, and how it was made."""
    if flow.source is FlowSourceName.cache:
        root = _flow_root(flow)
        flow.root, flow.method = str(root), str(read_settings(root)["method"])


def _flow_root(flow: FlowConfig) -> Path:
    if flow.root is None:
        raise ConfigError("flow=cache requires flow.root=FOLDER, the output of `vidtrain data flow`")
    return Path(flow.root).absolute()


def check_flow(model: nn.Module, flow: FlowConfig, *, multi_label: bool = False) -> None:
    """Raise ConfigError unless a model that reads flow gets it, and one that does not, not.

    multi_label: the data have several classes per video, which an average of softmax scores cannot express.
    """
    name, given, reads = type(model).__name__, flow.source is not FlowSourceName.none, "flow" in model_inputs(model)
    if reads and not given:
        raise ConfigError(
            f"{name} reads optical flow beside RGB: add flow=dis, which computes it from the frames, or flow=cache "
            "flow.root=FOLDER, made by `vidtrain data flow`"
        )
    if multi_label and getattr(model, "one_class", False):
        raise ConfigError(f"{name} averages scores of one class; several per video require model.fusion=concat")
    if given and not reads:
        raise ConfigError(f"flow={flow.source}: {name} reads RGB only: leave flow out, or take model=two_stream")


def make_parts(
    decoder: Mapping[str, Any],
    sampler: SamplerConfig,
    transform: TransformConfig,
    flow: FlowConfig | None = None,
    *,
    complete_flow: bool = False,
) -> ClipParts:
    """How videos become clips, for training, testing and all that looks at clips. complete_flow: see `build_flow`."""
    source = None if flow is None else build_flow(flow, complete=complete_flow)
    return ClipParts(build_reader(decoder), sampler, transform, source)


def train_clips(data: VideoData, parts: ClipParts, *, seed: int) -> TrainClips:
    """The items of the training split, as training takes them; raises ConfigError where there is none."""
    manifest, count = data.split("train"), data.num_classes
    if data.features is not None:
        return TrainSequences(manifest, data.features, parts, seed=seed, num_classes=count)
    made = TrainWindows if data.untrimmed else TrainClips
    return made(manifest, parts, seed=seed, flip_labels=flip_labels(data), num_classes=count)


def build_optimizer(node: Mapping[str, Any], model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer of an `optimizer` section; the keys in _GROUP_KEYS say how parameters are grouped."""
    options = {str(key): value for key, value in node.items()}
    grouping = {key: options.pop(key) for key in _GROUP_KEYS if key in options}
    parameters: Any = [{"params": [p for p in model.parameters() if p.requires_grad]}]  # a group may be empty
    special = grouping.get("layer_decay") is not None or grouping.get("decay_norms", True) is not True
    if parameters[0]["params"] and (special or isinstance(model, Grid)):
        if not isinstance(options.get("lr"), (int, float)):
            raise ConfigError("optimizer.layer_decay, decay_norms and model=probe need optimizer.lr, a number")
        decay = options.get("weight_decay", 0.0)
        parameters = parameter_groups(model, lr=options["lr"], weight_decay=decay, **grouping)
    target, sharded = str(options.get("_target_")), any(hasattr(p, "full_tensor") for p in model.parameters())
    if sharded and options.get("fused") and target not in _FUSED_SHARDED:
        raise ConfigError(
            f"optimizer.fused=true: PyTorch has no fused {target.rpartition('.')[2]} for the sharded weights of "
            "trainer.strategy=fsdp and hsdp; remove it"
        )
    fused = target in (_FUSED_SHARDED if sharded else _FUSED)
    if fused and not {"fused", "foreach", "differentiable"} & options.keys():
        options["fused"] = True  # one pass over the weights: on a CPU a third of the time of the default, measured
    try:
        return call(options, "optimizer", params=parameters)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"optimizer: {node.get('_target_')!s}: {error}") from error


def build_named(node: Mapping[str, Any], section: str, kind: type[_T]) -> dict[str, _T]:
    """The objects of a section that holds several, `logger` or `hook`, by the names under which they stand in it."""
    return {name: _named(node[name], f"{section}.{name}", kind) for name in map(str, node)}


def _named(options: Any, name: str, kind: type[_T]) -> _T:
    if not isinstance(options, Mapping):
        raise ConfigError(f"{name}={options}: expected a name of its own, and below it _target_ and the options")
    made = call(options, name)
    if not isinstance(made, kind):
        wanted, got = f"{kind.__module__}.{kind.__name__}", type(made).__name__
        raise ConfigError(f"{name}: expected a {wanted}, {options['_target_']} made a {got}")
    return made


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
    if sampler.mode is SampleMode.segments:
        rate = f"{sampler.num_frames} segments"
    elif sampler.window is not None:
        rate = f"clips of {sampler.num_frames} frames over {sampler.window}"
    elif sampler.fps is not None:
        rate = f"clips of {sampler.num_frames} frames at {sampler.fps:g} fps"
    whose = evaluation.protocol
    scale = EvalCrops(transform, evaluation.crops, whose).scale
    side = "resized to" if transform.squash or isinstance(scale, str) else "short side"
    views = f"{evaluation.clips}x{evaluation.crops} views (clips x crops)"
    if evaluation.hop is not None:
        every = f"{evaluation.hop} frames" if isinstance(evaluation.hop, int) else evaluation.hop
        views = f"a clip every {every} x {evaluation.crops} crops"
    views += "" if evaluation.max_views is None else f", {evaluation.max_views} of them at most"
    if whose is not EvalProtocol.vidtrain:
        views += f", frames and crops as {whose}"
    return f"{rate} at {transform.size} px ({side} {scale}), {views}, {evaluation.average} averaged"


# ---------------------------------------------------------------- models by name, models from files


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
    resolved = model_options(name, **clip)
    given = {key: value for key, value in options.items() if key in resolved or key not in clip}
    return build_model({**resolved, **given}, num_classes)


def load_model(
    checkpoint: str | Path, *, trust: Sequence[str] = (), content: dict[str, Any] | None = None
) -> tuple[nn.Module, dict[str, Any]]:
    """The model of a checkpoint in eval mode, and the checkpoint's content (config, class_names, versions, ...).

    Args:
        trust: modules outside vidtrain that the checkpoint's model may come from.
        content: the checkpoint, when it has been loaded already.

    Raises:
        CheckpointError: as `load_trained`; a model that is not vidtrain's own and not trusted, or not the weights'.
    """
    content = load_trained(checkpoint) if content is None else content
    if content.get("sharded"):
        raise CheckpointError(f"{checkpoint}: holds no weights itself, which are in parts beside it: use best.pt")
    if not content.get("class_names") or not are_texts(content["class_names"]):
        raise CheckpointError(f"{checkpoint}: names no classes")
    node = from_file(content["config"].get("model") or {}, str(checkpoint), trust)
    classes, tuned, weights = len(content["class_names"]), content["config"].get("tune"), content["model"]
    build = partial(as_stored, partial(bare_model, node, classes), tuned, classes, weights)
    if may_call(node, "model"):
        check_size(build, weights, str(checkpoint))
    model = build()
    try:
        alpha = tuned.get("alpha") if isinstance(tuned, dict) else None
        model.load_state_dict(plain_weights(weights, alpha))
    except RuntimeError as error:
        first = str(error).split("\n")[1:2]
        raise CheckpointError(
            f"{checkpoint}: its weights are not those of {node.get('_target_')}: {' '.join(first).strip()}"
        ) from error
    return model.eval(), content

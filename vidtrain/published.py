"""A model that begins with a published file. What the file says of its net and of its clips becomes options of the run,
except where the user has given them; and its outputs get the names of classes."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from vidtrain import build
from vidtrain.class_names import class_names
from vidtrain.data.settings import SampleMode
from vidtrain.errors import CheckpointError, ConfigError, did_you_mean
from vidtrain.export.contract import EXPORTED, STATE
from vidtrain.export.onnx_file import network_of
from vidtrain.hub_folder import checkpoint_file, is_hub_folder, load_trained
from vidtrain.models.settings import START_KEYS
from vidtrain.models.weights.expected_clips import RATES, Expects
from vidtrain.models.weights.initial_weights import timm_colours, torchvision_clips
from vidtrain.options.checkpoint_config import as_checkpoint, check_room, checkpoint_config, usual_sections
from vidtrain.options.given_options import OpenOptions
from vidtrain.options.instantiate import option_names
from vidtrain.options.invocation import Invocation, Options, typed
from vidtrain.options.presets import list_models, nearest_preset, section_as_written
from vidtrain.options.schema import TrainConfig
from vidtrain.store_cache import local_file

if TYPE_CHECKING:
    from torch import nn

    from vidtrain.models.weights.load import WeightsInfo
    from vidtrain.models.weights.read import Weights

log = logging.getLogger("vidtrain")


@dataclass(frozen=True)
class PublishedFile:
    """The published file of a run."""

    weights: Weights
    info: WeightsInfo
    preset: str
    """The user's choice of `model`, or the one that fits."""
    options: Mapping[str, Any]
    """Those of the file's network, where the preset is that; its clips are in `info`."""

    def build(self, node: Mapping[str, Any], num_classes: int) -> nn.Module:
        """The network of the run's `model` section in eval mode, with all of the file's weights.

        Raises:
            CheckpointError: they do not fit, or have no head for so many classes.
        """
        from vidtrain.models.weights.load import load_weights

        model = build.build_model({**node, **dict.fromkeys(START_KEYS)}, num_classes)
        report = load_weights(model, self.weights, self.preset)
        log.info(report.to_text())
        if report.head is not None:
            raise CheckpointError(f"{self.weights.source}: nothing to classify with: {report.head}; train a head first")
        return model.eval()


@dataclass(frozen=True)
class Subject:
    """What is tested or asked, with the configuration for it: a published file, `start`; or else a checkpoint of
    vidtrain, `file`, of which `content` is what it holds, and `trust` the modules that it may call."""

    config: TrainConfig
    start: PublishedFile | None = None
    content: dict[str, Any] = field(default_factory=dict)
    file: str = ""
    trust: Sequence[str] = ()

    @classmethod
    def of_file(cls, file: str, model: str, options: Mapping[str, Any]) -> Subject:
        """A published file, without a command.

        Args:
            model: a name of the catalogue. options: the network's; num_frames and size are those of its clips.

        Raises:
            ConfigError: an unknown name. CheckpointError: the file cannot be read.
        """
        if model not in list_models():
            raise ConfigError(f"no model '{model}'{did_you_mean(model, list_models())}; vidtrain.list_models() has all")
        written = section_as_written(model)
        start = start_of({**written, "weights": file}, model)
        if start is None:
            raise ConfigError(f"{file}: a checkpoint of vidtrain brings its own model: leave out model")
        sections = {**usual_sections(), "model": {**dict.fromkeys(START_KEYS), **written}}
        homes = {"num_frames": "sampler", "size": "transform"}
        for key, value in options.items():
            sections[homes.get(key, "model")][key] = value
        given = frozenset(f"{homes.get(key, 'model')}.{key}" for key in options)
        settle = partial(_settle, start=start, choice=model)
        return cls(checkpoint_config({"config": sections}, settle=settle, given=given), start)

    @classmethod
    def of_checkpoint(
        cls,
        file: str,
        call: Invocation[Any] | None = None,
        *,
        trust: Sequence[str] = (),
        device: str | None = None,
    ) -> Subject:
        """A checkpoint of vidtrain, or an exported file.

        Args:
            call: what the command line changes of its configuration; None: nothing.
            device: where it is asked; None: as the configuration says.
        """
        content = load_trained(file, exported=True)
        composed, choices = (None, {}) if call is None else (call.composed, call.choices)
        config = checkpoint_config(content, composed, choices, file=file, trust=trust)
        config.trainer.device = device_for(device or config.trainer.device, config, content, file)
        return cls(config, None, content, file, trust)

    @classmethod
    def of(cls, call: Invocation[Any]) -> Subject:
        """The one that the options of a command name, see NetworkOptions.

        Raises:
            ConfigError: none, or both.
        """
        options, file = call.options, weights_of(call.composed.model)
        if options.checkpoint is not None:
            if call.choices.get("model") is not None:
                raise ConfigError("checkpoint=... brings its own model: leave out model, or the checkpoint")
            if options.class_names is not None:
                raise ConfigError("class_names goes with model.weights; checkpoint=... names its own classes")
            return cls.of_checkpoint(options.checkpoint, call, trust=options.trust)
        if file is None:
            raise ConfigError(
                "checkpoint is not set: give checkpoint=FILE, or model=NAME model.weights=FILE for a published file"
            )
        config, start = configuration(call)
        if start is None:
            raise ConfigError(
                f"model.weights={file}: no published file but a checkpoint of vidtrain, or an option of the net's own: "
                f"give checkpoint={file}"
            )
        return cls(config, start)

    def classifier(
        self, names: str | Sequence[str] | None = None, data: Sequence[str] = ()
    ) -> tuple[nn.Module, tuple[str, ...]]:
        """The network in eval mode and its classes.

        Args:
            names: of a published file's outputs, a value of class_names, or a list. data: the classes of the videos,
                see `class_names`.
        """
        if self.start is None:
            if EXPORTED in self.content:
                return network_of(local_file(self.file), self.content), tuple(self.content["class_names"])
            network, content = build.load_model(self.file, trust=self.trust, content=self.content)
            return network, tuple(content["class_names"])
        if names is None or isinstance(names, str):
            found = class_names(self.start.info, names, data)
        elif len(names) != self.start.info.num_classes:
            has = self.start.info.num_classes
            raise ConfigError(f"{self.start.weights.source} has {has} classes, class_names has {len(names)}")
        else:
            found = tuple(names)
        return self.start.build(self.config.model, len(found)), found


def device_for(device: str, config: TrainConfig, content: Mapping[str, Any], file: str) -> str:
    """The device that was asked for; of an exported file the CPU.

    Raises:
        ConfigError: a change of what is fixed in an exported file; another device.
    """
    if EXPORTED not in content:
        return device
    own = checkpoint_config(content, file=file)
    fixed = [("sampler", () if STATE in content else ("num_frames",)), ("transform", ("size", "mean", "std"))]
    for section, key in ((section, key) for section, keys in fixed for key in keys):
        value, kept = (getattr(getattr(one, section), key) for one in (config, own))
        if value != kept:
            raise ConfigError(
                f"{section}.{key}={value}: {file} was exported with {kept}, which is fixed in it; export the "
                "checkpoint again with the other value"
            )
    if device not in ("auto", "cpu"):
        raise ConfigError(
            f"trainer.device={device}: vidtrain asks an ONNX file on the CPU; the checkpoint runs on a GPU, too"
        )
    if (precision := str(config.trainer.precision)) not in ("auto", "fp32"):
        raise ConfigError(
            f"trainer.precision={precision}: what an ONNX file computes in is fixed in it; the checkpoint runs in "
            f"{precision}, too"
        )
    return "cpu"


def clips_of(config: TrainConfig) -> Expects:
    """The clips that a network of this configuration is trained on."""
    sampler, transform = config.sampler, config.transform
    segments = sampler.mode is SampleMode.segments
    return Expects(
        mean=tuple(transform.mean),  # type: ignore[arg-type]  # three, as Preprocess checks
        std=tuple(transform.std),  # type: ignore[arg-type]
        size=transform.size,
        resize=f"{transform.size}x{transform.size}" if transform.squash else transform.resize,
        num_frames=sampler.num_frames,
        stride=sampler.stride if sampler.fps is None and sampler.window is None and not segments else None,
        fps=sampler.fps,
        window=sampler.window,
        mode=str(sampler.mode) if segments else None,
    )


# ---------------------------------------------------------------- options from the file


def folder_as_checkpoint(call: Invocation[Any]) -> Invocation[Any]:
    """With checkpoint=FOLDER the file that it names, see `checkpoint_file`. model.weights=FOLDER, without a model, is
    checkpoint=FOLDER where `vidtrain publish` has written it: the folder brings its own model and clips."""
    if call.options.checkpoint is not None:
        file = checkpoint_file(call.options.checkpoint)
        return replace(call, options=replace(call.options, checkpoint=file))
    file = weights_of(call.composed.model)
    own = file is not None and call.choices.get("model") is None
    return as_checkpoint(call, str(file)) if own and is_hub_folder(str(file)) else call


def weights_of(node: Mapping[str, Any] | None) -> Any:
    """model.weights of a composed `model` section, which may be None."""
    return None if node is None else node.get("weights")


def start_of(node: Mapping[str, Any] | None, choice: str | None) -> PublishedFile | None:
    """The published file that a `model` section begins with; None: it names none, or a checkpoint of vidtrain.

    Raises:
        CheckpointError: it cannot be read, or (without a choice) no model of the catalogue takes it.
    """
    file = weights_of(node)
    if node is None or file is None or "weights" in option_names({"_target_": node.get("_target_")}, "model"):
        return None
    from vidtrain.models.weights.load import describe_weights
    from vidtrain.models.weights.read import read_weights

    weights = read_weights(str(file))
    if weights.config is not None:
        return None
    info = describe_weights(weights, choice)
    for name, options in [(info.model, info.options), *info.others]:
        if name not in list_models():
            continue
        nearest, _ = nearest_preset(name, options)
        if choice in (None, name, nearest):
            own = {key: value for key, value in options.items() if key not in ("num_frames", "size", "num_classes")}
            return PublishedFile(weights, info, choice or nearest, own)
    if choice is None:
        raise CheckpointError(f"{weights.source}: no model of the catalogue is known to take it: give model=NAME")
    return PublishedFile(weights, info, choice, {})


def configuration(call: Invocation[Any]) -> tuple[TrainConfig, PublishedFile | None]:
    """The configuration of a command without a checkpoint: the usual parts, above them what the file of model.weights
    says, and above all what the user gave."""
    start = start_of(call.composed.model, call.choices.get("model"))
    sections = usual_sections()
    if start is not None:
        sections["model"] = {**dict.fromkeys(START_KEYS), **section_as_written(start.preset)}
    settle = partial(_settle, start=start, choice=call.choices.get("model"))
    return checkpoint_config({"config": sections}, call.composed, call.choices, settle=settle), start


def begin(call: Invocation[TrainConfig]) -> tuple[Invocation[TrainConfig], PublishedFile | None]:
    """The published file of a whole configuration, and the configuration with what it says; None: there is none."""
    start = start_of(call.composed.model, call.choices.get("model"))
    call = _settled(call, start)
    check_room(call.options)
    return call, start


def with_its_clips(call: Invocation[Options]) -> Invocation[Options]:
    """The configuration of a command that looks at clips, which are those of a training with its `model`."""
    return _settled(call, start_of(call.composed.model, call.choices.get("model")))


def _settled(call: Invocation[Options], start: PublishedFile | None) -> Invocation[Options]:
    if not _settle(OpenOptions(call.composed), start, call.choices.get("model")):
        return call
    options: Options = typed(call.composed)
    return replace(call, options=options)


def _settle(options: OpenOptions, start: PublishedFile | None, choice: str | None) -> bool:
    """Set what the user has not given as the published file wants it, or as the weights of timm or torchvision that
    model.pretrained names do, and log it; returns whether anything is set. choice: of the group `model`.

    A clip has one rate, and a crop keeps its share of the frame: a rate of the user's own takes all of the file's
    out, a size of the user's own scales the short side.
    """
    net: Mapping[str, Any] = {}
    if start is not None:
        source, net, expects = start.weights.source, start.options, start.info.expects
    elif (name := _timm_name(options.value("model"))) is not None and (colours := timm_colours(name)) is not None:
        source, expects = f"timm's {name}", colours
    elif (found := torchvision_clips(choice, options.value("model.pretrained"))) is not None:
        source, expects = f"torchvision's {options.value('model.pretrained')}", found
    else:
        return False
    if "transform.size" in options.given and expects.size is not None:
        expects = expects.at({"size": options.value("transform.size")})
    known = expects.known()
    if any(f"sampler.{rate}" in options.given for rate in RATES):
        known = {key: value for key, value in known.items() if key not in RATES}
    changed = options.settle({"model": net, **Expects(**known).options()})
    if changed:
        said = " ".join(f"{key}={_shown(value)}" for key, value in changed.items())
        log.info("from %s, where not given: %s", source, said)
    return bool(changed)


def _timm_name(node: Mapping[str, Any]) -> str | None:
    """The network of timm whose published weights a `model` section starts from."""
    name = str(node.get("backbone") or "")
    own = str(node.get("_target_", "")).endswith(".timm_frames")
    starts = any(node.get(key) for key in ("pretrained", "backbone_weights"))
    return name.removeprefix("timm:") if starts and name != "tiny" and (own or name.startswith("timm:")) else None


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return f"[{','.join(f'{one:g}' if isinstance(one, float) else str(one) for one in value)}]"
    return "null" if value is None else str(value)

"""The configuration that a checkpoint brings, with the command line's changes: the stored one is a stranger's data."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vidtrain.data.clips.crop import exact_size
from vidtrain.data.settings import EvalConfig
from vidtrain.errors import CheckpointError, ConfigError, did_you_mean, one_of
from vidtrain.options.given_options import OpenOptions, named_keys
from vidtrain.options.instantiate import ORIGIN
from vidtrain.options.invocation import Invocation, typed
from vidtrain.options.option_texts import choices_of, conf_dir
from vidtrain.options.path_options import literal
from vidtrain.options.schema import TrainConfig, check_numbers
from vidtrain.options.synonyms import suggestion

# sections that name a function
_CALLED = ("task", "model", "data", "decoder", "optimizer")
_TESTING = ("device", "precision", "num_workers", "data_timeout", "rank_timeout")
"""Keys of trainer that count where nothing is trained."""
_TRAINING = {
    "sampler": ("clips_per_video", "class_balance", "shuffle_window", "background"),
    "transform": (
        *("crop", "resize_max", "area", "aspect", "colour", "grayscale", "hue", "policy", "magnitude", "num_ops"),
        *("erasing", "flip"),
    ),
}
"""Keys that count in training alone."""
_MOST_BYTES = 1 << 34
"""Of the frames of one video with all its views, of one batch, or of a clip before it is cropped."""
_MOST_WORKERS = 256


def checkpoint_config(
    content: Mapping[str, Any],
    composed: DictConfig | None = None,
    choices: Mapping[str, Any] = MappingProxyType({}),
    *,
    file: str | None = None,
    trust: Sequence[str] = (),
    settle: Callable[[OpenOptions], object] | None = None,
    given: frozenset[str] | None = None,
) -> TrainConfig:
    """A checkpoint's configuration with the command line's changes on top.

    Args:
        composed: what Hydra composed: only sections and keys that the user gave. None: there are none.
        choices: Hydra's group choices; a group that the user chose replaces the checkpoint's section, and is the
            user's own from then on. A section of which the user changed keys stays the file's.
        file: the checkpoint; None: the content is vidtrain's own.
        trust: modules that the checkpoint's sections may call besides vidtrain's own.
        settle: sets what the user's changes leave open, before references are resolved. given: see OpenOptions.

    Raises:
        CheckpointError: a section of the file that cannot be used.
        ConfigError: a key or value of the user that cannot.
    """
    config = _typed(content["config"], file)
    for section in composed or ():
        name = str(section)
        if composed is None or name not in config or composed[name] is None or not OmegaConf.is_config(composed[name]):
            continue
        if choices.get(name) is not None:
            before: Any = OmegaConf.to_container(config[name], resolve=False)
            given_values: Any = OmegaConf.to_container(composed[name], resolve=False)
            OmegaConf.update(config, name, composed[name], merge=name in ("sampler", "transform", "flow", "eval"))
            now: Any = OmegaConf.to_container(config[name], resolve=False)
            for key in (k for k in _TRAINING.get(name, ()) if f"{name}.{k}" in named_keys()):
                _check_effect(f"{name}.{key}", given_values[key], before[key], now[key], stored=file is not None)
        else:
            _merge_keys(config, name, composed[name], stored=file is not None)
    if file is not None:
        origin = {"file": literal(file), "trust": list(trust)}
        for name in (n for n in _CALLED if choices.get(n) is None and not OmegaConf.is_missing(config, n)):
            OmegaConf.update(config, f"{name}.{ORIGIN}", origin, force_add=True)
    for name in (n for n in _CALLED if OmegaConf.is_missing(config, n)):
        config[name] = {}
    if settle is not None:
        settle(OpenOptions(config, given))
    options: TrainConfig = typed(config)
    check_room(options)
    return options


def changed_eval(evaluation: EvalConfig, choice: str | None, given: Mapping[str, Any]) -> EvalConfig:
    """The views of a test as a choice of conf/eval has them (None: as they are), with what was given on top.

    Raises:
        ConfigError: no such choice; a value that its key cannot have.
    """
    chosen: Any = {}
    if choice is not None:
        if choice not in (names := choices_of("eval")):
            raise ConfigError(f"protocol={choice}: none of that name{did_you_mean(choice, names)}; {one_of(names, 20)}")
        chosen = OmegaConf.load(conf_dir() / "eval" / f"{choice}.yaml")
    try:
        merged = OmegaConf.merge(OmegaConf.structured(evaluation), chosen, OmegaConf.create(dict(given)))
        assert isinstance(merged, DictConfig)
        changed: EvalConfig = typed(merged)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{getattr(error, 'full_key', 'eval')}: {str(error).splitlines()[0]}") from None
    return changed


def as_checkpoint(call: Invocation[Any], file: str) -> Invocation[Any]:
    """What the user composed with model.weights=file, as if it were checkpoint=file."""
    changed = copy.deepcopy(call.composed)
    OmegaConf.set_struct(changed, False)
    del changed.model["weights"]
    if not changed.model:
        changed.model = None
    return replace(call, composed=changed, options=replace(call.options, checkpoint=file))


def with_values(call: Invocation[Any], values: Mapping[str, Any], sections: Sequence[str]) -> Invocation[Any]:
    """What the user composed, with a file's values of the keys of these sections, taken for what they say."""
    changed = copy.deepcopy(call.composed)
    OmegaConf.set_struct(changed, False)
    for key, value in values.items():
        section, _, name = key.partition(".")
        if section in sections and name:
            if changed.get(section) is None:
                changed[section] = {}
            changed[section][name] = _literal(value)
    return replace(call, composed=changed)


def usual_sections() -> dict[str, Any]:
    """In the place of a checkpoint's where there is none: the user names the model and the data."""
    usual = {"task": "classification", "decoder": "pyav", "sampler": "stride", "transform": "crop"}
    sections = {part: OmegaConf.load(conf_dir() / part / f"{name}.yaml") for part, name in usual.items()}
    return {**sections, "model": {}, "data": {}}


@functools.cache
def _schema() -> DictConfig:
    """TrainConfig for `OmegaConf.merge`, which copies it: to make one takes five times as long."""
    schema: DictConfig = OmegaConf.structured(TrainConfig)
    return schema


def _typed(stored: Mapping[str, Any], file: str | None) -> DictConfig:
    """A stored configuration as TrainConfig. Every value of it is taken for what it says: "${a}" is a text."""
    if file is not None:
        _check_sections(stored, file)
    try:
        plain: Any = _literal(stored) if file is not None else stored
        config = OmegaConf.merge(_schema(), OmegaConf.create(plain))
        assert isinstance(config, DictConfig)
        OmegaConf.set_struct(config, True)
        if file is not None:
            check_numbers(config)
            check_room(cast("TrainConfig", config))
    except (OmegaConfBaseException, ConfigError, ValueError, OverflowError) as error:
        if file is None:
            raise
        key = getattr(error, "full_key", None)
        reason = f"{key}: {str(error).splitlines()[0]}" if key else str(error).splitlines()[0]
        raise CheckpointError(f"{file}: its configuration cannot be used: {reason}") from error
    return config


def _check_sections(stored: Mapping[str, Any], file: str) -> None:
    for name in _CALLED:
        if not isinstance(stored.get(name, {}), dict):
            raise CheckpointError(f"{file}: its {name} section is no mapping but {type(stored[name]).__name__}")
        if name != "optimizer" and not stored.get(name):
            raise CheckpointError(f"{file}: its configuration has no {name}")


def _literal(value: Any) -> Any:
    """The same value to OmegaConf, which reads \"${...}\" in a text as a reference and \"???\" as none at all."""
    if isinstance(value, Mapping):
        return {key: _literal(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_literal(inner) for inner in value]
    if value == "???":
        return None
    if isinstance(value, str):
        return literal(value)
    return value


def check_room(config: TrainConfig) -> None:
    """Raise ConfigError for clips that no memory holds."""
    sampler, transform, views = config.sampler, config.transform, config.eval
    clip = 3 * sampler.num_frames * transform.size**2
    if clip * max(views.clips * views.crops, views.batch_size) > _MOST_BYTES:
        raise ConfigError(
            f"sampler.num_frames={sampler.num_frames}, transform.size={transform.size}, eval.clips={views.clips}, "
            f"eval.crops={views.crops}, eval.batch_size={views.batch_size} together are more than 16 GiB of frames"
        )
    sizes = {"resize": exact_size(transform.resize), "resize_max": exact_size(transform.resize_max or 1)}
    for key, (high, wide) in sizes.items():
        if 3 * sampler.num_frames * high * wide > _MOST_BYTES:
            raise ConfigError(
                f"sampler.num_frames={sampler.num_frames}, transform.{key}={getattr(transform, key)} together are more "
                "than 16 GiB of frames"
            )
    if (config.trainer.num_workers or 0) > _MOST_WORKERS:
        raise ConfigError(f"trainer.num_workers={config.trainer.num_workers}: at most {_MOST_WORKERS}")


def _merge_keys(config: DictConfig, section: str, given: DictConfig, *, stored: bool) -> None:
    """stored: a checkpoint brings the section."""
    plain: Any = functools.partial(OmegaConf.to_container, resolve=False)
    before = {} if config[section] is None else plain(config[section])
    allowed = [str(key) for key in before]
    # not items(): what an escaped ${ resolves to would be resolved again
    for key, value in ((str(key), value) for key, value in given.items_ex(resolve=False)):
        name = f"{section}.{key}"
        if key not in allowed:
            near = suggestion(key, [f"{section}.{name}" for name in allowed]) or did_you_mean(key, allowed)
            hint = "" if f" {name}?" in near else near
            raise ConfigError(f"no key '{name}'{hint}; the checkpoint's {section} has: {one_of(allowed)}")
        try:
            OmegaConf.update(config, name, value, merge=True)
        except OmegaConfBaseException as error:
            raise ConfigError(f"{name}: {str(error).splitlines()[0]}") from error
        _check_effect(name, value, before[key], plain(config[section])[key], stored=stored)


def _check_effect(name: str, given: Any, before: Any, now: Any, *, stored: bool) -> None:
    """Raise ConfigError for a key, dotted, whose value has become another one where nothing reads it."""
    section, _, key = name.partition(".")
    if before != now and (reason := _without_effect(section, key, stored)):
        raise ConfigError(f"{name}={given}: {reason} (here {name}={before}); leave {name} out")


def _without_effect(section: str, key: str, stored: bool) -> str | None:
    """Why another value of a key changes nothing where nothing is trained; None: it does."""
    if section == "model" and stored:
        return "the network is the checkpoint's, as it was trained"
    if section == "trainer" and key == "seed" and not stored:
        return None  # of random weights
    if key in _TRAINING.get(section, ()) or (section == "trainer" and key not in _TESTING):
        return "counts in training alone"
    return None

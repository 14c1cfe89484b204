"""The models of conf/model by name: what their YAML files say, without building any."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from omegaconf import DictConfig, OmegaConf

from vidtrain.options.option_texts import choices_of, conf_dir, group_options

_NO_CLASSIFIERS: Final = ("segment_head",)  # say when, of features of whole videos


def list_models(pattern: str = "*") -> list[str]:
    """Names of the classifiers that create_model knows, in alphabetical order, that match a shell pattern."""
    return fnmatch.filter((name for name in choices_of("model") if name not in _NO_CLASSIFIERS), pattern)


def model_section(name: str) -> DictConfig:
    """conf/model/NAME.yaml on top of those that its defaults name, as Hydra composes them."""
    bases, own = _file(name)
    section = OmegaConf.create({})
    for base in bases:
        section.merge_with(own if base == "_self_" else model_section(base))
    return section


@cache
def _file(name: str) -> tuple[list[str], dict[Any, Any]]:
    """The defaults that a model's YAML names, and the rest as it is written: read once, not to be changed."""
    own = OmegaConf.to_container(OmegaConf.load(conf_dir() / "model" / f"{name}.yaml"), resolve=False)
    assert isinstance(own, dict)
    return own.pop("defaults", ["_self_"]), own


def model_options(name: str, *, num_frames: int, size: int) -> dict[str, Any]:
    """The options of a model of the catalogue, for clips of this shape where it asks for it."""
    clip = {"sampler": {"num_frames": num_frames}, "transform": {"size": size}}
    root = OmegaConf.to_container(OmegaConf.create({"model": model_section(name), **clip}), resolve=True)
    assert isinstance(root, dict)
    return dict(root["model"])


def nearest_preset(name: str, options: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The model of the catalogue that is `name` with `options` and leaves the fewest of them to be said."""
    wanted: dict[str, Any] = {**section_as_written(name), **options}
    left = {}
    for preset in (name, *list_models()):
        # as text first: to read a hundred YAML files takes more than a second
        if group_options("model", preset)["_target_"][0] == wanted["_target_"]:
            section = section_as_written(preset)
            left[preset] = {key: value for key, value in wanted.items() if section.get(key) != value}
    return min(left.items(), key=lambda found: len(found[1]))


def section_as_written(name: str) -> dict[str, Any]:
    """A model's section with its references to the clip, ${sampler.num_frames}, as they are written."""
    section = OmegaConf.to_container(model_section(name), resolve=False)
    assert isinstance(section, dict)
    return {str(key): value for key, value in section.items()}

"""Which options the user gave, among those that a composed configuration has."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from vidtrain.errors import ConfigError
from vidtrain.options.option_texts import choice_file, conf_dir, default_choices

_SECTIONS: Final = ("model", "sampler", "transform")


class OpenOptions:
    """A composed configuration, in which what the user did not give can still be set."""

    def __init__(self, composed: DictConfig, given: frozenset[str] | None = None) -> None:
        """given: dotted keys; None: those of the command line."""
        self._composed = composed
        self.given = given_keys() if given is None else given

    def value(self, key: str) -> Any:
        """Of a dotted key; None where there is none."""
        return OmegaConf.select(self._composed, key)

    def settle(self, found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """Set the options found for each section that the section has and the user has not given; those that changed,
        by their dotted keys."""
        changed = {}
        for section, options in found.items():
            node = self._composed[section]
            before = OmegaConf.to_container(node, enum_to_str=True, resolve=False)
            assert isinstance(before, dict)
            for key, value in options.items():
                if f"{section}.{key}" not in self.given and before.get(key, value) != value:
                    node[key] = changed[f"{section}.{key}"] = value
        return changed


def named_keys() -> list[str]:
    """The dotted keys and the groups that stand on the command line; none where there is none."""
    task = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    return [override.partition("=")[0].lstrip("+~") for override in task]


def refuse_unread(keys: Collection[str], why: str) -> None:
    """Raises ConfigError where one of these options, or an option of these sections, stands on the command line."""
    for key in named_keys():
        if key in keys or key.partition(".")[0] in keys:
            raise ConfigError(f"{key}: {why}; leave {key} out")


def given_keys() -> frozenset[str]:
    """The dotted keys of model, sampler and transform that the user gave: on the command line, by choosing another
    sampler or transform than the usual one, or in files of their own."""
    hydra = HydraConfig.get()
    given = named_keys()
    folders = [Path(source.path) for source in hydra.runtime.config_sources if source.schema == "file"]
    usual = default_choices(hydra.job.name)
    found = set(given)
    for group, choice in hydra.runtime.choices.items():
        own = not (conf_dir() / group / f"{choice}.yaml").is_file()
        chosen = group in given or usual.get(group) != choice
        if group.startswith("hydra") or not isinstance(choice, str) or not (own or (chosen and group != "model")):
            continue
        found.update(_keys_of(group, choice, folders))
    return frozenset(found)


def _keys_of(group: str, choice: str, folders: Sequence[Path]) -> Iterable[str]:
    """The keys that a choice of a group and those it is based on set in the sections of a clip and a model."""
    file = choice_file(group, choice, folders)
    if file is None:
        return
    if group == "model" and file.is_relative_to(conf_dir()):
        return  # what the catalogue says of a net is not the user's
    content = OmegaConf.load(file)
    if not isinstance(content, DictConfig):
        return
    for section in _SECTIONS:
        keys = content if group == section else content.get(section)
        yield from (f"{section}.{key}" for key in map(str, keys if isinstance(keys, DictConfig) else ()))
    for base in content.get("defaults") or ():
        if isinstance(base, str) and base != "_self_":
            yield from _keys_of(group, base, folders)

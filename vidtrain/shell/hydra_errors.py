"""Hydra's and OmegaConf's exceptions -> one line with the key, what was got, what is allowed and the fix."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, cast

import yaml  # type: ignore[import-untyped]
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vidtrain.errors import ConfigError, did_you_mean, one_of
from vidtrain.options.commands import FROM_CHECKPOINT
from vidtrain.options.option_texts import OWN_FOLDER, choices_of, conf_dir, leaves
from vidtrain.options.synonyms import suggestion

_NO_WORD = re.compile(r"[+-]?(?:[\d._]+(?:e[+-]?\d+)?|nan|inf)|null|true|false|\{.*\}", re.IGNORECASE)
_OF_TRAINING = ("trainer.batch_size", "trainer.epochs", "trainer.devices", "trainer.seed")


def refuse_missing(plain: Any) -> None:
    """Hydra runs with `???` still in place and fails at first use, minutes later: stop at once."""
    if missing := sorted(key for key, value in leaves(plain) if value == "???"):
        many = f" (and {one_of(missing[1:])})" if len(missing) > 1 else ""
        raise ConfigError(f"{missing[0]} is not set{many}: give {missing[0]}=...")


def explain(error: BaseException, command: str, overrides: Sequence[str], in_sweep: bool) -> str | None:
    """One line for a mistake in the configuration, None when the error is something else."""
    from hydra.errors import HydraException, MissingConfigException, OverrideParseException

    if isinstance(error, yaml.YAMLError):
        return _bad_yaml(error)
    if (own := _own(error)) is not None:
        return str(own)
    if isinstance(error, MissingConfigException):
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        return _no_choice(group, name, list(error.options or []))
    if isinstance(error, OverrideParseException):
        return f"cannot read '{error.override}': an override is key=value; quote values with spaces or commas"
    if isinstance(error, HydraException):
        cause = error.__cause__
        text = str(error).strip()
        if found := re.search(r"Could not override '([^']*)'", text):
            key, group = found.group(1), found.group(1).split(".")[0]
            keys = all_keys(command, overrides)
            swept = in_sweep and "." in key and any(o.startswith(f"{group}=") for o in overrides)
            if swept and key in keys:  # Hydra first composes the defaults, before it looks at the swept group
                return f"{key} cannot be set before the sweep has chosen a {group}: write ++{key}=..."
            hint = f"; to set it in a sweep over {group}, write ++{key}=..." if swept else ""
            return unknown_key(key, keys) + hint
        if isinstance(cause, OmegaConfBaseException):
            return _bad_value(cause, text)
        return _one_line(text)
    if isinstance(error, OmegaConfBaseException):
        return _bad_value(error, "")
    if isinstance(error, ValueError) and _raised_by_hydra(error):
        return _choice_that_is_no_word(overrides) or _one_line(str(error))
    return None


def _own(error: BaseException | None) -> ConfigError | None:
    """The mistake that one of our resolvers has found, which OmegaConf wraps."""
    while error is not None and not isinstance(error, ConfigError):
        error = error.__cause__ or error.__context__
    return error


def unknown_key(key: str, allowed: Sequence[str]) -> str:
    """The line for a key that does not exist. allowed: all keys, dotted."""
    section = key.rpartition(".")[0]
    siblings = [a for a in allowed if section and a.startswith(section + ".")]
    siblings = siblings or sorted({a.split(".", 1)[0] for a in allowed})
    near = suggestion(key, allowed) or did_you_mean(key, siblings) or did_you_mean(key, allowed)
    return f"no key '{key}'{near}; allowed: {one_of(siblings)}"


def _choice_that_is_no_word(overrides: Sequence[str]) -> str | None:
    """The line for model=3: Hydra says what it expects and of what type it is, and no key."""
    pairs = (o.lstrip("+").partition("=")[::2] for o in overrides)
    found = (
        _no_choice(group, value, [])
        for group, value in pairs
        if _NO_WORD.fullmatch(value) and (conf_dir() / group).is_dir()
    )
    return next(found, None)


def _no_choice(group: str, name: str, options: list[str]) -> str:
    """options: what the group has; [] where Hydra does not say."""
    if not group:
        return f"no configuration '{name}'"
    options = options or choices_of(group)
    hint = did_you_mean(name, options)
    return f"{group}={name}: no such {group}{hint}; allowed: {one_of(options, limit=60)}; {OWN_FOLDER}"


def _bad_yaml(error: yaml.YAMLError) -> str:
    """'FILE:3: mapping values are not allowed here'."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    if mark is None:  # a character that YAML forbids
        return f"{getattr(error, 'name', 'a configuration')}: not a YAML file: {_one_line(str(error))}"
    problem = getattr(error, "problem", None) or getattr(error, "context", None) or "not YAML"
    return f"{mark.name}:{mark.line + 1}: not a YAML file: {problem}"


def _bad_value(cause: OmegaConfBaseException, context: str) -> str:
    text = str(cause).split("\n", 1)[0].strip()
    key = getattr(cause, "full_key", None) or ""
    if not key and (found := re.search(r"override (\S+)", context)):
        key = found.group(1)
    if "is not a ListConfig" in text:
        text = f"takes several values: write {key}=[...], with brackets"
    return f"{key}: {text}" if key else text


def all_keys(command: str, overrides: Sequence[str]) -> list[str]:
    """The command's keys; of one that reads a checkpoint also those of the sections that come with it."""
    keys = _keys(command, overrides)
    if command in FROM_CHECKPOINT:
        keys += [k for k in _keys("train", []) if k.split(".")[0] in keys and k not in _OF_TRAINING]
    return keys


def _keys(command: str, overrides: Sequence[str]) -> list[str]:
    """The command's keys with the groups that the user chose, where that composes; of a swept group the first."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException

    groups = [o.split(",")[0] for o in overrides if re.fullmatch(r"\w+=[\w,-]+", o)]
    for tried in (groups, []):
        GlobalHydra.instance().clear()
        try:
            with initialize_config_dir(str(conf_dir()), version_base="1.3"):
                cfg = compose(command, overrides=list(tried))
            return [key for key, _ in leaves(cast("dict[str, Any]", OmegaConf.to_container(cfg, resolve=False)))]
        except (HydraException, OmegaConfBaseException):
            continue
    return []


def _raised_by_hydra(error: BaseException) -> bool:
    trace = error.__traceback__
    name = ""
    while trace is not None:
        name = trace.tb_frame.f_globals.get("__name__", "")
        trace = trace.tb_next
    return name == "hydra" or name.startswith("hydra.")


def _one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()

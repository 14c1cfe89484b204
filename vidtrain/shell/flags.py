"""Hydra's flags on the command line, apart from the overrides, and the folder of the user's own configs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vidtrain.errors import ConfigError, did_you_mean, one_of
from vidtrain.options.option_texts import conf_dir
from vidtrain.options.path_options import expand_home

# Hydra's flags -> number of values each takes ("?" = perhaps one, of these)
_INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
_FLAGS: dict[str, int | tuple[str, ...]] = {
    **dict.fromkeys(["--multirun", "-m", "--run", "-r", "--resolve", "--shell-completion", "-sc"], 0),
    **dict.fromkeys(["--hydra-help", "--help", "-h", "--version"], 0),
    **dict.fromkeys(["--cfg", "-c", "--package", "-p", "--config-path", "-cp"], 1),
    **dict.fromkeys(["--config-name", "-cn", "--config-dir", "-cd", "--experimental-rerun"], 1),
    **dict.fromkeys(["--info", "-i"], _INFO),
}


def split_flags(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Hydra's flags, each with its value, apart from the overrides: argparse fails when they alternate."""
    flags, overrides = [], []
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        name = word.split("=", 1)[0]
        if name in ("--config-dir", "-cd") and "=" in word:  # where no shell expands ~
            word = f"{name}={expand_home(word.partition('=')[2])}"
        if not word.startswith("-"):
            overrides.append(word)
        elif name not in _FLAGS:
            hint = did_you_mean(name, _FLAGS)
            raise ConfigError(
                f"no flag '{word}'{hint}; flags: {one_of(f for f in _FLAGS if f[:2] == '--')}; "
                "options are written key=value, without dashes"
            )
        elif isinstance(takes := _FLAGS[name], tuple):
            value = rest.pop(0) if "=" not in word and rest and rest[0] in takes else "all"
            flags.append(word if "=" in word else f"{name}={value}")
        elif takes and "=" not in word:
            if not rest:
                raise ConfigError(f"flag '{word}' requires a value after it")
            flags += [word, rest.pop(0)]
        else:
            flags.append(word)
    return flags, overrides


def config_dir(flags: list[str]) -> Path | None:
    """The folder of the user's own configs, checked to exist."""
    for position, flag in enumerate(flags):
        name, _, inline = flag.partition("=")
        if name in ("--config-dir", "-cd"):
            folder = Path(inline or flags[position + 1])
            if not folder.is_dir():
                raise ConfigError(f"{name} {folder}: no such folder")
            return folder
    return None


def refuse_shadowed_configs(folder: Path) -> None:
    """Hydra reads our file and silently ignores the user's when both have the same name."""
    for file in sorted(folder.rglob("*.yaml")):
        name = file.relative_to(folder)
        if (conf_dir() / name).is_file():
            raise ConfigError(f"{file} has the name of vidtrain's own {name} and would be ignored: rename it")

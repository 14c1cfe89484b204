"""Which options of a run are not the usual ones, as --help has them; read from text, without hydra or torch."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from vidtrain.errors import ConfigError
from vidtrain.options.option_texts import default_choices, fields, group_options, leaves

_CHOICE = re.compile(r"[\w-]+|\[[\w, -]*\]")


def unusual(config: Mapping[str, Any], choices: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """(key, value, default, what it does) of each option of a training that differs from its default.

    The default of an option that has to be given is empty. An option whose default nobody knows here, as of a dataset
    of the user's own, differs unless it is null or empty.

    Args:
        config: plain values, see runs.names.CONFIG; a stranger's perhaps.
        choices: of the groups of conf/; the defaults are those of these choices.
    """
    usual = {key: (default, text) for key, _, default, text in fields("train")}
    for group, choice in {**default_choices("train"), **choices}.items():
        if group not in config or not isinstance(choice, str) or not _CHOICE.fullmatch(choice):
            continue
        try:
            options = group_options(group, choice)
        except ConfigError:  # of the user's own folder of configurations
            continue
        for key, (default, text) in options.items():
            usual[f"{group}.{key}"] = default, text or usual.get(f"{group}.{key}", ("", ""))[1]
    found = []
    for key, value in leaves(config):
        default, text = usual.get(key, ("", ""))
        if _same(value, default) or (value in (None, "", [], {}) and default in ("", "[]", "{}")):
            continue
        found.append((key, shown(value), "" if default == "???" else default, " ".join(text.split())))
    return found


def shown(value: Any) -> str:
    """A plain value as it is written on the command line."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _same(value: Any, default: str) -> bool:
    """Whether a default, as a YAML file or a schema writes it, is this value."""
    import yaml  # type: ignore[import-untyped]

    if str(value) == default:
        return True
    try:
        read = yaml.safe_load(default)
        if isinstance(read, str) and isinstance(value, (int, float)):  # 1e-4, a text to PyYAML
            read = float(read)
    except (yaml.YAMLError, ValueError):
        return False
    return bool(read == value)

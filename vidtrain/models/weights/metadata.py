"""What published files say beside their tensors: configurations and class names. A stranger's plain values, bounded,
with the types that they should have, and never resolved or called."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from vidtrain.errors import CheckpointError
from vidtrain.untrusted_data import LONGEST_TEXT, check_plain, read_mapping

SECTION: Final = "vidtrain"
"""Key of a config.json that `vidtrain publish` has written, under which all stands that vidtrain reads of it."""
CONFIGS: Final = ("config.json", "preprocessor_config.json", "video_preprocessor_config.json")
"""Files of a folder of the Hugging Face hub that say something of the net or its clips."""
_MOST_CLASSES = 100_000
_LARGEST = 1_000_000  # of any number that a net or a clip is made from


@dataclass(frozen=True)
class Beside:
    """A mapping of the file, by which name messages call it."""

    name: str
    values: Mapping[str, Any]

    def inner(self, key: str) -> Beside:
        """The mapping under `key`; an empty one where there is none."""
        value = self.values.get(key)
        if value is not None and not isinstance(value, Mapping):
            raise self._error(key, value, "a mapping")
        return Beside(f"{self.name}: {key}", value or {})

    def whole(self, key: str) -> int | None:
        """A number of 1 to a million; None: it says nothing of it."""
        value = self.values.get(key)
        if value is not None and (type(value) is not int or not 1 <= value <= _LARGEST):
            raise self._error(key, value, f"a whole number from 1 to {_LARGEST}")
        return value

    def number(self, key: str) -> float | None:
        """A finite number up to a million, either way."""
        value = self.values.get(key)
        if value is not None and (type(value) not in (int, float) or not abs(value) <= _LARGEST):
            raise self._error(key, value, "a number")
        return value

    def numbers(self, key: str) -> tuple[float, float, float] | None:
        """Three numbers, one for each colour."""
        value = self.values.get(key)
        if value is None:
            return None
        if (
            not isinstance(value, list)
            or [type(one) in (int, float) and math.isfinite(one) for one in value] != [True] * 3
        ):
            raise self._error(key, value, "three numbers")
        return float(value[0]), float(value[1]), float(value[2])

    def switch(self, key: str, default: bool) -> bool:
        value = self.values.get(key, default)
        if type(value) is not bool:
            raise self._error(key, value, "true or false")
        return value

    def text(self, key: str) -> str | None:
        value = self.values.get(key)
        if value is not None and not isinstance(value, str):
            raise self._error(key, value, "a text")
        return value

    def _error(self, key: str, value: Any, wanted: str) -> CheckpointError:
        return CheckpointError(f"{self.name}: {key}: expected {wanted}, got {json.dumps(value, default=str)[:80]}")


Said = Mapping[str, Beside]
"""By the name of a file of a folder, or the key of a checkpoint."""


def beside_folder(folder: Path) -> dict[str, Beside]:
    """The configurations in a folder of the Hugging Face hub.

    Raises:
        CheckpointError: one that cannot be read.
    """
    found = {}
    for file in (folder / name for name in CONFIGS if (folder / name).is_file()):
        try:
            found[file.name] = Beside(str(file), read_mapping(file))
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{file}: cannot be read as a configuration: {error}") from None
    return found


def beside_state(content: Mapping[str, Any], source: str) -> dict[str, Beside]:
    """The configuration that PySlowFast writes into its checkpoints as YAML; one that cannot be read says nothing."""
    import yaml  # type: ignore[import-untyped]

    text = content.get("cfg")
    if not isinstance(text, str) or len(text) > LONGEST_TEXT:
        return {}
    try:
        values = yaml.safe_load(text)
        check_plain(values, "cfg")
    except (yaml.YAMLError, ValueError, RecursionError):
        return {}
    return {"cfg": Beside(f"{source}: cfg", values)} if isinstance(values, dict) else {}


def published_config(said: Said) -> Mapping[str, Any] | None:
    """The configuration that `vidtrain publish` has put into a config.json; None: it has not written this one."""
    section = said["config.json"].values.get(SECTION) if "config.json" in said else None
    config = section.get("config") if isinstance(section, Mapping) else None
    return config if isinstance(config, Mapping) else None


def class_names(content: Mapping[str, Any], said: Said) -> tuple[str, ...]:
    """The names of a file's classes in their order; () where it has none.

    They stand in id2label of config.json (as a rule; LABEL_0 and so on are no names), in `meta` of MMAction2's
    checkpoints, or under class_names or classes.
    """
    if "config.json" in said:
        labels = said["config.json"].values.get("id2label")
        numbers = [str(n) for n in range(len(labels) if isinstance(labels, Mapping) else 0)]
        if isinstance(labels, Mapping) and labels.keys() == set(numbers):
            found = _names([labels[n] for n in numbers])
            return () if all(name == f"LABEL_{n}" for n, name in enumerate(found)) else found
    meta = content.get("meta")
    meta = meta if isinstance(meta, Mapping) else {}
    data = meta.get("dataset_meta")
    homes = (meta.get("CLASSES"), data.get("classes") if isinstance(data, Mapping) else None)
    return next(filter(None, map(_names, (*homes, content.get("class_names"), content.get("classes")))), ())


def _names(value: Any) -> tuple[str, ...]:
    """The texts of a list, all different; () for anything else."""
    if not isinstance(value, (list, tuple)) or len(value) > _MOST_CLASSES:
        return ()
    if not all(isinstance(name, str) and 0 < len(name) <= LONGEST_TEXT and "\0" not in name for name in value):
        return ()
    return tuple(value) if len(set(value)) == len(value) else ()

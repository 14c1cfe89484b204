"""Which class each output of a network stands for: names decide, never positions."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from vidtrain.data.manifest.manifest import IntLists, Manifest, SegmentLists, VideoData
from vidtrain.errors import CheckpointError, ConfigError, DataError, one_of
from vidtrain.untrusted_data import parse_json, read_small

if TYPE_CHECKING:
    from vidtrain.models.weights.load import WeightsInfo

log = logging.getLogger("vidtrain")

KINETICS: Final = "kinetics400"
"""Value of class_names for Kinetics-400 in the order of nearly all published files, the alphabet's."""
_LARGEST_LIST: Final = 1 << 24  # bytes


def class_names(info: WeightsInfo, option: str | None, data: Sequence[str] = ()) -> tuple[str, ...]:
    """The names of a file's outputs in their order, spelled as the data spells them.

    Args:
        option: of the command, class_names: kinetics400, or a file of names; None: the file's own.
        data: the classes of the videos, () where there are none; each has to be one of the names.

    Raises:
        ConfigError, CheckpointError: names that are not those of the outputs; a file without outputs.
        DataError: classes of the data that the file lacks, or nothing that says which output is which.
    """
    count, source = info.num_classes, info.source
    if count is None:
        raise CheckpointError(f"{source}: it has no classification head; vidtrain train makes one")
    names: Sequence[str] = info.class_names if option is None else read_class_names(option)
    if names and len(names) != count:
        whose = f"class_names={option}" if option is not None else "its own list"
        raise ConfigError(f"{source} has {count} classes, {whose} has {len(names)}: they have to be the same")
    if not names:
        names = _assumed(count, source, data)
    spelled = {_plain(name): name for name in data}
    ours = tuple(spelled.get(_plain(name), name) for name in names)
    names = ours if len(set(ours)) == count else tuple(names)
    if unknown := [name for name in data if name not in names]:
        raise DataError(
            f"the data has {len(unknown)} classes that {source} does not know: {one_of(unknown, 5)}; its {count} are: "
            f"{one_of(names, 5)}"
        )
    return names


def _assumed(count: int, source: str, data: Sequence[str]) -> Sequence[str]:
    """Names for outputs that have none, and a line that says so."""
    names: Sequence[str]
    kinetics = _kinetics() if count == 400 else ()
    if kinetics and {_plain(name) for name in data} <= {_plain(name) for name in kinetics}:
        names, what = kinetics, "those of Kinetics-400 in alphabetical order"
    elif not data:
        names, what = [f"class {n}" for n in range(count)], "numbers"
    elif count == len(data):
        names, what = data, "those of the data in its order"
    else:
        raise DataError(
            f"{source} has {count} classes and does not name them, the data has {len(data)}: add "
            f"class_names={KINETICS}, or class_names=FILE with a name per line in the order of its outputs"
        )
    log.warning("%s does not name its %d classes: taken for %s (class_names=FILE)", source, count, what)
    return names


def read_class_names(option: str) -> tuple[str, ...]:
    """The names that class_names=... stands for: kinetics400, or a file with a name per line, or JSON: a list, or a
    mapping of names to numbers or of numbers to names.

    Raises:
        ConfigError: no such file, or none of these.
    """
    if option == KINETICS:
        return _kinetics()
    try:
        text = read_small(Path(option), _LARGEST_LIST)
        names = _from_json(parse_json(text)) if option.endswith(".json") else text.splitlines()
    except OSError as error:
        raise ConfigError(
            f"class_names={option}: expected {KINETICS} or a file of names ({error.strerror or error})"
        ) from None
    except ValueError as error:
        raise ConfigError(f"class_names={option}: no list of names: {error}") from None
    names = [name.strip().strip('"') for name in names if name.strip()]
    if twice := sorted({name for name in names if names.count(name) > 1} if len(set(names)) < len(names) else ()):
        raise ConfigError(f"class_names={option}: names a class twice: {one_of(twice, 3)}")
    if not names:
        raise ConfigError(f"class_names={option}: names no class")
    return tuple(names)


def with_classes_of(data: VideoData, class_names: Sequence[str]) -> VideoData:
    """The same videos with the checkpoint's class numbers: names decide, never positions."""
    class_names = tuple(class_names)
    if class_names == data.class_names:
        return data
    unknown = [name for name in data.class_names if name not in class_names]
    if unknown:
        raise DataError(
            f"the data has {len(unknown)} classes that the checkpoint does not know: {one_of(unknown, 5)}; "
            f"it was trained on: {one_of(class_names, 10)}"
        )
    number = np.array([class_names.index(name) for name in data.class_names], dtype=np.int64)
    splits = {name: _renumbered(manifest, number) for name, manifest in data.splits.items()}
    return replace(data, class_names=class_names, splits=splits, flip_pairs=())


def _renumbered(manifest: Manifest, number: npt.NDArray[np.int64]) -> Manifest:
    tags, segments = manifest.tags and IntLists.of(number[tags].tolist() for tags in manifest.tags), manifest.segments
    if segments is not None:
        times, classes = segments.values[:, :2], number[segments.values[:, 2].astype(np.int64)]
        segments = SegmentLists(np.column_stack([times, classes]), segments.offsets)
    labels = np.where(manifest.labels >= 0, number[manifest.labels], -1)
    return replace(manifest, labels=labels, tags=tags, segments=segments)


def _from_json(content: Any) -> list[str]:
    if isinstance(content, Mapping):
        by_name = all(type(value) is int for value in content.values())
        numbered = {value: key for key, value in content.items()} if by_name else content
        numbers = {str(key): name for key, name in numbered.items()}
        if numbers.keys() != {str(n) for n in range(len(content))}:
            raise ValueError("its numbers are not 0, 1, 2, ...")
        content = [numbers[str(n)] for n in range(len(content))]
    if not isinstance(content, list) or not all(isinstance(name, str) for name in content):
        raise ValueError("expected a list of texts, or a mapping of names to numbers")
    return content


def _kinetics() -> tuple[str, ...]:
    from torchvision.models.video import R3D_18_Weights

    return tuple(R3D_18_Weights.KINETICS400_V1.meta["categories"])


def _plain(name: str) -> str:
    """A name without what folders and lists change in it."""
    return " ".join(name.casefold().replace("_", " ").replace('"', "").split())

"""vidtrain search: the videos of a folder of features that are most like another one; how well labels are found so."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import MISSING

from vidtrain.commands.feature_extractor import Encoder
from vidtrain.commands.input_videos import find_inputs
from vidtrain.data.features.nearest import Vectors, nearest, recall, unit_mean, video_vectors
from vidtrain.data.features.subsets import sources_of
from vidtrain.data.formats.features import features
from vidtrain.data.manifest.manifest import FeatureInfo, Manifest, VideoData
from vidtrain.errors import ConfigError, DataError, one_of
from vidtrain.options.given_options import refuse_unread
from vidtrain.options.invocation import Invocation
from vidtrain.options.schema import CheckpointSections, SplitName
from vidtrain.ranges import number
from vidtrain.reports.table import table
from vidtrain.runs.atomic import make_folder, write_csv, write_json
from vidtrain.types import FilePath

log = logging.getLogger("vidtrain")

_KS = (1, 5, 10)
_COLUMNS = ("query", "rank", "cosine", "video", "label", "split")


@dataclass
class SearchConfig(CheckpointSections):
    index: FilePath = MISSING
    """The folder of features to search, the output of `vidtrain extract`."""
    query: FilePath | None = None
    """A video, a folder of videos, or a glob in quotes. Its features are made as those of the index were."""
    checkpoint: FilePath | None = None
    """The .pt file that made the index, or the folder of its run; null: the one that the index names."""
    top: int = number(10, least=1)
    """Videos to list per query."""
    split: SplitName | None = None
    """Without a query: recall@1, 5 and 10 of this split's videos among all others, by their labels."""
    output: FilePath | None = None
    """Also write the result to this .csv or .json file."""
    trust: list[str] = field(default_factory=list)
    """Modules outside vidtrain that the checkpoint's configuration may call."""


def run(call: Invocation[SearchConfig]) -> None:
    """Print the nearest videos of each query, or the recall of a split."""
    options = call.options
    if (options.query is None) == (options.split is None):
        raise ConfigError("search: give query=FILE for the videos like it, or split=test for the recall of a split")
    if options.split is not None:
        of_queries = ("checkpoint", "top", "trust", "model", "decoder", "sampler", "transform", "trainer", "eval")
        refuse_unread(of_queries, f"split={options.split} compares features that are there; query=FILE makes some")
    if options.output is not None and Path(options.output).suffix.lower() not in (".csv", ".json"):
        raise ConfigError(f"output={options.output}: expected a name that ends in .csv or .json")
    if options.output is not None:
        make_folder(Path(options.output).parent)
    if not Path(options.index).is_dir():
        raise ConfigError(f"index={options.index}: no such folder: give the output of `vidtrain extract`")
    data = features(options.index)
    assert data.features is not None
    if options.split is not None:
        _print_recall(options, data, data.features, str(options.split))
        return
    assert options.query is not None
    paths = find_inputs(options.query, "query")
    keys = {split: video_vectors(manifest, data.features) for split, manifest in data.splits.items()}
    queries = _query_vectors(call, data, data.features, paths)
    _print_nearest(options, data, keys, paths, queries)


def _print_nearest(
    options: SearchConfig, data: VideoData, keys: dict[str, Vectors], paths: list[str], queries: Vectors
) -> None:
    names = [(split, *named) for split, manifest in data.splits.items() for named in _named(manifest, data)]
    cosines, rows = nearest(queries, np.concatenate(list(keys.values())), options.top)
    lines: list[list[Any]] = []
    for path, near, found in zip(paths, cosines.tolist(), rows.tolist(), strict=True):
        for rank, (cosine, row) in enumerate(zip(near, found, strict=True), 1):
            split, video, label = names[row]
            lines.append([path, rank, f"{cosine:.4f}", video, label, split])
    shown = [line if len(paths) > 1 else ["", *line[1:]] for line in lines]
    print(table(_COLUMNS, shown))
    items = [{**dict(zip(_COLUMNS, line, strict=True)), "cosine": float(line[2])} for line in lines]
    _write(options, _COLUMNS, lines, items)


def _named(manifest: Manifest, data: VideoData) -> Iterator[tuple[str, str]]:
    """(video, classes joined by ;) of each row."""
    for source, own in zip(sources_of(manifest), _classes(manifest), strict=True):
        yield source, ";".join(data.class_names[number] for number in sorted(own))


def _classes(manifest: Manifest) -> list[set[int]]:
    if manifest.tags is not None:
        return [set(tags.tolist()) for tags in manifest.tags]
    return [{label} if label >= 0 else set() for label in manifest.labels.tolist()]


def _print_recall(options: SearchConfig, data: VideoData, info: FeatureInfo, split: str) -> None:
    others = [name for name in data.splits if name != split]
    if split not in data.splits or not others:
        raise ConfigError(f"split={split}: needs this split and another one, the index has {one_of(data.splits)}")
    asked, known = data.splits[split], [data.splits[name] for name in others]
    keys = np.concatenate([video_vectors(manifest, info) for manifest in known])
    classes = [own for manifest in known for own in _classes(manifest)]
    found = recall(video_vectors(asked, info), _classes(asked), keys, classes, _KS)
    header = ["split", "among", *(f"recall@{k}" for k in found), "videos"]
    row = [split, "+".join(others), *(f"{value:.4f}" for value in found.values()), str(len(asked))]
    print(table(header, [row]))
    content = {"split": split, "among": others} | {f"recall@{k}": value for k, value in found.items()}
    _write(options, header, [row], content)


def _write(options: SearchConfig, columns: Sequence[str], lines: Sequence[Sequence[Any]], content: Any) -> None:
    """Lines as CSV, or the content as JSON, where `output` asks for them."""
    if options.output is not None and options.output.lower().endswith(".csv"):
        write_csv(Path(options.output), columns, lines)
    elif options.output is not None:
        write_json(Path(options.output), content)


# ---------------------------------------------------------------- the features of a query


def _query_vectors(call: Invocation[SearchConfig], data: VideoData, info: FeatureInfo, paths: list[str]) -> Vectors:
    """(Q, D): as `unit_mean` of what `vidtrain extract` would have written.

    Raises:
        ConfigError: these are not the settings or weights that made the index.
        DataError: a query cannot be read.
    """
    options = call.options
    shown, names = f"index={options.index}", data.class_names
    encoder = Encoder(call, info, shown, checkpoint=options.checkpoint, class_names=names, trust=options.trust)
    found: dict[int, Vectors] = {}
    for video in encoder.videos(paths):
        if video.error is not None:
            raise DataError(f"query: {paths[video.row]}: {video.error}")
        found[video.row] = unit_mean(video.features)
    return np.stack([found[row] for row in range(len(paths))])

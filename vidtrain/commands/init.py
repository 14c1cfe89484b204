"""vidtrain init: look at a folder of clips, or a list of them, and write a first experiment that says why."""

from __future__ import annotations

import math
import os
import re
import shlex
import tempfile
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import yaml  # type: ignore[import-untyped]
from omegaconf import MISSING

from vidtrain import build
from vidtrain.child_python_path import processors
from vidtrain.commands.dataset_videos import listed
from vidtrain.commands.init_choices import Chosen, GivenWeights, Machine, TrainingVideos, choose, to_text, to_yaml
from vidtrain.commands.run_dir import folder_name
from vidtrain.data.checks.probe_files import Probes, Settings
from vidtrain.data.checks.probe_video import Depth, Probe
from vidtrain.data.checks.stats import Stats, collect
from vidtrain.data.formats._files.flip_classes import flip_pairs
from vidtrain.data.formats.segments import has_times
from vidtrain.data.manifest.grouping import MOST, Grouping, find_grouping
from vidtrain.data.manifest.manifest import Manifest, VideoData
from vidtrain.engine.precision import choose_device
from vidtrain.errors import ConfigError, DataError
from vidtrain.models.weights.load import describe_weights
from vidtrain.options.invocation import Invocation
from vidtrain.options.option_texts import choices_of, conf_dir
from vidtrain.options.presets import list_models, nearest_preset
from vidtrain.ranges import number
from vidtrain.remote import is_url
from vidtrain.reports.table import counted, table
from vidtrain.runs.atomic import make_folder, write_text
from vidtrain.tasks.classification.intervals import share_interval
from vidtrain.terminal import note_lines, print_line, printable
from vidtrain.types import BadVideo, FilePath

_LOOKED_AT: Final = 2000  # videos, drawn at random from more
_FEW_TESTED: Final = 40  # test videos below which one split says little
_GIVEN: Final = {"root": "where the videos are", "classes": "their names", "train": "the list that was given"}
_GIVEN.update(dict.fromkeys(("val", "test"), "beside the list for training"))
_FEW_UNITS: Final = 7  # videos of the smallest class, or groups of them, of which 15 % are one
_EXAMPLE: Final = 0.75  # of an accuracy
_UNCUT: Final = {"val_fraction": 0.0, "test_fraction": 0.0}


@dataclass
class InitConfig:
    input: FilePath = MISSING
    """A folder with a folder per class, or a list of videos (CSV, TSV, text, JSON): the first word after init."""
    output: FilePath = "my_conf"
    """Folder of configs, for --config-dir: the experiment is written to experiment/ in it."""
    weights: FilePath | None = None
    """A published file, or a checkpoint, to start from: it says which model and clips, the data how much is tuned."""
    device: str = "auto"
    """Where the training will run: auto, cpu, cuda, cuda:1, mps."""
    num_workers: int | None = number(None, least=0)
    """Processes that look into the videos; null: one per processor."""


def run(call: Invocation[InitConfig]) -> None:
    """Print what was found and chosen, write the experiment, and say how to run it."""
    options = call.options
    source = Path(options.input)
    name = _name(source)
    file = Path(options.output) / "experiment" / f"{name}.yaml"
    if file.exists():
        raise ConfigError(f"{file}: is there already: remove it, or give another folder with output=...")
    start = None if options.weights is None else _start(options.weights)
    if source.is_file() and has_times(source):
        raise ConfigError(_timed(source, source))
    format_, given = _source(source)
    try:
        whole = _built(format_, {**given, **_UNCUT})
    except DataError as error:
        if (labels := _labels_with_times(source)) is not None:
            raise ConfigError(_timed(source, labels)) from error
        raise
    if "train" not in whole.splits:
        raise DataError(f"{source}: holds no training videos, only {', '.join(whole.splits)}")
    if whole.num_classes < 2 and (labels := _labels_with_times(source)) is not None:
        raise ConfigError(_timed(source, labels))
    if whole.num_classes < 2 and not whole.multi_label:
        raise DataError(
            f"{source}: has a single class, {printable(whole.class_names[0])}, and nothing to distinguish it from: "
            "expected a folder per class, or a list with two labels or more"
        )
    some = _some(whole)
    probes = _look(some, processors() if options.num_workers is None else max(options.num_workers, 1))
    stats, machine = collect(some, probes), _machine(options.device)
    bad = [
        BadVideo(path, probe.error or probe.broken) for path, probe in probes.items() if probe.error or probe.corrupt
    ]
    cuts, data = _cut(format_, given, whole)
    print(_found(source, data, stats, machine))
    print("\n".join([*listed("unreadable", bad), *note_lines(data.notes)]))
    choices = [Chosen("/data", format_, f"{len(data.class_names)} classes")]
    choices += [Chosen(f"data.{key}", value, _GIVEN[key]) for key, value in given.items()]
    choices += [*cuts, *_bad(len(bad), len(probes)), *choose(stats, _training(data), machine, start)]
    command = f"vidtrain train --config-dir {shlex.quote(str(options.output))} experiment={name}"
    head = [f"Written by vidtrain init {source.absolute()}", f"Machine: {machine}", f"  {command}"]
    print(f"\n{to_text(choices)}\n")
    _write(file, to_yaml(choices, head))
    print_line(f"written: {file}, with the reasons; change what you know better. Train and test:")
    print_line(f"  {command}")
    if (folds := next((c.value for c in cuts if c.key == "data.folds"), None)) is not None:
        print_line("that is fold 0; all of them, which ends in mean and standard deviation:")
        print_line(f"  {command.replace(' train ', ' train -m ', 1)} data.fold={','.join(map(str, range(folds)))}")


# ---------------------------------------------------------------- the videos


def _name(source: Path) -> str:
    """Of the experiment: that of the folder or the list, in letters that Hydra takes; none of vidtrain's own."""
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", folder_name(source if source.is_dir() else source.with_suffix(""))).strip(
        "_-"
    )
    return f"{name}_clips" if name in choices_of("experiment") else name or "clips"


def _source(source: Path) -> tuple[str, dict[str, Any]]:
    """The format of the data and the options that say where it is."""
    if source.is_dir():
        return "folder", {"root": str(source.absolute())}
    if not source.is_file():
        raise ConfigError(
            f"input={source}: no such file or folder; expected a folder per class in it, or a list of videos"
        )
    if source.suffix.lower() == ".parquet":
        raise ConfigError(f"input={source}: a table: train with data=table data.train=... data.label_column=...")
    found = {"root": str(source.absolute().parent), "train": source.name}
    for split in ("val", "test"):
        other = source.with_name(source.name.replace("train", split))
        if other != source and other.is_file():
            found[split] = other.name
    if (source.parent / "classes.txt").is_file():
        found["classes"] = "classes.txt"
    return "list", found


def _labels_with_times(source: Path) -> Path | None:
    """A file in a folder that says what happens when."""
    return next((file for file in sorted(source.iterdir()) if has_times(file)), None) if source.is_dir() else None


def _timed(source: Path, labels: Path) -> str:
    root = shlex.quote(str(labels.parent.absolute()))
    return (
        f"input={source}: {labels.name} says from when to when things happen, init makes experiments for whole videos "
        f"of one class. For these: vidtrain train task=segments data=segments data.root={root} "
        f"data.annotations={shlex.quote(labels.name)} (docs/timeline.md)"
    )


def _start(file: str) -> GivenWeights:
    info = describe_weights(file)
    if info.model not in list_models():
        raise ConfigError(f"weights={file}: no model here takes it; `vidtrain inspect weights=...` says what it is")
    model, left = nearest_preset(info.model, info.options)
    return GivenWeights(
        file if is_url(file) else str(Path(file).absolute()),
        str(info.layout),
        model,
        {k: left[k] for k in info.options if k in left},
    )


def _built(format_: str, options: dict[str, Any]) -> VideoData:
    section = yaml.safe_load((conf_dir() / "data" / f"{format_}.yaml").read_text(encoding="utf-8"))
    return build.build_data({**section, **options})


def _some(data: VideoData) -> VideoData:
    """The dataset, of a large one videos drawn at random."""
    total = sum(map(len, data.splits.values()))
    if total <= _LOOKED_AT:
        return data
    rng, splits = np.random.default_rng(0), {}
    for split, manifest in data.splits.items():
        count = math.ceil(len(manifest) * _LOOKED_AT / total)
        splits[split] = manifest.take(np.sort(rng.permutation(len(manifest))[:count]))
    return replace(data, splits=splits)


def _look(data: VideoData, workers: int) -> dict[str, Probe]:
    """The probe of each video by absolute path; its first, middle and last frame are decoded."""
    paths = data.files()
    reader = build.build_reader({"_target_": "vidtrain.data.readers.pyav.reader.PyAVReader"})
    settings = Settings(reader, "init", Depth.SAMPLED, timeout=20.0)
    with tempfile.TemporaryDirectory() as folder:
        probes = Probes(folder).complete(paths, settings, workers=workers, what="looking")
        with closing(probes) as found:
            return {one.path: one.probe for one in found}


def _cut(format_: str, given: dict[str, Any], whole: VideoData) -> tuple[list[Chosen], VideoData]:
    """How validation and test videos are held out where there are none, and the dataset that comes of it."""
    train, alone = whole.splits["train"], set(whole.splits) == {"train"}
    if {"val", "test"} <= set(whole.splits):
        return [], whole
    grouping = _grouping(given["root"], train)
    together = []
    if grouping is not None:
        why = f"{len(set(grouping.groups))} groups by their names: videos of one recording or person stay in one split"
        together.append(Chosen("data.group_by", grouping.group_by, why))
    units, tested = _units(train, grouping), 0.15 * len(train)
    few = f"the smallest class has {counted(units, 'video' if grouping is None else 'group')}"
    single = few
    if units >= _FEW_UNITS:
        low, high = share_interval(_EXAMPLE, round(tested))
        single = f"one split would test {tested:.0f} videos, where {_EXAMPLE:.0%} right may be {low:.0%} to {high:.0%}"
    folds = Chosen("data.folds", max(2, min(5, units)), f"{single}; with folds each video is tested once")
    tries = [together, [*together, folds]] if units >= _FEW_UNITS and tested >= _FEW_TESTED else [[*together, folds]]
    tries = [*tries, together] if alone else [together]
    none = Chosen("data.val_fraction", 0.0, f"{few}: validation would lack classes, so the last epoch is kept")
    for choices in [way for each in tries for way in (each, [*each, none])]:
        try:
            data = _built(format_, {**given, **{c.key.removeprefix("data."): c.value for c in choices}})
        except DataError:  # too few for it: the next asks for less
            continue
        if "val" in whole.splits or not data.not_validated():
            return choices, data
    return [Chosen(f"data.{key}", 0.0, f"{few}: too few to hold one out") for key in _UNCUT], whole


def _grouping(root: str, train: Manifest) -> Grouping | None:
    paths = [os.path.relpath(path, root).replace(os.sep, "/") for path in train.paths[:MOST]]
    return find_grouping(paths, train.labels[:MOST].tolist())


def _units(train: Manifest, grouping: Grouping | None) -> int:
    """What the smallest class has of videos, or groups of them, that can be held out by themselves."""
    labels = train.labels.tolist()
    groups = range(len(labels)) if grouping is None else grouping.groups
    pairs = set(zip(labels, groups, strict=False))  # names are looked at up to a number
    return min(Counter(label for label, _ in pairs if label >= 0).values(), default=0)


def _training(data: VideoData) -> TrainingVideos:
    train = data.splits["train"]
    labels = train.labels[train.labels >= 0] if train.tags is None else train.tags.values
    counts = np.bincount(labels, minlength=data.num_classes).tolist()
    lonely = flip_pairs(data.class_names)[1]
    return TrainingVideos(len(train), counts, data.multi_label, lonely, validated="val" in data.splits)


def _bad(bad: int, files: int) -> list[Chosen]:
    if bad <= 0.05 * files:
        return []
    most = min(1.0, math.ceil(10 * (1.5 * bad / files + 0.05)) / 10)
    why = f"{bad} of {files} videos cannot be read: vidtrain data check leaves them out, then remove this"
    return [Chosen("data.max_bad_fraction", most, why)]


# ---------------------------------------------------------------- the machine, the text, the file


def _machine(device_name: str) -> Machine:
    device = choose_device(device_name)
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return Machine(processors(), properties.total_memory / 1e9, properties.name)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9 if hasattr(os, "sysconf") else 0.0
    return Machine(processors(), memory, "Apple GPU" if device.type == "mps" else "")


def _found(source: Path, data: VideoData, stats: Stats, machine: Machine) -> str:
    rows = [
        [name, *(f"{value:.3g}" for value in np.quantile(column, [0, 0.25, 0.5, 1]))]
        for name, column in (
            ("seconds", stats.seconds),
            ("frames", stats.frames),
            ("frames per second", stats.fps),
            ("short side (pixels)", stats.short_sides),
        )
    ]
    counts = ", ".join(f"{split} {len(manifest)}" for split, manifest in data.splits.items())
    train = _training(data).counts
    classes = ", ".join(f"{name} {n}" for name, n in list(zip(data.class_names, train, strict=True))[:12])
    lines = [
        f"{source}: {data.num_classes} classes; videos: {counts}",
        f"in training: {classes}{', ...' if data.num_classes > 12 else ''}",
        f"machine: {machine}",
    ]
    still = int((stats.frames == 1).sum())
    return "\n".join(
        [
            *(printable(line) for line in lines),
            table([f"{len(stats)} videos looked at", "min", "25 %", "median", "max"], rows),
            *([f"still images: {still} videos have a single frame"] if still else []),
        ]
    )


def _write(file: Path, text: str) -> None:
    try:
        make_folder(file.parent)
        write_text(file, text)
    except UnicodeEncodeError:
        raise ConfigError(
            f"{file}: the path of the videos is not UTF-8, which YAML must be: rename the folder"
        ) from None

"""vidtrain data show: a contact sheet of what the model will see, with labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vidtrain import build, published
from vidtrain.commands.data.check import default_folder
from vidtrain.data.clips.dataset import EvalViews
from vidtrain.data.manifest.manifest import VideoData
from vidtrain.data.manifest.untrimmed import untrimmed
from vidtrain.data.settings import EvalConfig, SampleMode
from vidtrain.errors import DataError
from vidtrain.options.invocation import Invocation
from vidtrain.options.schema import DataCommandConfig
from vidtrain.ranges import LARGEST_SEED, number
from vidtrain.reports.contact_sheet import write_contact_sheet
from vidtrain.reports.table import counted
from vidtrain.reports.timeline import labels_figure
from vidtrain.segments import Segment
from vidtrain.terminal import print_line
from vidtrain.types import Sample


@dataclass
class ShowConfig:
    clips: int = number(8, least=1)
    """show: clips on the sheet, a row each."""
    frames: int = number(8, least=1)
    """show: frames of each clip, spread evenly over it."""
    seed: int = number(0, least=0, most=LARGEST_SEED)
    """show: which videos, and every draw of training."""


def run(call: Invocation[DataCommandConfig]) -> None:
    """Write OUTPUT/DATA_ROOT_SPLIT.png: of train the clips of the first epoch, else the centre clip of testing; where
    rows are segments also ..._timeline.png, all that happens in these videos."""
    call = published.with_its_clips(call)
    options, own, name = call.options, call.options.of(ShowConfig), default_folder(call, "show").name
    split = "train" if options.split is None else str(options.split)
    data = build.build_data(options.data)
    manifest = data.split(split)
    rows = np.random.default_rng(own.seed).permutation(len(manifest))[: own.clips].tolist()
    samples = [_load(options, data, split, row, seed=own.seed) for row in rows]
    for sample in samples:
        for bad in sample.bad:
            print_line(f"unreadable: {bad.path}: {bad.reason}")
    shown = [sample for sample in samples if sample.inputs is not None]
    if not shown:
        raise DataError(f"none of the {len(samples)} videos that were drawn can be read")
    file = Path(options.output or "show") / f"{name}_{split}.png"
    write_contact_sheet(
        file,
        [sample.inputs["rgb"][0].numpy() for sample in shown if sample.inputs is not None],
        [f"{_label(sample, data)}   ({Path(manifest.paths[sample.video]).name})" for sample in shown],
        heading=f"{name} {split}: {_what(options)}",
        frames=own.frames,
    )
    print_line(f"{len(shown)} clips of {split}: {file}")
    if manifest.starts is not None:
        timelines = file.with_name(f"{name}_{split}_timeline.png")
        seconds = _lengths(options, [manifest.paths[sample.video] for sample in shown])
        count = _write_timelines(timelines, data, split, seconds)
        print_line(f"what happens when in {counted(count, 'video')} of them: {timelines}")


def _lengths(options: DataCommandConfig, paths: Sequence[str]) -> dict[str, float]:
    """Seconds of each video, once, in the order of `paths`."""
    reader, found = build.build_reader(options.decoder), dict[str, float]()
    for path in dict.fromkeys(paths):
        with reader.open(path) as video:
            found[path] = video.info.seconds
    return found


def _write_timelines(file: Path, data: VideoData, split: str, lengths: Mapping[str, float]) -> int:
    """The labels of these videos, by the seconds that each is long; returns how many there are."""
    whole = untrimmed(data).splits[split]
    assert whole.segments is not None
    rows = {path: row for row, path in enumerate(whole.paths)}
    names = data.class_names
    videos = [
        (Path(path).name, length, [Segment(start, min(end, length), names[int(n)], 1.0) for start, end, n in table])
        for path, length in lengths.items()
        for table in [whole.segments[rows[path]].tolist()]
    ]
    labels_figure(file, videos, names)
    return len(videos)


def _load(options: DataCommandConfig, data: VideoData, split: str, row: int, *, seed: int) -> Sample:
    parts = build.make_parts(options.decoder, options.sampler, options.transform)
    if split == "train":
        return build.train_clips(data, parts, seed=seed)[(0, row)]
    return EvalViews(data.splits[split], parts, EvalConfig(clips=1), num_classes=data.num_classes)[row]


def _label(sample: Sample, data: VideoData) -> str:
    if isinstance(sample.target, int):
        return data.class_names[sample.target] if sample.target >= 0 else "no label"
    return ", ".join(data.class_names[n] for n in sample.target.nonzero()[:, 0].tolist()) or "no class"


def _what(options: DataCommandConfig) -> str:
    sampler, size = options.sampler, options.transform.size
    if sampler.mode is SampleMode.segments:
        return f"{sampler.num_frames} segments, {size} x {size}"
    spacing = f"stride {sampler.stride}"
    if sampler.window is not None:
        spacing = f"over {sampler.window} frames"
    elif sampler.fps is not None:
        spacing = f"{sampler.fps:g} fps"
    return f"{sampler.num_frames} frames, {spacing}, {size} x {size}"

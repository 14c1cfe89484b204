"""vidtrain data show: a contact sheet of what the model will see, with labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from vidtrain import build
from vidtrain.commands.data.check import default_folder
from vidtrain.data.clips.dataset import EvalViews, TrainClips
from vidtrain.data.manifest.manifest import VideoData
from vidtrain.errors import DataError, one_of
from vidtrain.reports.contact_sheet import write_contact_sheet
from vidtrain.terminal import say
from vidtrain.types import Sample


def run(cfg: DictConfig) -> None:
    """Write OUTPUT/DATA_ROOT_SPLIT.png: of train the clips of the first epoch, else the centre clip of testing."""
    split, name = "train" if cfg.split is None else cfg.split.value, default_folder(cfg, "show").name
    data = build.build_data(cfg.data)
    if split not in data.splits:
        raise DataError(f"split={split}: this data set has {one_of(data.splits)}")
    manifest = data.splits[split]
    rows = np.random.default_rng(cfg.show.seed).permutation(len(manifest))[: cfg.show.clips].tolist()
    samples = [_load(cfg, data, split, row) for row in rows]
    for sample in samples:
        for bad in sample.bad:
            say(f"unreadable: {bad.path}: {bad.reason}")
    shown = [sample for sample in samples if sample.inputs is not None]
    if not shown:
        raise DataError(f"none of the {len(samples)} videos that were drawn can be read")
    file = Path(cfg.output or "show") / f"{name}_{split}.png"
    write_contact_sheet(
        file,
        [sample.inputs["rgb"][0].numpy() for sample in shown if sample.inputs is not None],
        [f"{_label(sample, data)}   ({Path(manifest.paths[sample.video]).name})" for sample in shown],
        heading=f"{name} {split}: {_what(cfg)}",
        frames=cfg.show.frames,
    )
    say(f"{len(shown)} clips of {split}: {file}")


def _load(cfg: DictConfig, data: VideoData, split: str, row: int) -> Sample:
    reader, spec, manifest = build.build_reader(cfg.decoder), build.build_spec(cfg.sampler), data.splits[split]
    if split != "train":
        cuts = build.build_eval_crops(cfg.transform, 1)
        return EvalViews(manifest, reader, spec, cuts, clips=1, num_classes=data.num_classes)[row]
    clips = TrainClips(
        manifest,
        reader,
        spec,
        build.build_train_crop(cfg.transform),
        seed=cfg.show.seed,
        augment=build.build_augment(cfg.transform),
        flip_labels=build.flip_labels(data),
        num_classes=data.num_classes,
    )
    return clips[(0, row)]


def _label(sample: Sample, data: VideoData) -> str:
    if isinstance(sample.target, int):
        return data.class_names[sample.target] if sample.target >= 0 else "no label"
    return ", ".join(data.class_names[n] for n in sample.target.nonzero()[:, 0].tolist()) or "no class"


def _what(cfg: DictConfig) -> str:
    sampler, size = cfg.sampler, cfg.transform.size
    if sampler.mode.value == "segments":
        return f"{sampler.num_frames} segments, {size} x {size}"
    spacing = f"stride {sampler.stride}"
    if sampler.window is not None:
        spacing = f"over {sampler.window} frames"
    elif sampler.fps is not None:
        spacing = f"{sampler.fps:g} fps"
    return f"{sampler.num_frames} frames, {spacing}, {size} x {size}"

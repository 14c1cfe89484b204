"""vidtrain extract: a frozen model's features of all clips of every video, written to a folder."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import MISSING
from torch import nn

from vidtrain import build, published
from vidtrain.commands.dataset_videos import keeping, listed, override
from vidtrain.commands.jobs import done_on_ray, part_of, part_summary
from vidtrain.commands.slurm import submitted
from vidtrain.data.clips.loader import choose_workers
from vidtrain.data.clips.sampling import MOST_CLIPS, check_covers
from vidtrain.data.clips.stream import ClipBatch, ClipStream
from vidtrain.data.clips.workers import Workers
from vidtrain.data.features.files import Done, FeatureFolder, Video
from vidtrain.data.features.index import report_features, videos_of, write_feature_index
from vidtrain.data.jobs.journal import REPORT
from vidtrain.data.jobs.parts import Part, PartMade
from vidtrain.data.jobs.progress import ProgressBar
from vidtrain.data.manifest.manifest import Manifest, VideoData
from vidtrain.data.manifest.untrimmed import untrimmed
from vidtrain.data.settings import JobsConfig, SampleMode
from vidtrain.engine.extract import encode
from vidtrain.engine.precision import Precision, choose_device
from vidtrain.engine.preprocess import ModelRunner, Preprocess, model_inputs
from vidtrain.errors import ConfigError, DataError
from vidtrain.hub_folder import load_trained
from vidtrain.models.layers.feature_tap import FeatureTap
from vidtrain.options.checkpoint_config import checkpoint_config
from vidtrain.options.instantiate import ORIGIN
from vidtrain.options.invocation import Invocation, plain
from vidtrain.options.schema import CheckpointSections, DataSection, TrainConfig
from vidtrain.ranges import Choice, number
from vidtrain.remote import is_url
from vidtrain.terminal import printable_lines
from vidtrain.types import BadVideo, FilePath

log = logging.getLogger("vidtrain")


class FeatureType(Choice):
    float16 = "float16"
    float32 = "float32"


@dataclass
class ExtractCommandConfig(CheckpointSections, DataSection):
    checkpoint: FilePath | None = None
    """The .pt file, or the folder of its run, whose model is run. Data, clips and preprocessing come from it; null:
    model and model.weights."""
    output: FilePath = MISSING
    """Folder for the features; a folder that an earlier run began is completed."""
    layer: str = "features"
    """What is kept: features (what the head classifies), embed (c3d's fc6), or the name of a module, such as layer3."""
    tokens: bool = False
    """Keep the layer's output at every position, for probes with attention; false: its mean, one vector per clip."""
    hop: int | float | str | None = None
    """From one clip to the next: source frames (16) or seconds (0.5s); null: clips neither overlap nor leave gaps."""
    clips: int | None = number(None, least=1, most=MOST_CLIPS)
    """So many clips of each video, spread over it evenly, instead of hop; null: all of it, of mode=segments one."""
    untrimmed: bool = False
    """Of data whose rows are segments take the whole videos, each once, with what happens in them when: for
    task=segments model=segment_head. false: the segments, each by itself."""
    dtype: FeatureType = FeatureType.float16
    """Of the numbers on disk: float16 or float32."""
    jobs: JobsConfig = field(default_factory=JobsConfig)
    trust: list[str] = field(default_factory=list)
    """Modules outside vidtrain that the checkpoint's configuration may call."""


def run(call: Invocation[ExtractCommandConfig]) -> None:
    """Extract what is not there yet; print what was done and what could not be."""
    call = published.folder_as_checkpoint(call)
    options, part = call.options, part_of(call.options.jobs)
    workers = "trainer.num_workers"
    if done_on_ray(options.jobs, workers) or submitted("extract", options.jobs, options.output, workers):
        return
    content = None if options.checkpoint is None else load_trained(options.checkpoint)
    config, start = configuration(call, content)
    device = choose_device(config.trainer.device)
    precision = Precision(config.trainer.precision, device)
    check_covers(config.sampler, options.hop, spread_clips(options, config))
    data = build.build_data(config.data)
    if data.features is not None:
        raise ConfigError("extract reads videos: data=features holds features already")
    if options.untrimmed:
        data = untrimmed(data)
    # a published file keeps its head, which layer=... may ask for
    outputs = data.num_classes if start is None else start.info.num_classes or data.num_classes
    network = tapped_network(options, config, content, data, outputs)
    output = Path(options.output)
    made_by = settings_of(options, config, network, precision)
    file = options.checkpoint
    source = file if file is None or is_url(file) else str(Path(file).absolute())
    with closing(FeatureFolder(output, made_by, str(options.dtype), checkpoint=source, part=part)) as folder:
        frozen = ModelRunner(
            network.to(device), Preprocess(config.transform.mean, config.transform.std, device), precision
        )
        found = _extract(options, config, data, frozen, folder, part)
        if part is None:
            _write_lists(options, config, data, folder, found)
    if part is None:
        print(_summary(found, folder, data, output))
        return
    kept = len(found.done) - len(found.made)
    print(part_summary(part, PartMade(len(found.made), kept, tuple(found.bad.values())), output))


@dataclass
class _Found:
    """What came of it. done: by key. made: keys of this run. bad: what could not be read, by key."""

    videos: list[Video]
    done: dict[str, Done]
    made: set[str]
    bad: dict[str, BadVideo]


def configuration(
    call: Invocation[ExtractCommandConfig], content: Mapping[str, Any] | None
) -> tuple[TrainConfig, published.PublishedFile | None]:
    """The checkpoint's configuration with the user's changes; without one, the usual parts with theirs."""
    options, composed, choices = call.options, call.composed, call.choices
    for key in composed.eval or ():
        if key != "batch_size":
            raise ConfigError(f"eval.{key}: extract reads eval.batch_size only; hop=... or clips=... sets its clips")
    if content is not None:
        if composed.model is not None:
            raise ConfigError("checkpoint=... brings its own model: leave out model, or the checkpoint")
        return checkpoint_config(content, composed, choices, file=options.checkpoint, trust=options.trust), None
    for section in ("model", "data"):
        weights = section == "model" and published.weights_of(composed.model) is not None
        if choices.get(section) is None and not weights:
            raise ConfigError(f"neither checkpoint nor {section} is set: give checkpoint=FILE, or {section}=...")
    return published.configuration(call)


def tapped_network(
    options: ExtractCommandConfig,
    config: TrainConfig,
    content: dict[str, Any] | None,
    data: VideoData,
    num_classes: int,
) -> FeatureTap:
    if options.checkpoint is not None:
        model, _ = build.load_model(options.checkpoint, trust=options.trust, content=content)
    else:
        torch.manual_seed(config.trainer.seed)
        if not build.starts_from(config.model):
            log.warning("no model.weights and no checkpoint: these are features of random weights")
        model = build.build_model(config.model, num_classes)
    build.check_reads(model, data)
    if model_inputs(model) != ("rgb",):
        raise ConfigError(f"extract reads RGB: {type(model).__name__} also requires optical flow")
    return FeatureTap(model, options.layer, tokens=options.tokens)


def settings_of(
    options: ExtractCommandConfig, config: TrainConfig, network: FeatureTap, precision: Precision
) -> dict[str, Any]:
    """All that the numbers depend on, by the keys that set it."""
    sections = plain(config)
    unused = {
        "sampler": ("clips_per_video", "class_balance", "shuffle_window"),
        "model": tuple(filter(build.STARTS.fullmatch, sections["model"])),
    }
    used = {"transform": ("size", "resize", "squash", "mean", "std"), "decoder": ("_target_",)}
    made: dict[str, Any] = {}
    for section in ("model", "decoder", "sampler", "transform"):
        for key, value in sections[section].items():
            if key not in (*unused.get(section, ()), ORIGIN) and key in used.get(section, (key,)):
                made[f"{section}.{key}"] = value
    own = {"layer": network.layer, "hop": options.hop, "dtype": str(options.dtype), "trainer.precision": precision.name}
    if network.tokens:  # a folder of an earlier version has no such key
        own["tokens"] = True
    if (clips := spread_clips(options, config)) is not None:
        own["clips"] = clips
    return {**made, **own, "weights": weights_hash(network)}


def spread_clips(options: ExtractCommandConfig, config: TrainConfig) -> int | None:
    """How many clips are spread over each video; None: they follow each other."""
    whole = config.sampler.mode == SampleMode.segments and options.hop is None
    return 1 if whole and options.clips is None else options.clips


def weights_hash(model: nn.Module) -> str:
    """The same for the same names and values, wherever they came from."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _extract(
    options: ExtractCommandConfig,
    config: TrainConfig,
    data: VideoData,
    frozen: ModelRunner,
    folder: FeatureFolder,
    part: Part | None,
) -> _Found:
    """Make what is missing."""
    videos = list({video.key: video for m in data.splits.values() for video in videos_of(m)}.values())
    if not videos:
        raise DataError("there is no video to extract features from")
    videos = videos if part is None else list(part.share(videos))
    known = {video.key: folder.finished(video) for video in videos}
    found = _Found(videos, {key: done for key, done in known.items() if done is not None}, set(), {})
    jobs = [video for video in videos if video.key not in found.done]
    parts = build.make_parts(config.decoder, config.sampler, config.transform)
    hop, spread = options.hop, spread_clips(options, config)
    clips = ClipStream(manifest_of_videos(jobs), parts, hop=hop, clips=spread, batch_size=config.eval.batch_size)
    device = frozen.precision.device
    workers, pinned = choose_workers(config.trainer.num_workers, device), device.type == "cuda"
    batches = clips.loader(Workers(workers, pinned, config.trainer.data_timeout))
    bar = ProgressBar(len(videos), "extracting", done=len(found.done), unit="video")
    with keeping("videos", folder.folder), bar as progress:
        for batch, features in encode(frozen, batches, getattr(torch, options.dtype)):
            _store(folder, jobs, batch, features.numpy(), found, progress)
    return found


def _write_lists(
    options: ExtractCommandConfig, config: TrainConfig, data: VideoData, folder: FeatureFolder, found: _Found
) -> None:
    """The index and the report."""
    if not found.done:
        first = found.bad[found.videos[0].key]
        count = len(found.videos)
        raise DataError(f"none of the {count} videos could be read; the first: {first.path}: {first.reason}")
    write_feature_index(folder.folder, data, found.done, config.sampler, options.hop, spread_clips(options, config))
    report_features(folder.folder, found.videos, found.done, found.made, found.bad)


def manifest_of_videos(videos: list[Video]) -> Manifest:
    whole = Manifest.of([video.path for video in videos], [-1] * len(videos))
    starts = np.array([0.0 if video.start is None else video.start for video in videos])
    ends = np.array([np.inf if video.end is None else video.end for video in videos])
    return Manifest(whole.paths, whole.labels, starts, ends)


def _store(
    folder: FeatureFolder,
    jobs: list[Video],
    batch: ClipBatch,
    features: np.ndarray[Any, Any],
    found: _Found,
    progress: ProgressBar,
) -> None:
    """Write a batch: stretches of clips of one video, then what has ended."""
    rows, numbers, totals = batch.videos.numpy(), batch.numbers.numpy(), batch.totals.numpy()
    # a stretch ends where the next clip is of another video, or the first of the same one again
    cuts = np.flatnonzero((np.diff(rows) != 0) | (np.diff(numbers) != 1)) + 1
    for part in np.split(np.arange(len(rows)), cuts):
        if len(part):
            first = part[0]
            folder.add(jobs[rows[first]], int(numbers[first]), int(totals[first]), features[part])
    for end in batch.ends:
        video = jobs[end.video]
        found.done[video.key] = folder.finish(video, clips=end.clips, frames=end.frames, fps=end.fps, times=end.times)
        found.made.add(video.key)
        progress.step()
    for row, reason in batch.bad:
        folder.discard(jobs[row])
        found.bad[jobs[row].key] = reason
        progress.note = f"{len(found.bad)} bad"
        progress.step()


def _summary(found: _Found, folder: FeatureFolder, data: VideoData, output: Path) -> str:
    kept = len(found.done) - len(found.made)
    clips = sum(done.clips for done in found.done.values())
    lines = [
        f"{len(found.done)} of {len(found.videos)} videos have features in {output} "
        f"({len(found.made)} now, {kept} before)",
        f"{clips} clips, {f'{folder.tokens} tokens of ' if folder.tokens else ''}{folder.length} numbers each",
        *listed("bad", list(found.bad.values())),
        f"report: {output / REPORT}",
    ]
    if "train" in data.splits:
        root = override("data.root", output)
        reader = "model=feature_rnn" if clips > len(found.done) else "model=probe"  # which reads no order
        if data.untrimmed:
            reader = "model=segment_head task=segments"
        elif folder.tokens:
            reader = "model=probe model.head=attentive"
        lines.append(f"train on them with: vidtrain train {reader} data=features {root}")
    return printable_lines(lines)

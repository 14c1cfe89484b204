"""vidtrain extract: a frozen model's features of all clips of every video, written to a folder."""

from __future__ import annotations

import hashlib
import logging
import sys
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from torch import nn

from vidtrain import build
from vidtrain.commands.videos import listed, override, printable
from vidtrain.data.clips.loader import choose_workers
from vidtrain.data.clips.sampling import ClipSpec
from vidtrain.data.clips.stream import ClipBatch, ClipStream, check_slides
from vidtrain.data.features.files import Done, FeatureFolder, Video
from vidtrain.data.features.index import report_features, videos_of, write_feature_index
from vidtrain.data.jobs.journal import REPORT
from vidtrain.data.jobs.progress import ProgressBar
from vidtrain.data.manifest.manifest import Manifest, VideoData
from vidtrain.engine.checkpoints.checkpoint import load_checkpoint
from vidtrain.engine.extract import encode
from vidtrain.engine.precision import Precision, choose_device
from vidtrain.engine.preprocess import Network, Preprocess, model_inputs
from vidtrain.errors import ConfigError, DataError
from vidtrain.models.layers.feature_tap import FeatureTap
from vidtrain.options.described import conf_dir, flat_keys
from vidtrain.options.instantiate import ORIGIN
from vidtrain.options.schema import check_numbers
from vidtrain.options.stored import checkpoint_config
from vidtrain.types import BadVideo

log = logging.getLogger("vidtrain")


def run(cfg: DictConfig) -> None:
    """Extract what is not there yet; print what was done and what could not be."""
    content = None if cfg.checkpoint is None else load_checkpoint(cfg.checkpoint)
    config = _config(cfg, content)
    check_numbers(config)
    device = choose_device(config.trainer.device)
    precision = Precision(config.trainer.precision, device)
    spec = check_slides(build.build_spec(config.sampler))
    data = build.build_data(config.data)
    if data.features is not None:
        raise ConfigError("extract reads videos: data=features holds features already")
    network = _network(cfg, config, content, data)
    output = Path(cfg.output)
    made_by = _made_by(cfg, config, network, precision)
    with closing(FeatureFolder(output, made_by, cfg.dtype.value)) as folder:
        found = _extract(cfg, config, data, network.to(device), precision, spec, folder)
    print(_summary(found, folder, data, output))


@dataclass
class _Found:
    """What came of it. done: by key. made: keys of this run. bad: what could not be read, by key."""

    videos: list[Video]
    done: dict[str, Done]
    made: set[str]
    bad: dict[str, BadVideo]


def _config(cfg: DictConfig, content: Mapping[str, Any] | None) -> DictConfig:
    """The checkpoint's configuration with the user's changes; without one, the usual parts with theirs."""
    for key in flat_keys(OmegaConf.to_container(cfg.eval, resolve=False) if cfg.eval is not None else {}):
        if key != "batch_size":
            raise ConfigError(f"eval.{key}: extract reads eval.batch_size only; hop=... sets where clips begin")
    choices = HydraConfig.get().runtime.choices
    if content is not None:
        if cfg.model is not None:
            raise ConfigError("checkpoint=... brings its own model: leave out model, or the checkpoint")
        return checkpoint_config(content, cfg, choices, file=cfg.checkpoint, trust=cfg.trust)
    for section in ("model", "data"):
        if choices.get(section) is None:
            raise ConfigError(f"neither checkpoint nor {section} is set: give checkpoint=FILE, or {section}=...")
    usual = {"decoder": "pyav", "sampler": "stride", "transform": "crop"}
    base = {part: OmegaConf.load(conf_dir() / part / f"{name}.yaml") for part, name in usual.items()}
    return checkpoint_config({"config": {**base, "model": {}, "data": {}}}, cfg, choices)


def _network(cfg: DictConfig, config: DictConfig, content: dict[str, Any] | None, data: VideoData) -> FeatureTap:
    if content is not None:
        model, _ = build.load_model(cfg.checkpoint, trust=cfg.trust, content=content)
    else:
        torch.manual_seed(config.trainer.seed)
        if not build.starts_from(config.model):
            log.warning("no model.weights and no checkpoint: these are features of random weights")
        model = build.build_model(config.model, data.num_classes)
    build.check_reads(getattr(model, "in_features", None), data, type(model).__name__)
    if model_inputs(model) != ("rgb",):
        raise ConfigError(f"extract reads RGB: {type(model).__name__} wants optical flow besides")
    return FeatureTap(model, cfg.layer)


def _made_by(cfg: DictConfig, config: DictConfig, network: FeatureTap, precision: Precision) -> dict[str, Any]:
    """All that the numbers depend on, by the keys that set it."""
    plain: Any = OmegaConf.to_container(config, resolve=True, enum_to_str=True)
    unused = {
        "sampler": ("clips_per_video", "class_balance"),
        "model": tuple(filter(build.STARTS.fullmatch, plain["model"])),
    }
    used = {"transform": ("size", "resize", "squash", "mean", "std"), "decoder": ("_target_",)}
    made: dict[str, Any] = {}
    for section in ("model", "decoder", "sampler", "transform"):
        for key, value in plain[section].items():
            if key not in (*unused.get(section, ()), ORIGIN) and key in used.get(section, (key,)):
                made[f"{section}.{key}"] = value
    own = {"layer": network.layer, "hop": cfg.hop, "dtype": cfg.dtype.value, "trainer.precision": precision.name}
    return {**made, **own, "weights": weights_hash(network)}


def weights_hash(model: nn.Module) -> str:
    """The same for the same names and values, wherever they came from."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _extract(
    cfg: DictConfig,
    config: DictConfig,
    data: VideoData,
    network: FeatureTap,
    precision: Precision,
    spec: ClipSpec,
    folder: FeatureFolder,
) -> _Found:
    """Make what is missing, then write the lists and the report."""
    videos = list({video.key: video for m in data.splits.values() for video in videos_of(m)}.values())
    if not videos:
        raise DataError("there is no video to extract features from")
    known = {video.key: folder.finished(video) for video in videos}
    found = _Found(videos, {key: done for key, done in known.items() if done is not None}, set(), {})
    jobs = [video for video in videos if video.key not in found.done]
    clips = ClipStream(
        _manifest(jobs),
        build.build_reader(config.decoder),
        spec,
        build.build_eval_crops(config.transform, 1),
        hop=cfg.hop,
        batch_size=config.eval.batch_size,
    )
    cuda = precision.device.type == "cuda"
    batches = clips.loader(
        workers=choose_workers(config.trainer.num_workers, precision.device),
        pin_memory=cuda,
        wait_limit=config.trainer.data_timeout,
    )
    preprocess = Preprocess(config.transform.mean, config.transform.std, precision.device)
    frozen = Network(network, preprocess, precision)
    try:
        with ProgressBar(len(videos), "extracting", done=len(found.done), unit="video") as progress:
            for batch, features in encode(frozen, batches, getattr(torch, cfg.dtype.value)):
                _store(folder, jobs, batch, features.numpy(), found, progress)
    except KeyboardInterrupt:
        print(f"finished videos are kept in {folder.folder}; the same command goes on from there", file=sys.stderr)
        raise
    if not found.done:
        first = found.bad[videos[0].key]
        raise DataError(f"none of the {len(videos)} videos could be read; the first: {first.path}: {first.reason}")
    write_feature_index(folder.folder, data, found.done, spec, cfg.hop)
    report_features(folder.folder, videos, found.done, found.made, found.bad)
    return found


def _manifest(videos: list[Video]) -> Manifest:
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
        f"{clips} clips, {folder.length} numbers each",
        *listed("bad", list(found.bad.values())),
        f"report: {output / REPORT}",
    ]
    if "train" in data.splits:
        root = override("data.root", output)
        lines.append(f"train on them with: vidtrain train model=feature_rnn data=features {root}")
    return printable(lines)

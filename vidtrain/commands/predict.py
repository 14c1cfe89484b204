"""vidtrain predict: classes of one video, a folder or a glob, by the same clips and averaging as eval."""

from __future__ import annotations

import glob
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from vidtrain import build
from vidtrain.commands.scoring import PredictionsFile, Scorer
from vidtrain.data.clips.loader import choose_workers
from vidtrain.data.manifest.files import list_videos
from vidtrain.data.manifest.manifest import Manifest
from vidtrain.engine.checkpoints.checkpoint import load_checkpoint
from vidtrain.engine.evaluator import view_scores
from vidtrain.engine.precision import Precision, choose_device
from vidtrain.errors import ConfigError, DataError, VideoError
from vidtrain.metrics import best_classes
from vidtrain.options.schema import check_numbers
from vidtrain.options.stored import checkpoint_config
from vidtrain.terminal import printable
from vidtrain.types import BadVideo


def run(cfg: DictConfig) -> None:
    """Print the best classes of every readable video; those that cannot be read are errors at the end."""
    if cfg.top < 1:
        raise ConfigError(f"top={cfg.top}: must be at least 1")
    content = load_checkpoint(cfg.checkpoint)
    choices = HydraConfig.get().runtime.choices
    config = checkpoint_config(content, cfg, choices, file=cfg.checkpoint, trust=cfg.trust)
    check_numbers(config)
    paths = find_inputs(cfg.input)
    device = choose_device(config.trainer.device)
    model, _ = build.load_model(cfg.checkpoint, trust=cfg.trust, content=content)
    if getattr(model, "in_features", None) is not None:
        raise ConfigError("predict reads videos, this checkpoint features: vidtrain extract, then vidtrain eval")
    build.check_flow(model, config.flow)
    model.to(device)
    names = tuple(content["class_names"])
    manifest = Manifest.of(paths, [-1] * len(paths))
    workers = 0 if len(paths) == 1 else choose_workers(config.trainer.num_workers, device)
    scorer = Scorer(config, Precision(config.trainer.precision, device), workers, complete_flow=True)

    bad: list[BadVideo] = []
    multi_label = bool(content.get("multi_label"))
    with _output(cfg, manifest, names) as output:
        views = config.eval
        batches = scorer.batches(manifest, views.clips, views.crops, hop=views.hop, protocol=views.protocol)
        for batch in view_scores(
            model,
            batches,
            scorer.to_input,
            scorer.precision,
            views_per_forward=views.batch_size,
            average_logits=scorer.average_logits,
            multi_label=multi_label,
        ):
            bad += batch.bad
            if not len(batch.videos):
                continue
            mean = batch.mean
            finite = mean.isfinite().all(1)
            bad += [BadVideo(manifest.paths[row], scorer.not_finite) for row in batch.videos[~finite].tolist()]
            videos, mean = batch.videos[finite], mean[finite]
            if output is not None:  # before the line, whose reader may have gone
                output.add(videos, mean)
            for video, probs in zip(videos.tolist(), mean, strict=True):
                print(_line(manifest.paths[video], probs, names, cfg.top), flush=True)
    if len(bad) == 1:
        raise VideoError(bad[0].path, bad[0].reason)
    if bad:
        for video in bad:
            print(printable(f"vidtrain: {video.path}: {video.reason}"), file=sys.stderr)
        raise DataError(f"{len(bad)} of {len(paths)} videos could not be read or have no finite scores")


def find_inputs(text: str) -> list[str]:
    """The files that input= names: one file, all videos below a folder, or what a glob matches."""
    path = Path(text)
    if path.exists() and not path.is_dir():  # a pipe is refused by who reads it
        return [str(path)]
    if path.is_dir():
        found = list_videos(path)
        if not found:
            raise DataError(f"input={text}: no video below this folder")
        return found
    # a pattern may be absolute, which Path.glob refuses
    found = sorted(p for p in glob.glob(str(path), recursive=True) if Path(p).is_file())  # noqa: PTH207
    if not found:
        raise DataError(f"input={text}: no such file, and no file matches it as a glob")
    return found


def _output(
    cfg: DictConfig, manifest: Manifest, names: tuple[str, ...]
) -> AbstractContextManager[PredictionsFile | None]:
    return nullcontext() if cfg.output is None else PredictionsFile(Path(cfg.output), manifest, names, cfg.top)


def _line(path: str, probs: torch.Tensor, names: tuple[str, ...], top: int) -> str:
    best, classes = best_classes(probs, top)
    cells = [f"{names[c]} {p:.4f}" for p, c in zip(best.tolist(), classes.tolist(), strict=True)]
    return printable(f"{path}: " + ", ".join(cells))

"""vidtrain train: configuration -> a trained and tested model in a run folder."""

from __future__ import annotations

import json
import logging
import os
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from torch import nn

from vidtrain import build, run_dir
from vidtrain.commands.scoring import Scorer, manifest_of
from vidtrain.config import check_numbers
from vidtrain.data.dataset import TrainClips
from vidtrain.data.loader import TrainLoader, choose_workers
from vidtrain.data.manifest import VideoData
from vidtrain.engine.checkpoint import load_checkpoint
from vidtrain.engine.inputs import ModelInput
from vidtrain.engine.objective import Objective
from vidtrain.engine.precision import Precision, choose_device
from vidtrain.engine.schedule import check_schedule
from vidtrain.engine.trainer import Trainer
from vidtrain.errors import CheckpointError, ConfigError
from vidtrain.models.layers.checkpointing import checkpoint_activations
from vidtrain.reports.results import print_result, summary_cells, write_json
from vidtrain.reports.run_log import RunLog

log = logging.getLogger("vidtrain")


def run(cfg: DictConfig) -> float | None:
    """Train, test, print the table. Returns what a sweeper may optimise: top-1 or mAP (test, else validation)."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    finished = folder / run_dir.FINISHED_FILE
    _check(cfg, folder)
    if cfg.resume is not None and finished.is_file():
        log.info("%s is finished already", folder)
        result = json.loads(finished.read_text(encoding="utf-8"))
    else:
        result = _train_and_test(cfg, folder)
        write_json(finished, result)
    print_result(result)
    score = result["test"] or result["val"]
    return score.get("map", score.get("top1")) if score else None


def _check(cfg: DictConfig, folder: Path) -> None:
    """Everything that can be wrong and does not need the data to be seen."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(
            f"WORLD_SIZE={os.environ['WORLD_SIZE']}: this version trains in one process; start one (--nproc-per-node=1)"
        )
    last = folder / "last.pt"
    if cfg.resume not in (None, "auto") and not last.is_file():
        raise CheckpointError(f"resume={cfg.resume}: no last.pt in {folder}; use resume=auto or a run's folder")
    if cfg.resume is None and last.is_file():
        raise ConfigError(f"{folder} holds a run: resume=auto continues it; or choose another run_dir")
    check_numbers(cfg)
    check_schedule(OmegaConf.to_object(cfg.schedule), cfg.trainer.epochs)  # type: ignore[arg-type]


def _train_and_test(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    started = time.time()
    compared = run_dir.comparable(cfg)
    if "root" in cfg.data:  # a checkpoint must find its data from any working directory
        cfg.data.root = str(Path(str(cfg.data.root)).expanduser().absolute())
    cut, augment = build.build_train_cut(cfg.transform), build.build_augment(cfg.transform)
    device = choose_device(cfg.trainer.device)
    precision = Precision(cfg.trainer.precision, device)
    scorer = Scorer(cfg, precision, choose_workers(cfg.trainer.num_workers, device))
    _seed(cfg.trainer.seed, cfg.trainer.deterministic)
    data = build.build_data(cfg.data)
    model = build.build_model(cfg.model, data.num_classes).to(device)
    if cfg.trainer.checkpoint_activations:
        log.info("activations of %d blocks are recomputed in the backward pass", checkpoint_activations(model))
    _say_what_runs(cfg, data, model, precision, scorer.workers, folder)
    clips = TrainClips(
        manifest_of(data, "train"),
        scorer.reader,
        scorer.spec,
        cut,
        seed=cfg.trainer.seed,
        augment=augment,
        flip_labels=build.flip_labels(data),
        clips_per_video=cfg.sampler.clips_per_video,
        num_classes=data.num_classes,
    )
    trainer = _trainer(cfg, folder, data, model, clips, scorer)
    write_json(folder / run_dir.CONFIG_FILE, compared)  # from now on resume=auto finds this run
    trainer.fit()

    progress, test = trainer.progress, None
    if cfg.trainer.test and "test" in data.splits:
        model.load_state_dict(load_checkpoint(folder / "best.pt")["model"])
        test = scorer.report(model, data, "test", folder / "test")
    result: dict[str, Any] = {
        "val": None if progress.best is None else {"map" if data.multi_label else "top1": progress.best[0]},
        "test": test,
        "best_epoch": progress.best_epoch,
        "params": sum(p.numel() for p in model.parameters()),
        "clips_per_second": progress.clips / progress.seconds if progress.seconds else None,
        "minutes": (time.time() - started) / 60,
        "bad": progress.bad,
        "folder": str(folder),
        "checkpoint": str(folder / "best.pt"),
    }
    return {**result, "summary": summary_cells(result)}


def _trainer(
    cfg: DictConfig, folder: Path, data: VideoData, model: nn.Module, clips: TrainClips, scorer: Scorer
) -> Trainer:
    precision = scorer.precision
    loader = TrainLoader(
        clips,
        batch_size=cfg.trainer.batch_size,
        workers=scorer.workers,
        seed=cfg.trainer.seed,
        pin_memory=precision.device.type == "cuda",
        balance=cfg.sampler.class_balance,
    )
    last = folder / "last.pt"
    content = load_checkpoint(last) if last.is_file() and cfg.resume is not None else None
    resumed_at = None if content is None else int(content["progress"]["update"])
    validate = partial(scorer.score, data=data, split="val", clips=cfg.eval.val_clips, crops=1)
    trainer = Trainer(
        model,
        loader,
        build.build_optimizer(cfg.optimizer, model),
        settings=OmegaConf.to_object(cfg.trainer),  # type: ignore[arg-type]
        schedule=OmegaConf.to_object(cfg.schedule),  # type: ignore[arg-type]
        to_input=ModelInput(cfg.transform.mean, cfg.transform.std, precision.device),
        precision=precision,
        objective=Objective(
            multi_label=data.multi_label,
            label_smoothing=cfg.trainer.label_smoothing,
            mixup=cfg.trainer.mixup,
            cutmix=cfg.trainer.cutmix,
        ),
        num_classes=data.num_classes,
        recorder=RunLog(folder, cfg.logger, data.class_names, resumed_at=resumed_at),
        folder=folder,
        describe={
            "config": OmegaConf.to_container(cfg, resolve=True, enum_to_str=True),
            "class_names": list(data.class_names),
            "multi_label": data.multi_label,
            "choices": {str(k): v for k, v in HydraConfig.get().runtime.choices.items() if "/" not in str(k)},
        },
        validate=validate if "val" in data.splits else None,
        max_bad=cfg.data.get("max_bad_fraction", 0.1) * len(clips),
    )
    if content is not None:
        trainer.resume(content)
        log.info("resumed from %s: epoch %d, update %d", last, trainer.progress.epoch, trainer.progress.update)
    return trainer


def _seed(seed: int, deterministic: bool) -> None:
    torch.manual_seed(seed)  # every other draw is a function of (seed, epoch, index)
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.benchmark = not deterministic


def _say_what_runs(
    cfg: DictConfig, data: VideoData, model: nn.Module, precision: Precision, workers: int, folder: Path
) -> None:
    choices = HydraConfig.get().runtime.choices
    for note in data.notes:
        log.info("note: %s", note)
    sizes = ", ".join(f"{name} {len(split)}" for name, split in data.splits.items())
    several = ", any number of them a video (BCE, mAP)" if data.multi_label else ""
    log.info("data %s: %d classes%s; videos: %s", choices.get("data"), data.num_classes, several, sizes)
    if "val" not in data.splits:
        log.info("no validation split: the last epoch is kept; data.val_fraction=0.1 would hold out a part")
    params = sum(p.numel() for p in model.parameters())
    log.info(
        "model %s: %.3f M parameters on %s, %s, %d decoding processes",
        choices.get("model"),
        params / 1e6,
        precision.device,
        precision.name,
        workers,
    )
    log.info("run folder: %s", folder)

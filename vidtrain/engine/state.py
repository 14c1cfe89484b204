"""What last.pt holds of a training, and how a new process goes on from it as if it had not stopped."""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch

from vidtrain.engine.checkpoints.checkpoint import restore_rng, rng_state
from vidtrain.engine.hooks import states_of
from vidtrain.engine.progress import Progress
from vidtrain.errors import CheckpointError

if TYPE_CHECKING:
    from vidtrain.engine.trainer import Trainer

log = logging.getLogger("vidtrain")


def state_of(trainer: Trainer) -> dict[str, Any]:
    """All but the weights, their average and the optimizer. Waits for the device; to be called by all processes."""
    progress, precision = trainer.progress, trainer.precision
    progress.sums = trainer.step.sums.tolist()
    progress.micro_batch = trainer.step.micro_batch
    own = {
        "sums": progress.sums,
        "bad": progress.bad,
        "rng": rng_state(precision.device),
        "hooks": states_of(trainer.hooks),
    }
    return {
        "epoch": progress.epoch,
        "progress": asdict(progress),
        "compiled": trainer.model._compiled_call_impl is not None,
        "scaler": precision.scaler.state_dict(),
        "ranks": trainer.world.gather(own),
    }


def restore(trainer: Trainer, content: dict[str, Any]) -> None:
    """Put what `Checkpoints.load_last` returned back, weights and all.

    Raises:
        CheckpointError: it was written by a version that kept less, or with another strategy.
    """
    checkpoints, world, step = trainer.checkpoints, trainer.world, trainer.step
    if "ranks" not in content:
        raise CheckpointError(f"{checkpoints.last}: written by an earlier vidtrain; start the run anew")
    checkpoints.restore(content, trainer.model, step.optimizer, step.ema)
    trainer.precision.scaler.load_state_dict(content["scaler"])
    ranks = content["ranks"]
    trainer.progress = Progress.resumed(content["progress"], ranks, world)
    same = len(ranks) == world.size
    if same:
        restore_rng(ranks[world.rank]["rng"], trainer.precision.device)
    else:
        log.warning(
            "saved by %d processes, continued by %d: dropout is drawn anew, the rest goes on as it was",
            len(ranks),
            world.size,
        )
    for name, state in ranks[world.rank if same else 0].get("hooks", {}).items():
        if name in trainer.hooks:
            trainer.hooks[name].load_state_dict(state)
    step.sums.copy_(torch.tensor(trainer.progress.sums, dtype=torch.float64))
    step.micro_batch = trainer.progress.micro_batch

"""A training: its parts, where it stands, what last.pt holds of it, and how a new process goes on from that."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
from torch import nn

from vidtrain.engine.checkpoints.checkpoint import Checkpoints
from vidtrain.engine.checkpoints.content_checks import restore_rng, rng_state
from vidtrain.engine.progress import EpochLoader, Progress, Recorder
from vidtrain.engine.schedule import Plan
from vidtrain.engine.step import TrainingStep
from vidtrain.errors import CheckpointError, VidtrainError
from vidtrain.tasks.task import Scores

log = logging.getLogger("vidtrain")


class Stateful(Protocol):
    """A hook, as a checkpoint sees it."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@dataclass
class Outputs:
    """What a training leaves behind: its checkpoints, and where its numbers and figures go."""

    checkpoints: Checkpoints
    recorder: Recorder


class Training:
    """The parts of a training and where it stands: what a hook is given. `Trainer` is the loop over them."""

    hooks: Mapping[str, Stateful]

    def __init__(
        self,
        step: TrainingStep,
        clips: EpochLoader,
        plan: Plan,
        outputs: Outputs,
        validate: Callable[[nn.Module], Scores] | None,
    ) -> None:
        self.step = step
        self.model = step.model
        self.precision = step.precision
        self.clips = clips
        self.plan = plan
        self.settings = plan.settings
        self.checkpoints = outputs.checkpoints
        self.recorder = outputs.recorder
        self.validate = validate
        self.world = outputs.checkpoints.world
        self.progress = Progress()

    def state(self) -> dict[str, Any]:
        """All but the weights, their average and the optimizer. Waits for the device; called by all processes."""
        progress, precision = self.progress, self.precision
        progress.sums = self.step.sums.tolist()
        progress.micro_batch = self.step.micro_batch
        own = {
            "sums": progress.sums,
            "bad": progress.bad,
            "rng": rng_state(precision.device),
            "hooks": _states_of(self.hooks),
        }
        return {
            "epoch": progress.epoch,
            "progress": asdict(progress),
            "compiled": self.model._compiled_call_impl is not None,
            "scaler": precision.scaler.state_dict(),
            "ranks": self.world.gather(own),
        }

    def restore(self, content: dict[str, Any]) -> None:
        """Put what `Checkpoints.load_last` returned back, weights and all.

        Raises:
            CheckpointError: it was saved with another strategy.
            ValueError: its running totals are those of another task.
        """
        world, step = self.world, self.step
        if "ranks" not in content:
            raise CheckpointError(f"{self.checkpoints.last}: holds no state of a training; start the run again")
        self.checkpoints.restore(content, self.model, step.optimizer, step.ema)
        self.precision.scaler.load_state_dict(content["scaler"])
        ranks = content["ranks"]
        self.progress = Progress.resumed(content["progress"], ranks, world)
        same = len(ranks) == world.size
        if same:
            restore_rng(ranks[world.rank]["rng"], self.precision.device)
        elif world.is_main:
            log.warning(
                "saved by %d processes, continued by %d: dropout differs from here on, the rest goes on as it was",
                len(ranks),
                world.size,
            )
        for name, state in ranks[world.rank if same else 0].get("hooks", {}).items():
            if name in self.hooks:
                self.hooks[name].load_state_dict(state)
        if len(self.progress.sums) != len(step.sums):
            raise ValueError(f"it has {len(self.progress.sums)} running totals, this task {len(step.sums)}")
        step.sums.copy_(torch.tensor(self.progress.sums, dtype=torch.float64))
        step.micro_batch = self.progress.micro_batch


def _states_of(hooks: Mapping[str, Stateful]) -> dict[str, Any]:
    """The states of those that have one, as a checkpoint can hold them."""
    states = {name: state for name, hook in hooks.items() if (state := hook.state_dict())}
    for name, state in states.items():
        file = io.BytesIO()
        try:
            torch.save(state, file)
            file.seek(0)
            torch.load(file, weights_only=True)
        except Exception as error:
            reason = str(error).strip().split("\n", 1)[0]
            raise VidtrainError(
                f"hook.{name}: state_dict() holds what no checkpoint can: expected plain values and tensors ({reason})"
            ) from error
    return states

"""The learning rate as a pure function of the update's number: nothing to save, nothing to restore wrongly."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from vidtrain.engine.settings import ScheduleConfig, ScheduleName, TrainerConfig
from vidtrain.errors import ConfigError


def check_schedule(schedule: ScheduleConfig, epochs: int) -> None:
    """Raise ConfigError for values that contradict each other."""
    if not 0 <= schedule.warmup_epochs <= epochs:
        raise ConfigError(
            f"schedule.warmup_epochs={schedule.warmup_epochs:g}: must lie in 0 to trainer.epochs={epochs}"
        )


def learning_rate_factor(schedule: ScheduleConfig, progress: float, epochs: int) -> float:
    """The share of optimizer.lr to use.

    Args:
        progress: epochs done before this update, with fractions: update / updates_per_epoch.
        epochs: length of the training.
    """
    warmup = schedule.warmup_epochs
    if progress < warmup:
        return min((progress + 1e-3) / warmup, 1.0)  # not quite zero, or the first update would be lost
    if schedule.name is ScheduleName.constant:
        return 1.0
    if schedule.name is ScheduleName.step:
        return schedule.gamma ** sum(progress >= milestone for milestone in schedule.milestones)
    done = (progress - warmup) / max(epochs - warmup, 1e-9)
    return schedule.final_ratio + (1 - schedule.final_ratio) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


@dataclass(frozen=True)
class Plan:
    """What a training is to do, as the user said it: the options of `trainer` and of `schedule`."""

    settings: TrainerConfig
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)

    def epoch(self, update: int, batches: int) -> float:
        """Epochs done before this update, with fractions. batches: of an epoch."""
        return update / math.ceil(batches / self.settings.accumulate)

    def lr_factor(self, update: int, batches: int) -> float:
        """The share of optimizer.lr to use for this update."""
        return learning_rate_factor(self.schedule, self.epoch(update, batches), self.settings.epochs)

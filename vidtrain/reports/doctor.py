"""What `vidtrain data doctor` found, as a table, and in words what to do about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vidtrain.data.checks.loading_times import Stages
from vidtrain.reports.table import table
from vidtrain.terminal import rate_text

_WORTH = 1.2
"""A change is recommended when it makes the run faster by more than the noise of such a measurement."""


@dataclass(frozen=True)
class Findings:
    """Clips a second of each part by itself: the loader, the move to the device, the training step."""

    stages: Stages
    loading: float
    moving: float
    stepping: float
    workers: int
    processors: int
    device: str
    precision: str

    @property
    def data_limits(self) -> bool:
        """Whether a run with perfect data would be worth the trouble."""
        return self.stepping > _WORTH * self.run_rate(self.loading)

    def run_rate(self, loading: float) -> float:
        """Clips a second of training with a loader of this rate.

        On a GPU the loader works while the model does, and the slower one decides. On the CPU both want the same
        processors, and their times add up; so do they without decoding processes.
        """
        if self.workers == 0:
            return 1 / (1 / self.stepping + 1 / loading)
        if self.device.startswith("cpu"):
            share = min(self.workers, self.processors) / self.processors
            return 1 / (1 / self.stepping + share / loading)
        return min(loading, self.stepping)


@dataclass(frozen=True)
class Trial:
    """A change, clips per second of the loader with it, and what it means."""

    change: str
    loading: float
    meaning: str


def tables(found: Findings) -> str:
    """Where the time goes: a row a part."""
    stages, where = found.stages, f"{found.device} {found.precision}"
    rows = [
        ["open the file", f"{stages.open:.1f}", "", "processes: 1"],
        ["decode, scale", f"{stages.decode:.1f}", "", "processes: 1"],
        ["crop, augment", f"{stages.augment:.1f}", "", "processes: 1"],
        ["wait for the disk", f"{stages.waiting:.1f}", "", "or for other programs"],
        ["loader", f"{1e3 / found.loading:.1f}", rate_text(found.loading), f"processes: {found.workers}"],
        ["move to the device", f"{1e3 / found.moving:.1f}", rate_text(found.moving), "uint8, normalised there"],
        ["training step", f"{1e3 / found.stepping:.1f}", rate_text(found.stepping), where],
    ]
    return table(["part", "ms per clip", "clips/s", ""], rows)


def advice(found: Findings, trials: Sequence[Trial]) -> str:
    """What limits the run, and the best change with its measured gain."""
    now = found.run_rate(found.loading)
    head = f"a run makes about {rate_text(now)} clips/s: "
    if not found.data_limits:
        return (
            f"{head}the model limits it ({rate_text(found.stepping)} clips/s; the loader alone gives "
            f"{rate_text(found.loading)}). Faster data would gain nothing; a smaller model or clip, or a faster device "
            "would."
        )
    stages = found.stages
    parts = {"opening files": stages.open, "decoding": stages.decode, "augmentation": stages.augment}
    worst = max(parts, key=lambda name: parts[name])
    if stages.waiting > stages.total:
        worst = "waiting for the disk"
        share = stages.waiting / (stages.total + stages.waiting)
    else:
        share = parts[worst] / stages.total
    lines = [
        f"{head}the data limit it (the loader gives {rate_text(found.loading)} clips/s, the model could take "
        f"{rate_text(found.stepping)}), {worst} above all ({share:.0%} of a clip's time)."
    ]
    ranked = sorted(trials, key=lambda trial: -found.run_rate(trial.loading))
    for trial in ranked:
        rate = found.run_rate(trial.loading)
        lines.append(
            f"  {rate / now:.1f}x  {trial.change}: the loader gives {rate_text(trial.loading)} clips/s "
            f"({trial.meaning}), a run about {rate_text(rate)}"
        )
    if ranked and found.run_rate(ranked[0].loading) > _WORTH * now:
        lines.append(f"recommended: {ranked[0].change}")
    else:
        lines.append("none of the changes that were tried helps; more processors would")
    return "\n".join(lines)

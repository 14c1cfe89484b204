"""What a training logged over time, read from its metrics.jsonl."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from vidtrain.reports.figures import FIGURES, new_figure, write_each
from vidtrain.runs.names import METRICS_LOG
from vidtrain.untrusted_data import check_regular, parse_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LARGEST: Final = 1 << 26  # bytes; of a longer file the last so many are read
_LARGEST_VALUE: Final = 1e15  # of what is drawn
_MOST_NAMES: Final = 200  # curves of a kind: vidtrain writes ten

Points = list[tuple[float, float]]
"""(epochs that are done, value), as logged."""


@dataclass(frozen=True)
class Curves:
    """kinds: train (every trainer.log_every updates), train_epoch, val -> name of a number -> its points."""

    kinds: Mapping[str, Mapping[str, Points]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return any(self.kinds.values())

    def of(self, kind: str, name: str) -> Points:
        """[] where it was not logged."""
        return self.kinds.get(kind, {}).get(name, [])

    @classmethod
    def read(cls, file: Path) -> Curves:
        """From a stranger's file: damaged lines are skipped, and values that are not finite; empty without the file."""
        kinds: dict[str, dict[str, Points]] = {"train": {}, "train_epoch": {}, "val": {}}
        try:
            check_regular(file)
            with file.open("rb") as lines:
                size = lines.seek(0, 2)
                lines.seek(max(0, size - _LARGEST))
                content = lines.read(_LARGEST)
        except OSError:
            return cls()
        for line in content.split(b"\n"):
            try:
                record = parse_json(line)
                curves, epoch = kinds[record.pop("kind")], float(record.pop("epoch"))
            except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
                continue
            for name, value in record.items() if math.isfinite(epoch) else ():
                if (
                    name not in ("update", "time")
                    and _is_number(value)
                    and (name in curves or len(curves) < _MOST_NAMES)
                ):
                    curves.setdefault(name, []).append((epoch, float(value)))
        return cls(kinds)


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and abs(value) < _LARGEST_VALUE  # type: ignore[arg-type]


def thinned(points: Points, most: int = 400) -> Points:
    """At most `most` points, each the mean of neighbours; the first and the last stay as they are."""
    if len(points) <= most:
        return points
    groups = np.array_split(np.asarray(points[1:-1]), most - 2)
    return [points[0], *((float(x), float(y)) for x, y in (group.mean(0) for group in groups)), points[-1]]


@dataclass(frozen=True)
class Panel:
    """Curves that share an axis. lines: title -> points. share: they lie in [0, 1]."""

    title: str
    lines: Mapping[str, Points]
    share: bool = False


def panels(curves: Curves, metrics: Sequence[tuple[str, str]]) -> list[Panel]:
    """What is drawn of a training: loss, the first of the metrics that was logged, and the learning rate.

    metrics: (key, title), the first one that a run is judged by. Panels without points are skipped.
    """
    epochs, val = "training", "validation"
    found = [Panel("loss", {epochs: curves.of("train_epoch", "loss"), val: curves.of("val", "loss")})]
    for key, title in metrics:
        lines = {epochs: curves.of("train_epoch", key), val: curves.of("val", key)}
        if any(lines.values()):
            found.append(Panel(title, lines, share=True))
            break
    rates = curves.of("train", "lr")
    found.append(Panel("learning rate", {"": rates if len(rates) > 1 else []}))  # one is no schedule
    kept = [Panel(p.title, {t: points for t, points in p.lines.items() if points}, p.share) for p in found]
    return [panel for panel in kept if panel.lines]


def write_learning_curves(run: Path, metrics: Sequence[tuple[str, str]]) -> None:
    """RUN/figures/learning_curves.png and .svg of what is in its metrics.jsonl; nothing without, and nothing raised."""

    def draw() -> Figure | None:
        shown = panels(Curves.read(run / METRICS_LOG), metrics)
        return learning_curves_figure(shown) if shown else None

    write_each(run / FIGURES, {"learning_curves": draw})


def learning_curves_figure(shown: Sequence[Panel]) -> Figure:
    """The panels side by side over epochs."""
    figure = new_figure(figsize=(4.5 * len(shown), 3.4))
    for axes, panel in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        for title, points in panel.lines.items():
            epochs, values = zip(*thinned(points), strict=True)
            axes.plot(epochs, values, label=title, marker="o" if len(points) < 30 else None, markersize=3)
        axes.set_title(panel.title, fontsize=10)
        axes.set_xlabel("epoch")
        axes.set_xlim(left=0)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        if panel.share:
            axes.set_ylim(0, 1.02)
        if len(panel.lines) > 1:
            axes.legend(fontsize=8)
    return figure

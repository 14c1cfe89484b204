"""What a test found, as figures: per class, how far its probabilities can be trusted, what more views bring."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from vidtrain.reports.figures import figure_label, new_figure, write_each

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from vidtrain.reports.results import TestResult

MOST_BARS: Final = 40
"""With more classes the worst and the best halves of so many are drawn."""
CLASS_NUMBERS: Final = {"f1": "F1", "average_precision": "average precision"}
"""Key -> title of the number of a class that it is ranked by; of a multi-label dataset the second."""


def class_number(*, multi_label: bool) -> str:
    """The key in `classes` of result.json that classes are ranked by."""
    return "average_precision" if multi_label else "f1"


def ranked_classes(classes: Sequence[Mapping[str, Any]], key: str) -> list[Mapping[str, Any]]:
    """Those that occur in the test, from the worst to the best; of equal ones the larger first."""
    known = [row for row in classes if row.get(key) is not None and row.get("support")]
    return sorted(known, key=lambda row: (row[key], -row["support"]))


def class_bars_figure(classes: Sequence[Mapping[str, Any]], key: str) -> Figure | None:
    """A bar per class, the worst on top, with its number of videos; None where no class has the number."""
    ranked, half = ranked_classes(classes, key), MOST_BARS // 2
    if not ranked:
        return None
    parts = [ranked] if len(ranked) <= MOST_BARS else [ranked[:half], ranked[-half:]]
    height = 1.0 + 0.22 * max(len(part) for part in parts)
    figure = new_figure(figsize=(6.5 * len(parts), max(2.2, height)))
    for axes, part, title in zip(
        figure.subplots(1, len(parts), squeeze=False)[0], parts, ("worst", "best"), strict=False
    ):
        rows = range(len(part))
        axes.barh(
            rows, [row[key] for row in part], color="#4477aa" if len(parts) == 1 or title == "best" else "#cc6677"
        )
        names = [figure_label(row["name"]) for row in part]
        axes.set_yticks(rows, names, fontsize=8, parse_math=False)
        axes.bar_label(
            axes.containers[0], [f"{row[key]:.2f}  n={row['support']}" for row in part], fontsize=7, padding=3
        )
        axes.invert_yaxis()
        axes.set_xlim(0, 1.2)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
        axes.set_xlabel(CLASS_NUMBERS[key])
        axes.set_ylim(len(part) - 0.4, -0.6)
        if len(parts) > 1:
            axes.set_title(
                f"{title} {len(part)} of {len(ranked_classes(classes, key))} classes", fontsize=10, loc="left"
            )
    return figure


def reliability_figure(calibration: Mapping[str, Any]) -> Figure | None:
    """Accuracy over confidence in bins, above how many videos each bin holds; None without a bin that holds one.

    calibration: see result.json.
    """
    bins = [found for found in calibration.get("bins") or () if found["count"]]
    if not bins:
        return None
    figure = new_figure(figsize=(4.6, 5.2))
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    starts, widths = [b["low"] for b in bins], [b["high"] - b["low"] for b in bins]
    upper.plot([0, 1], [0, 1], color="gray", linestyle="--", linewidth=1)
    upper.bar(starts, [b["accuracy"] for b in bins], widths, align="edge", color="#4477aa", edgecolor="white")
    upper.plot([b["confidence"] for b in bins], [b["accuracy"] for b in bins], "o", color="#222222", markersize=4)
    upper.set_ylabel("share that is right")
    upper.set_ylim(0, 1.02)
    upper.set_title(reliability_title(calibration), fontsize=10, loc="left")
    lower.bar(starts, [b["count"] for b in bins], widths, align="edge", color="#bbbbbb", edgecolor="white")
    lower.set_ylabel("videos")
    lower.set_xlabel("probability of the answer")
    lower.set_xlim(0, 1)
    return figure


def reliability_title(calibration: Mapping[str, Any]) -> str:
    """'ECE 0.031 (0.112 before temperature 1.84)'."""
    text = "" if calibration.get("ece") is None else f"ECE {calibration['ece']:.3f}"
    before, temperature = calibration.get("ece_uncalibrated"), calibration.get("temperature")
    if temperature is not None:
        was = "" if before is None else f"{before:.3f} before "
        text += f" ({was}temperature {temperature:.3g})"
    return text.strip()


def views_key(views: Sequence[Mapping[str, Any]], primary: str) -> str:
    """Which number a views curve is of: the test's primary one, or top1 where only that was kept."""
    return primary if any(row.get(primary) is not None for row in views) else "top1"


def views_figure(views: Sequence[Mapping[str, Any]], key: str, title: str) -> Figure | None:
    """The number of a test over how many views of each video are averaged; None with fewer than two points."""
    points = [(row["views"], row[key]) for row in views if row.get(key) is not None]
    if len(points) < 2:
        return None
    figure = new_figure(figsize=(4.6, 3.4))
    axes = figure.add_subplot()
    counts, values = zip(*points, strict=True)
    axes.plot(counts, values, marker="o", markersize=3, color="#4477aa")
    axes.set_xlabel("views averaged")
    axes.set_ylabel(title)
    axes.grid(alpha=0.3)
    axes.margins(y=0.2)
    return figure


def write_test_figures(folder: Path, result: Mapping[str, Any], titles: Mapping[str, str], primary: str) -> list[str]:
    """The figures of a test, those that its result has the numbers of: confusion, classes, reliability, views; as PNG
    and SVG in `folder`. Returns the names of those written; what fails is logged.

    result: as in result.json. titles, primary: of the task.
    """
    from vidtrain.reports.confusion import confusion_figure

    confusion, names, views = result.get("confusion"), result.get("class_names"), result.get("views") or ()
    curve = views_key(views, primary)
    key = class_number(multi_label=bool(result.get("multi_label")))
    drawn: dict[str, Callable[[], Figure | None]] = {
        "confusion": lambda: confusion_figure(np.asarray(confusion), names) if confusion and names else None,
        "classes": lambda: class_bars_figure(result.get("classes") or (), key),
        "reliability": lambda: reliability_figure(result.get("calibration") or {}),
        "views": lambda: views_figure(views, curve, titles.get(curve, curve)),
    }
    return write_each(folder, drawn)


def precision_recall(
    result: TestResult, most: int
) -> Iterator[tuple[str, npt.NDArray[np.bool_], npt.NDArray[np.float32]]]:
    """(class, whether each of the videos is of it (n,), the probability that it was given (n,)) of the `most` largest
    classes, for curves of precision over recall. Videos whose class is not known are not among the n.

    Raises:
        DataError: what the test has left cannot be read.
    """
    labels, probabilities = result.labels(result.predictions()), result.probabilities()
    known = slice(None) if result.multi_label else labels >= 0
    support = labels.sum(0) if result.multi_label else np.bincount(labels[known], minlength=len(result.class_names))
    for k in np.argsort(-support, kind="stable")[:most].tolist():
        if support[k]:
            truth = labels[:, k] > 0 if result.multi_label else labels[known] == k
            yield result.class_names[k], truth, np.asarray(probabilities[known, k])

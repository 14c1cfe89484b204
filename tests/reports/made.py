"""A test's result as result.json has it, made from probabilities without a training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vidtrain.runs.atomic import write_csv, write_json


def made_answers(classes: int, videos: int) -> tuple[np.ndarray, np.ndarray]:
    """(probabilities float32 (n, K), labels (n,)) of a model that mostly knows, and takes a class for the next one."""
    draw = np.random.default_rng(0)
    labels = np.arange(videos) % classes
    logits = draw.normal(size=(videos, classes))
    logits[np.arange(videos), labels] += 3
    logits[np.arange(videos), (labels + 1) % classes] += 1.5
    powers = np.exp(1.5 * logits)
    return (powers / powers.sum(1, keepdims=True)).astype(np.float32), labels


def made_result(classes: int, videos: int, names: Sequence[str] | None = None) -> dict[str, Any]:
    """Of `made_answers`: format 2 of result.json."""
    probs, labels = made_answers(classes, videos)
    names = [f"class_{k:03}" for k in range(classes)] if names is None else list(names)
    answers, top = probs.argmax(1), probs.max(1).astype(float)
    right = answers == labels
    confusion = np.zeros((classes, classes), dtype=int)
    np.add.at(confusion, (labels, answers), 1)
    top1 = float(right.mean())
    return {
        "format": 2,
        "split": "test",
        "top1": top1,
        "mean_class": top1,
        "loss": 1.0,
        "scored": videos,
        "listed": videos + 2,
        "missing": 1,
        "unreadable": 1,
        "not_finite": [],
        "protocol": "8x1 clips at 32 px (short side 32), 2x1 views (clips x crops), probabilities averaged",
        "class_names": names,
        "multi_label": False,
        "intervals": _interval(top1, videos),
        "classes": [_class(names[k], confusion, k) for k in range(classes)],
        "views": [{"views": n, "top1": top1 - 0.1 / n} for n in range(1, 6)],
        "calibration": {"temperature": 1.5, "ece": 0.03, "ece_uncalibrated": 0.11, "bins": _bins(top, right)},
        "rejection": None,
        "conformal": None,
        "confusion": confusion.tolist(),
    }


def _interval(top1: float, videos: int) -> dict[str, Any]:
    values = {"top1": [top1 - 0.05, top1 + 0.05]}
    return {"level": 0.95, "resamples": 1000, "over": "videos", "count": videos, "values": values}


def _class(name: str, confusion: np.ndarray, k: int) -> dict[str, Any]:
    support, predicted, right = int(confusion[k].sum()), int(confusion[:, k].sum()), int(confusion[k, k])
    return {
        "name": name,
        "support": support,
        "predicted": predicted,
        "precision": right / predicted if predicted else None,
        "recall": right / support if support else None,
        "f1": 2 * right / (support + predicted) if support + predicted else None,
        "average_precision": 0.5,
        "auc": 0.9,
    }


def _bins(top: np.ndarray, right: np.ndarray, count: int = 15) -> list[dict[str, Any]]:
    found = []
    for number in range(count):
        low, high = number / count, (number + 1) / count
        inside = (top > low) & (top <= high)
        some = bool(inside.any())
        confidence, accuracy = (float(x[inside].mean()) if some else None for x in (top, right))
        row = {"low": low, "high": high, "confidence": confidence, "accuracy": accuracy}
        found.append({**row, "count": int(inside.sum())})
    return found


def write_made_test(
    folder: Path, classes: int, videos: int, names: Sequence[str] | None = None, root: str = "/nowhere"
) -> dict[str, Any]:
    """The folder of a test of `made_answers`, as vidtrain eval writes it; returns what is in result.json.

    root: of the files, ROOT/N.mp4, of which the list calls each videos/N.mp4.
    """
    result, (probs, labels) = made_result(classes, videos, names), made_answers(classes, videos)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "result.json", result)
    np.save(folder / "probabilities.npy", probs)
    names, best = result["class_names"], (-probs).argsort(1)[:, :2]
    rows = [
        [
            *[f"videos/{n}.mp4", f"{root}/{n}.mp4", names[labels[n]]],
            *[cell for k in best[n] for cell in (names[k], f"{probs[n, k]:.6f}")],
        ]
        for n in range(videos)
    ]
    write_csv(folder / "predictions.csv", ["path", "file", "label", "top1", "prob1", "top2", "prob2"], rows)
    write_csv(
        folder / "not_scored.csv", ["path", "reason"], [["videos/gone.mp4", "not on disk"], ["odd.mp4", "no video"]]
    )
    return result

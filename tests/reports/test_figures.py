"""Figures of classes with any name."""

from __future__ import annotations

import json
import logging
import warnings
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.reports.made import made_answers, made_result, write_made_test
from vidtrain.reports.confusion import confused_pairs, confusion_figure, confusion_image
from vidtrain.reports.curves import Curves, panels, thinned, write_learning_curves
from vidtrain.reports.figures import figure_label
from vidtrain.reports.results import TestResult
from vidtrain.reports.score_figures import class_bars_figure, precision_recall, ranked_classes, write_test_figures

ODD = ["price_$5_to_$10", "$\\frac$", "a\nb", "\x1b[31m", "\udcff\udcfe", "", "日本語", "x" * 500, "\ud83d", "_^{"]


def test_any_name_can_be_drawn_and_says_what_it_is() -> None:
    confusion = torch.arange(len(ODD) ** 2).reshape(len(ODD), -1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = confusion_image(confusion, ODD)
    assert image.shape[2] == 3
    assert image.dtype == np.uint8
    shown = [label.get_text() for label in confusion_figure(confusion, ODD).axes[0].get_xticklabels()]
    assert shown[:6] == ["price_$5_to_$10", "$\\frac$", "a\\nb", "\\x1b[31m", "\\xff\\xfe", ""]
    assert shown[7] == "x" * 12 + "..." + "x" * 12 == figure_label("x" * 500)


def test_thousands_of_classes_are_drawn_as_a_pattern() -> None:
    confusion = torch.zeros(4000, 4000, dtype=torch.int16)
    confusion.fill_diagonal_(1)
    confusion[:2000, :2000] = 1
    shares = confusion_figure(confusion, ["c"] * 4000).axes[0].images[0].get_array()
    assert shares is not None
    assert shares.shape == (1000, 1000)
    assert shares[0, 0] == shares[0, 499] == pytest.approx(1 / 500)
    assert shares[999, 999] == 1
    assert shares[999, 0] == 0


def test_the_most_confused_pairs_come_first() -> None:
    confusion = [[5, 3, 0], [3, 10, 1], [0, 0, 0]]
    pairs = [(p.true, p.predicted, p.count, p.of) for p in confused_pairs(confusion, 10)]
    assert pairs == [(0, 1, 3, 8), (1, 0, 3, 14), (1, 2, 1, 14)]
    assert len(confused_pairs(confusion, 1)) == 1
    assert confused_pairs([[0, 0], [0, 0]], 5) == []


def texts(file: Path) -> list[str]:
    """What is written in an SVG."""
    return ["".join(node.itertext()) for node in ET.parse(file).iter("{http://www.w3.org/2000/svg}text")]


def test_a_test_leaves_its_figures(tmp_path: Path) -> None:
    names = ["price_$5_to_$10", "<script>alert(1)</script>", *[f"c{k}" for k in range(6)]]
    result = made_result(8, 80, names)
    assert write_test_figures(tmp_path / "figures", result, {"top1": "top-1"}, "top1") == [
        *["confusion", "classes", "reliability", "views"]
    ]
    files = sorted(file.name for file in (tmp_path / "figures").iterdir())
    assert files == sorted(
        f"{n}.{kind}" for n in ("confusion", "classes", "reliability", "views") for kind in ("png", "svg")
    )
    assert set(names) <= set(texts(tmp_path / "figures" / "confusion.svg"))
    shown = texts(tmp_path / "figures" / "classes.svg")
    worst = min((row["f1"], row["name"]) for row in result["classes"])
    assert shown.index(worst[1]) < min(shown.index(name) for name in names if name != worst[1])
    assert f"{worst[0]:.2f}  n=10" in shown
    assert "ECE 0.030 (0.110 before temperature 1.5)" in texts(tmp_path / "figures" / "reliability.svg")
    assert {"views averaged", "top-1"} <= set(texts(tmp_path / "figures" / "views.svg"))


def test_views_of_several_labels_are_drawn_by_the_number_that_was_kept(tmp_path: Path) -> None:
    result = {"multi_label": True, "views": [{"views": n, "top1": n / 4} for n in (1, 2, 3)]}
    assert write_test_figures(tmp_path / "figures", result, {"top1": "top-1", "map": "mAP"}, "map") == ["views"]
    assert "top-1" in texts(tmp_path / "figures" / "views.svg")


def test_of_400_classes_the_pairs_and_the_ends_are_named() -> None:
    result = made_result(400, 1200)
    pairs = confused_pairs(result["confusion"], 25)
    matrix, bars = confusion_figure(result["confusion"], result["class_names"]).axes
    assert matrix.images[0].get_array().shape == (400, 400)
    shown = [label.get_text() for label in bars.get_yticklabels()]
    assert shown == [f"class_{p.true:03} as class_{p.predicted:03}" for p in pairs]
    assert [round(bar.get_width()) for bar in bars.patches] == [p.count for p in pairs]
    figure = class_bars_figure(result["classes"], "f1")
    assert figure is not None
    ranked = [row["name"] for row in ranked_classes(result["classes"], "f1")]
    worst, best = ([label.get_text() for label in axes.get_yticklabels()] for axes in figure.axes)
    assert (worst, best) == (ranked[:20], ranked[-20:])


def test_nothing_is_drawn_of_nothing(tmp_path: Path) -> None:
    bare = {
        "class_names": ["a"],
        "classes": [{"name": "a", "f1": None, "support": 0}],
        "views": [{"views": 1, "top1": 1}],
    }
    assert write_test_figures(tmp_path / "figures", bare, {}, "top1") == []
    write_learning_curves(tmp_path, [("top1", "top-1")])
    assert not list(tmp_path.iterdir())


def test_a_figure_that_fails_ends_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    result = made_result(3, 9) | {"calibration": {"bins": [{"count": "many"}]}}
    with caplog.at_level(logging.WARNING):
        written = write_test_figures(tmp_path / "figures", result, {}, "top1")
    assert written == ["confusion", "classes", "views"]
    assert [r.getMessage().split(":")[0] for r in caplog.records] == [str(tmp_path / "figures" / "reliability")]
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    assert write_test_figures(tmp_path / "link", made_result(3, 9), {}, "top1") == []
    assert not list((tmp_path / "elsewhere").iterdir())


def test_curves_of_a_damaged_log(tmp_path: Path) -> None:
    lines = [
        {"kind": "train", "update": 1, "epoch": 0.5, "time": 1.0, "loss": 2.0, "lr": 0.1},
        {"kind": "train_epoch", "epoch": 1, "loss": 1.5, "top1": 0.5},
        {"kind": "val", "epoch": 1, "loss": 1.75, "top1": 0.25, "odd": "text", "flag": True, "huge": 10**30},
        {"kind": "val", "epoch": 2, "loss": float("nan"), "top1": 0.75},
        {"kind": "other", "epoch": 2, "loss": 1},
        {"kind": ["val"], "epoch": 2, "loss": 1},
        {"kind": "val", "epoch": "x", "loss": 1},
        [1, 2],
    ]
    (tmp_path / "one.jsonl").write_text("\n".join(map(json.dumps, lines[:3])))
    assert [p.title for p in panels(Curves.read(tmp_path / "one.jsonl"), [])] == ["loss"]  # a dot is no schedule
    lines.insert(1, {"kind": "train", "update": 2, "epoch": 1, "lr": 0.05})
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)) + '\n{"kind": "val", "epo')
    curves = Curves.read(tmp_path / "metrics.jsonl")
    assert curves.kinds == {
        "train": {"loss": [(0.5, 2.0)], "lr": [(0.5, 0.1), (1.0, 0.05)]},
        "train_epoch": {"loss": [(1.0, 1.5)], "top1": [(1.0, 0.5)]},
        "val": {"loss": [(1.0, 1.75)], "top1": [(1.0, 0.25), (2.0, 0.75)]},
    }
    shown = panels(curves, [("map", "mAP"), ("top1", "top-1")])
    assert [(p.title, list(p.lines)) for p in shown] == [
        ("loss", ["training", "validation"]),
        ("top-1", ["training", "validation"]),
        ("learning rate", [""]),
    ]
    write_learning_curves(tmp_path, [("top1", "top-1")])
    assert {"training", "validation", "epoch"} <= set(texts(tmp_path / "figures" / "learning_curves.svg"))
    assert not Curves.read(tmp_path / "absent.jsonl")


def test_precision_over_recall_is_of_the_largest_classes(tmp_path: Path) -> None:
    write_made_test(tmp_path, 5, 23)  # of the first three classes five videos, of the others four
    probs, labels = made_answers(5, 23)
    found = list(precision_recall(TestResult.read(tmp_path), 3))
    assert [name for name, _, _ in found] == ["class_000", "class_001", "class_002"]
    for k, (_, truth, scores) in enumerate(found):
        assert np.array_equal(truth, labels == k)
        assert np.array_equal(scores, probs[:, k])


def test_thinned_curves_keep_their_ends_and_their_mean() -> None:
    points = [(float(n), float(n % 7)) for n in range(5000)]
    few = thinned(points, 100)
    assert len(few) == 100
    assert (few[0], few[-1]) == (points[0], points[-1])
    assert [x for x, _ in few] == sorted(x for x, _ in few)
    assert np.mean([y for _, y in few]) == pytest.approx(np.mean([y for _, y in points]), abs=0.05)
    assert thinned(points[:50], 100) == points[:50]

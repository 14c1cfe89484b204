"""The figure of a sweep: what is on which axis."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vidtrain.reports.figures import read_figure
from vidtrain.reports.sweep_figure import SweptPoint, sweep_figure, write_sweep_figure

TOP1 = [("val top1", "maximize")]


def points(*rows: tuple[list[str], list[float]], best: int = 0) -> list[SweptPoint]:
    return [SweptPoint(n, varied, values, n == best) for n, (varied, values) in enumerate(rows)]


def test_an_option_of_numbers_over_decades_is_logarithmic_and_words_keep_their_order() -> None:
    rows = [(["0.001", "c3d", "1"], [0.5]), (["0.1", "$a$", "1"], [0.75]), (["0.01", "c3d", "1"], [0.25])]
    figure = sweep_figure(["lr", "model", "seed"], TOP1, points(*rows, best=1))
    parallel, *options = figure.axes
    assert [ax.get_xlabel() for ax in options] == ["lr", "model"]  # the seed is the same everywhere
    assert [ax.get_xscale() for ax in options] == ["log", "linear"]
    assert [text.get_text() for text in options[1].get_xticklabels()] == ["c3d", "$a$"]
    runs, best = options[0].collections
    assert np.asarray(runs.get_offsets()).tolist() == [[0.001, 0.5], [0.1, 0.75], [0.01, 0.25]]
    assert np.asarray(best.get_offsets()).tolist() == [[0.1, 0.75]]
    lines = [np.asarray(line.get_ydata()) for line in parallel.get_lines() if len(line.get_ydata()) == 3]
    assert lines[-1] == pytest.approx([1, 1, 1])  # the best one is drawn last: it is the highest everywhere
    assert lines[0] == pytest.approx([0.5, 0, 0])


def test_what_is_the_better_the_smaller_it_is_has_its_best_on_top_of_the_drawing() -> None:
    rows = [(["1", "a"], [3.0]), (["2", "b"], [1.0])]
    parallel, *_ = sweep_figure(["x", "y"], [("loss", "minimize")], points(*rows, best=1)).axes
    lines = [np.asarray(line.get_ydata()) for line in parallel.get_lines() if len(line.get_ydata()) == 3]
    assert lines[-1] == pytest.approx([1, 1, 0])


def test_two_objectives_and_a_single_option(tmp_path: Path) -> None:
    both = [*TOP1, ("gmac", "minimize")]
    runs = points((["1"], [0.5, 2.0]), (["2"], [0.75, 3.0]))
    option, front = sweep_figure(["width"], both, runs).axes
    assert (option.get_xlabel(), front.get_xlabel(), front.get_ylabel()) == ("width", "gmac", "val top1")
    write_sweep_figure(tmp_path / "sweep.png", ["width"], both, runs)
    assert read_figure(tmp_path / "sweep.png").shape[2] == 3

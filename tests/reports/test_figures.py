"""Figures of classes with any name."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from vidtrain.reports.confusion import confusion_figure, confusion_image
from vidtrain.reports.figures import figure_label

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


def test_ten_thousand_classes_are_drawn_as_a_pattern() -> None:
    confusion = torch.zeros(10_000, 10_000, dtype=torch.int16)
    confusion.fill_diagonal_(1)
    confusion[:5000, :5000] = 1
    shares = confusion_figure(confusion, ["c"] * 10_000).axes[0].images[0].get_array()
    assert shares is not None
    assert shares.shape == (1000, 1000)
    assert shares[0, 0] == shares[0, 499] == pytest.approx(1 / 500)
    assert shares[999, 999] == 1
    assert shares[999, 0] == 0

"""Figures of classes with any name, and the log of a run that nothing ends."""

from __future__ import annotations

import errno
import json
import logging
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from vidtrain.engine.evaluator import Scores
from vidtrain.reports.confusion import confusion_figure, confusion_image
from vidtrain.reports.figures import figure_label
from vidtrain.reports.run_log import RunLog
from vidtrain.reports.settings import LoggerConfig

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


def scores(classes: int) -> Scores:
    eye = torch.eye(classes)
    return Scores(eye, torch.arange(classes), torch.arange(classes), torch.ones(classes).double(), 0.0)


def lines(folder: Path) -> list[int]:
    return [json.loads(line)["update"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_tensorboard_folder_that_is_removed_ends_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    record = RunLog(tmp_path, LoggerConfig(), ("a", "b"), resumed_at=None)
    record.scalars("train", 1, 0.5, {"loss": 1.0})
    shutil.rmtree(tmp_path / "tensorboard")
    for update in range(2, 40):
        record.scalars("train", update, 0.5, {"loss": 1.0})
        record.validation(update, scores(2))
    record.close()
    assert lines(tmp_path) == list(range(1, 40))
    warned = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warned) == 1
    assert f"tensorboard/ in {tmp_path} cannot be written (No such file or directory)" in warned[0]


def test_a_full_disk_is_said_once_and_nothing_is_lost_when_there_is_room_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    record = RunLog(tmp_path, LoggerConfig(tensorboard=False), ("a", "b"), resumed_at=None)
    real = record._file

    class Full:
        def write(self, text: str) -> None:
            assert real is not None
            real.write(text)

        def flush(self) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    record._file = Full()  # type: ignore[assignment]
    record.scalars("train", 1, 0.5, {"loss": 1.0})
    record.scalars("train", 2, 0.5, {"loss": 1.0})
    record._file = real
    record.scalars("train", 3, 0.5, {"loss": 1.0})
    record.close()
    assert lines(tmp_path) == [1, 2, 3]
    assert [r.getMessage() for r in caplog.records] == [
        f"metrics.jsonl in {tmp_path} cannot be written (No space left on device); the training goes on without"
    ]


def test_a_place_that_cannot_be_written_is_said_when_it_begins(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "tensorboard").write_text("in the way")
    (tmp_path / "metrics.jsonl").mkdir()
    record = RunLog(tmp_path, LoggerConfig(), ("a", "b"), resumed_at=None)
    record.scalars("train", 1, 0.5, {"loss": 1.0})
    record.validation(1, scores(2))
    record.close()
    assert ["metrics.jsonl in" in r.getMessage() for r in caplog.records] == [True, False]
    assert "tensorboard/ in" in caplog.records[1].getMessage()


def test_damaged_lines_are_skipped_kept_aside_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    good = [json.dumps({"kind": "train", "update": update, "epoch": 0.5}) for update in (1, 2, 3)]
    file = tmp_path / "metrics.jsonl"
    damaged = [
        good[0],
        "\x00\x00",
        "[1]",
        '{"kind": "train"}',
        "[" * 100_000,
        '{"update": "a"}',
        good[1],
        good[2],
        '{"ha',
    ]
    before = "\n".join(damaged).encode() + b"\xff"
    file.write_bytes(before)
    RunLog(tmp_path, LoggerConfig(tensorboard=False), ("a",), resumed_at=(2, 1)).close()
    assert lines(tmp_path) == [1, 2]
    assert (tmp_path / "metrics.damaged.jsonl").read_bytes() == before
    assert [r.getMessage() for r in caplog.records] == [
        f"{file}: 5 damaged lines are skipped; the file as it was is kept as metrics.damaged.jsonl"
    ]
    # a last line that was being written when the run was killed is no damage
    file.write_text(good[0] + "\n" + good[1][:9])
    caplog.clear()
    RunLog(tmp_path, LoggerConfig(tensorboard=False), ("a",), resumed_at=(2, 1)).close()
    assert lines(tmp_path) == [1]
    assert not caplog.records

"""The loggers of a run: what they write, that nothing they do ends a training, and that all are closed."""

from __future__ import annotations

import errno
import io
import json
import logging
import shutil
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from tests.cli.conftest import Call, own_threads
from tests.cli.conftest import call as call
from tests.cli.conftest import tiny as tiny
from tests.tasks.made import scores_of
from vidtrain.loggers.jsonl import JsonLines
from vidtrain.loggers.logger import LoggedRun, Logger
from vidtrain.loggers.recorder import RunRecorder
from vidtrain.loggers.tensorboard import TensorBoard


def recorder(folder: Path, resumed_at: tuple[int, int] | None = None, **loggers: Logger) -> RunRecorder:
    return RunRecorder(LoggedRun(folder, ("a", "b"), resumed_at=resumed_at), loggers)


def draw_confusion() -> np.ndarray:
    return scores_of(torch.eye(2), torch.arange(2)).figures()["confusion"]()


def lines(folder: Path) -> list[int]:
    return [json.loads(line)["update"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_tensorboard_folder_that_is_removed_ends_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    record = recorder(tmp_path, jsonl=JsonLines(), tensorboard=TensorBoard())
    record.scalars("train", 1, 0.5, {"loss": 1.0})
    while (tmp_path / "tensorboard").exists():  # TensorBoard's thread may write its file once more meanwhile
        shutil.rmtree(tmp_path / "tensorboard", ignore_errors=True)
    for update in range(2, 40):
        record.scalars("train", update, 0.5, {"loss": 1.0})
        record.figure("confusion", update, draw_confusion)
    record.close()
    assert lines(tmp_path) == list(range(1, 40))
    warned = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warned) == 1
    assert f"tensorboard/ in {tmp_path} cannot be written (No such file or directory)" in warned[0]


def test_a_full_disk_is_said_once_and_nothing_is_lost_when_there_is_room_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    logger = JsonLines()
    record = recorder(tmp_path, jsonl=logger)
    real = logger._file

    class Full:
        def write(self, text: str) -> None:
            assert real is not None
            real.write(text)

        def flush(self) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    logger._file = Full()  # type: ignore[assignment]
    record.scalars("train", 1, 0.5, {"loss": 1.0})
    record.scalars("train", 2, 0.5, {"loss": 1.0})
    logger._file = real
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
    record = recorder(tmp_path, jsonl=JsonLines(), tensorboard=TensorBoard())
    record.scalars("train", 1, 0.5, {"loss": 1.0})
    record.figure("confusion", 1, draw_confusion)
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
    recorder(tmp_path, (2, 1), jsonl=JsonLines()).close()
    assert lines(tmp_path) == [1, 2]
    assert (tmp_path / "metrics.damaged.jsonl").read_bytes() == before
    assert [r.getMessage() for r in caplog.records] == [
        f"{file}: 5 damaged lines are skipped; the file as it was is kept as metrics.damaged.jsonl"
    ]
    # a last line that was being written when the run was killed is no damage
    file.write_text(good[0] + "\n" + good[1][:9])
    caplog.clear()
    recorder(tmp_path, (2, 1), jsonl=JsonLines()).close()
    assert lines(tmp_path) == [1]
    assert not caplog.records


# ---------------------------------------------------------------- several of them


class Noting(Logger):
    """Keeps what it is given; raises in the method named `bad`."""

    images = True

    def __init__(self, bad: str = "") -> None:
        self.bad, self.seen = bad, []  # type: ignore[var-annotated]

    def _note(self, method: str, *what: Any) -> None:
        self.seen.append((method, *what))
        if method == self.bad:
            raise RuntimeError("no network")

    def start(self, run: LoggedRun) -> None:
        self._note("start", run.folder)

    def scalars(self, kind: str, update: int, epoch: float, values: dict[str, float]) -> None:
        self._note("scalars", kind, update, epoch, dict(values))
        values.clear()  # its own copy

    def image(self, name: str, update: int, pixels: np.ndarray) -> None:
        self._note("image", name, update, pixels.shape, pixels.dtype)

    def video(self, name: str, update: int, frames: np.ndarray, fps: float) -> None:
        self._note("video", name, update, frames.shape, frames.dtype)

    def precision_recall(self, name: str, update: int, truth: np.ndarray, scores: np.ndarray) -> None:
        self._note("precision_recall", name, update, truth.tolist(), scores.tolist())

    def finish(self, update: int, values: Mapping[str, float]) -> None:
        self._note("finish", update, dict(values))

    def files(self, files: Sequence[Path]) -> None:
        self._note("files", [file.name for file in files])

    def close(self) -> None:
        self._note("close")


CLIPS = torch.zeros(3, 2, 4, 5, 6, 3, dtype=torch.uint8), torch.tensor([0, 1, -1])


@pytest.mark.parametrize("bad", ["start", "scalars", "image", "video", "precision_recall", "finish", "files", "close"])
def test_a_logger_that_fails_is_skipped_and_closed_and_the_others_go_on(
    tmp_path: Path, bad: str, caplog: pytest.LogCaptureFixture
) -> None:
    broken, good = Noting(bad), Noting()
    record = recorder(tmp_path, broken=broken, good=good)
    for update in (1, 2):
        record.scalars("val", update, 1.0, {"loss": 0.5})
        record.figure("confusion", update, draw_confusion)
        record.clips(update, *CLIPS)
        record.precision_recall("pr/a", update, np.array([True, False]), np.array([0.5, 0.25], np.float32))
    record.finish(2, {"test/top1": 0.5})
    record.files([tmp_path / "result.json"])
    record.close()
    each = ["scalars", "image", "image", "video", "precision_recall"]
    assert [call[0] for call in good.seen] == ["start", *each * 2, "finish", "files", "close"]
    assert good.seen[1] == ("scalars", "val", 1, 1.0, {"loss": 0.5})
    assert good.seen[3] == ("image", "clips", 1, (6 * 5, 4 * 6, 3), np.uint8)
    assert good.seen[4] == ("video", "clips/video", 1, (4, 5 + 16, 3 * 6, 3), np.uint8)
    assert good.seen[5] == ("precision_recall", "pr/a", 1, [True, False], [0.5, 0.25])
    assert good.seen[-3:-1] == [("finish", 2, {"test/top1": 0.5}), ("files", ["result.json"])]
    methods = [call[0] for call in broken.seen]
    assert methods.count(bad) == (2 if bad == "close" else 1)
    assert methods[-1] == "close"
    assert [r.getMessage() for r in caplog.records] == [
        "logger.broken failed (RuntimeError: no network); the training goes on without"
    ]


def test_a_figure_that_cannot_be_drawn_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vidtrain.reports.confusion.confusion_image", lambda *args: 1 / 0)
    logger = Noting()
    record = recorder(tmp_path, noting=logger)
    record.figure("confusion", 1, draw_confusion)
    record.figure("confusion", 2, draw_confusion)
    assert [call[0] for call in logger.seen] == ["start"]
    assert [r.getMessage() for r in caplog.records] == [
        f"the figure of confusion in {tmp_path} cannot be written (ZeroDivisionError: division by zero); "
        "the training goes on without"
    ]


def test_nothing_is_drawn_for_loggers_without_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vidtrain.loggers.recorder._grid", lambda views: 1 / 0)
    record = recorder(tmp_path, jsonl=JsonLines(), tensorboard=TensorBoard(images=False))
    record.clips(0, *CLIPS)
    assert not record._not_drawn
    record.close()


def test_tensorboard_shows_moving_clips_curves_and_the_options_beside_the_final_numbers(tmp_path: Path) -> None:
    config = {
        "model": {"_target_": "vidtrain.models.c3d.c3d", "dropout": 0.5, "weights": None},
        "data": {"_target_": "some.where.videos", "root": "/home/somebody/videos", "folds": 2},
        "logger": {"jsonl": {"_target_": "vidtrain.loggers.jsonl.JsonLines"}},
        "trainer": {"deterministic": True},
    }
    record = RunRecorder(LoggedRun(tmp_path, ("walk", "run"), config), {"tensorboard": TensorBoard()})
    colours = torch.tensor([10, 120, 240], dtype=torch.uint8)[:, None, None, None, None, None]
    clips = (colours + torch.arange(4)[:, None, None, None]).byte().expand(3, 1, 4, 32, 48, 3)
    record.clips(0, clips, torch.tensor([[1.0, 1.0], [0.0, 1.0], [0.0, 0.0]]))
    record.precision_recall("pr/walk", 3, np.array([True, False, True]), np.array([0.9, 0.2, 0.8], np.float32))
    record.finish(3, {"test/top1": 0.75})
    record.close()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    [moving] = events.Images("clips/video")
    with Image.open(io.BytesIO(moving.encoded_image_string)) as image:
        assert (image.format, image.n_frames, image.size) == ("GIF", 4, (3 * 48, 32 + 16))
        assert (moving.width, moving.height) == image.size
        pixels = np.asarray(image.convert("RGB")).astype(int)
    for number, colour in enumerate((10, 120, 240)):
        assert abs(pixels[16:, number * 48 : (number + 1) * 48] - colour).max() < 10
    labels = [(pixels[:16, n * 48 : (n + 1) * 48] < 128).sum() for n in range(3)]
    assert labels[0] > labels[1] > labels[2] == 0  # "walk, run", "run", none
    assert events.Scalars("final/test/top1")[0].value == 0.75
    assert "pr/walk" in events.Tags()["tensors"]
    content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    started = HParamsPluginData.FromString(content).session_start_info.hparams
    found = {name: value.string_value or value.number_value or value.bool_value for name, value in started.items()}
    assert found == {
        "model": "c3d",
        "model.dropout": 0.5,
        "data": "videos",
        "data.folds": 2,
        "trainer.deterministic": True,
    }


def test_tensorboards_thread_ends_and_the_hook_of_threads_is_put_back(tmp_path: Path) -> None:
    threads, hook = own_threads(), threading.excepthook
    record = recorder(tmp_path, tensorboard=TensorBoard())
    record.scalars("train", 1, 0.5, {"loss": 1.0})
    assert own_threads() - threads
    record.close()
    assert not own_threads() - threads
    assert threading.excepthook is hook


# ---------------------------------------------------------------- on the command line


@pytest.mark.parametrize(
    ("chosen", "written"),
    [
        ([], {"metrics.jsonl", "tensorboard"}),
        (["logger=tensorboard"], {"tensorboard"}),
        (["logger=none"], set()),
        pytest.param(["logger=[]"], set(), marks=pytest.mark.slow),
    ],
)
def test_the_loggers_of_a_run_are_chosen_by_name(
    chosen: list[str], written: set[str], tiny: list[str], call: Call, tmp_path: Path
) -> None:
    short = ["trainer.epochs=1", "trainer.max_batches=1", "trainer.test=false", "run_dir=run"]
    call("train", *(option for option in tiny if not option.startswith("logger=")), *short, *chosen)
    files = {file.name for file in (tmp_path / "run").iterdir()}
    assert files & {"metrics.jsonl", "tensorboard"} == written
    assert {"best.pt", "last.pt", "result.json", "train.log"} <= files


def test_a_run_is_continued_with_other_loggers(tiny: list[str], call: Call, tmp_path: Path) -> None:
    short = ["trainer.max_batches=1", "trainer.test=false", "run_dir=run"]
    call("train", *tiny, *short, "trainer.epochs=1", "logger=none")
    (tmp_path / "run" / "result.json").unlink()
    call("train", *tiny, *short, "trainer.epochs=2", "resume=run", "resume_changed=true")
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open()]
    assert [(r["kind"], r["update"], r["epoch"]) for r in records if r["kind"] == "val"] == [("val", 2, 2)]


def test_all_loggers_of_a_sweep_are_closed_also_of_runs_that_fail(tiny: list[str], call: Call, tmp_path: Path) -> None:
    threads, hook = own_threads(), threading.excepthook
    short = ["trainer.epochs=1", "trainer.max_batches=2", "trainer.test=false", "hydra.sweep.dir=sweep"]
    short.append("logger=[jsonl,tensorboard]")
    # the second diverges in training
    call("train", "-m", *tiny, *short, "optimizer.lr=0.01,1e38", "trainer.max_skipped=1", check=2)
    assert len(list((tmp_path / "sweep").glob("*/tensorboard"))) == 2
    assert [t.name for t in own_threads() - threads] == []
    assert threading.excepthook is hook


def test_a_run_that_is_refused_after_its_loggers_have_started_closes_them(
    tiny: list[str], call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = ["trainer.epochs=1", "trainer.max_batches=2", "trainer.test=false", "run_dir=run", "trainer.compile=off"]
    short.append("logger=[jsonl,tensorboard]")
    call("train", *tiny, *short)
    threads = own_threads()
    content = torch.load(tmp_path / "run" / "last.pt", weights_only=True)
    content["optimizer"]["param_groups"] = []
    torch.save(content, tmp_path / "run" / "last.pt")
    (tmp_path / "run" / "result.json").unlink()
    for file in (tmp_path / "run").glob("last.[0-9].pt"):
        file.unlink()
    assert "cannot go on from it" in call("train", *tiny, *short, "resume=run", check=2).stderr
    assert not own_threads() - threads


def test_a_logger_from_outside_is_one_class_and_one_file(
    tiny: list[str], call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "my_conf" / "logger").mkdir(parents=True)
    (tmp_path / "code" / "my_csv_logger.py").write_text(
        """from vidtrain.loggers.logger import LoggedRun, Logger

class Csv(Logger):
    def __init__(self, file: str = "x.csv", separator: str = ",") -> None:
        self.name, self.separator = file, separator

    def start(self, run: LoggedRun) -> None:
        self.file = (run.folder / self.name).open("a")
        self.file.write(f"# {len(run.class_names)} classes, {run.config['trainer']['epochs']} epochs\\n")

    def scalars(self, kind, update, epoch, values) -> None:
        self.file.write(self.separator.join([kind, str(update), f"{values['loss']:.9f}"]) + "\\n")

    def close(self) -> None:
        self.file.close()
"""
    )
    (tmp_path / "my_conf" / "logger" / "mine.yaml").write_text(
        "mine:\n  _target_: my_csv_logger.Csv\n  separator: ','  # between columns\n"
    )
    monkeypatch.syspath_prepend(tmp_path / "code")
    short = ["trainer.epochs=1", "trainer.max_batches=2", "trainer.test=false", "run_dir=run"]
    own = ["--config-dir", "my_conf", "logger=[jsonl,mine]", "logger.mine.separator=_"]
    call("train", *tiny, *short, *own)
    lines = (tmp_path / "run" / "x.csv").read_text().splitlines()
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open()]
    expected = [f"{r['kind']}_{r['update']}_{r['loss']:.9f}" for r in records]
    assert lines == ["# 8 classes, 1 epochs", *expected]
    assert "tensorboard" not in {file.name for file in (tmp_path / "run").iterdir()}
    sys.modules.pop("my_csv_logger")

    shown = call("train", "--config-dir", "my_conf", "logger=[jsonl,mine]", "--help").stdout
    assert "keys of logger=[jsonl,mine]:\n  logger.mine.separator=','\n      between columns\n" in shown
    for chosen, line in MISTAKES.items():
        done = call("train", *tiny, *short[:-1], "run_dir=bad", *own[:2], *chosen.split(), check=2)
        assert done.stderr.splitlines()[-1].startswith(f"vidtrain: error: {line}"), done.stderr
        assert not (tmp_path / "bad").exists()


MISTAKES = {
    "logger=mine +logger.mine.seperator=_": "no key 'logger.mine.seperator' (did you mean separator?);",
    "logger=mine logger.mine._target_=my_csv_logger.Cvs": "logger.mine._target_=my_csv_logger.Cvs: cannot be imported",
    "logger=mine logger.mine._target_=collections.UserDict": "logger.mine: expected a vidtrain.loggers.logger.Logger",
    "logger=mine +logger._target_=a.b": "logger._target_=a.b: expected a name of its own, and below it _target_",
    "logger=[jsonl,tensorbord]": "logger=tensorbord: no such logger (did you mean tensorboard?); allowed: ",
}

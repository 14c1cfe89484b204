"""The loggers of experiment trackers: with the real libraries, on this machine alone.

Those tests are slow, and skipped where a library is not installed, as in CI.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cli.conftest import Call
from tests.cli.conftest import call as call
from tests.cli.conftest import tiny as tiny
from vidtrain.errors import ConfigError
from vidtrain.loggers.logger import LoggedRun
from vidtrain.loggers.mlflow import MLflow
from vidtrain.loggers.recorder import RunRecorder
from vidtrain.loggers.tracker import KEPT, Tracker, config_of
from vidtrain.loggers.trackio import Trackio
from vidtrain.loggers.wandb import WeightsAndBiases

TRACKERS: dict[str, type[Tracker]] = {"wandb": WeightsAndBiases, "mlflow": MLflow, "trackio": Trackio}
KEY = "key_that_nobody_may_read"
CONFIG = {
    "model": {"_target_": "vidtrain.models.c3d.c3d", "width": 8},
    "optimizer": {"_target_": "torch.optim.SGD", "lr": 0.1},
    "logger": {"mine": {"_target_": "mine.Logger", "api_key": KEY}},
}


def run_of(folder: Path, resumed_at: tuple[int, int] | None = None) -> LoggedRun:
    return LoggedRun(folder, ("a", "b"), CONFIG, resumed_at)


# ---------------------------------------------------------------- without their libraries


@pytest.mark.parametrize("name", TRACKERS)
def test_a_missing_library_is_one_line(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vidtrain.loggers.tracker.find_spec", lambda library: None)
    with pytest.raises(ConfigError) as caught:
        TRACKERS[name]()
    message = f"logger={name}: the package {name} is not installed: pip install 'vidtrain[{name}]'"
    assert str(caught.value) == message


def test_it_ends_a_run_before_it_begins(tiny: list[str], call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vidtrain.loggers.tracker.find_spec", lambda library: None)
    done = call("train", *tiny, "logger=[jsonl,wandb]", "run_dir=run", check=2)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("vidtrain: error: logger=wandb: the package wandb is not installed")
    assert not list(Path("run").glob("*.pt"))


class Local(Tracker):
    library = "json"


def test_the_name_of_a_run_is_kept_in_its_folder(tmp_path: Path) -> None:
    tracker = Local()
    assert tracker.known_as(run_of(tmp_path, (2, 1))) is None
    (tmp_path / KEPT).write_text('{"other": "x"}')
    tracker.keep(run_of(tmp_path), "abc-1.2")
    assert json.loads((tmp_path / KEPT).read_text()) == {"other": "x", "json": "abc-1.2"}
    assert tracker.known_as(run_of(tmp_path, (2, 1))) == "abc-1.2"
    assert tracker.known_as(run_of(tmp_path)) is None  # a run that starts again is another one


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"json": 1}', '{"json": "../../x"}', '{"json": ""}', '{"json": ["a"]}']
)
def test_a_strangers_name_is_not_used(text: str, tmp_path: Path) -> None:
    (tmp_path / KEPT).write_text(text)
    assert Local().known_as(run_of(tmp_path, (2, 1))) is None
    Local().keep(run_of(tmp_path), "b")
    assert Local().known_as(run_of(tmp_path, (2, 1))) == "b"


def test_options_of_loggers_are_not_logged() -> None:
    assert config_of(run_of(Path())).keys() == {"model", "optimizer"}


# ---------------------------------------------------------------- with them


@pytest.fixture
def connections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What this process connects to besides itself; with accounts in the environment that nobody may ask after."""
    found: list[Any] = []
    connect = socket.socket.connect

    def noted(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1"):
            found.append(address)
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", noted)
    for name in ("WANDB_API_KEY", "HF_TOKEN", "MLFLOW_TRACKING_TOKEN"):
        monkeypatch.setenv(name, KEY)
    for name in ("MLFLOW_TRACKING_URI", "TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    return found


def log_twice(folder: Path, kind: type[Tracker]) -> str:
    """A run that is stopped after update 3, resumed at 2 and finished at 4; returns the tracker's name of it."""
    (folder / "test").mkdir(parents=True)
    (folder / "test" / "result.json").write_text('{"top1": 0.5}')
    names = set()
    for resumed_at, updates in ((None, (1, 2, 3)), ((2, 1), (3, 4))):
        with closing(RunRecorder(run_of(folder, resumed_at), {kind.library: kind()})) as record:
            for update in updates:
                record.scalars("train", update, update / 2, {"loss": 1 / update})
            record.figure("confusion", updates[-1], lambda: np.zeros((6, 5, 3), np.uint8))
            if resumed_at is not None:
                record.finish(4, {"test/top1": 0.5})
                record.files([folder / "test" / "result.json"])
            assert record._working  # nothing has failed
        names.add(json.loads((folder / KEPT).read_text())[kind.library])
    assert len(names) == 1
    return names.pop()


def wandb_records(file: Path) -> Iterator[Any]:
    """What W&B has written: blocks of 32 KiB of pieces with checksum, length and kind, as LevelDB's log has them."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, at, piece = file.read_bytes(), 7, b""
    while at + 7 <= len(content):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        _, size, kind = struct.unpack("<IHB", content[at : at + 7])
        piece += content[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):
            yield Record.FromString(piece)
            piece = b""


def read_wandb(folder: Path, name: str) -> dict[str, Any]:
    files = sorted(folder.glob(f"wandb/offline-run-*-{name}/run-{name}.wandb"))
    assert len(files) == 2
    losses: dict[int, float] = {}
    final, options, ids = {}, {}, set()
    for record in (record for file in files for record in wandb_records(file)):
        for item in record.run.config.update if record.HasField("run") else ():
            options[item.key] = json.loads(item.value_json)
        if record.HasField("run"):
            ids.add(record.run.run_id)
        values = {"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in record.history.item}
        if "train/loss" in values:
            losses[values["_step"]] = values["train/loss"]
        final |= {item.key: json.loads(item.value_json) for item in record.summary.update if item.key}
    assert ids == {name}
    images = list(folder.glob("wandb/offline-run-*/files/media/images/confusion_*.png"))
    kept = [file for file in folder.glob("wandb/offline-run-*/files/test/result.json") if not file.is_symlink()]
    width = options["model"]["width"]
    return {"losses": losses, "final": final["final/test/top1"], "width": width, "images": images, "kept": kept}


def read_mlflow(folder: Path, name: str) -> dict[str, Any]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    [run] = client.search_runs([client.get_experiment_by_name("vidtrain").experiment_id])
    assert (run.info.run_id, run.info.status, run.info.run_name) == (name, "FINISHED", folder.name)
    losses = {metric.step: metric.value for metric in client.get_metric_history(name, "train/loss")}
    assert run.data.params["model"] == "c3d"
    return {
        "losses": losses,
        "final": run.data.metrics["final/test/top1"],
        "width": int(run.data.params["model.width"]),
        "images": [file for file in client.list_artifacts(name, "images") if file.path.endswith(".png")],
        "kept": client.list_artifacts(name, "test"),
    }


def read_trackio(folder: Path, name: str) -> dict[str, Any]:
    import trackio
    from trackio.sqlite_storage import SQLiteStorage

    assert SQLiteStorage.get_runs("vidtrain") == [name]
    logs = SQLiteStorage.get_logs("vidtrain", name)
    final = [line["final/test/top1"] for line in logs if "final/test/top1" in line]
    options = SQLiteStorage.get_run_config("vidtrain", name)
    assert options is not None
    assert options["_Username"] is None
    home = Path(trackio.TRACKIO_DIR)
    return {
        "losses": {line["step"]: line["train/loss"] for line in logs if "train/loss" in line},
        "final": final[0],
        "width": options["model"]["width"],
        "images": list(home.glob(f"media/vidtrain/{name}/**/*.png")),
        "kept": [file for file in home.rglob("blobs/**/*") if file.is_file() and file.read_text() == '{"top1": 0.5}'],
    }


READERS: dict[str, Callable[[Path, str], dict[str, Any]]] = {
    "wandb": read_wandb,
    "mlflow": read_mlflow,
    "trackio": read_trackio,
}


@pytest.fixture
def trackio_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where Trackio keeps its runs in these tests; it reads the variable when it is imported, once for all of them."""
    import sys

    for name in [name for name in sys.modules if name.split(".")[0] == "trackio"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    return tmp_path / "trackio"


@pytest.mark.slow
@pytest.mark.parametrize("name", TRACKERS)
def test_the_real_library(name: str, tmp_path: Path, connections: list[Any], trackio_home: Path) -> None:
    pytest.importorskip(name)
    folder = tmp_path / "run"
    found = READERS[name](folder, known := log_twice(folder, TRACKERS[name]))
    assert known
    assert found["losses"] == pytest.approx({1: 1.0, 2: 1 / 2, 3: 1 / 3, 4: 1 / 4})
    assert (found["final"], found["width"]) == (0.5, 8)
    assert len(found["images"]) == 2
    assert len(found["kept"]) == 1
    assert not connections
    for file in (file for file in tmp_path.rglob("*") if file.is_file()):
        assert KEY.encode() not in file.read_bytes(), file


@pytest.mark.slow
@pytest.mark.parametrize("name", TRACKERS)
def test_a_run_that_is_resumed_is_the_same(name: str, tiny: list[str], call: Call, trackio_home: Path) -> None:
    """By the command: trained, ended before its result was written, and continued."""
    pytest.importorskip(name)
    options = [*tiny, f"logger=[jsonl,{name}]", "run_dir=run", "trainer.epochs=1"]
    done = call("train", *options)
    assert "failed" not in done.stderr
    kept = Path("run", KEPT).read_text()
    assert json.loads(kept).keys() == {name}
    Path("run/result.json").unlink()
    done = call("train", *options, "resume=run")
    assert "resumed from" in done.stderr
    assert "failed" not in done.stderr
    assert Path("run", KEPT).read_text() == kept

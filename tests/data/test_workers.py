"""Decoding processes that die, stand still, or find no shared memory: named in one line, and no wait without an end."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.data.moving import moving
from tests.videos import write_video
from vidtrain.data.clips import batch_transfer, workers
from vidtrain.data.clips.dataset import ClipParts, EvalViews, TrainClips
from vidtrain.data.clips.loader import TrainLoader
from vidtrain.data.clips.loader import eval_loader as loader_of_tests
from vidtrain.data.clips.stream import ClipStream
from vidtrain.data.clips.workers import Workers
from vidtrain.data.manifest.manifest import Manifest
from vidtrain.data.readers.base import OpenVideo, VideoReader
from vidtrain.data.readers.pyav.reader import PyAVReader
from vidtrain.data.settings import EvalConfig, SamplerConfig, TransformConfig
from vidtrain.errors import LoaderError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL and SIGSTOP are not on Windows")

SPEC = SamplerConfig(4, 1)


class Odd(PyAVReader):
    """Reads as PyAV does; what the name of a file says happens first."""

    def open(self, path: str) -> OpenVideo:  # type: ignore[override]
        name = Path(path).name
        if "kill" in name:
            os.kill(os.getpid(), signal.SIGKILL)
        if "stop" in name:
            os.kill(os.getpid(), signal.SIGSTOP)
        if "sleep" in name:
            time.sleep(60)
        if "slow" in name:
            time.sleep(0.7)
        return super().open(path.replace("slow", "0"))


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("videos")
    return [str(write_video(folder / f"{n}.mp4", moving(8, (1.0, 0.0), 32, 40, seed=n))) for n in range(4)]


def loader(paths: list[str], *, limit: float = 60.0, count: int = 1) -> workers.Batches:  # type: ignore[type-arg]
    views = EvalViews(Manifest.of(paths, [0] * len(paths)), parts(Odd()), EvalConfig(clips=2, batch_size=4))
    return loader_of_tests(views, Workers(count, wait_limit=limit))


def parts(reader: VideoReader) -> ClipParts:
    return ClipParts(reader, SPEC, TransformConfig(size=32, resize=32))


def other(videos: list[str], name: str) -> str:
    return str(Path(videos[0]).with_name(f"{name}.mp4"))


def test_a_dead_worker_is_named_with_its_video(videos: list[str]) -> None:
    path = other(videos, "kill")
    with pytest.raises(LoaderError) as found:
        list(loader([*videos, path]))
    fix = "(out of memory? lower trainer.num_workers or the batch size)"
    assert str(found.value) == f"a decoding process was ended by SIGKILL {fix} while it read {path}"


@pytest.mark.parametrize("kind", ["stop", pytest.param("sleep", marks=pytest.mark.slow)])
def test_a_worker_that_stands_still_is_named_then_ended(
    videos: list[str], kind: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(workers, "_TICK", 0.1)
    monkeypatch.setattr(workers, "_SPEAK", 0.5)
    path = other(videos, kind)
    began = time.monotonic()
    with caplog.at_level(logging.WARNING, "vidtrain"), pytest.raises(LoaderError) as found:
        list(loader([*videos, path], limit=1.0))
    assert time.monotonic() - began < 20  # the process does not hold up the end of this one
    expected = f"no batch came for 1 s, the limit of trainer.data_timeout: worker 0 has been at {path} for "
    assert str(found.value).startswith(expected)
    assert [r.message.partition(": ")[2].partition(" for ")[0] for r in caplog.records][:1] == [
        f"worker 0 has been at {path}"
    ]


def test_a_worker_that_dies_while_the_main_process_works(videos: list[str]) -> None:
    """It is heard of when the next batch is asked for, never in the middle of an update."""
    batches = iter(loader([*videos, other(videos, "kill")]))
    assert len(next(batches)) == 2
    time.sleep(2)
    with pytest.raises(LoaderError, match="was ended by SIGKILL"):
        list(batches)


def test_slow_batches_are_waited_for(
    videos: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(workers, "_TICK", 0.1)
    monkeypatch.setattr(workers, "_SPEAK", 0.5)
    slow = [other(videos, "slow")] * 4  # 1.4 s a batch, each within the limit and all of them beyond it
    with caplog.at_level(logging.WARNING, "vidtrain"):
        found = [batch.videos.tolist() for batch in loader(slow, limit=4)]
    assert found == [[0, 1], [2, 3]]
    assert any("has been at" in record.message for record in caplog.records)


def test_workers_that_start_are_not_said_to_have_lost_a_batch() -> None:
    board = workers.Board(2, ["a.mp4"])
    board.start(0)
    assert board.doing() == "its workers are still starting"
    board.start(1)
    assert board.doing().startswith("its workers have nothing to do")


def test_without_a_limit_it_waits(videos: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_TICK", 0.1)
    assert [len(batch) for batch in loader([other(videos, "slow")] * 2, limit=0)] == [2]


def test_the_clips_of_a_stream_too(videos: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_TICK", 0.1)
    monkeypatch.setattr(workers, "_SPEAK", 0.5)
    path = other(videos, "sleep")
    stream = ClipStream(Manifest.of([path], [0]), parts(Odd()), hop=None, batch_size=4)
    with pytest.raises(LoaderError, match=f"worker 0 has been at {path}"):
        list(stream.loader(Workers(1, wait_limit=1)))


# ---------------------------------------------------------------- shared memory


@pytest.mark.parametrize("room", [(0, 64_000_000), (64_000_000, 64_000_000), (0, 0)])
def test_batches_are_the_same_by_pipe_and_by_shared_memory(
    videos: list[str], room: tuple[int, int], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    paths = [*videos, other(videos, "none")]

    def made(count: int) -> list[object]:
        found: list[object] = []
        for batch in loader(paths, count=count):
            found += [
                [x.numpy().tobytes() for x in batch.inputs.values()],
                batch.targets.tolist(),
                batch.videos.tolist(),
                batch.bad,
            ]
        clips = TrainClips(Manifest.of(videos, [0] * 4), parts(PyAVReader()), seed=1)
        epochs = TrainLoader(clips, Workers(count), batch_size=2)
        found += [batch.inputs["rgb"].numpy().tobytes() for batch in epochs.epoch(0)]
        stream = ClipStream(Manifest.of(videos, [0] * 4), parts(PyAVReader()), hop=2, batch_size=3)
        for part in stream.loader(Workers(count)):
            found += [part.views.numpy().tobytes(), part.numbers.tolist(), part.ends]
        return found

    here = made(0)
    monkeypatch.setattr(batch_transfer, "shared_memory", lambda: room)
    monkeypatch.setattr(batch_transfer, "_said", [])
    with caplog.at_level(logging.WARNING, "vidtrain"):
        assert made(1) == here
    said = [record.message for record in caplog.records]
    assert len(said) == (room == (0, 64_000_000))
    if said:
        assert said[0].startswith("/dev/shm has 0 MB free, too few for batches of ")
        assert "docker run --shm-size=8g" in said[0]


def test_memory_that_another_process_has_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)")

    monkeypatch.setattr(batch_transfer, "get_worker_info", lambda: object())
    monkeypatch.setattr(torch.Tensor, "share_memory_", full)
    item = {"a": torch.arange(3), "b": [torch.ones(2, dtype=torch.bool), "text"], "c": np.arange(2)}
    piped = batch_transfer.HandOver(lambda samples: samples)(item)
    assert isinstance(piped, batch_transfer.Piped)
    found = piped.unpacked()
    assert found["a"].tolist() == [0, 1, 2]
    assert found["b"][0].tolist() == [True, True]
    assert found["b"][1] == "text"
    found["a"] += 1  # can be written to, as others can


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounting needs root")
def test_training_in_a_container_with_64_mb(tmp_path: Path) -> None:
    command = [
        *[sys.executable, "-m", "vidtrain", "train", "model=single_frame", "data.train_scenes=3", "data.val_scenes=1"],
        *["data.test_scenes=1", "data.size=32", "data.num_frames=16", f"data.root={tmp_path / 'm'}"],
        *[
            "sampler.stride=1",
            "transform.size=224",
            "transform.resize=256",
            "trainer.epochs=1",
            "trainer.batch_size=12",
        ],
        *["trainer.num_workers=2", "eval.clips=2", "schedule.warmup_epochs=0", f"run_dir={tmp_path / 'run'}"],
    ]
    mount = 'mount -t tmpfs -o size=64m tmpfs /dev/shm || exit 77; exec "$@"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", mount, "sh", *command],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=tmp_path,
    )
    if done.returncode in (1, 77) and "vidtrain" not in done.stderr:
        pytest.skip(f"no private mounts here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    assert "they cross through pipes" in done.stderr
    assert (tmp_path / "run" / "result.json").is_file()


def test_an_exit_code_that_comes_after_the_end_of_the_pipe_is_waited_for() -> None:
    """As on a busy machine, where the system has closed the files of a process that is not yet gone."""

    class Ending:
        exitcode: int | None = None

        def __init__(self, sentinel: int) -> None:
            self.sentinel = sentinel

        def join(self, timeout: float) -> None:
            self.exitcode = -signal.SIGKILL

    read, write = os.pipe()
    os.close(write)
    try:
        assert workers._how_it_ended(SimpleNamespace(_workers=[Ending(read)])).startswith("was ended by SIGKILL")
    finally:
        os.close(read)

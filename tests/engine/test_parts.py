"""Schedule, precision, inputs and checkpoints, each by itself."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests import warm
from vidtrain.data.manifest.manifest import VideoData
from vidtrain.engine.checkpoints.checkpoint import load_checkpoint, save_checkpoint
from vidtrain.engine.precision import Precision, choose_device
from vidtrain.engine.preprocess import Preprocess
from vidtrain.engine.schedule import check_schedule, learning_rate_factor
from vidtrain.engine.settings import PrecisionName, ScheduleConfig, ScheduleName
from vidtrain.errors import CheckpointError, ConfigError, DataError
from vidtrain.hub_folder import load_trained

CPU = torch.device("cpu")


def test_cosine_rises_then_falls_to_its_last_value() -> None:
    schedule = ScheduleConfig(ScheduleName.cosine, warmup_epochs=2, final_ratio=0.1)
    factors = [learning_rate_factor(schedule, epoch, 10) for epoch in (0, 1, 2, 6, 10)]
    assert 0 < factors[0] < 0.01
    assert factors[1] == pytest.approx(0.5, abs=1e-3)
    assert factors[2] == pytest.approx(1)
    assert factors[3] == pytest.approx(0.1 + 0.9 * 0.5)
    assert factors[4] == pytest.approx(0.1)


def test_step_multiplies_at_each_milestone() -> None:
    schedule = ScheduleConfig(ScheduleName.step, milestones=[2, 3], gamma=0.5)
    assert [learning_rate_factor(schedule, e, 4) for e in (0, 1.99, 2, 3.5)] == [1, 1, 0.5, 0.25]


@given(
    st.sampled_from(list(ScheduleName)),
    st.integers(1, 6),
    st.integers(1, 40),
    st.floats(0, 1),
    st.sampled_from([0.0, 1e-9, 1e-4, 1e-3, 0.5]),
    st.floats(0, 1),
    st.lists(st.floats(0.1, 8), max_size=3),
    st.floats(0.01, 1),
)
def test_every_factor_lies_above_0_and_at_most_1(
    name: ScheduleName,
    epochs: int,
    per_epoch: int,
    share: float,
    short: float,
    final_ratio: float,
    milestones: list[float],
    gamma: float,
) -> None:
    for warmup in (share * epochs, short, float(epochs)):
        schedule = ScheduleConfig(name, warmup, final_ratio, milestones, gamma)
        check_schedule(schedule, epochs)
        progress = [update / per_epoch for update in range(epochs * per_epoch)]
        factors = [learning_rate_factor(schedule, done, epochs) for done in progress]
        assert all(0 < factor <= 1 for factor in factors)
        rising = [factor for done, factor in zip(progress, factors, strict=True) if done < warmup]
        assert rising == sorted(rising)
        falling = factors[len(rising) :]
        assert falling == sorted(falling, reverse=True)


def test_a_warmup_shorter_than_an_update_is_none() -> None:
    schedule = ScheduleConfig(ScheduleName.constant, warmup_epochs=1e-4)
    assert learning_rate_factor(schedule, 0.0, 3) == 1


def test_warmup_longer_than_the_training_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"schedule.warmup_epochs=5: must lie in 0 to trainer.epochs=3"):
        check_schedule(ScheduleConfig(warmup_epochs=5), 3)


def test_precision_is_chosen_by_device() -> None:
    assert Precision(PrecisionName.auto, CPU).name == "fp32"
    with pytest.raises(ConfigError, match=r"trainer.precision=fp16: not on the CPU"):
        Precision(PrecisionName.fp16, CPU)
    with Precision(PrecisionName.bf16, CPU).autocast():
        assert torch.nn.Linear(2, 2)(torch.ones(1, 2)).dtype == torch.bfloat16


@pytest.mark.parametrize("name", ["gpu", "cuda:99"])
def test_device_that_is_not_there(name: str) -> None:
    with pytest.raises(ConfigError, match=f"trainer.device={name}"):
        choose_device(name)


def test_input_is_normalised_and_keeps_the_memory_order() -> None:
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
    views = torch.randint(0, 256, (2, 3, 4, 6, 8, 3), dtype=torch.uint8)
    out = Preprocess(mean, std, CPU)({"rgb": views})["rgb"]
    assert out.shape == (6, 3, 4, 6, 8)
    assert out.is_contiguous(memory_format=torch.channels_last_3d)
    plain = (views.flatten(0, 1).double() / 255 - torch.tensor(mean)) / torch.tensor(std)
    torch.testing.assert_close(out.double(), plain.permute(0, 4, 1, 2, 3), atol=1e-5, rtol=0)


def test_input_refuses_a_std_of_zero() -> None:
    with pytest.raises(ConfigError, match="std above 0"):
        Preprocess([0, 0, 0], [1, 1, 0], CPU)


CONTENT = {"model": {"w": torch.arange(5.0)}, "config": {"a": 1}, "class_names": ["x", "y"]}


def test_checkpoint_round_trip_says_its_versions(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c.pt", CONTENT)
    content = load_checkpoint(tmp_path / "c.pt")
    assert torch.equal(content["model"]["w"], CONTENT["model"]["w"])
    assert content["versions"]["torch"] == torch.__version__
    assert [p.name for p in tmp_path.iterdir()] == ["c.pt"]


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.99])
def test_truncated_checkpoint(tmp_path: Path, keep: float) -> None:
    file = tmp_path / "c.pt"
    save_checkpoint(file, CONTENT)
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * keep)])
    with pytest.raises(CheckpointError, match=r"c\.pt: cannot be read as a checkpoint .*truncated"):
        load_checkpoint(file)


def test_other_files_are_not_checkpoints(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        load_checkpoint(tmp_path / "none.pt")
    torch.save({"state_dict": {}}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match="not a checkpoint of vidtrain: it has no format, model"):
        load_checkpoint(tmp_path / "other.pt")
    save_checkpoint(tmp_path / "best.pt", CONTENT)
    with pytest.raises(CheckpointError, match=r"is a folder.*did you mean .*best\.pt"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("value", ["false", 7, None])
def test_whether_a_checkpoint_is_multi_label_is_no_guess(tmp_path: Path, value: Any) -> None:
    save_checkpoint(tmp_path / "c.pt", {**CONTENT, "multi_label": value})
    with pytest.raises(CheckpointError, match=r"c\.pt: multi_label: expected true"):
        load_trained(tmp_path / "c.pt")


def test_a_class_that_is_there_twice(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c.pt", {**CONTENT, "class_names": ["x", "x"]})
    with pytest.raises(CheckpointError, match=r"c\.pt: class_names: expected a list"):
        load_trained(tmp_path / "c.pt")
    with pytest.raises(DataError, match="'x' is there twice; class names must differ"):  # nor is one written
        VideoData(("a", "x", "x"), {})


class Stranger:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("code from a stranger",))


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({**CONTENT, "format": 1, "extra": Stranger()}, tmp_path / "evil.pt")
    with pytest.raises(CheckpointError):
        load_checkpoint(tmp_path / "evil.pt")
    assert capsys.readouterr().out == ""


FULL_DISK = """
import resource, signal, sys, torch
from pathlib import Path
from vidtrain.engine.checkpoints.checkpoint import load_checkpoint, save_checkpoint
from vidtrain.errors import CheckpointError
file = Path(sys.argv[1]) / "last.pt"
content = {"model": {}, "config": {}, "class_names": [], "epoch": 1}
save_checkpoint(file, content)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write past the limit then fails as on a full disk
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    save_checkpoint(file, {**content, "epoch": 2, "model": {"w": torch.zeros(10**6)}})
except CheckpointError as error:
    print(error)
print(load_checkpoint(file)["epoch"], [p.name for p in file.parent.iterdir()])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no resource limits")
def test_a_disk_that_fills_leaves_the_last_good_checkpoint(tmp_path: Path) -> None:
    done = warm.run(["-c", FULL_DISK, str(tmp_path)], timeout=60)
    assert done.returncode == 0, done.stderr
    error, rest = done.stdout.splitlines()
    assert "cannot write" in error
    assert "last.pt is the last good one" in error
    assert rest == "1 ['last.pt']"

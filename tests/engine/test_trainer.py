"""The training loop on synthetic clips: learning, exact resume, accumulation, stops with a reason."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from vidtrain.engine.checkpoint import load_checkpoint
from vidtrain.engine.evaluator import Scores, evaluate
from vidtrain.engine.inputs import ModelInput
from vidtrain.engine.objective import Objective
from vidtrain.engine.precision import Precision
from vidtrain.engine.settings import PrecisionName, ScheduleConfig, TrainerConfig
from vidtrain.engine.trainer import Trainer
from vidtrain.errors import DataError, VidtrainError
from vidtrain.types import BadVideo, Batch

CPU = torch.device("cpu")
TO_INPUT = ModelInput([0.5] * 3, [0.25] * 3, CPU)


class Clips:
    """`count` random clips of 2 frames of 4x4; the label says whether the first is brighter than the second."""

    def __init__(self, count: int = 24, batch_size: int = 4, stop_after: int | None = None) -> None:
        self.count, self.batch_size, self.stop_after = count, batch_size, stop_after
        self.bad: list[BadVideo] = []

    def __len__(self) -> int:
        return self.count // self.batch_size

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        generator = torch.Generator().manual_seed(number)
        views = torch.randint(0, 256, (self.count, 1, 2, 4, 4, 3), generator=generator, dtype=torch.uint8)
        labels = (views[:, 0, 0].double().mean((1, 2, 3)) > views[:, 0, 1].double().mean((1, 2, 3))).long()
        for batch in range(start, len(self)):
            if self.stop_after is not None:
                if self.stop_after == 0:
                    raise KeyboardInterrupt
                self.stop_after -= 1
            rows = slice(batch * self.batch_size, (batch + 1) * self.batch_size)
            yield Batch(views[rows], labels[rows], torch.arange(self.count)[rows], self.bad)


class Silence:
    """Records nothing."""

    def scalars(self, kind: str, update: int, epoch: float, values: dict[str, float]) -> None: ...

    def clips(self, update: int, views: Tensor) -> None: ...

    def validation(self, update: int, scores: Scores) -> None: ...


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Dropout(0.2), nn.Linear(96, 16), nn.ReLU(), nn.Linear(16, 2))


def trainer(
    folder: Path,
    clips: Clips,
    lr: float = 0.05,
    max_bad: float = 0,
    objective: Objective | None = None,
    **settings: object,
) -> Trainer:
    model = network()
    precision = Precision(PrecisionName.fp32, CPU)

    def validate(model: nn.Module) -> Scores:
        return evaluate(model, Clips().epoch(99), TO_INPUT, precision, views_per_forward=8)

    return Trainer(
        model,
        clips,
        torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9),
        settings=TrainerConfig(**{"epochs": 3, "save_minutes": 0.0, **settings}),  # type: ignore[arg-type]
        schedule=ScheduleConfig(warmup_epochs=1),
        to_input=TO_INPUT,
        precision=precision,
        objective=objective or Objective(),
        num_classes=2,
        recorder=Silence(),
        folder=folder,
        describe={"config": {}, "class_names": ["no", "yes"]},
        validate=validate,
        max_bad=max_bad,
    )


def test_it_learns(tmp_path: Path) -> None:
    training = trainer(tmp_path, Clips(count=256, batch_size=16), epochs=12)
    training.fit()
    assert training.progress.best is not None
    assert training.progress.best[0] > 0.9
    assert load_checkpoint(tmp_path / "best.pt")["epoch"] == training.progress.best_epoch


@pytest.mark.parametrize("accumulate", [1, 4])
@pytest.mark.parametrize("stop_after", [0, 1, 5, 6, 11, 17])
def test_a_stopped_run_continues_bit_for_bit(tmp_path: Path, stop_after: int, accumulate: int) -> None:
    whole = trainer(tmp_path, Clips(), accumulate=accumulate)
    whole.fit()

    folder = tmp_path / "stopped"
    folder.mkdir()
    stopped = trainer(folder, Clips(stop_after=stop_after), accumulate=accumulate)
    with pytest.raises(KeyboardInterrupt):
        stopped.fit()

    torch.manual_seed(1234)  # another process starts with another state
    resumed = trainer(folder, Clips(), accumulate=accumulate)
    if (folder / "last.pt").is_file():
        resumed.resume(load_checkpoint(folder / "last.pt"))
        assert resumed.progress.epoch * 6 + resumed.progress.batch > stop_after - accumulate
    resumed.fit()
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    assert (resumed.progress.best, resumed.progress.update) == (whole.progress.best, whole.progress.update)


def test_accumulation_equals_a_larger_batch(tmp_path: Path) -> None:
    # 6 batches of 4 in groups of 4 and 2: the last group is averaged over its own two
    models = []
    for batch_size, accumulate in ((4, 3), (12, 1)):
        training = trainer(tmp_path, Clips(batch_size=batch_size), accumulate=accumulate)
        training.model[1].p = 0.0  # dropout would draw differently
        training.fit()
        models.append(training.model)
    for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_a_loss_that_is_not_finite_stops_and_says_what_to_do(tmp_path: Path) -> None:
    training = trainer(tmp_path, Clips(), lr=1e30, log_every=1)
    with pytest.raises(VidtrainError, match=r"the loss became (nan|inf) .*lower optimizer.lr"):
        training.fit()
    last = load_checkpoint(tmp_path / "last.pt")["model"] if (tmp_path / "last.pt").is_file() else {}
    assert all(torch.isfinite(value).all() for value in last.values())


def test_too_many_bad_videos_stop_the_run(tmp_path: Path) -> None:
    clips = Clips()
    clips.bad = [BadVideo("a.mp4", "truncated"), BadVideo("b.mp4", "empty")]
    training = trainer(tmp_path, clips, max_bad=2)
    training.fit()
    assert training.progress.bad == {"a.mp4": "truncated", "b.mp4": "empty"}
    with pytest.raises(DataError, match=r"2 videos cannot be read, more than data.max_bad_fraction allows"):
        trainer(tmp_path, clips, max_bad=1).fit()


def test_gradient_clipping_bounds_an_update(tmp_path: Path) -> None:
    training = trainer(tmp_path, Clips(), clip_grad=1e-6, epochs=1)
    before = [p.clone() for p in training.model.parameters()]
    training.fit()
    moved = torch.stack([(p - q).norm() for p, q in zip(training.model.parameters(), before, strict=True)]).norm()
    assert 0 < moved < 1e-5

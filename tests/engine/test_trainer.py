"""The training loop on synthetic clips: learning, exact resume, accumulation, stops with a reason."""

from __future__ import annotations

import logging
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.sampled import sampled
from tests.tasks.made import scores_of
from vidtrain.engine.checkpoints.checkpoint import Checkpoints, load_checkpoint
from vidtrain.engine.ema import EMA
from vidtrain.engine.evaluator import evaluate
from vidtrain.engine.hooks import standard_hooks
from vidtrain.engine.precision import Precision
from vidtrain.engine.preprocess import ModelRunner, Preprocess
from vidtrain.engine.schedule import Plan, learning_rate_factor
from vidtrain.engine.settings import OnOom, PrecisionName, ScheduleConfig, TrainerConfig
from vidtrain.engine.step import TrainingStep
from vidtrain.engine.trainer import Trainer
from vidtrain.engine.training_state import Outputs
from vidtrain.errors import CheckpointError, DataError, StoppedError, VidtrainError
from vidtrain.tasks.classification.task import Classification
from vidtrain.tasks.task import Scores, Task
from vidtrain.types import BadVideo, Batch

CPU = torch.device("cpu")
TASK = Classification(["no", "yes"])
PREPROCESS = Preprocess([0.5] * 3, [0.25] * 3, CPU)


class Clips:
    """`count` random clips of 2 frames of 4x4; the label says whether the first is brighter than the second."""

    def __init__(self, count: int = 24, batch_size: int = 4, stop_after: int | None = None) -> None:
        self.count, self.batch_size, self.stop_after = count, batch_size, stop_after
        self.bad: list[BadVideo] = []

    def __len__(self) -> int:
        return self.count // self.batch_size

    def path(self, row: int) -> str:
        return f"{row}.mp4"

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
            yield Batch({"rgb": views[rows]}, labels[rows], torch.arange(self.count)[rows], self.bad)


class Silence:
    """Records nothing."""

    def scalars(self, kind: str, update: int, epoch: float, values: dict[str, float]) -> None: ...

    def clips(self, update: int, views: Tensor, targets: Tensor) -> None: ...

    def precision_recall(self, name: str, update: int, truth: object, scores: object) -> None: ...

    def finish(self, update: int, values: dict[str, float]) -> None: ...

    def figure(self, name: str, update: int, draw: Callable[[], object]) -> None: ...


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Dropout(0.2), nn.Linear(96, 16), nn.ReLU(), nn.Linear(16, 2))


def trainer(
    folder: Path,
    clips: Clips,
    lr: float = 0.05,
    max_bad: float = 0,
    task: Task | None = None,
    model: nn.Module | None = None,
    fused: bool = False,
    validate: Callable[[nn.Module], Scores] | None = None,
    **settings: Any,
) -> Trainer:
    model = network() if model is None else model
    precision = Precision(PrecisionName.fp32, CPU)
    options = TrainerConfig(**{"epochs": 3, "save_minutes": 0.0, **settings})

    def score(model: nn.Module) -> Scores:
        network, clips = ModelRunner(model, PREPROCESS, precision), Clips().epoch(99)
        return TASK.scores(evaluate(TASK, network, clips, views_per_forward=8))

    step = TrainingStep(
        ModelRunner(model, PREPROCESS, precision),
        torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, fused=fused),
        task or TASK,
        clip_grad=options.clip_grad,
        halve_on_oom=options.on_oom is OnOom.halve,
        ema=None if options.ema is None else EMA(model, options.ema),
    )
    return Trainer(
        step,
        clips,
        Plan(options, ScheduleConfig(warmup_epochs=1)),
        Outputs(
            Checkpoints(folder, keep_last=options.keep_last, describe={"config": {}, **TASK.describe()}), Silence()
        ),
        validate=validate or score,
        hooks=standard_hooks(options, max_bad),
    )


def resumed(training: Trainer) -> Trainer:
    content = training.checkpoints.load_last()
    if content is not None:
        training.resume(content)
    return training


def assert_equal(one: nn.Module, other: nn.Module) -> None:
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


def test_it_learns(tmp_path: Path) -> None:
    training = trainer(tmp_path, Clips(count=256, batch_size=16), epochs=12)
    training.fit()
    assert training.progress.best is not None
    assert training.progress.best[0] > 0.9
    assert load_checkpoint(tmp_path / "best.pt")["epoch"] == training.progress.best_epoch


@pytest.mark.parametrize(
    ("stop_after", "accumulate"),
    sampled([(n, m) for n in (0, 1, 5, 6, 11, 17) for m in (1, 4)], [(0, 1), (1, 4), (5, 1), (6, 1), (11, 4)]),
)
def test_a_stopped_run_continues_bit_for_bit(tmp_path: Path, stop_after: int, accumulate: int) -> None:
    whole = trainer(tmp_path, Clips(), accumulate=accumulate, ema=0.9)
    whole.fit()

    folder = tmp_path / "stopped"
    folder.mkdir()
    stopped = trainer(folder, Clips(stop_after=stop_after), accumulate=accumulate, ema=0.9)
    with pytest.raises(KeyboardInterrupt):
        stopped.fit()

    torch.manual_seed(1234)  # another process starts with another state
    again = resumed(trainer(folder, Clips(), accumulate=accumulate, ema=0.9))
    assert again.progress.epoch * 6 + again.progress.batch > stop_after - accumulate
    again.fit()
    assert_equal(again.model, whole.model)
    assert (again.progress.best, again.progress.update) == (whole.progress.best, whole.progress.update)
    best = [load_checkpoint(run / "best.pt")["model"] for run in (tmp_path, folder)]
    assert all(torch.equal(value, best[1][name]) for name, value in best[0].items())


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
    training = trainer(tmp_path, Clips(), lr=1e30, log_every=1, max_skipped=3)
    with pytest.raises(VidtrainError, match=r"3 updates in a row had a gradient .*lower optimizer.lr"):
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


class Poisoned(nn.Module):
    """With BatchNorm; a batch that holds the clip whose first value is `poison` comes out as nan."""

    def __init__(self, poison: float | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm, self.head, self.poison = nn.BatchNorm1d(96), nn.Linear(96, 2), poison

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        bad = torch.full((), False) if self.poison is None else (x[:, 0] == self.poison).any() & (self.training)
        return self.head(self.norm(torch.where(bad, torch.nan, x)))


@pytest.mark.parametrize("fused", [False, True])
def test_an_update_that_is_not_finite_leaves_no_trace(
    tmp_path: Path, fused: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, logger="vidtrain")
    third = list(Clips().epoch(0))[2]
    poison = PREPROCESS(third.inputs)["rgb"].flatten(1)[0, 0].item()
    with_poison = trainer(tmp_path, Clips(), model=Poisoned(poison), fused=fused, epochs=1)
    with_poison.fit()
    assert with_poison.progress.skipped == 1
    assert "update 3 skipped: its gradient is not finite; clips: 8.mp4, 9.mp4, 10.mp4 and 1 more" in caplog.text

    without = trainer(tmp_path, Clips(), model=Poisoned(), fused=fused, epochs=1)
    update = without.step._update

    def skipping() -> Tensor:
        if without.progress.update != 2:
            return update()
        without.step.optimizer.zero_grad()
        return torch.tensor(True)  # restores the statistics of BatchNorm

    without.step._update = skipping  # type: ignore[method-assign]
    without.fit()
    assert_equal(with_poison.model, without.model)
    assert all(value.isfinite().all() for value in with_poison.model.state_dict().values())


class Greedy(nn.Module):
    """Runs out of memory, as a GPU does, on more than `most` clips at once."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.net, self.most = network(), most
        self.net[1].p = 0.0

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")
        return self.net(x)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_batch_that_does_not_fit_goes_through_in_pieces(tmp_path: Path, accumulate: int) -> None:
    small, large = (
        trainer(tmp_path, Clips(), model=Greedy(most), epochs=2, accumulate=accumulate, validate=lambda model: SCORES)
        for most in (1, 4)
    )
    small.fit()
    large.fit()
    assert (small.step.micro_batch, large.step.micro_batch) == (1, None)
    for one, other in zip(small.model.parameters(), large.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)
    with pytest.raises(VidtrainError, match="does not suffice for a single clip: lower"):
        trainer(tmp_path, Clips(), model=Greedy(0)).fit()
    with pytest.raises(torch.OutOfMemoryError):
        trainer(tmp_path, Clips(), model=Greedy(2), on_oom=OnOom.fail).fit()


def test_pieces_of_unequal_size_weigh_by_their_clips(tmp_path: Path) -> None:
    models = []
    for micro_batch in (None, 3):
        training = trainer(tmp_path, Clips(), epochs=1, validate=lambda model: SCORES)
        training.model[1].p = 0.0
        training.step.micro_batch = micro_batch
        training.fit()
        models.append(training.model)
    for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


def test_halves_are_rounded_up(tmp_path: Path) -> None:
    step, sizes = trainer(tmp_path, Clips()).step, []
    for _ in range(4):
        step.halve(9)
        sizes.append(step.micro_batch)
    assert sizes == [5, 3, 2, 1]


def test_a_gradient_is_clipped_in_its_own_scale(tmp_path: Path) -> None:
    weights = []
    for scale in (None, 1024.0):
        training = trainer(tmp_path, Clips(), epochs=1, clip_grad=0.05, validate=lambda model: SCORES)
        if scale is not None:
            training.precision.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        torch.manual_seed(0)
        training.fit()
        weights.append([p.detach() for p in training.model.parameters()])
    for one, other in zip(*weights, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


SCORES = scores_of(torch.eye(2), torch.tensor([0, 1]))


def test_the_average_of_the_weights_is_tested_and_kept(tmp_path: Path) -> None:
    seen: list[Tensor] = []

    def validate(model: nn.Module) -> Scores:
        seen.append(model.state_dict()["2.weight"].clone())
        return SCORES

    training = trainer(tmp_path, Clips(), ema=0.9, epochs=1, validate=validate)
    expected, update = training.model.state_dict()["2.weight"].clone(), training.step._update
    count = 0

    def following() -> Tensor:
        nonlocal expected, count
        skipped, count = update(), count + 1
        decay = min(0.9, (1 + count) / (10 + count))
        expected = decay * expected + (1 - decay) * training.model.state_dict()["2.weight"]
        return skipped

    training.step._update = following  # type: ignore[method-assign]
    training.fit()
    torch.testing.assert_close(seen[0], expected)
    assert torch.equal(load_checkpoint(tmp_path / "best.pt")["model"]["2.weight"], seen[0])
    assert not torch.equal(training.model.state_dict()["2.weight"], seen[0])


def test_precise_statistics_are_those_of_the_final_weights(tmp_path: Path) -> None:
    training = trainer(tmp_path, Clips(), model=Poisoned(), precise_bn=6, epochs=2)
    training.fit()
    norm = training.model.norm
    x = torch.cat([PREPROCESS(batch.inputs)["rgb"] for batch in Clips().epoch(1)]).flatten(1)
    torch.testing.assert_close(norm.running_mean, x.mean(0), atol=1e-5, rtol=1e-4)
    assert norm.momentum == 0.1
    assert norm.training is False  # as the validation has left it


def test_it_stops_when_nothing_improves(tmp_path: Path) -> None:
    losses = iter([0.5, 0.4, 0.45, 0.41, 0.3])

    def validate(model: nn.Module) -> Scores:
        return scores_of(SCORES.probs, SCORES.labels, next(losses))

    training = trainer(tmp_path, Clips(), epochs=20, patience=2, validate=validate)
    training.fit()
    assert (training.progress.epoch, training.progress.best_epoch) == (4, 2)
    resumed(trainer(tmp_path, Clips(), epochs=20, patience=2, validate=validate)).fit()  # nothing more to do


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1", "SIGINT"])
@pytest.mark.parametrize("waits", [False, True])  # in a wait for a batch, which it ends, or in an update
def test_a_signal_saves_and_stops(tmp_path: Path, name: str, waits: bool) -> None:
    def send() -> None:
        os.kill(os.getpid(), getattr(signal, name))

    class Signalling(Clips):
        def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
            for count, batch in enumerate(super().epoch(number, start)):
                if waits and (number, count) == (1, 3):
                    threading.Timer(0.2, send).start()
                    time.sleep(30)
                yield batch

    class Signals(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            if self.training and not waits and training.progress.update == 8:
                send()
            return super().forward(x)

    began = time.monotonic()
    training = trainer(tmp_path, Signalling(), model=Signals(*network()), save_minutes=1e9)
    before = signal.getsignal(getattr(signal, name))
    with pytest.raises(StoppedError, match=f"{name} received: saved after update 9 in .*resume=auto continues"):
        training.fit()
    assert time.monotonic() - began < 25
    assert signal.getsignal(getattr(signal, name)) == before
    again = resumed(trainer(tmp_path, Clips(), save_minutes=1e9))
    assert again.progress.update == 9
    again.fit()
    (tmp_path / "whole").mkdir()
    whole = trainer(tmp_path / "whole", Clips(), save_minutes=1e9)
    whole.fit()
    assert_equal(again.model, whole.model)


def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, logger="vidtrain")
    training = trainer(tmp_path, Clips(), keep_last=3)
    training.fit()
    names = ["last.1.pt", "last.2.pt", "last.pt"]
    assert sorted(file.name for file in tmp_path.glob("last*")) == names
    updates = [load_checkpoint(tmp_path / name)["progress"]["update"] for name in ("last.pt", *names[:2])]
    assert updates == [18, 18, 17]  # at the end of the epoch, after its last update, after the one before

    content = bytearray((tmp_path / "last.pt").read_bytes())
    place = content.index(training.model.state_dict()["2.weight"].numpy().tobytes()[:16])
    content[place] ^= 1  # one bit of a weight
    (tmp_path / "last.pt").write_bytes(content)
    (tmp_path / "last.1.pt").write_bytes((tmp_path / "last.1.pt").read_bytes()[:-100])
    again = resumed(trainer(tmp_path, Clips()))
    assert again.progress.update == 17
    assert caplog.text.count("the one before it is taken") == 2
    again.fit()
    assert_equal(again.model, training.model)

    for file in tmp_path.glob("last*"):
        file.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"last.2.pt: cannot be read"):
        resumed(trainer(tmp_path, Clips()))


def test_the_average_does_not_follow_a_skipped_update(tmp_path: Path) -> None:
    third = list(Clips().epoch(0))[2]
    poison = PREPROCESS(third.inputs)["rgb"].flatten(1)[0, 0].item()
    training = trainer(tmp_path, Clips(), model=Poisoned(poison), ema=0.9, epochs=1, save_minutes=1e9)
    weights: list[Tensor] = []
    update = training.step._update

    def watched() -> Tensor:
        skipped = update()
        weights.append(training.model.head.weight.detach().clone())
        return skipped

    losses: list[float] = []

    class Losses(Silence):
        def scalars(self, kind: str, update: int, epoch: float, values: dict[str, float]) -> None:
            losses.extend([values["loss"]] if kind == "train_epoch" else [])

    training.recorder = Losses()
    start = training.model.head.weight.detach().clone()
    training.step._update = watched  # type: ignore[method-assign]
    training.fit()
    assert training.progress.skipped == 1
    assert [math.isfinite(loss) for loss in losses] == [True]  # of the clips of the other updates
    assert torch.equal(weights[1], weights[2])
    expected = start
    for count, own in enumerate([*weights[:2], *weights[3:]], 1):
        decay = min(0.9, (1 + count) / (10 + count))
        expected = decay * expected + (1 - decay) * own
    assert training.step.ema is not None
    assert training.step.ema.updates == 5
    torch.testing.assert_close(training.step.ema.state_dict()["average"]["head.weight"], expected)


class Deep(nn.Module):
    """Its second norm sees what the weights of the first layer make."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm, self.head = nn.Linear(96, 8), nn.BatchNorm1d(8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.first(x.flatten(1))))


@pytest.mark.parametrize("precise_bn", [0, 6])
def test_precise_statistics_are_those_of_the_average_that_is_kept(tmp_path: Path, precise_bn: int) -> None:
    validated: list[dict[str, Tensor]] = []

    def validate(model: nn.Module) -> Scores:
        validated.append({name: value.clone() for name, value in model.state_dict().items()})
        return SCORES

    training = trainer(tmp_path, Clips(), model=Deep(), ema=0.9, precise_bn=precise_bn, epochs=2, validate=validate)
    training.fit()
    best, last = load_checkpoint(tmp_path / "best.pt"), load_checkpoint(tmp_path / "last.pt")
    assert best["epoch"] == 1
    assert all(torch.equal(value, best["model"][name]) for name, value in validated[0].items())
    x = {epoch: torch.cat([PREPROCESS(b.inputs)["rgb"] for b in Clips().epoch(epoch)]).flatten(1) for epoch in (0, 1)}
    for state, epoch, precise in (
        (best["model"], 0, precise_bn),
        (validated[1], 1, precise_bn),
        (last["model"], 1, precise_bn),
    ):
        seen = nn.functional.linear(x[epoch], state["first.weight"], state["first.bias"]).mean(0)
        assert torch.allclose(state["norm.running_mean"], seen, atol=1e-5) == bool(precise)
    assert not torch.equal(last["model"]["first.weight"], validated[1]["first.weight"])
    assert torch.equal(last["model"]["norm.num_batches_tracked"], torch.tensor(6 if precise_bn else 12))


def test_a_validation_that_is_not_finite_is_never_the_best(tmp_path: Path) -> None:
    nothing = scores_of(torch.empty(0, 2), torch.empty(0).long(), math.nan, not_finite=[0, 1])
    half = scores_of(SCORES.probs[:1], SCORES.labels[:1], 0.1, not_finite=[1])
    three = scores_of(torch.eye(3), torch.tensor([0, 1, 0]))
    found = iter([nothing, half, three, nothing])
    training = trainer(tmp_path, Clips(), epochs=4, validate=lambda model: next(found))
    training.fit()
    # 1 of 1, the other without an answer, is less than 2 of 3
    assert training.progress.best == [2 / 3, -0.5]
    assert training.progress.best_epoch == load_checkpoint(tmp_path / "best.pt")["epoch"] == 3

    (tmp_path / "none").mkdir()
    training = trainer(tmp_path / "none", Clips(), epochs=2, validate=lambda model: nothing)
    with pytest.raises(VidtrainError, match=r"no validation gave finite scores, so there is no best.pt .*last.pt has"):
        training.fit()
    assert [file.name for file in (tmp_path / "none").glob("best*")] == []
    assert load_checkpoint(tmp_path / "none" / "last.pt")["epoch"] == 2

    # nothing to rank by is no fault of the weights: the last epoch is kept, as without a validation
    (tmp_path / "unknown").mkdir()
    unknown = scores_of(SCORES.probs, torch.tensor([-1, -1]), math.nan)
    trainer(tmp_path / "unknown", Clips(), epochs=2, validate=lambda model: unknown).fit()
    assert load_checkpoint(tmp_path / "unknown" / "best.pt")["epoch"] == 2


@pytest.mark.parametrize("when", ["at the end of an epoch", "at a save within one"])
def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path, when: str) -> None:
    class Breaking(Clips):
        def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
            for count, batch in enumerate(super().epoch(number, start)):
                if (number, count) == (1, 5):
                    with torch.no_grad():
                        training.model[2].weight[0, 0] = math.inf
                yield batch

    minutes = 0.0 if when == "at a save within one" else 1e9
    training = trainer(tmp_path, Breaking(), save_minutes=minutes)
    with pytest.raises(VidtrainError, match=r"weights are not finite after update 12 \(2.weight, .*lower optimizer.lr"):
        training.fit()
    assert sorted(file.name for file in tmp_path.glob("*.pt")) == [
        "best.pt",
        *(["last.1.pt"] if not minutes else []),
        "last.pt",
    ]
    for file in tmp_path.glob("*.pt"):
        content = load_checkpoint(file)
        assert content["epoch"] == 1
        assert all(value.isfinite().all() for value in content["model"].values())


class Rates(Silence):
    """Keeps the learning rate and the epoch of each update."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, float, float]] = []

    def scalars(self, kind: str, update: int, epoch: float, values: dict[str, float]) -> None:
        if kind == "train":
            self.seen.append((update, epoch, values["lr"]))


@pytest.mark.parametrize(("accumulate", "per_epoch"), [(1, 6), (4, 2), (5, 2), (7, 1)])
def test_the_last_smaller_group_of_an_epoch_is_an_update_of_the_schedule_too(
    tmp_path: Path, accumulate: int, per_epoch: int
) -> None:
    training = trainer(tmp_path, Clips(), lr=0.05, accumulate=accumulate, log_every=1, save_minutes=1e9)
    training.recorder = rates = Rates()
    training.fit()
    assert len(rates.seen) == training.progress.update == 3 * per_epoch
    schedule = ScheduleConfig(warmup_epochs=1)
    for update, epoch, lr in rates.seen:
        assert epoch == pytest.approx(update / per_epoch)
        assert lr == pytest.approx(0.05 * learning_rate_factor(schedule, (update - 1) / per_epoch, 3))


def test_a_resume_goes_on_with_the_pieces_and_the_loss_scale(tmp_path: Path) -> None:
    def started(model: nn.Module) -> Trainer:
        training = trainer(tmp_path, Clips(), model=model, save_minutes=1e9, epochs=1, validate=lambda model: SCORES)
        training.precision.scaler = torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=5)
        return training

    first = started(Greedy(1))
    first.fit()
    assert first.step.micro_batch == 1
    assert first.precision.scaler.get_scale() == 8  # grown once in six updates
    again = resumed(started(Greedy(1)))
    assert again.step.micro_batch == 1
    assert again.precision.scaler.state_dict() == first.precision.scaler.state_dict()
    assert again.precision.scaler.state_dict()["_growth_tracker"] == 1


def test_an_epoch_that_is_continued_averages_over_all_of_it(tmp_path: Path) -> None:
    class Epochs(Silence):
        def __init__(self) -> None:
            self.seen: list[dict[str, float]] = []

        def scalars(self, kind: str, update: int, epoch: float, values: dict[str, float]) -> None:
            if kind == "train_epoch":
                self.seen.append({key: values[key] for key in ("loss", "top1")})

    found = []
    for stop_after in (None, 9):
        folder = tmp_path / str(stop_after)
        folder.mkdir()
        epochs = Epochs()
        if stop_after is not None:
            stopped = trainer(folder, Clips(stop_after=stop_after), epochs=2)
            stopped.recorder = epochs
            with pytest.raises(KeyboardInterrupt):
                stopped.fit()
        training = resumed(trainer(folder, Clips(), epochs=2))
        training.recorder = epochs
        training.fit()
        found.append(epochs.seen)
    assert found[0] == found[1]
    assert len(found[0]) == 2


def test_the_numbers_of_an_epoch_are_of_its_own_clips(tmp_path: Path) -> None:
    found: dict[str, list[tuple[float, float]]] = {"train": [], "train_epoch": [], "val": []}

    class Numbers(Silence):
        def scalars(self, kind: str, update: int, epoch: float, values: dict[str, float]) -> None:
            found[kind].append((values["loss"], values["top1"]))

    training = trainer(tmp_path, Clips(), epochs=3, log_every=1, save_minutes=1e9)
    training.recorder = Numbers()
    training.fit()
    updates = torch.tensor(found["train"]).reshape(3, 6, 2)
    torch.testing.assert_close(torch.tensor(found["train_epoch"]), updates.mean(1))


def test_a_best_checkpoint_that_is_lost_is_replaced_at_a_validation(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, logger="vidtrain")
    accuracies = iter([0.9, 0.5, 0.4])

    def validate(model: nn.Module) -> Scores:
        right = next(accuracies)
        probs = torch.tensor([[0.9, 0.1]]).repeat(10, 1)
        labels = (torch.arange(10) >= 10 * right).long()
        if right == 0.5:
            (tmp_path / "best.pt").unlink()
        return scores_of(probs, labels, 1.0)

    training = trainer(tmp_path, Clips(), epochs=3, validate=validate)
    training.fit()
    assert training.progress.best_epoch == 2  # the first is gone, the third is worse
    assert load_checkpoint(tmp_path / "best.pt")["epoch"] == 2
    assert f"{tmp_path / 'best.pt'} is gone: epoch 2 takes the place of the best" in caplog.text


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="mounts a small file system")
def test_a_full_disk_ends_a_training_and_keeps_the_checkpoint_before(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(disk)], check=False).returncode:
        pytest.skip("may not mount")
    try:
        training = trainer(disk, Clips(), epochs=3, keep_last=1)

        class Filling(Clips):
            def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
                for place, batch in enumerate(super().epoch(number, start), start):
                    if (number, place) == (1, 3):
                        with suppress(OSError), (disk / "others").open("wb") as file:
                            file.write(bytes(10**6))
                    yield batch

        training.clips = Filling()
        with pytest.raises(CheckpointError) as full:
            training.fit()
        assert str(full.value).startswith(f"cannot write {disk / 'last.pt'}: ")
        assert str(full.value).endswith(f"; {disk / 'last.pt'} is the last good one")
        assert load_checkpoint(disk / "last.pt")["progress"]["update"] == 9
        assert sorted(file.name for file in disk.iterdir()) == ["best.pt", "last.pt", "others"]
        (disk / "others").unlink()
        again = resumed(trainer(disk, Clips(), epochs=3, keep_last=1))
        again.fit()
        assert again.progress.update == 18
    finally:
        subprocess.run(["umount", str(disk)], check=True)

"""Temperature, threshold and prediction sets, chosen on some videos and held against others."""

from __future__ import annotations

import math
from dataclasses import asdict

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.explain.made import FRAMES, SIZE, directions
from tests.tasks.made import scores_of
from vidtrain import create_model
from vidtrain.errors import CheckpointError
from vidtrain.tasks.classification.calibration import (
    Calibration,
    answers,
    calibration_error,
    choose_cutoff,
    choose_threshold,
    fit_temperature,
    rejection_curve,
)
from vidtrain.tasks.classification.scores import ClassScores
from vidtrain.tasks.classification.task import Classification
from vidtrain.tasks.task import Predictions


def made(videos: int, seed: int, *, sharp: float = 1.0, several: bool = False) -> tuple[Tensor, Tensor]:
    """Probabilities whose logits are `sharp` times those that the labels are drawn by."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(videos, 6, generator=generator).double() * 2
    if several:
        labels = (torch.rand(videos, 6, generator=generator) < logits.sigmoid()).float()
        return (logits * sharp).sigmoid().float(), labels
    labels = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    return (logits * sharp).softmax(1).float(), labels


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("sharp", [0.3, 1.0, 4.0])
def test_the_temperature_is_found_and_lowers_the_error(sharp: float, several: bool) -> None:
    temperature = fit_temperature(*made(4000, 0, sharp=sharp, several=several))
    assert temperature == pytest.approx(sharp, rel=0.08)
    probs, labels = made(4000, 1, sharp=sharp, several=several)
    calibrated = Calibration(temperature).apply(probs, multi_label=several)
    before, after = calibration_error(probs, labels), calibration_error(calibrated, labels)
    assert after < 0.025  # what 4,000 videos in 15 bins have by chance
    assert sharp == 1 or after < before / 3
    if not several:
        assert torch.equal(calibrated.argmax(1), probs.argmax(1))
        assert torch.allclose(calibrated.sum(1), torch.ones(4000))


@pytest.mark.slow
def test_a_temperature_of_val_lowers_the_error_on_held_out_motion() -> None:
    """Of a network that has seen 16 scenes, in noise: a third of its answers are wrong, and it is too sure of them."""
    clips, classes = directions(0, 192)
    generator = torch.Generator().manual_seed(0)
    clips += 0.5 * torch.randn(clips.shape, generator=generator)
    scene = torch.arange(192).repeat(2)
    train, val, test = scene < 16, (scene >= 16) & (scene < 80), scene >= 80
    torch.manual_seed(0)
    model = create_model("early_fusion", num_classes=2, num_frames=FRAMES, size=SIZE)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    for _ in range(40):
        rows = torch.randint(0, 32, (16,), generator=generator)
        optimizer.zero_grad()
        F.cross_entropy(model(clips[train][rows]), classes[train][rows]).backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        on_val, on_test = (model(clips[part]).softmax(1) for part in (val, test))
    assert 0.55 < (on_val.argmax(1) == classes[val]).float().mean() < 0.9, "too easy, or not learned"
    temperature = fit_temperature(on_val, classes[val])
    calibrated = Calibration(temperature).apply(on_test, multi_label=False)
    before, after = calibration_error(on_test, classes[test]), calibration_error(calibrated, classes[test])
    print(f"T {temperature:.2f}, ECE {before:.3f} -> {after:.3f}")
    assert temperature > 1.2
    assert after < before - 0.03


@pytest.mark.parametrize("several", [False, True])
def test_the_temperature_is_the_best_of_a_grid(several: bool) -> None:
    probs, labels = made(300, 2, sharp=2.5, several=several)
    found = fit_temperature(probs, labels)

    def loss(temperature: float) -> float:
        made_so = Calibration(temperature).apply(probs, multi_label=several)
        predictions = Predictions(
            {"probs": made_so, "labels": labels, "clip_hits": torch.zeros(300)}, torch.arange(300)
        )
        return ClassScores.of(predictions, "abcdef", Calibration()).loss

    grid = {t: loss(t) for t in torch.logspace(math.log10(0.05), math.log10(20), 120, dtype=torch.float64).tolist()}
    assert loss(found) <= min(grid.values()) + 1e-7


def test_all_right_and_all_wrong_have_a_temperature_too() -> None:
    probs = torch.eye(3)
    assert fit_temperature(probs, torch.arange(3)) > 1  # of those with no loss at all the mildest
    assert fit_temperature(probs * 0.7 + 0.1, torch.arange(3)) < 0.06  # below, the loss is 0
    assert fit_temperature(probs, torch.arange(3).roll(1)) == pytest.approx(20, rel=1e-4)
    soft, right = (probs * 0.7 + 0.1).repeat(4, 1), torch.arange(3).repeat(4)
    for labels, bound in ((right, True), (right.roll(1), True), (torch.cat([right[:-1], right[:1]]), False)):
        assert Calibration(fit_temperature(soft, labels)).at_its_bound == bound
    assert not Calibration().at_its_bound
    assert Calibration(20.0).apply(probs, multi_label=False).isfinite().all()
    assert Calibration(0.05).apply(probs, multi_label=True).isfinite().all()


def test_the_threshold_reaches_the_precision_that_is_wanted() -> None:
    """On other videos, on average, within two points; and keeps as many answers as it may."""
    wanted, reached, kept = 0.9, [], []
    for seed in range(40):
        probs, labels = made(1000, seed)
        confidence, right = answers(probs, labels)
        threshold = choose_threshold(confidence, right, wanted)
        assert threshold is not None
        curve = rejection_curve(confidence, right)
        chosen = next(point for point in curve if point[0] == threshold)
        assert chosen[2] >= wanted
        assert all(precision < wanted for value, _, precision in curve if value < threshold)
        confidence, right = answers(*made(2000, 1000 + seed))
        answered = confidence >= threshold
        reached.append(right[answered].double().mean().item())
        kept.append(answered.double().mean().item())
    assert sum(reached) / len(reached) == pytest.approx(wanted, abs=0.02)
    assert all(abs(one - wanted) < 0.07 for one in reached)
    assert 0.1 < sum(kept) / len(kept) < 0.8


def test_equal_probabilities_are_answered_together() -> None:
    confidence, right = torch.tensor([0.9, 0.5, 0.5, 0.5]), torch.tensor([True, True, False, False])
    assert rejection_curve(confidence, right) == [(pytest.approx(0.9), 0.25, 1.0), (0.5, 1.0, 0.5)]
    assert choose_threshold(confidence, right, 0.6) == pytest.approx(0.9)
    assert choose_threshold(confidence, right, 0.5) == 0.5
    assert choose_threshold(confidence, ~right, 0.8) is None


@pytest.mark.parametrize("sharp", [0.5, 1.0, 3.0])
def test_prediction_sets_hold_the_class_as_often_as_wanted(sharp: float) -> None:
    """Whatever the probabilities are worth: 90 % of the sets of new videos, on average over choices."""
    shares, sizes = [], []
    for seed in range(60):
        cutoff = choose_cutoff(*made(200, seed, sharp=sharp), 0.9)
        probs, labels = made(500, 5000 + seed, sharp=sharp)
        sets = probs >= cutoff
        shares.append(sets.gather(1, labels[:, None]).double().mean().item())
        sizes.append(sets.sum(1).double().mean().item())
    assert sum(shares) / len(shares) == pytest.approx(0.9, abs=0.015)
    assert 1 < sum(sizes) / len(sizes) < 4


def test_too_few_videos_promise_nothing() -> None:
    probs, labels = made(8, 0)
    assert choose_cutoff(probs, labels, 0.9) == 0.0
    assert choose_cutoff(*made(9, 0), 0.9) > 0


def test_scores_are_those_of_the_calibration() -> None:
    stored = asdict(Calibration(2.0, threshold=0.45, wanted_precision=0.8, cutoff=0.2, wanted_coverage=0.9))
    task, raw = Classification("abcdef", calibration=stored), Classification("abcdef")
    views = torch.randn(50, 3, 6, generator=torch.Generator().manual_seed(0)) * 3
    labels = torch.randint(0, 6, (50,), generator=torch.Generator().manual_seed(1))
    found = Predictions(task.columns(views, labels, ""), torch.arange(50))
    plain = Predictions(raw.columns(views, labels, ""), torch.arange(50))
    wanted = (plain.columns["probs"].double().log() / 2).softmax(1)
    assert torch.allclose(found.columns["probs"].double(), wanted, atol=1e-6)
    report, before = task.scores(found).report(), raw.scores(plain).report()
    assert report["calibration"]["temperature"] == 2.0
    assert report["calibration"]["ece"] == report["ece"] == pytest.approx(calibration_error(wanted.float(), labels))
    assert report["calibration"]["ece_uncalibrated"] == before["ece"]
    assert (before["rejection"], before["conformal"], before["calibration"]["temperature"]) == (None, None, None)
    best, right = answers(wanted, labels)
    rejection, kept = report["rejection"], best >= 0.45
    assert rejection["coverage"] == kept.double().mean()
    assert rejection["precision"] == pytest.approx(right[kept].double().mean().item())
    assert report["conformal"]["mean_size"] == pytest.approx((wanted >= 0.2).sum(1).double().mean().item())
    lines = task.lines(found, 2)
    assert [line.startswith("unknown (") for line in lines] == (~kept).tolist()
    assert {True, False} == set(kept.tolist())


@pytest.mark.parametrize(
    "stored",
    [
        [],
        {"temperature": "2"},
        {"temperature": float("nan")},
        {"temperature": 0.0},
        {"temperature": 1e9},
        {"threshold": 1.5},
        {"cutoff": float("nan")},
        {"wanted_coverage": True},
        {"more": 1},
    ],
    ids=str,
)
def test_a_calibration_of_a_stranger_is_refused(stored: object) -> None:
    with pytest.raises(CheckpointError, match="calibration cannot be used"):
        Classification("ab", calibration=stored)


def test_a_rejection_that_answers_nothing_has_no_precision() -> None:
    scores = scores_of(torch.full((4, 2), 0.5), torch.zeros(4).long())
    scores.calibration = Calibration(threshold=0.9, wanted_precision=0.9)
    rejection = scores.report()["rejection"]
    assert (rejection["precision"], rejection["coverage"]) == (None, 0.0)

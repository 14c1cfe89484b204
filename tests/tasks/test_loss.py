"""Losses for one class and for several, and the mixing of clips."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import sigmoid_focal_loss

from vidtrain.errors import ConfigError
from vidtrain.tasks.classification.loss import ClassificationLoss
from vidtrain.tasks.classification.task import Classification


def clips(count: int = 4) -> torch.Tensor:
    """Clip n is n everywhere, in the layout of Preprocess."""
    values = torch.arange(count, dtype=torch.float32).view(-1, 1, 1, 1, 1)
    return values.expand(count, 3, 2, 16, 16).contiguous(memory_format=torch.channels_last_3d)


def test_losses_are_torchs() -> None:
    logits = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    classes, several = torch.tensor([0, 2, 1, 1, 0]), torch.eye(3)[torch.tensor([0, 2, 1, 1, 0])]
    several[0, 1] = 1
    assert torch.equal(
        ClassificationLoss(label_smoothing=0.1).loss(logits, classes),
        F.cross_entropy(logits, classes, label_smoothing=0.1),
    )
    plain = ClassificationLoss(multi_label=True).loss(logits, several)
    assert torch.equal(plain, F.binary_cross_entropy_with_logits(logits, several))
    smooth = ClassificationLoss(multi_label=True, label_smoothing=0.2).loss(logits, several)
    assert torch.allclose(smooth, F.binary_cross_entropy_with_logits(logits, several * 0.8 + 0.1))
    with pytest.raises(ConfigError, match=r"task\.label_smoothing=1"):
        ClassificationLoss(label_smoothing=1)


def test_hits() -> None:
    logits = torch.tensor([[3.0, 1.0, 0.0], [0.0, 1.0, 2.0]])
    assert ClassificationLoss().hits(logits, torch.tensor([0, 1])).tolist() == [True, False]
    several = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0]])
    assert ClassificationLoss(multi_label=True).hits(logits, several).tolist() == [True, False]
    mixed = torch.tensor([[0.7, 0.3, 0.0], [0.6, 0.0, 0.4]])
    assert ClassificationLoss(mixup=1.0).hits(logits, mixed).tolist() == [True, False]


def test_without_mixing_nothing_is_touched_or_drawn() -> None:
    inputs, labels = clips(), torch.arange(4)
    state = torch.get_rng_state()
    assert ClassificationLoss().mix(inputs, labels, 4) == (inputs, labels)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("options", [{"mixup": 0.8}, {"cutmix": 1.0}, {"mixup": 0.4, "cutmix": 0.4}])
def test_labels_are_mixed_as_the_pixels_are(options: dict[str, float], multi_label: bool) -> None:
    """Clip n is n everywhere, so its mean tells how much of which clip is in it."""
    torch.manual_seed(0)
    labels = torch.eye(4) if multi_label else torch.arange(4)
    for _ in range(10):
        mixed, targets = ClassificationLoss(multi_label=multi_label, **options).mix(clips(), labels, 4)
        assert type(mixed) is torch.Tensor
        assert mixed.is_contiguous(memory_format=torch.channels_last_3d)
        assert targets.shape == (4, 4)
        assert torch.allclose(targets.sum(1), torch.ones(4))
        means = (targets * torch.arange(4)).sum(1)
        assert torch.allclose(mixed.mean((1, 2, 3, 4)), means, atol=1e-4)
        assert (mixed == mixed[:, :, :1]).all()  # the same in every frame


def test_mixing_follows_torchs_seed() -> None:
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        found.append(ClassificationLoss(mixup=0.8, cutmix=1.0).mix(clips(), torch.arange(4), 4)[1])
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_mixup_blends_whole_clips_and_cutmix_pastes_a_rectangle() -> None:
    torch.manual_seed(0)
    for _ in range(5):
        blended, _ = ClassificationLoss(mixup=1.0).mix(clips(), torch.arange(4), 4)
        assert (blended == blended[:, :1, :1, :1, :1]).all()
        assert (blended != blended.round()).any()
        pasted, _ = ClassificationLoss(cutmix=1.0).mix(clips(), torch.arange(4), 4)
        assert (pasted == pasted.round()).all()


# ---------------------------------------------------------------- classes of unequal size

LOGITS = torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, -1.0], [1.0, 1.0, 0.0]])
CLASSES = torch.tensor([0, 1, 2, 2])
SEVERAL = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
SHARES = [0.5, 0.4, 0.1]


def task_of(multi_label: bool = False, shares: list[float] = SHARES, **options: Any) -> Classification:
    return Classification(["walk", "run", "fall"], multi_label, class_shares=shares, **options)


def loss_of(labels: torch.Tensor, **options: Any) -> float:
    return task_of(labels.ndim == 2, **options).criterion.loss(LOGITS, labels).item()


@pytest.mark.parametrize(
    ("wanted", "weights"),
    [
        # 1 / share, over the mean of that: sum of share * 1 / share = 3
        ("balanced", [1 / 0.5 / 3, 1 / 0.4 / 3, 1 / 0.1 / 3]),
        ("sqrt", [s**-0.5 / (0.5**0.5 + 0.4**0.5 + 0.1**0.5) for s in SHARES]),
        ({"fall": 4.0}, [1 / 1.3, 1 / 1.3, 4 / 1.3]),
    ],
)
def test_class_weights(wanted: Any, weights: list[float]) -> None:
    """By hand: the mean over videos of cross entropy times weight; in training the mean weight is 1."""
    each = [math.log(math.exp(2) + 2) - 2, math.log(math.e + 2) - 1, math.log(2 + math.exp(-1)) + 1]
    each.append(math.log(2 * math.e + 1))
    expected = sum(weights[k] * loss for k, loss in zip(CLASSES.tolist(), each, strict=True)) / 4
    assert loss_of(CLASSES, class_weights=wanted) == pytest.approx(expected, rel=1e-6)
    assert sum(s * w for s, w in zip(SHARES, weights, strict=True)) == pytest.approx(1)
    # the same for labels that mixing has made shares, and through the focal loss without its factor
    shares = F.one_hot(CLASSES, 3).float()
    assert task_of(class_weights=wanted).criterion.loss(LOGITS, shares).item() == pytest.approx(expected, rel=1e-6)
    assert loss_of(CLASSES, class_weights=wanted, focal_gamma=1e-9) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_halves_of_a_batch_add_up_and_equal_classes_change_nothing(smoothing: float) -> None:
    options: dict[str, Any] = {"class_weights": "balanced", "label_smoothing": smoothing}
    criterion = task_of(**options).criterion
    whole, halves = criterion.loss(LOGITS, CLASSES), [criterion.loss(LOGITS[r], CLASSES[r]) for r in ([0, 1], [2, 3])]
    assert torch.allclose(whole, sum(halves) / 2)
    equal = loss_of(CLASSES, shares=[1 / 3] * 3, **options)
    assert equal == pytest.approx(loss_of(CLASSES, label_smoothing=smoothing), rel=1e-6)


def test_class_weights_of_several_labels_are_those_of_the_positives() -> None:
    for wanted, weights in (
        ("balanced", [1.0, 1.5, 9.0]),  # (1 - share) / share
        ("sqrt", [1.0, 1.5**0.5, 3.0]),
        ({"run": 2}, [1.0, 2.0, 1.0]),
    ):
        by_hand = F.binary_cross_entropy_with_logits(LOGITS, SEVERAL, pos_weight=torch.tensor(weights)).item()
        assert loss_of(SEVERAL, class_weights=wanted) == pytest.approx(by_hand, rel=1e-6)
        assert loss_of(SEVERAL, class_weights=wanted, focal_gamma=1e-9) == pytest.approx(by_hand, rel=1e-5)


def test_a_class_without_a_video_counts_as_half_of_the_rarest() -> None:
    for options in ({"class_weights": "balanced"}, {"logit_adjust": 1.0}):
        absent, half = (loss_of(CLASSES, shares=[0.6, 0.4, fall], **options) for fall in (0.0, 0.2))
        assert math.isfinite(absent)
        assert absent == pytest.approx(half, rel=1e-6)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_loss(gamma: float) -> None:
    p = LOGITS.double().softmax(1)[torch.arange(4), CLASSES]
    by_hand = (-((1 - p) ** gamma) * p.log()).mean().item()
    assert loss_of(CLASSES, focal_gamma=gamma) == pytest.approx(by_hand, rel=1e-5)
    assert loss_of(SEVERAL, focal_gamma=gamma) == pytest.approx(
        sigmoid_focal_loss(LOGITS, SEVERAL, alpha=-1, gamma=gamma, reduction="mean").item(), rel=1e-5
    )
    # smoothed and mixed labels: each class's term by its share
    every, eps = LOGITS.double().softmax(1), 0.3
    shares = F.one_hot(CLASSES, 3) * (1 - eps) + eps / 3
    smooth = (-shares * (1 - every) ** gamma * every.log()).sum(1).mean().item()
    assert loss_of(CLASSES, focal_gamma=gamma, label_smoothing=eps) == pytest.approx(smooth, rel=1e-5)


def test_logit_adjustment() -> None:
    """Menon et al. 2021, equation 10: cross entropy of logits + tau log(share). Of two choices: the log odds."""
    logs = torch.tensor(SHARES).log()
    assert loss_of(CLASSES, logit_adjust=1.5) == pytest.approx(F.cross_entropy(LOGITS + 1.5 * logs, CLASSES).item())
    odds = torch.tensor([1.0, 0.4 / 0.6, 0.1 / 0.9]).log()
    by_hand = F.binary_cross_entropy_with_logits(LOGITS + 1.5 * odds, SEVERAL).item()
    assert loss_of(SEVERAL, logit_adjust=1.5) == pytest.approx(by_hand)
    predictions = task_of(logit_adjust=1.5).predict(lambda inputs: inputs["rgb"], {"rgb": LOGITS})
    assert torch.equal(predictions, LOGITS)  # tested without


@pytest.mark.parametrize("gamma", [0.0, 0.3, 2.0])
@pytest.mark.parametrize("multi_label", [False, True])
def test_gradients_of_extreme_logits_are_finite(multi_label: bool, gamma: float) -> None:
    logits = torch.tensor([[1e4, 0.0, -1e4], [-1e4, 1e4, 0.0], [50.0, -200.0, 3.0]], requires_grad=True)
    labels = torch.tensor([[1.0, 0, 0], [1, 0, 1], [0, 1, 1]]) if multi_label else torch.tensor([0, 0, 1])
    options: dict[str, Any] = {"class_weights": "balanced", "logit_adjust": 1.0, "focal_gamma": gamma}
    loss = task_of(multi_label, **options).criterion.loss(logits, labels)
    loss.backward()
    assert torch.isfinite(loss)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert logits.grad[1].abs().max() > 0.01  # of the clip that is wrong


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("balance", "task.class_weights=balance: expected balanced, sqrt, .*did you mean balanced"),
        ({"fal": 2.0}, "task.class_weights.fal: no such class.*did you mean fall"),
        ({"fall": 0}, "task.class_weights.fall=0: expected a number above 0"),
        ({"fall": "2"}, "task.class_weights.fall=2: expected a number"),
    ],
)
def test_class_weights_that_are_none(wanted: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        task_of(class_weights=wanted)

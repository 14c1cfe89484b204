"""The numbers per class and their averages, against scikit-learn."""

from __future__ import annotations

import time
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.tasks.made import scores_of
from vidtrain.tasks.classification.calibration import expected_calibration_error, reliability
from vidtrain.tasks.classification.per_class import PerClass

ALMOST = {"abs": 1e-9, "nan_ok": True}
ROWS = ("precision", "recall", "f1", "average_precision", "auc")


def made(videos: int, classes: int, seed: int, *, several: bool, present: int, levels: int) -> tuple[Tensor, Tensor]:
    """Probabilities of which many are equal, and labels of the first `present` classes alone."""
    generator = torch.Generator().manual_seed(seed)
    probs = torch.randint(0, levels, (videos, classes), generator=generator) / levels
    if several:
        labels = (torch.rand(videos, classes, generator=generator) < 0.3).float()
        labels[:, present:] = 0
        return probs, labels
    return probs, torch.randint(0, present, (videos,), generator=generator)


def expected(probs: Tensor, labels: Tensor) -> dict[str, list[float]]:
    """Per class by scikit-learn, nan where it has no number but warns."""
    from sklearn import metrics as sk

    classes = range(probs.shape[1])
    true = labels.numpy() if labels.ndim == 2 else np.eye(probs.shape[1])[labels.numpy()]
    best = probs.argmax(1).numpy()
    answers = (probs >= 0.5).numpy() if labels.ndim == 2 else np.eye(probs.shape[1])[best]
    found: dict[str, list[float]] = {name: [] for name in ROWS}
    for k in classes:
        own = {"zero_division": np.nan}
        found["precision"].append(sk.precision_score(true[:, k], answers[:, k], **own))
        found["recall"].append(sk.recall_score(true[:, k], answers[:, k], **own))
        found["f1"].append(sk.f1_score(true[:, k], answers[:, k], **own))
        has, lacks = true[:, k].any(), not true[:, k].all()
        found["average_precision"].append(
            sk.average_precision_score(true[:, k], probs[:, k].numpy()) if has else np.nan
        )
        found["auc"].append(sk.roc_auc_score(true[:, k], probs[:, k].numpy()) if has and lacks else np.nan)
    return found


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=settings().max_examples // 3)
@given(
    st.integers(1, 40), st.sampled_from([1, 2, 3, 7]), st.sampled_from([2, 5, 1000]), st.booleans(), st.integers(0, 999)
)
def test_each_class_has_the_numbers_of_scikit_learn(
    videos: int, classes: int, levels: int, several: bool, seed: int
) -> None:
    present = 1 + seed % classes  # the others are absent
    probs, labels = made(videos, classes, seed, several=several, present=present, levels=levels)
    found, wanted = PerClass.of(probs, labels), expected(probs, labels)
    for name in ROWS:
        assert getattr(found, name) == pytest.approx(wanted[name], **ALMOST), name


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("videos", "classes"), [(300, 2), (65, 8), (600, 120)])
def test_what_is_averaged_is_what_scikit_learn_averages(videos: int, classes: int) -> None:
    from sklearn import metrics as sk

    present = classes if classes == 2 else classes - 3
    probs, labels = made(videos, classes, 7, several=False, present=present, levels=50)
    probs = (probs + 0.01) / (probs + 0.01).sum(1, keepdim=True)
    report = scores_of(probs, labels).report()
    true, best, scores = labels.numpy(), probs.argmax(1).numpy(), probs.double().numpy()
    assert report["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(true, best), **ALMOST)
    assert report["macro_f1"] == pytest.approx(sk.f1_score(true, best, average="macro"), **ALMOST)
    assert report["micro_f1"] == pytest.approx(sk.f1_score(true, best, average="micro"), **ALMOST)
    if classes == 2:
        assert report["auc"] == pytest.approx(sk.roc_auc_score(true, scores[:, 1]), **ALMOST)
    occur = [k for k in range(classes) if (true == k).any()]
    one_hot = np.stack([true == k for k in occur], 1)
    if classes > 2:
        areas = sk.roc_auc_score(one_hot, scores[:, occur], average="macro")
        assert report["auc"] == pytest.approx(areas, **ALMOST)
    precision = sk.average_precision_score(one_hot, scores[:, occur], average="macro")
    assert report["average_precision"] == pytest.approx(precision, **ALMOST)
    names = {row["name"]: row for row in report["classes"]}
    assert len(names) == classes
    assert sum(row["support"] for row in names.values()) == videos == sum(r["predicted"] for r in names.values())
    absent = names.get(f"class {classes - 1}") if present < classes else None
    assert absent is None or (absent["support"], absent["recall"], absent["auc"]) == (0, None, None)


def test_several_classes_per_video_are_averaged_as_scikit_learn_does() -> None:
    from sklearn import metrics as sk

    probs, labels = made(300, 12, 3, several=True, present=12, levels=20)
    report = scores_of(probs, labels).report()
    true, answers, scores = labels.numpy(), (probs >= 0.5).numpy(), probs.double().numpy()
    assert report["macro_f1"] == pytest.approx(sk.f1_score(true, answers, average="macro"), **ALMOST)
    assert report["micro_f1"] == pytest.approx(sk.f1_score(true, answers, average="micro"), **ALMOST)
    assert report["auc"] == pytest.approx(sk.roc_auc_score(true, scores, average="macro"), **ALMOST)
    precision = sk.average_precision_score(true, scores, average="macro")
    assert report["average_precision"] == pytest.approx(precision, **ALMOST)
    assert "balanced_accuracy" not in report
    assert "confusion" not in report


@pytest.mark.parametrize("several", [False, True])
def test_bins_are_those_of_scikit_learn(several: bool) -> None:
    from sklearn.calibration import calibration_curve

    probs, labels = made(500, 6, 11, several=several, present=6, levels=60)
    if not several:
        probs = probs.softmax(1)
    bins = reliability(probs, labels)
    confidence, best = (probs.flatten(), None) if several else probs.max(1)
    right = (labels.flatten() > 0) if best is None else best == labels
    accuracy, mean = calibration_curve(right.numpy(), confidence.double().numpy(), n_bins=15)
    full = [one for one in bins if one["count"]]
    assert [one["accuracy"] for one in full] == pytest.approx(accuracy, **ALMOST)
    assert [one["confidence"] for one in full] == pytest.approx(mean, **ALMOST)
    assert sum(one["count"] for one in bins) == len(confidence)
    weights = np.array([one["count"] for one in full]) / len(confidence)
    gap = float((weights * np.abs(accuracy - mean)).sum())
    assert expected_calibration_error(bins) == pytest.approx(gap, **ALMOST)
    assert scores_of(probs, labels).report()["ece"] == pytest.approx(gap, **ALMOST)


def test_no_video_with_a_known_class_gives_no_number() -> None:
    report = scores_of(torch.full((3, 4), 0.25), torch.full((3,), -1)).report()
    assert np.isnan([report[key] for key in ("macro_f1", "micro_f1", "auc", "ece", "average_precision")]).all()
    assert all(row["precision"] is None and row["support"] == 0 for row in report["classes"])


def test_many_classes_and_videos_take_less_than_two_seconds() -> None:
    generator = torch.Generator().manual_seed(0)
    probs, labels = torch.rand(20_000, 400, generator=generator), torch.randint(0, 400, (20_000,), generator=generator)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        start = time.process_time()
        PerClass.of(probs, labels)
    assert time.process_time() - start < 2 * 2  # on two cores that are busy with other tests

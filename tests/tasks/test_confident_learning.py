"""Scores, thresholds and issues are cleanlab's; wrong labels come first."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from vidtrain.tasks.classification import confident_learning as module
from vidtrain.tasks.classification.confident_learning import (
    ScoreName,
    confident_thresholds,
    label_quality,
    multi_label_quality,
)

Case = tuple[npt.NDArray[np.float32], npt.NDArray[np.int64], npt.NDArray[np.bool_]]


def made(seed: int, count: int, classes: int, *, flipped: float = 0.1, certainty: float = 2.0) -> Case:
    """Probabilities of a network that is right more often than not, labels of which some are wrong, and which."""
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, classes, count)
    logits = generator.normal(size=(count, classes))
    logits[np.arange(count), truth] += certainty
    probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    wrong = generator.random(count) < flipped
    labels = np.where(wrong, (truth + generator.integers(1, classes, count)) % classes, truth)
    return probs.astype(np.float32), labels, wrong


@pytest.fixture(params=[(0, 400, 2), (1, 500, 8), (2, 900, 60)], ids=["2 classes", "8", "60"])
def case(request: pytest.FixtureRequest) -> Case:
    return made(*request.param)


@pytest.mark.parametrize("score", list(ScoreName))
def test_a_label_each_as_cleanlab(case: Case, score: ScoreName, monkeypatch: pytest.MonkeyPatch) -> None:
    count, rank, filters = (pytest.importorskip(f"cleanlab.{name}") for name in ("count", "rank", "filter"))
    probs, labels, _ = case
    monkeypatch.setattr(module, "_ROWS", 70)
    exact = probs.astype(np.float64)
    found = label_quality(probs, labels, score)
    expected = rank.get_label_quality_scores(labels, exact, method=str(score))
    np.testing.assert_allclose(found.scores, expected, rtol=1e-9)
    np.testing.assert_allclose(
        confident_thresholds(probs, labels), count.get_confident_thresholds(labels, exact), rtol=1e-9
    )
    issues = filters.find_label_issues(labels, exact, filter_by="confident_learning", min_examples_per_class=0)
    assert found.issues.tolist() == issues.tolist()
    assert 0 < found.issues.sum() < len(labels)
    assert found.suggested.tolist() == probs.argmax(1).tolist()


@pytest.mark.parametrize("score", list(ScoreName))
def test_several_labels_as_cleanlab(score: ScoreName) -> None:
    rank = pytest.importorskip("cleanlab.multilabel_classification.rank")
    filters = pytest.importorskip("cleanlab.multilabel_classification.filter")
    generator = np.random.default_rng(4)
    truth = generator.random((300, 6)) < 0.3
    probs = np.clip(truth * 0.7 + generator.normal(0.15, 0.12, truth.shape), 0.001, 0.999)
    labels = truth ^ (generator.random(truth.shape) < 0.03)
    lists = [np.flatnonzero(row).tolist() for row in labels]
    found = multi_label_quality(probs, labels, score)
    np.testing.assert_allclose(found.scores, rank.get_label_quality_scores(lists, probs, method=str(score)), rtol=1e-9)
    per_class = filters.find_multilabel_issues_per_class(lists, probs, filter_by="confident_learning")
    wrong = np.array(per_class)
    assert found.suggested.tolist() == (labels ^ wrong).tolist()
    assert found.issues.tolist() == wrong.any(1).tolist()


def test_wrong_labels_come_first() -> None:
    probs, labels, wrong = made(5, 800, 8, flipped=0.05, certainty=5.0)
    found = label_quality(probs, labels, ScoreName.normalized_margin)
    first = np.argsort(found.scores)[: int(0.08 * len(labels))]
    assert wrong[first].sum() >= 0.8 * wrong.sum()
    assert (found.issues & wrong).sum() >= max(0.6 * wrong.sum(), 0.9 * found.issues.sum())


def test_a_class_without_a_video_and_a_network_that_knows_nothing() -> None:
    labels = np.array([0, 0, 1, 1])
    even = label_quality(np.full((4, 3), 1 / 3), labels, ScoreName.self_confidence)
    assert not even.issues[:2].any()  # nothing is more probable than the label
    assert confident_thresholds(np.full((4, 3), 1 / 3), labels).tolist() == pytest.approx([1 / 3, 1 / 3, 2])
    sure = label_quality(np.array([[0.1, 0.1, 0.8]] * 4), labels, ScoreName.normalized_margin)
    assert sure.scores == pytest.approx((0.1 - 0.8 + 1) / 2)

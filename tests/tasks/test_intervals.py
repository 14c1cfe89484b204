"""The intervals of a test: how often they hold the truth, and what they are made of."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.tasks.made import scores_of
from vidtrain.tasks.classification import intervals as module
from vidtrain.tasks.classification import metrics, resampling
from vidtrain.tasks.classification.intervals import group_interval, interval, intervals, share_interval
from vidtrain.tasks.classification.per_class import PerClass
from vidtrain.tasks.classification.scores import ClassScores

CLASSES = 8
WATCHED = ("top1", "mean_class", "macro_f1")


def made(videos: int, rng: np.random.Generator, groups: int | None = None) -> tuple[ClassScores, Tensor | None]:
    """The scores of a network that is better at some classes; videos of a group are easy or difficult together."""
    labels = rng.integers(CLASSES, size=videos)
    group = None if groups is None else rng.integers(groups, size=videos)
    scores = rng.normal(size=(videos, CLASSES))
    scores[np.arange(videos), labels] += 2 + 0.1 * labels
    if groups is not None:
        scores[np.arange(videos), labels] += rng.normal(0, 0.7, groups)[group]
    probs = torch.tensor(scores).softmax(1).float()
    return scores_of(probs, torch.tensor(labels)), None if group is None else torch.tensor(group)


def covered(tests: int, videos: int, groups: int | None = None) -> dict[str, float]:
    """The share of the intervals of so many tests that hold the value of 300,000 videos."""
    every, _ = made(300_000, np.random.default_rng(1), None if groups is None else 150_000)
    truth = {**every.summary(), "macro_f1": PerClass.of(every.probs, every.labels).macro_f1}
    rng, found = np.random.default_rng(2), dict.fromkeys(WATCHED, 0)
    for _ in range(tests):
        ends = intervals(*made(videos, rng, groups))
        assert ends is not None
        for key in WATCHED:
            low, high = ends["values"][key]
            found[key] += low <= truth[key] <= high
    return {key: count / tests for key, count in found.items()}


@pytest.mark.slow
@pytest.mark.parametrize("groups", [None, 10, 20, 40, 100])
def test_of_a_thousand_intervals_94_to_96_percent_hold_the_truth(groups: int | None) -> None:
    found = covered(1000 if groups is None else 4000, 200, groups)  # these take less time
    assert 0.94 <= found["top1"] <= 0.96, found
    assert all(0.93 <= share <= 0.96 for share in found.values()), found  # of few videos per class


@pytest.mark.parametrize("groups", [6, 10, 40])
@pytest.mark.parametrize("middle", [1.0, 4.0])  # log-odds: accuracies of about 0.7 and 0.96
def test_intervals_over_groups_hold_the_truth(groups: int, middle: float) -> None:
    """Of 1,000 tests, in which groups of 1 to 9 videos are easy or difficult."""
    rng, tests, held = np.random.default_rng(3), 1000, 0
    truth = float((1 / (1 + np.exp(-middle - rng.normal(size=1_000_000)))).mean())
    videos = rng.integers(1, 10, size=(tests, groups))
    right = rng.binomial(videos, 1 / (1 + np.exp(-middle - rng.normal(size=(tests, groups)))))
    for own, hits in zip(videos, right, strict=True):
        low, high = group_interval(hits.sum() / own.sum(), (hits.sum() - hits) / (own.sum() - own))
        assert 0 <= low < high <= 1
        held += low <= truth <= high
    # where nearly all is right, the only honest interval of few groups is a wide one
    assert 0.94 <= held / tests <= (0.96 if middle == 1.0 else 0.98), held


def test_an_interval_over_groups_is_students_of_the_log_odds() -> None:
    from scipy import special, stats

    hits = np.array([0.9, 0.5, 1.0, 0.8, 0.7, 0.95, 0.6, 0.85, 0.9, 0.8, 0.75, 0.85])  # groups of one size
    low, high = group_interval(0.8, (hits.sum() - hits) / 11)
    half = stats.t.ppf(0.975, 11) * stats.sem(hits) / (0.8 * 0.2)
    assert special.logit([low, high]) == pytest.approx(special.logit(0.8) + np.array([-half, half]), rel=1e-9)
    assert 0.8 - low > high - 0.8
    ten = 0.025 ** (1 / 10)
    assert group_interval(1.0, np.ones(10)) == [pytest.approx(ten), 1.0]
    assert group_interval(0.0, np.zeros(10)) == [0.0, pytest.approx(1 - ten)]
    assert group_interval(1e-9, np.linspace(0, 1, 9)) == pytest.approx([0, 1])  # no overflow


def test_a_left_out_group_is_a_test_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, group = made(60, np.random.default_rng(4), 9)
    assert group is not None
    found = intervals(scores, group)
    assert found is not None
    assert (found["resamples"], found["count"]) == (9, 9)
    hand = [by_hand(scores, np.flatnonzero(group.numpy() != g)) for g in range(9)]
    every = by_hand(scores, np.arange(60))
    for key in ("top1", "top5", "clip_top1", "mean_class", "macro_f1"):
        expected = group_interval(every[key], np.array([one[key] for one in hand]))
        assert found["values"][key] == pytest.approx(expected, abs=1e-9), key
    assert found["values"]["balanced_accuracy"] == found["values"]["mean_class"]
    monkeypatch.setattr(module, "RESAMPLES", 7)  # of more groups than that, some are left out together
    assert intervals(scores, group)["resamples"] == 7  # type: ignore[index]
    monkeypatch.setattr(resampling, "_AT_ONCE", 60)  # one at a time
    assert intervals(scores, group % 7)["values"] == intervals(scores, group)["values"]  # type: ignore[index]


def test_intervals_hold_the_truth(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same, of fewer tests and resamples."""
    monkeypatch.setattr(module, "RESAMPLES", 300)
    found = covered(120, 100)
    assert all(0.90 <= share <= 0.99 for share in found.values()), found


def exact(videos: int, right: int) -> tuple[float, float]:
    """Of an accuracy: the same interval from the binomial law that its resamples have."""
    from scipy import stats

    counts = np.arange(videos + 1)
    law = stats.binom.pmf(counts, videos, right / videos)
    place, there = np.cumsum(law) - law / 2, law > 1e-15
    tail = stats.norm.cdf(-np.sqrt(videos / (videos - 1)) * stats.t.ppf(0.975, videos - 1))
    low, high = np.interp([tail, 1 - tail], place[there], counts[there] / videos)
    return float(low), float(high)


def coverage(videos: int, ends: np.ndarray) -> float:
    """Worked out, not drawn: of intervals (videos + 1, 2) by right answers, averaged over accuracies of 0.5 to 0.95."""
    from scipy import stats

    shares = []
    for truth in np.linspace(0.5, 0.95, 91):
        holds = (ends[:, 0] <= truth + 1e-12) & (truth <= ends[:, 1] + 1e-12)
        shares.append((stats.binom.pmf(np.arange(videos + 1), videos, truth) * holds).sum())
    return float(np.mean(shares))


@pytest.mark.parametrize("videos", [5, 6, 10, 65, 200])
def test_the_interval_of_an_accuracy_is_wilsons(videos: int) -> None:
    from scipy import stats

    ends = [share_interval(right / videos, videos) for right in range(videos + 1)]
    for right in range(1, videos):
        expected = stats.binomtest(right, videos).proportion_ci(method="wilson")
        assert ends[right] == pytest.approx([expected.low, expected.high])
    for right in (0, 1, videos // 3, videos - 1, videos):
        scores = scores_of(torch.eye(2)[(torch.arange(videos) >= right).long()], torch.zeros(videos).long())
        found = intervals(scores, None)
        assert found is not None
        assert found["values"]["top1"] == ends[right]
    assert 0.945 <= coverage(videos, np.array(ends)) <= (0.956 if videos > 10 else 0.97)


def test_what_counts_in_parts_is_no_share_of_videos() -> None:
    """Of several views some may be right: as sure as the average over them, which is surer than right or wrong."""
    rows, hits = torch.eye(8)[torch.arange(40) % 2], torch.arange(40) % 2 == 0
    whole = intervals(scores_of(rows, torch.zeros(40).long(), hits=hits.double()), None)
    parts = intervals(scores_of(rows, torch.zeros(40).long(), hits=torch.tensor([0.4, 0.6]).double().repeat(20)), None)
    assert whole is not None
    assert parts is not None
    assert whole["values"]["clip_top1"] == whole["values"]["top1"] == share_interval(0.5, 40)
    low, high = parts["values"]["clip_top1"]
    assert 0.46 < low < 0.5 < high < 0.54


def test_shares_alone_need_no_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_RANKED", 0)
    monkeypatch.setattr(module, "draws", lambda *_: (pytest.fail("drawn for nothing") for _ in "x"))
    found = intervals(scores_of(torch.eye(2).repeat(20, 1), torch.eye(2).repeat(20, 1)), None)
    assert found is not None
    assert (found["resamples"], found["values"].keys()) == (0, {"clip_top1", "top1"})


@pytest.mark.parametrize("videos", [65, 200])
def test_the_bootstrap_of_an_accuracy_is_centred_on_its_level(videos: int) -> None:
    from scipy import stats

    ends = np.array([exact(videos, right) if 0 < right < videos else (0, 1) for right in range(videos + 1)])
    assert 0.945 <= coverage(videos, ends) <= 0.956
    for right in (videos // 2, videos * 4 // 5):
        law = stats.binom.pmf(np.arange(videos + 1), videos, right / videos)
        resamples = np.repeat(
            np.arange(videos + 1) / videos, np.round(law * 1e6).astype(int)
        )  # as many as one may like
        assert interval(resamples, videos) == pytest.approx(exact(videos, right), abs=1e-3)


def by_hand(scores: ClassScores, rows: np.ndarray) -> dict[str, float]:
    """The metrics of the videos that a resample has drawn."""
    drawn = scores_of(scores.probs[rows], scores.labels[rows], hits=scores.clip_hits[rows])
    every = drawn.summary()
    return {**every, "macro_f1": PerClass.of(drawn.probs, drawn.labels).macro_f1}


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("groups", [None, 12])
def test_a_resample_is_a_test_of_the_videos_it_draws(several: bool, groups: int | None) -> None:
    """With ties, with classes that a resample does not have."""
    generator = torch.Generator().manual_seed(3)
    probs = torch.randint(0, 9, (40, 7), generator=generator) / 9
    labels = torch.randint(0, 7, (40,), generator=generator)
    if several:
        labels = (torch.rand(40, 7, generator=generator) < 0.15).float()
    scores = scores_of(probs, labels, hits=torch.rand(40, generator=generator).double())
    group = None if groups is None else torch.randint(0, groups, (40,), generator=generator)
    resampled = module._resampled(scores)
    wanted = {"top1", "clip_top1", "map"} if several else {"top1", "top5", "clip_top1", "mean_class", "macro_f1"}
    assert resampled.keys() == wanted
    weights = next(resampling.draws(40) if group is None else resampling.left_out(group.numpy()))[:25]
    found = {key: metric(weights) for key, metric in resampled.items()}
    for number, drawn in enumerate(weights):
        if group is not None:
            assert np.array_equal(drawn, group.numpy() != number)
        hand = by_hand(scores, np.repeat(np.arange(40), drawn.astype(int)))
        for key in wanted:
            assert found[key][number] == pytest.approx(hand[key], abs=1e-9), key


def test_groups_make_an_interval_wider() -> None:
    """Ten copies of each video are no more than that video."""
    scores, _ = made(30, np.random.default_rng(0))
    many = scores_of(scores.probs.repeat(10, 1), scores.labels.repeat(10))
    alone, copies = intervals(scores, None), intervals(many, torch.arange(30).repeat(10))
    pretended = intervals(many, None)
    assert alone is not None
    assert copies is not None
    assert pretended is not None
    assert (copies["over"], copies["count"], pretended["over"], pretended["count"]) == ("groups", 30, "videos", 300)
    for own, other in zip(alone["values"]["top1"], copies["values"]["top1"], strict=True):
        assert own == pytest.approx(other, abs=0.05)
    widths = [high - low for low, high in (copies["values"]["top1"], pretended["values"]["top1"])]
    assert widths[1] < widths[0] / 2.5  # about the root of ten


def test_all_right_is_not_certain() -> None:
    scores = scores_of(torch.eye(3).repeat(10, 1), torch.arange(3).repeat(10))
    found = intervals(scores, None)
    assert found is not None
    assert found["values"]["top1"] == [pytest.approx(0.025 ** (1 / 30)), 1.0]  # Clopper and Pearson
    assert interval(np.zeros(5), 30) == [0.0, pytest.approx(1 - 0.025 ** (1 / 30))]


def test_few_videos_have_no_interval() -> None:
    scores, _ = made(4, np.random.default_rng(0))
    assert intervals(scores, None) is None
    scores, _ = made(40, np.random.default_rng(0))
    assert intervals(scores, torch.arange(40) % 4) is None
    assert intervals(scores, torch.arange(40) % 5) is not None
    unknown = scores_of(torch.rand(9, 3), torch.full((9,), -1))
    assert unknown.report()["intervals"] is None


def test_the_same_videos_give_the_same_interval() -> None:
    scores, _ = made(50, np.random.default_rng(0))
    first = scores.report()["intervals"]
    assert first == scores_of(scores.probs, scores.labels).report()["intervals"]
    assert set(first["values"]) <= {metric.key for metric in metrics.METRICS}
    assert first["values"]["balanced_accuracy"] == first["values"]["mean_class"]

"""Tests between classifiers equal statsmodels', SciPy's and scikit-learn's, and hold their error rates."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import special, stats

from vidtrain.tasks.classification import resampling, student
from vidtrain.tasks.classification import significance as s
from vidtrain.tasks.classification.metrics import mean_average_precision

PAIRS = [(0, 0), (1, 0), (0, 1), (3, 3), (5, 12), (40, 21), (0, 30), (700, 640), (9_000, 9_400), (60_000, 40_000)]


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_mcnemar_equals_statsmodels(first: int, second: int) -> None:
    tests = pytest.importorskip("statsmodels.stats.contingency_tables")
    found, counts = s.mcnemar(first, second), [[17, first], [second, 4]]
    assert found.exact == pytest.approx(tests.mcnemar(counts, exact=True).pvalue, rel=1e-9, abs=1e-300)
    point = stats.binom.pmf(min(first, second), first + second, 0.5) if first + second else 0
    assert found.mid_p == pytest.approx(found.exact - point if first != second else 1 - point / 2, rel=1e-9, abs=1e-300)
    if first + second:
        assert found.chi2 == pytest.approx(tests.mcnemar(counts, exact=False, correction=True).pvalue, rel=1e-9)
    assert s.mcnemar(second, first) == found


def test_holm_equals_statsmodels() -> None:
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    for values in ([0.01, 0.04, 0.03, 0.005], [0.2], [0.5, 0.5, 0.9], [1e-9, 1e-9, 0.04]):
        assert s.holm(values) == pytest.approx(multitest.multipletests(values, method="holm")[1], rel=1e-12)
    assert s.holm([]) == []


def test_students_t_equals_scipy() -> None:
    for freedom in (1, 1.37, 2, 2.5, 4, 5, 9, 10, 30.7, 64, 120, 1000, 1e4):
        for t in (0, 1e-6, 0.1, 0.9, 2, 3.7, 12, 250, 1e5):
            assert student.t_p_value(t, freedom) == pytest.approx(2 * stats.t.sf(t, freedom), rel=1e-10, abs=1e-300)
            assert student.t_p_value(-t, freedom) == student.t_p_value(t, freedom)
        for level in (0.5, 0.95, 0.999):
            assert student.t_quantile(level, freedom) == pytest.approx(stats.t.ppf((1 + level) / 2, freedom), rel=1e-10)


def test_welch_equals_scipy() -> None:
    generator = np.random.default_rng(0)
    for first, second in ((3, 5), (2, 2), (10, 4)):
        a, b = generator.normal(0.8, 0.02, first).tolist(), generator.normal(0.83, 0.05, second).tolist()
        found, expected = s.welch(a, b), stats.ttest_ind(a, b, equal_var=False)
        assert found is not None
        assert (found.p, found.freedom) == pytest.approx((expected.pvalue, expected.df), rel=1e-10)
        interval = expected.confidence_interval(0.95)
        assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-9)
    assert s.welch([0.5, 0.5], [0.6, 0.6, 0.6]) is None


def test_the_paired_test_without_overlap_is_scipys_and_with_it_is_wider() -> None:
    differences = [0.02, 0.05, -0.01, 0.04, 0.03]
    found, expected = s.corrected_paired_t(differences, 0.0), stats.ttest_1samp(differences, 0)
    assert found is not None
    interval = expected.confidence_interval(0.95)
    assert (found.p, found.low, found.high) == pytest.approx((expected.pvalue, interval.low, interval.high), rel=1e-9)
    folds = s.corrected_paired_t(differences, 1 / 4)
    assert folds is not None
    # (1/5 + 1/4) in the place of 1/5: the error is 1.5 times as large
    assert folds.high - folds.low == pytest.approx(1.5 * (interval.high - interval.low), rel=1e-9)
    assert folds.p == pytest.approx(2 * stats.t.sf(abs(expected.statistic) / 1.5, 4), rel=1e-9)
    assert s.corrected_paired_t([0.1, 0.1], 0.25) is None
    half = (interval.high - interval.low) / 2
    assert [s.half_interval(differences), s.half_interval(differences, 0.25)] == pytest.approx([half, 1.5 * half])


def test_weighted_statistics_are_those_of_the_repeated_videos() -> None:
    generator = np.random.default_rng(1)
    count, classes = 60, 5
    scores = generator.integers(0, 8, (count, classes)) / 8  # with ties
    truth = generator.random((count, classes)) < 0.2
    truth[:, 4] = False  # a class that no video has
    values, labels = generator.random(count), generator.integers(0, classes, count)
    weights = generator.integers(0, 3, (7, count)).astype(np.float64)
    weights[0] = 1
    means = resampling.mean_of(values)(weights)
    by_class = resampling.class_mean_of(values, labels)(weights)
    maps = resampling.mean_average_precision_of(scores, truth)(weights)
    for row, own in enumerate(weights.astype(int)):
        drawn = np.repeat(np.arange(count), own)
        assert means[row] == pytest.approx(values[drawn].mean(), rel=1e-12)
        there = [values[drawn][labels[drawn] == k].mean() for k in np.unique(labels[drawn])]
        assert by_class[row] == pytest.approx(np.mean(there), rel=1e-12)
        expected = mean_average_precision(torch.tensor(scores[drawn]), torch.tensor(truth[drawn]).float())
        assert maps[row] == pytest.approx(expected, rel=1e-12)
    assert not np.isfinite(resampling.mean_average_precision_of(scores, np.zeros_like(truth))(weights)).any()


def bootstrap(values: np.ndarray, **options: int) -> s.Bootstrap:
    statistic, count = resampling.mean_of(values), len(values)
    return s.Bootstrap.of(resampling.of_all(statistic, count), s.resampled([statistic], count, **options)[:, 0])


def test_the_bootstrap_is_the_same_whatever_fits_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(2).random(50) - 0.3
    found = bootstrap(values)
    error = values.std(ddof=1) / math.sqrt(50)
    assert found.value == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((found.value - 2 * error, found.value + 2 * error), abs=error / 4)
    monkeypatch.setattr(resampling, "_AT_ONCE", 730)
    assert bootstrap(values) == found
    assert bootstrap(np.full(9, 0.25)) == s.Bootstrap(0.25, 0.25, 0.25, 2 / 1001)
    assert bootstrap(np.zeros(9)).p == 1
    nowhere = s.Bootstrap.of(math.nan, np.full(5, np.nan))
    assert all(map(math.isnan, (nowhere.low, nowhere.high, nowhere.p)))


def test_resamples_are_paired() -> None:
    values = np.random.default_rng(4).random(40)
    columns = s.resampled([resampling.mean_of(values), resampling.mean_of(values + 0.125)], 40)
    np.testing.assert_allclose(columns[:, 1] - columns[:, 0], 0.125, rtol=1e-9)
    assert columns[:, 0].std() > 0.01


def test_the_interval_of_a_difference_holds_the_truth() -> None:
    """Two classifiers, 74 % and 80 % right, agreeing more often than chance would have them, on 200 videos."""
    generator, held, trials, rejected = np.random.default_rng(3), 0, 400, 0
    for trial in range(trials):
        both, first, second, neither = generator.multinomial(200, (0.68, 0.06, 0.12, 0.14))
        difference = np.repeat([0.0, 1.0, -1.0, 0.0], [both, first, second, neither])
        found = bootstrap(difference, resamples=400, seed=trial)
        held += found.low <= -0.06 <= found.high
        same = generator.binomial(36, 0.5)
        rejected += s.mcnemar(same, 36 - same).exact < 0.05
    # of 400 trials at 95 % the standard deviation is 1.1 %
    assert 0.92 <= held / trials <= 0.98
    assert rejected / trials <= 0.05 + 0.022


def test_the_incomplete_beta_function() -> None:
    for a, b, x in ((0.5, 0.5, 0.3), (40, 0.5, 0.99), (3, 7, 1e-8), (200, 300, 0.4)):
        assert student._incomplete_beta(x, 1 - x, a, b) == pytest.approx(special.betainc(a, b, x), rel=1e-10)

"""Scores of segments: by hand, and against each published rule written down once more, slowly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidtrain.segments import Segment
from vidtrain.tasks.segments.average_precision import (
    AMBIGUOUS,
    average_precision,
    mean_average_precision,
    thumos_average_precision,
)
from vidtrain.tasks.segments.frame_metrics import edit_score, frame_accuracy, frame_labels, runs_of, segmental_f1

NAMES = ["walk", "run", "jump"]


def segment(start: float, end: float, score: float = 1.0, label: str = "walk") -> Segment:
    return Segment(start, end, label, score)


def test_average_precision_by_hand() -> None:
    truth = {"a": [segment(0, 10), segment(20, 30)], "b": [segment(5, 15)]}
    # right, wrong (too short), a second one for a segment that is taken, right at 0.5 alone
    found = {
        "a": [segment(0, 10, 0.9), segment(20, 24, 0.8), segment(0, 9, 0.7)],
        "b": [segment(5, 11, 0.6)],
        "c": [segment(0, 5, 0.1)],
    }
    at_half, at_most = average_precision(truth, found, "walk", [0.5, 0.95])
    # recall 1/3 at precision 1; 2/3 at 2 of 4
    assert at_half == pytest.approx(1 / 3 * 1 + 1 / 3 * 0.5)
    assert at_most == pytest.approx(1 / 3)
    assert np.isnan(average_precision(truth, found, "run", [0.5])).all()
    assert mean_average_precision(truth, found, ["walk"], [0.5])[0] == at_half
    assert average_precision(truth, {}, "walk", [0.5])[0] == 0


def activitynets(truth: Any, found: Any, label: str, threshold: float) -> float:
    """ActivityNet's evaluator step by step, as its description says, one detection after the other."""
    wanted = [(video, s) for video, all_ in truth.items() for s in all_ if s.label == label]
    ranked = sorted(((s, v) for v, all_ in found.items() for s in all_ if s.label == label), key=lambda p: -p[0].score)
    locked: set[int] = set()
    hits: list[int] = []
    for s, video in ranked:
        rows = [(n, w) for n, (v, w) in enumerate(wanted) if v == video]
        rows.sort(key=lambda row: -(max(0.0, min(s.end, row[1].end) - max(s.start, row[1].start))) / (
            max(s.end, row[1].end) - min(s.start, row[1].start)
            if min(s.end, row[1].end) > max(s.start, row[1].start) else s.seconds + row[1].seconds
        ))  # fmt: skip
        hit = 0
        for n, w in rows:
            shared = max(0.0, min(s.end, w.end) - max(s.start, w.start))
            if shared / (s.seconds + w.seconds - shared) < threshold:
                break
            if n not in locked:
                locked.add(n)
                hit = 1
                break
        hits.append(hit)
    area, best = 0.0, 0.0
    precisions = [sum(hits[: k + 1]) / (k + 1) for k in range(len(hits))]
    for k in reversed(range(len(hits))):
        best = max(best, precisions[k])
        area += hits[k] / len(wanted) * best
    return area


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.3, 0.5, 0.75]))
def test_average_precision_is_activitynets(seed: int, threshold: float) -> None:
    rng = np.random.default_rng(seed)

    def made(count: int) -> list[Segment]:
        starts = rng.uniform(0, 20, count)
        return [segment(s, s + rng.uniform(1, 8), float(rng.random())) for s in starts.tolist()]

    truth = {video: made(int(rng.integers(1, 5))) for video in "ab"}
    found = {video: made(int(rng.integers(0, 8))) for video in "abc"}
    wanted = activitynets(truth, found, "walk", threshold)
    assert average_precision(truth, found, "walk", [threshold])[0] == pytest.approx(wanted, abs=1e-9)


def thumos(truth: Any, found: Any, label: str, threshold: float) -> float:
    """THUMOS14's kit step by step: every segment takes its detection, then all detections are ranked."""
    flags: list[tuple[float, int]] = []
    for video in sorted({*truth, *found}):
        own = sorted((s for s in found.get(video, ()) if s.label == label), key=lambda s: -s.score)
        free = [True] * len(own)
        for w in (w for w in truth.get(video, ()) if w.label == label):
            best, most = None, threshold
            for n, s in enumerate(own):
                shared = min(s.end, w.end) - max(s.start, w.start)
                if free[n] and shared > 0 and shared / (max(s.end, w.end) - min(s.start, w.start)) > most:
                    best, most = n, shared / (max(s.end, w.end) - min(s.start, w.start))
            if best is not None:
                free[best] = False
        for n, s in enumerate(own):
            unclear = any(
                min(s.end, w.end) > max(s.start, w.start) for w in truth.get(video, ()) if w.label == AMBIGUOUS
            )
            if not free[n] or not unclear:
                flags.append((s.score, 0 if free[n] else 1))
    flags.sort(key=lambda flag: -flag[0])
    right, total = 0, 0.0
    for rank, (_, hit) in enumerate(flags, 1):
        right += hit
        total += hit * right / rank
    return total / sum(w.label == label for all_ in truth.values() for w in all_)


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.3, 0.5, 0.7]))
def test_average_precision_is_that_of_thumos(seed: int, threshold: float) -> None:
    rng = np.random.default_rng(seed)

    def made(count: int, names: list[str]) -> list[Segment]:
        starts = rng.uniform(0, 30, count).tolist()
        return [segment(s, s + rng.uniform(1, 8), rng.random(), str(rng.choice(names))) for s in starts]

    truth = {video: [segment(3, 9), *made(int(rng.integers(1, 6)), ["walk", "run", AMBIGUOUS])] for video in "ab"}
    found = {video: made(int(rng.integers(0, 12)), ["walk", "run"]) for video in "abc"}
    wanted = thumos(truth, found, "walk", threshold)
    assert thumos_average_precision(truth, found, "walk", [threshold])[0] == pytest.approx(wanted, abs=1e-9)


def test_the_two_definitions_differ() -> None:
    truth = {"a": [segment(0, 10), segment(20, 30)]}
    # wrong, right, right: interpolated 2/3 everywhere, else 1/2 and 2/3
    found = {"a": [segment(50, 60, 0.9), segment(0, 10, 0.8), segment(20, 30, 0.7)]}
    assert average_precision(truth, found, "walk", [0.5])[0] == pytest.approx(2 / 3)
    assert thumos_average_precision(truth, found, "walk", [0.5])[0] == pytest.approx((1 / 2 + 2 / 3) / 2)
    # what touches an ambiguous segment is no mistake there
    unclear = {"a": [*truth["a"], segment(55, 56, label=AMBIGUOUS)]}
    assert thumos_average_precision(unclear, found, "walk", [0.5])[0] == 1
    # an overlap that is just the threshold is enough for one of them
    half = {"a": [segment(0, 5, 0.9)]}
    assert average_precision({"a": [segment(0, 10)]}, half, "walk", [0.5])[0] == 1
    assert thumos_average_precision({"a": [segment(0, 10)]}, half, "walk", [0.5])[0] == 0


def test_ties_keep_their_order_and_empty_ones_have_a_score() -> None:
    truth = {"a": [segment(0, 10)]}
    wrong, right = segment(40, 50, 0.5), segment(0, 10, 0.5)
    for of in (average_precision, thumos_average_precision):
        assert of(truth, {"a": [right, wrong]}, "walk", [0.5])[0] == 1
        assert of(truth, {"a": [wrong, right]}, "walk", [0.5])[0] == 0.5
        assert of(truth, {}, "walk", [0.5])[0] == 0
        assert np.isnan(of({}, {"a": [right]}, "walk", [0.5])).all()
        # a class that the truth lacks is not averaged over, one that is never found is
        assert mean_average_precision(truth, {"a": [right]}, NAMES, [0.5], of)[0] == 1
        both = {"a": [*truth["a"], segment(20, 30, label="run")]}
        assert mean_average_precision(both, {"a": [right]}, NAMES, [0.5], of)[0] == 0.5
        assert np.isnan(mean_average_precision({}, {}, NAMES, [0.5], of)).all()
        for odd in (segment(float("nan"), 1), segment(0, float("inf")), segment(0, 1, float("nan")), segment(2, 1)):
            with pytest.raises(ValueError, match="a: a segment from"):
                of(truth, {"a": [odd]}, "walk", [0.5])


# ---------------------------------------------------------------- frame by frame


def test_labels_of_frames() -> None:
    truth, found = [segment(0, 2), segment(4, 6, label="run")], [segment(1, 3), segment(4, 6)]
    one, other = (frame_labels(part, NAMES, 8, 10) for part in (truth, found))
    assert one.tolist() == [0] * 20 + [-1] * 20 + [1] * 20 + [-1] * 20
    assert frame_accuracy([one], [other]) == pytest.approx((1 + 1 + 2) / 8)
    assert frame_accuracy([one, one[:20]], [one, other[:20]]) == pytest.approx(90 / 100)  # pooled, not averaged
    assert np.isnan(frame_accuracy([], []))
    overlapping = [segment(0, 4, 0.5), segment(2, 6, 0.9, "run"), segment(3, 8, 0.1, "jump")]
    assert frame_labels(overlapping, NAMES, 8, 1).tolist() == [0, 0, 1, 1, 1, 1, 2, 2]


def slow_runs(labels: list[int]) -> list[tuple[int, int, int]]:
    runs: list[list[int]] = []
    for at, label in enumerate(labels):
        if runs and runs[-1][0] == label and runs[-1][2] == at:
            runs[-1][2] = at + 1
        elif label >= 0:
            runs.append([label, at, at + 1])
    return [(label, start, end) for label, start, end in runs]


def slow_f1(truth: list[list[int]], found: list[list[int]], overlap: float) -> float:
    """MS-TCN's rule: precision and recall of all videos' segments, then their harmonic mean."""
    tp = fp = fn = 0
    for own, other in zip(truth, found, strict=True):
        wanted, hit = slow_runs(own), set()
        for label, start, end in slow_runs(other):
            best, most = 0, -9.0
            for n, (true, first, last) in enumerate(wanted):
                iou = (min(end, last) - max(start, first)) / (max(end, last) - min(start, first)) * (label == true)
                if iou > most:
                    best, most = n, iou
            if most >= overlap and best not in hit:
                hit.add(best)
                tp += 1
            else:
                fp += 1
        fn += len(wanted) - len(hit)
    if not tp:
        return 0.0
    precision, recall = tp / (tp + fp), tp / (tp + fn)
    return 2 * precision * recall / (precision + recall)


def levenshtein(one: list[int], other: list[int]) -> int:
    if not one or not other:
        return len(one) + len(other)
    same = levenshtein(one[:-1], other[:-1]) + (one[-1] != other[-1])
    return min(levenshtein(one[:-1], other) + 1, levenshtein(one, other[:-1]) + 1, same)


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1))
def test_frame_scores_are_those_of_ms_tcn(seed: int) -> None:
    rng = np.random.default_rng(seed)

    def labels() -> list[int]:
        parts = rng.integers(-1, 3, 5).tolist()
        return [part for part in parts for _ in range(int(rng.integers(1, 9)))][:36] + [2] * 3

    pairs = [(labels(), labels()) for _ in range(3)]
    pairs = [(one[: len(other)], other[: len(one)]) for one, other in pairs]
    truth, found = ([np.array(pair[side]) for pair in pairs] for side in (0, 1))
    assert [runs_of(one) for one in truth] == [slow_runs(one) for one, _ in pairs]
    for overlap in (0.1, 0.25, 0.5):
        wanted = slow_f1([one for one, _ in pairs], [other for _, other in pairs], overlap)
        assert segmental_f1(truth, found, [overlap])[0] == pytest.approx(wanted, abs=1e-12)
    orders = [([r[0] for r in slow_runs(one)], [r[0] for r in slow_runs(other)]) for one, other in pairs]
    edits = [1 - levenshtein(a, b) / max(len(a), len(b), 1) for a, b in orders]
    assert edit_score(truth, found) == pytest.approx(sum(edits) / 3, abs=1e-12)


def test_frame_scores_where_nothing_happens() -> None:
    nothing, walk = np.full(10, -1), np.zeros(10, np.int64)
    assert edit_score([nothing], [nothing]) == 1
    assert edit_score([walk], [nothing]) == edit_score([nothing], [walk]) == 0
    assert segmental_f1([walk], [nothing]) == [0, 0, 0]
    assert np.isnan(segmental_f1([nothing], [walk])).all()
    # a mistake in an empty video costs precision in the others
    assert segmental_f1([walk, nothing], [walk, walk])[0] == pytest.approx(2 / 3)
    assert np.isnan(edit_score([], []))

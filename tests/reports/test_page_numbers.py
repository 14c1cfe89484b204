"""What the page of a run says of the numbers of its test, section by section."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.reports.made import made_result
from tests.reports.test_page import Parsed
from vidtrain.reports.confusion import ConfusedPair
from vidtrain.reports.page import sections
from vidtrain.reports.page.charts import confusion_table
from vidtrain.reports.page.content import Clip, PairClips, ReportContent
from vidtrain.reports.result_format import check_result
from vidtrain.reports.results import ScoredVideo, TestResult

TITLES = {"map": "mAP", "top1": "top-1", "mean_class": "mean class accuracy", "balanced_accuracy": "balanced accuracy"}


def content(test: dict[str, Any] | None = None, **parts: Any) -> ReportContent:
    """Of four classes and 40 videos. test: parts of result.json that are others."""
    result = {**made_result(4, 40), **(test or {})}
    check_result(result)
    parts.setdefault("primary", "map" if result["multi_label"] else "top1")
    test_result = TestResult(Path("out"), result, tuple(result["class_names"]))
    return ReportContent(title="run", test=test_result, titles=TITLES, **parts)


def said(html: str) -> str:
    """The text of a section, its elements apart by a space."""
    return " ".join(Parsed(html).words)


def test_the_interval_says_over_what_where_that_is_not_videos() -> None:
    found = {"level": 0.9, "resamples": 9, "over": "groups", "count": 7, "values": {"top1": [0.41, 0.9]}}
    assert ", 90 % interval 0.410 to 0.900 over 7 groups" in said(sections.verdict(content({"intervals": found})))
    alone = said(sections.verdict(content({"intervals": {**found, "over": "videos"}})))
    assert "to 0.900 Scored" in alone
    assert "interval" not in said(sections.verdict(content({"intervals": None})))


def test_what_one_class_as_the_answer_to_all_would_reach() -> None:
    assert "One class as the answer to all would reach 0.250." in said(sections.verdict(content()))
    rows = made_result(4, 40)["classes"]
    rows[2]["support"] = 30
    text = said(sections.verdict(content({"classes": rows})))
    assert "The largest class, “class_002”, as the answer to all would reach 0.500." in text
    several = content({"classes": rows, "multi_label": True, "confusion": None, "map": 0.4})
    assert "as the answer to all" not in said(sections.verdict(several))
    assert said(sections.verdict(several)).startswith("mAP 0.400 on 40 videos of the test split")


def test_the_lowest_and_the_most_confused_classes_are_named() -> None:
    rows = made_result(4, 40)["classes"]
    for number, f1 in enumerate([0.9, 0.3, 0.5, 0.7]):
        rows[number]["f1"] = f1
    confusion = [[9, 1, 0, 0], [0, 6, 4, 0], [0, 0, 10, 0], [2, 0, 0, 8]]
    text = said(sections.verdict(content({"classes": rows, "confusion": confusion})))
    assert "Lowest F1: “class_001” (0.30), “class_002” (0.50)." in text
    assert "Most often confused: “class_001” taken for “class_002”, 4 of 10." in text


def test_a_number_under_two_names_is_one_tile() -> None:
    values = {"mean_class": 0.5, "balanced_accuracy": 0.5, "map": 0.125}
    tiles = said(sections.tiles(content(values, numbers={"minutes": "3.2"})))
    assert "mean class accuracy" in tiles
    assert "balanced accuracy" not in tiles
    assert tiles.endswith("3.2 minutes")
    assert "balanced accuracy" in said(sections.tiles(content({**values, "multi_label": True})))


def test_a_threshold_says_what_is_answered_and_how_much_of_it_is_right() -> None:
    curve = [{"threshold": t, "coverage": 1 - t, "precision": p} for t, p in ((0.1, 0.6), (0.5, 0.9), (0.9, None))]
    rejection = {"threshold": 0.5, "wanted_precision": 0.875, "precision": 0.9, "coverage": 0.625, "curve": curve}
    html = sections.reliability(content({"rejection": rejection}))
    assert (
        "Answering from a probability of 0.500 on, 0.625 of the videos are answered and 0.900 of these are right "
        "(wanted: 0.875)."
    ) in said(html)
    points = [(float(c["cx"]), float(c["cy"])) for c in Parsed(html).all("circle")]  # the third has no precision
    assert points == sorted(points, key=lambda point: point[0])  # from little answered to all
    assert points[0][1] < points[1][1]  # of which less is right
    none = {**rejection, "precision": None, "coverage": 0.0}
    assert "0.000 of the videos are answered (wanted: 0.875)." in said(
        sections.reliability(content({"rejection": none}))
    )
    assert "Answering from" not in said(sections.reliability(content()))


def test_sets_of_classes_say_their_size_and_how_often_they_hold_the_true_one() -> None:
    conformal = {"wanted_coverage": 0.9, "threshold": 0.2, "coverage": 0.925, "mean_size": 1.75}
    text = said(sections.reliability(content({"conformal": conformal})))
    assert "Sets of 1.75 classes on average hold the true one for 0.925 of the videos (wanted: 0.900)." in text
    assert "Sets of" not in said(sections.reliability(content({"conformal": {**conformal, "coverage": None}})))


def test_a_bar_of_the_reliability_is_as_high_as_its_share_that_is_right() -> None:
    def bar(low: float, accuracy: float, count: int) -> dict[str, Any]:
        return {"low": low, "high": low + 0.5, "confidence": low + 0.2, "accuracy": accuracy, "count": count}

    calibration = {"temperature": None, "ece": 0.1, "ece_uncalibrated": 0.1}
    bins = [bar(0.0, 0.25, 1), bar(0.5, 0.75, 4)]
    bars = Parsed(sections.reliability(content({"calibration": {**calibration, "bins": bins}}))).all("rect")
    heights = [float(each["height"]) for each in bars]
    assert heights[1] == pytest.approx(3 * heights[0], rel=1e-3)
    assert [float(each["opacity"]) for each in bars] == [0.62, 1.0]  # a quarter of the videos of the fullest: its root


def test_the_worst_class_comes_first_and_those_without_a_video_last() -> None:
    rows = made_result(4, 40)["classes"]
    for number, f1 in enumerate([0.9, 0.3, None, 0.7]):
        rows[number] |= {"f1": f1, "support": 0 if f1 is None else 10}
    html = sections.classes(content({"classes": rows}))
    names = [word for word in Parsed(html).words if word.startswith("class_")]
    assert names == ["class_001", "class_003", "class_000", "class_002"]


def test_every_number_of_a_class_stands_below_its_title() -> None:
    rows = made_result(4, 40)["classes"]
    keys = ("precision", "recall", "f1", "average_precision", "auc")
    rows[0] |= {"support": 11, "predicted": 12, **{key: (n + 1) / 10 for n, key in enumerate(keys)}}
    page = Parsed(sections.classes(content({"classes": rows})))
    words = page.words
    titles = words[: words.index("AUC") + 1]
    assert titles == ["class", "videos", "predicted", "precision", "recall", "F1", "average precision", "AUC"]
    at = words.index("class_000")
    assert words[at + 1 : at + 8] == ["11", "12", "0.100", "0.200", "0.300", "0.400", "0.500"]
    values = [cell["data-v"] for cell in page.all("td") if "data-v" in cell]
    assert values.index("11") == values.index("12") - 1


def test_a_cell_of_the_confusion_is_of_its_row_and_coloured_by_whether_it_is_right() -> None:
    page = Parsed(confusion_table(np.array([[3, 1], [0, 4]]), ["walk", "run"]))
    cells = [(cell.get("class"), cell.get("style"), cell.get("title")) for cell in page.all("td")]
    assert cells == [
        ("d full", "--s:75%", "0.750 of its row"),
        ("e", "--s:25%", "0.250 of its row"),
        (None, None, None),
        ("d full", "--s:100%", "1.000 of its row"),
    ]
    assert page.words[1:] == ["walk", "run", "walk", "3", "1", "run", "4"]


def test_a_clip_says_what_it_is_what_was_answered_and_where_in_the_file() -> None:
    video = ScoredVideo("a/b.mp4", "/x/b.mp4", ("walk",), (("run", 0.7), ("walk", 0.2)), 1.5, 4.0)
    text = said(sections.errors(content(errors=[Clip(video, note="gone")])))
    assert " ".join(text.split()) == "gone walk answered run 0.700; its own class 0.200 a/b.mp4 from 1.5 s to 4 s"
    whole = ScoredVideo("a/b.mp4", "/x/b.mp4", ("fall",), (("run", 0.7), ("walk", 0.2)))
    text = said(sections.errors(content(errors=[Clip(whole, note="gone")])))
    assert " ".join(text.split()) == "gone fall answered run 0.700 a/b.mp4"  # fall is not among the first answers


def test_a_long_path_breaks_after_a_folder_or_a_word_and_stays_itself() -> None:
    html = sections.errors(content(errors=[Clip(ScoredVideo("a/b__<c>_d.mp4", "/x", ("walk",), (("run", 0.7),)))]))
    assert "<small>a/<wbr>b__<wbr>&lt;c&gt;_<wbr>d.mp4</small>" in html


def test_the_still_image_is_for_those_who_want_no_motion() -> None:
    video = ScoredVideo("b.mp4", "/x/b.mp4", ("walk",), (("run", 0.7),))
    page = Parsed(sections.errors(content(errors=[Clip(video, b"moves", b"still")])))
    [source], [image] = page.all("source"), page.all("img")
    assert source == {"media": "(prefers-reduced-motion: reduce)", "srcset": "data:image/webp;base64,c3RpbGw="}
    assert image["src"] == "data:image/webp;base64,bW92ZXM="
    assert image["alt"] == "b.mp4: walk, answered run"


def test_a_pair_is_named_with_its_count() -> None:
    video = ScoredVideo("b.mp4", "/x/b.mp4", ("class_002",), (("class_003", 0.7),))
    text = said(sections.pairs(content(pairs=[PairClips(ConfusedPair(2, 3, 4, 10), [Clip(video, note="gone")])])))
    assert text.startswith("class_002, taken for class_003: 4 of 10 gone")


def test_lengths_are_quantiles_of_the_videos_that_were_looked_at() -> None:
    seconds = [float(n) for n in range(101)]
    text = said(sections.data(content({"unreadable": 3, "not_finite": ["a.mp4"]}, seconds=seconds)))
    assert "of 101 test videos 0.00 5.00 50.00 95.00 100.00" in text
    assert "output not finite 40 42 1 3 1" in text


def test_the_curve_of_views_is_of_the_primary_number_where_it_has_one() -> None:
    rows = [{"views": n, "top1": 0.5, "map": 0.25 * n} for n in (1, 2, 3)]
    several = {"views": rows, "multi_label": True, "confusion": None, "map": 0.75}
    ups = [float(c["cy"]) for c in Parsed(sections.views(content(several))).all("circle")]
    assert ups[0] > ups[1] > ups[2]
    assert "mAP" in said(sections.views(content(several)))
    assert sections.views(content({"views": rows[:1]})) == ""

"""vidtrain compare: tables, tests of differences, and what it refuses to put side by side."""

from __future__ import annotations

import csv
import html.parser
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf

from tests.cli.conftest import Call, error_line
from tests.made_runs import NAMES, answering, write_run, write_test
from tests.reports.test_segments_page import write_segments_test
from vidtrain.commands.compare import CompareConfig, run
from vidtrain.errors import VidtrainError
from vidtrain.options.invocation import Invocation
from vidtrain.reports.comparison import _cut
from vidtrain.runs.atomic import write_json
from vidtrain.tasks.classification.significance import mcnemar, welch

LABELS = np.arange(60) % 3


class Compare:
    """The command without Hydra, which takes most of the time; in a folder of the test."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(self, *runs: Path | str, **options: Any) -> str:
        """What is printed."""
        self.capsys.readouterr()
        run(Invocation(CompareConfig([str(each) for each in runs], **options), {}, Path(), OmegaConf.create()))
        return self.capsys.readouterr().out

    def refused(self, *runs: Path | str, **options: Any) -> str:
        """The message."""
        with pytest.raises(VidtrainError) as error:
            self(*runs, **options)
        return str(error.value)


@pytest.fixture
def compare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Compare:
    monkeypatch.chdir(tmp_path)
    return Compare(capsys)


def answers(wrong: slice | list[int]) -> np.ndarray:
    found = LABELS.copy()
    found[wrong] = (found[wrong] + 1) % 3
    return answering(found)


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """Two runs of 60 videos: 45 and 54 right, 3 by the first alone, 12 by the second alone."""
    first = write_run(tmp_path / "runs" / "a", answers(slice(0, 15)), LABELS, {"model": "c3d"})
    second = write_run(tmp_path / "runs" / "b", answers([*range(3), *range(57, 60)]), LABELS, {"model": "i3d"})
    return first, second


def test_two_runs(pair: tuple[Path, Path], call: Call) -> None:
    out = call("compare", *pair, "output=table.csv", "disagreements=videos.csv").stdout
    assert re.search(r"^ +1  0\.900  .* 1\.500 M +2\.5 +40 +3\.0 .* 60/60 +model=i3d$", out, re.MULTILINE)
    assert re.search(r"^ +2  0\.750 ", out, re.MULTILINE)
    assert re.search(r"1 - 2 +\+0\.150 .* 12:3 +0\.035 +yes", out)
    best, worse = rows(Path("table.csv"))
    assert (best["run"], float(best["value"]), best["scored"], best["metric"]) == ("model=i3d", 0.9, "60", "top-1")
    assert float(worse["low"]) < 0.75 < float(worse["high"])
    [row] = rows(Path("table_pairs.csv"))
    exact = mcnemar(12, 3)
    assert [float(row[f"mcnemar_{key}"]) for key in ("exact", "mid_p", "chi2")] == [
        pytest.approx(value) for value in (exact.exact, exact.mid_p, exact.chi2)
    ]
    assert (float(row["p"]), float(row["p_holm"])) == (pytest.approx(exact.exact), pytest.approx(exact.exact))
    assert 0 < float(row["bootstrap_low"]) < 0.15 < float(row["bootstrap_high"]) < 0.3
    videos = rows(Path("videos.csv"))
    assert len(videos) == 15
    assert sorted(video["path"] for video in videos if video["right"] == "second") == ["57.mp4", "58.mp4", "59.mp4"]
    assert {video["file"] for video in videos} <= {f"/data/{number}.mp4" for number in range(60)}
    four = next(video for video in videos if video["path"] == "4.mp4")
    assert (four["label"], four["answer_first"], four["answer_second"]) == (NAMES[1], NAMES[1], NAMES[2])


def test_all_against_a_reference_corrected_for_their_number(tmp_path: Path, compare: Compare) -> None:
    for number, wrong in enumerate((12, 3, 9, 6)):
        write_run(tmp_path / "sweep" / f"{number}_x", answers(slice(0, wrong)), LABELS, {"optimizer.lr": number})
    compare("sweep", output="t.csv")
    pairs = rows(Path("t_pairs.csv"))
    assert [(row["first"], row["second"]) for row in pairs] == [
        ("optimizer.lr=1", f"optimizer.lr={number}") for number in (3, 2, 0)
    ]
    p = [mcnemar(count, 0).exact for count in (3, 6, 9)]
    assert [float(row["p"]) for row in pairs] == pytest.approx(p)
    assert [float(row["p_holm"]) for row in pairs] == pytest.approx([p[0], 2 * p[1], 3 * p[2]])
    out = compare("sweep", reference="sweep/0_x")
    assert re.findall(r"^ *(\d - \d) ", out, re.MULTILINE) == ["4 - 1", "4 - 2", "4 - 3"]


def test_seeds_are_one_setting_and_tested_by_welch(tmp_path: Path, compare: Compare) -> None:
    for number, (model, seed, wrong) in enumerate(
        [("c3d", 0, 12), ("c3d", 1, 15), ("c3d", 2, 18), ("i3d", 0, 6), ("i3d", 1, 3), ("i3d", 2, 0)]
    ):
        options = {"model": model, "trainer.seed": seed}
        write_run(tmp_path / "sweep" / f"{number}_x", answers(slice(0, wrong)), LABELS, options)
    compare("sweep", output="t.csv")
    best, worse = rows(Path("t.csv"))
    assert [(row["run"], row["runs"], float(row["value"]), row["scored"]) for row in (best, worse)] == [
        ("model=i3d", "3", pytest.approx(0.95), "60"),
        ("model=c3d", "3", pytest.approx(0.75), "60"),
    ]
    assert [float(row["std"]) for row in (best, worse)] == pytest.approx([0.05, 0.05])
    # t of 2 degrees of freedom: 4.303 x 0.05 / root 3; no accuracy is above 1
    assert [float(row["low"]) for row in (best, worse)] == pytest.approx([0.8258, 0.6258], abs=1e-4)
    assert [float(row["high"]) for row in (best, worse)] == pytest.approx([1, 0.8742], abs=1e-4)
    [row] = rows(Path("t_pairs.csv"))
    stats = pytest.importorskip("scipy.stats")
    expected = stats.ttest_ind([0.9, 0.95, 1], [0.8, 0.75, 0.7], equal_var=False)
    assert float(row["p"]) == pytest.approx(expected.pvalue, rel=1e-9)
    assert "Welch's test of 3 and 3 runs" in row["test"]
    assert row["only_first"] == ""  # of several answers to a video there is no right and wrong


def test_seeds_that_score_the_same_have_no_interval_of_width_0(tmp_path: Path, compare: Compare) -> None:
    for number, (model, wrong) in enumerate([("c3d", 12), ("c3d", 12), ("i3d", 6), ("i3d", 9)]):
        options = {"model": model, "trainer.seed": number % 2}
        write_run(tmp_path / "sweep" / f"{number}_x", answers(slice(0, wrong)), LABELS, options)
    text = compare("sweep", output="t.csv")
    assert [row["low"] != "" for row in rows(Path("t.csv"))] == [True, False]
    assert "Runs of a setting that score the same do not say how much others would differ: no interval." in text


def test_the_same_seed_again_is_another_row(tmp_path: Path, compare: Compare) -> None:
    for number, (seed, wrong) in enumerate([(0, 3), (1, 6), (0, 9), (1, 12)]):
        write_run(tmp_path / "runs" / str(number), answers(slice(0, wrong)), LABELS, {"trainer.seed": seed})
    compare("runs", output="t.csv")
    assert [(row["run"], row["runs"], float(row["value"])) for row in rows(Path("t.csv"))] == [
        ("runs", "2", pytest.approx(0.925)),
        ("runs (2)", "2", pytest.approx(0.825)),
    ]
    write_test(tmp_path / "runs" / "0" / "eval" / "again", answers(slice(0, 3)), LABELS)
    compare("runs/0", "runs/0/eval/again", output="t.csv")
    assert [row["runs"] for row in rows(Path("t.csv"))] == ["1", "1"]


def test_folds_are_tested_in_pairs(tmp_path: Path, compare: Compare) -> None:
    generator = np.random.default_rng(0)
    values: dict[str, list[float]] = {"c3d": [], "i3d": []}
    for fold in range(4):
        videos = list(range(15 * fold, 15 * fold + 15))
        for model, wrong in (("c3d", 3 + fold), ("i3d", int(generator.integers(1, 4)))):
            probs = answers(videos[:wrong])[videos]
            options = {"model": model, "data.folds": 4, "data.fold": fold}
            write_run(tmp_path / "sweep" / f"{fold}_{model}", probs, LABELS[videos], options, videos=videos)
            values[model].append(1 - wrong / 15)
    compare("sweep", output="t.csv", disagreements="d.csv")
    best, _ = rows(Path("t.csv"))
    assert (best["run"], best["runs"], best["scored"]) == ("model=i3d", "4", "60")
    [row] = rows(Path("t_pairs.csv"))
    differences = np.subtract(values["i3d"], values["c3d"])
    stats = pytest.importorskip("scipy.stats")
    # folds share training videos: the error of Nadeau and Bengio, 15 test to 45 training videos
    t = differences.mean() / np.sqrt((1 / 4 + 15 / 45) * differences.var(ddof=1))
    assert float(row["p"]) == pytest.approx(2 * stats.t.sf(t, 3), rel=1e-9)
    assert row["test"] == "the paired t-test over 4 folds"
    # each video was tested once by each, so they also differ video by video
    assert len(rows(Path("d.csv"))) == int(row["only_first"]) + int(row["only_second"]) > 0
    missing = tmp_path / "sweep" / "3_c3d"
    assert "45 in common" in compare(*(run for run in (tmp_path / "sweep").iterdir() if run != missing))


def test_other_videos_are_compared_only_when_that_is_said(
    pair: tuple[Path, Path], tmp_path: Path, compare: Compare
) -> None:
    few = list(range(20))
    other = write_test(tmp_path / "few", answers([0])[few], LABELS[few])
    apart = compare(*pair, other)
    assert apart.count("rank  ") == 2
    assert len(re.findall(r"(?m)^\d - \d  ", apart)) == 1
    assert "tested on different videos, or with different labels, 20 in common: runs/a, runs/b: 60, few: 20" in apart
    assert "common=true compares on the 20 that all have" in apart
    text = compare(*pair, other, common=True)
    assert text.count("rank  ") == 1
    assert "tables of their own" not in text
    assert "top-1 on 20 videos" in text
    assert re.search(r"^ +3  0\.250 ", text, re.MULTILINE)  # the first 15 of these 20 are its mistakes
    relabelled = write_test(tmp_path / "relabelled", answers([]), (LABELS + (np.arange(60) == 7)) % 3)
    assert "59 in common" in compare(pair[0], relabelled)
    none = write_test(tmp_path / "none", answers([0])[few], (LABELS[few] + 1) % 3)
    assert "common=true" not in compare(other, none, common=True)


def test_other_protocols_are_compared_only_when_that_is_said(pair: tuple[Path, Path], compare: Compare) -> None:
    write_test(pair[0] / "eval" / "test_1x1", answers([5]), LABELS, protocol="one clip")
    apart = compare(*pair, pair[0] / "eval" / "test_1x1")
    assert "in tables of their own, as tested by different protocols" in apart
    assert apart.count("rank  ") == 2
    assert len(re.findall(r"(?m)^\d - \d  ", apart)) == 1
    text = compare(pair[1], pair[0] / "eval" / "test_1x1", anyway=True)
    assert "a/eval/test_1x1: tested on test: one clip" in text
    assert "1 - 2" in text
    assert text.count("rank  ") == 1


def test_several_labels_are_compared_by_map(tmp_path: Path, compare: Compare) -> None:
    generator = np.random.default_rng(1)
    labels = (generator.random((50, 4)) < 0.4).astype(int)
    for name, noise in (("a", 0.2), ("b", 1.5)):
        probs = 1 / (1 + np.exp(-(2 * labels - 1 + generator.normal(0, noise, labels.shape))))
        write_run(tmp_path / "runs" / name, probs, labels, {"model": name}, names="wxyz")
    text = compare("runs", output="t.csv")
    assert "mAP on 50 videos" in text
    [row] = rows(Path("t_pairs.csv"))
    assert row["test"] == "the paired bootstrap"
    assert "mcnemar_exact" not in row
    values = [float(one["value"]) for one in rows(Path("t.csv"))]
    assert float(row["difference"]) == pytest.approx(values[0] - values[1])
    assert 0 < float(row["low"]) < float(row["difference"]) < float(row["high"])
    assert "1 - 2" in compare("runs", metric="top1")
    write_test(tmp_path / "single", answers([]), LABELS)
    text = compare("runs", "single", output="t.csv", reference="runs/b")
    assert "in tables of their own, as measured by different metrics: mAP: runs/a, runs/b; top-1: single\n" in text
    assert [row["metric"] for row in rows(Path("t.csv"))] == ["mAP", "mAP", "top-1"]
    assert "2 - 1" in text
    assert "mAP: runs/a, runs/b; mean class accuracy: single\n" in compare("runs", "single", metric="mean_class")
    assert "metric=map_50: these tests have top1, map, mean_class" in compare.refused("runs", "single", metric="map_50")


def segments_run(folder: Path, value: float, seed: int, lr: float, **changed: Any) -> None:
    """A run with task=segments on two videos. value: its mAP@0.5. changed: of the result of its test."""
    result = write_segments_test(folder / "test")
    write_json(folder / "test" / "result.json", {**result, "map_50": value, **changed})
    config = {"trainer": {"seed": seed}, "optimizer": {"lr": lr}, "data": {"fold": 0}}
    write_json(folder / "config.json", config)


def test_segments_are_compared_over_runs(tmp_path: Path, compare: Compare) -> None:
    for seed, (first, second) in enumerate([(0.4, 0.7), (0.5, 0.8), (0.6, 0.75)]):
        segments_run(tmp_path / f"runs/a{seed}", first, seed, 0.1)
        segments_run(tmp_path / f"runs/b{seed}", second, seed, 0.2)
    text = compare("runs", output="t.csv")
    assert "mAP@0.5 on 2 videos of test; a clip every 4 frames" in text
    assert "by Welch's test of 3 and 3 runs" in text
    found = [(row["value"][:4], row["runs"], row["scored"], row["listed"]) for row in rows(Path("t.csv"))]
    assert found == [("0.75", "3", "2", "3"), ("0.5", "3", "2", "3")]
    [pair] = rows(Path("t_pairs.csv"))
    # means 0.75 and 0.5, variances 0.0025 and 0.01, three runs of each
    expected = welch([0.7, 0.8, 0.75], [0.4, 0.5, 0.6])
    assert [float(pair[key]) for key in ("difference", "low", "high", "p")] == pytest.approx(
        [0.25, expected.low, expected.high, expected.p]
    )
    assert "several seeds do" not in text
    segments_run(tmp_path / "one", 0.9, 0, 0.3)
    text = compare("runs", "one")
    assert "several seeds do" in text
    assert "by Welch's test of 3 and 3 runs" in text  # of those that have several
    segments_run(tmp_path / "other", 0.9, 0, 0.1, listed=9)
    text = compare("one", "other")
    assert "as tested on different videos, or with different labels: one; other\n" in text
    assert text.count("rank  ") == 2
    write_test(tmp_path / "single", answers([]), LABELS)
    assert "different metrics: top-1: single; F1@50: one\n" in compare("one", "single", metric="f1_50")
    assert "metric=map: these tests have map_50" in compare.refused("one", metric="map")


def test_intervals_are_those_of_the_tests(tmp_path: Path, compare: Compare) -> None:
    intervals = {"level": 0.95, "resamples": 1000, "over": "groups", "count": 9, "values": {"top1": [0.51, 0.99]}}
    views = [{"views": count, "top1": 0.5} for count in (1, 2, 20)]
    write_test(tmp_path / "a", answers([0, 1, 2]), LABELS, intervals=intervals, views=views)
    text = compare("a")
    assert re.search(r"^ +1  0\.950    0\.510-0\.990     20   60/60  a$", text, re.MULTILINE)
    assert "The intervals of single runs are over groups of videos" in text
    write_test(tmp_path / "b", answers([0])[:30], LABELS[:30])
    assert "0.510" not in compare("a", "b", common=True)  # which is of other videos


def test_metrics(pair: tuple[Path, Path], compare: Compare) -> None:
    assert "mean class accuracy on 60 videos" in compare(*pair, metric="mean_class")
    assert "metric=map: these tests have top1, mean_class" in compare.refused(*pair, metric="map")
    assert "did you mean top1?" in compare.refused(*pair, metric="top_1")


def test_a_mean_over_classes_is_tested_by_the_bootstrap(pair: tuple[Path, Path], compare: Compare) -> None:
    compare(*pair, metric="mean_class", output="t.csv")
    [row] = rows(Path("t_pairs.csv"))
    assert row["test"] == "the paired bootstrap"
    assert row["p"] == row["bootstrap_p"] != row["mcnemar_exact"] != ""


def test_the_most_certain_mistakes_come_first(tmp_path: Path, compare: Compare) -> None:
    probs = answers([])
    for number, sure in enumerate((0.5, 0.9, 0.7, 0.6)):
        probs[number] = answers([number])[number] * sure / 0.8
    for name, own in (("a", answers([])), ("b", probs)):
        write_run(tmp_path / "runs" / name, own, LABELS, {"model": name})
    text = compare("runs", disagreements="d.csv")
    assert [row["path"] for row in rows(Path("d.csv"))] == ["1.mp4", "2.mp4", "3.mp4", "0.mp4"]
    assert [row["prob_second"] for row in rows(Path("d.csv"))] == ["0.900000", "0.700000", "0.600000", "0.500000"]
    assert re.search(r"^1\.mp4 +run +rank 1 +fall +0\.90$", text, re.MULTILINE)


def test_of_a_long_path_the_end_is_shown() -> None:
    for length in (67, 68, 69, 200):
        path = "x" * (length - 8) + "clip.mp4"
        shown = _cut([path, "walk", "rank 1", "run", "0.90"], 160)
        assert shown == [path if length <= 68 else f"...{path[-65:]}", "walk", "rank 1", "run", "0.90"]
    assert len(_cut([path, "walk", "rank 1", "run", "0.90"], 30)[0]) == 24


def test_videos_without_a_label_count_once_and_in_no_number(tmp_path: Path, compare: Compare) -> None:
    labels = LABELS.copy()
    labels[:4] = -1
    for name, wrong in (("a", [5, 6, 7]), ("b", [8])):
        write_run(tmp_path / "runs" / name, answers(wrong), labels, {"model": name})
    text = compare("runs", output="t.csv")
    assert "top-1 on 56 videos" in text
    assert "4 videos without a label excluded." in text
    assert [float(row["value"]) for row in rows(Path("t.csv"))] == pytest.approx([55 / 56, 53 / 56])


def test_what_an_interval_leaves_out_is_said(pair: tuple[Path, Path], tmp_path: Path, compare: Compare) -> None:
    seeds, videos = "Several runs of a setting: mean", "its interval is over videos; what another seed would change"
    assert videos in compare(*pair)
    assert seeds not in compare(*pair)
    assert videos not in compare(pair[0])  # with nothing beside it
    write_run(tmp_path / "runs" / "c", answers(slice(0, 9)), LABELS, {"model": "c3d", "trainer.seed": 1})
    both = compare("runs")
    assert seeds in both
    assert videos in both


def test_five_answers(tmp_path: Path, compare: Compare) -> None:
    labels = np.zeros(40, dtype=int)
    for name, rank in (("a", 5), ("b", 6)):  # the label's place among the answers to the first ten videos
        probs = np.tile(np.array([8.0, 7, 6, 5, 4, 3, 2]) / 35, (40, 1))
        probs[:10, [0, rank - 1]] = probs[:10, [rank - 1, 0]]
        write_run(tmp_path / "runs" / name, probs, labels, {"model": name}, names="abcdefg")
    text = compare("runs", metric="top5", output="t.csv")
    assert [float(row["value"]) for row in rows(Path("t.csv"))] == [1, 0.75]
    assert "10:0" in text


def test_rows_that_are_equal_count_each(tmp_path: Path, compare: Compare) -> None:
    videos = [*range(58), 57, 57]  # the list has a video three times, always with this label
    labels = LABELS.copy()
    labels[58:] = labels[57]
    probs = answering(labels.tolist())
    for name in ("a", "b"):
        write_run(tmp_path / "runs" / name, probs, labels, {"model": name}, videos=videos)
    text = compare("runs")
    assert "top-1 on 60 videos" in text
    # both have the same videos right: no difference, which has no interval of width 0
    assert re.search(r"1 - 2 +\+0\.000 +0:0 +1\.0+ +not shown", text), text
    assert "Ranks 1 and 2 have the same videos right" in text


def test_a_run_that_is_named_twice_is_one_row(pair: tuple[Path, Path], tmp_path: Path, compare: Compare) -> None:
    (tmp_path / "link").symlink_to(pair[0])
    text = compare(pair[0], pair[0] / "test", pair[1] / "config.json", "runs", "link", output="t.csv")
    assert len(rows(Path("t.csv"))) == 2
    assert len(re.findall(r"(?m)^\d - \d  ", text)) == 1


def test_runs_without_a_test_are_named(pair: tuple[Path, Path], tmp_path: Path, compare: Compare) -> None:
    sweep = tmp_path / "runs"
    (sweep / "2_failed").mkdir()
    (sweep / "2_failed" / "error.json").write_text("{}")
    (sweep / "3_going_on" / ".hydra").mkdir(parents=True)
    write_run(sweep / "4_untested", answers([]), LABELS)
    for file in ("predictions.csv", "result.json"):
        (sweep / "4_untested" / "test" / file).unlink()
    text = compare("runs")
    reasons = {"2_failed": "failed", "3_going_on": "has not finished", "4_untested": "has not been tested"}
    for name, why in reasons.items():
        assert f"runs/{name}: {why}" in text
    assert "none of these runs has been tested" in compare.refused("runs/2_failed")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere"], "nowhere: no such folder"),
        (["empty"], "empty: holds no run of vidtrain"),
        (["runs/a", "output=x.pdf"], "output=x.pdf: expected a name that ends in .txt, .csv, .md, .html"),
        (["runs/a", "disagreements=x.txt"], "ends in .csv"),
        (["runs/a", "reference=empty"], "reference=empty: is none of the runs"),
        (["runs/a", "runs=[runs/b]"], "runs/a: a path without a key"),
        (["runs/a", "metrc=top1"], "metrc"),
        ([], "runs"),
    ],
)
def test_mistakes(pair: tuple[Path, Path], tmp_path: Path, call: Call, words: list[str], said: str) -> None:
    (tmp_path / "empty").mkdir()
    assert said in error_line(call("compare", *words, check=2))


@pytest.mark.parametrize("text", ["[" * 5000, "3", '{"model": {"x": NaN}}', '{"model": "' + "x" * 70_000 + '"}'])
def test_a_configuration_that_no_run_has_written(pair: tuple[Path, Path], compare: Compare, text: str) -> None:
    (pair[0] / "config.json").write_text(text)
    assert "a/config.json: is not the configuration of a run" in compare.refused(*pair)


class Page(html.parser.HTMLParser):
    """What tags a page has, and the text of its cells."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.texts: list[str] = []
        self.addresses: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href") or name.startswith("on")]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_names_stay_names_in_every_format(tmp_path: Path, compare: Compare) -> None:
    names = ["<script>alert(1)</script>", 'a|b"><img src=x onerror=y>', "*c*\x1b[2J"]
    kinds: dict[str, Any] = {"names": names, "protocol": "<b>16x2</b>"}
    write_run(tmp_path / "<i>1", answers([0, 1, 2]), LABELS, **kinds)
    write_run(tmp_path / "2", answers([]), LABELS, {"model": "x"}, **kinds)
    for output in ("page.html", "table.md", "table.txt"):
        compare("<i>1", "2", output=output)
    page = Page(Path("page.html").read_text(encoding="utf-8"))
    assert not page.tags & {"script", "img", "i", "b"}
    assert not page.addresses
    assert any(names[0] in text for text in page.texts)
    assert any(names[1] in text for text in page.texts)
    assert any("<b>16x2</b>" in text for text in page.texts)
    markdown = Path("table.md").read_text(encoding="utf-8")
    assert "<" not in markdown
    assert r"a\|b" in markdown
    # every row of a table has the bars of its header
    blocks = [block.splitlines() for block in markdown.split("\n\n") if block.startswith("|")]
    for block in blocks:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block}) == 1
    assert len(blocks) == 3
    text = Path("table.txt").read_text(encoding="utf-8")
    assert "\x1b" not in text
    assert r"*c*\x1b[2J" in text


def test_a_real_run_beside_a_test_of_its_checkpoint(trained: Path, tmp_path: Path, call: Call) -> None:
    call("eval", f"checkpoint={trained / 'best.pt'}", "eval.clips=1", "output=one")
    assert "different protocols" in call("compare", trained, "one").stdout
    text = call("compare", trained, "one", "anyway=true", "format=markdown").stdout
    assert re.search(r"\| 1 \| .* \| \S+ M \| 0\.0\d+ \|", text)  # parameters and multiply-adds of the run
    assert "- one: tested" not in text
    assert text.count("8/8") == 2

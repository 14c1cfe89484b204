"""vidtrain label_errors: a list of videos by how probably their label is wrong, from runs that had not seen them."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from omegaconf import OmegaConf
from PIL import Image

from tests.cli.conftest import Call, error_line
from tests.made_runs import NAMES, answering, write_run, write_test
from vidtrain.commands.label_errors import LabelErrorsConfig, run
from vidtrain.errors import VidtrainError
from vidtrain.options.invocation import Invocation
from vidtrain.tasks.classification.confident_learning import ScoreName

TRUTH = np.arange(60) % 3
WRONG = [4, 17, 30, 52]
LABELS = np.where(np.isin(np.arange(60), WRONG), (TRUTH + 1) % 3, TRUTH)


def probabilities(seed: int = 0) -> npt.NDArray[np.float64]:
    """Of a network that knows the truth, more or less surely."""
    probs = answering(TRUTH.tolist(), sure=1.0) + np.random.default_rng(seed).random((60, 3)) * 0.1 + 0.05
    probs /= probs.sum(1, keepdims=True)
    probs[WRONG] = answering(TRUTH[WRONG].tolist(), sure=0.97)
    return probs


def folds(home: Path, *, labels: npt.ArrayLike = LABELS, left_out: tuple[int, ...] = ()) -> Path:
    """A sweep over five folds, of which some have failed."""
    for fold in range(5):
        videos = np.arange(fold, 60, 5)
        folder = home / f"{fold}_data.fold-{fold}"
        if fold in left_out:
            folder.mkdir(parents=True)
            (folder / "error.json").write_text("{}")
            continue
        options = {"data.folds": 5, "data.fold": fold}
        write_run(folder, probabilities()[videos], np.asarray(labels)[videos], options, videos=videos.tolist())
    return home


def find(*runs: Path | str, clips: int = 0, **options: Any) -> list[dict[str, str]]:
    """The command without Hydra -> the rows of its file."""
    reader = {"_target_": "vidtrain.data.readers.pyav.reader.PyAVReader"}
    own = LabelErrorsConfig([str(each) for each in runs], clips=clips, decoder=reader, **options)
    run(Invocation(own, {}, Path(), OmegaConf.create()))
    folder = Path(options.get("output") or (runs[0] if len(runs) == 1 else "label_errors"))
    with (folder / "suspects.csv").open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def test_the_wrong_labels_of_all_folds_come_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = find(folds(tmp_path / "sweep"))
    assert len(rows) == 60
    assert [int(row["rank"]) for row in rows] == list(range(1, 61))
    assert {row["path"] for row in rows[:4]} == {f"{number}.mp4" for number in WRONG}
    scores = [float(row["score"]) for row in rows]
    assert scores == sorted(scores)
    for row in rows:
        number = int(row["path"].removesuffix(".mp4"))
        assert (row["label"], row["suggested"]) == (NAMES[LABELS[number]], NAMES[TRUTH[number]])
        probs = probabilities()[number]
        assert float(row["prob_label"]) == pytest.approx(probs[LABELS[number]], abs=1e-6)
        assert float(row["prob_suggested"]) == pytest.approx(probs.max(), abs=1e-6)
        others = probs[np.arange(3) != LABELS[number]].max()
        assert float(row["score"]) == pytest.approx((probs[LABELS[number]] - others + 1) / 2, abs=1e-6)
        assert row["issue"] == ("yes" if number in WRONG else "no")
        assert row["file"] == f"/data/{number}.mp4"
    text = capsys.readouterr().out
    lines = text.splitlines()
    assert lines[0] == "these networks are right on 93% of the videos; the largest class is 35%"
    assert lines[1] == "confident learning flags 4 of 60 labels (6.7%)"
    assert "too weak" not in text
    assert "score: 0 suspicious, 0.5 undecided between the label and another class, 1 sure of the label" in lines
    swapped = Counter((NAMES[LABELS[number]], NAMES[TRUTH[number]]) for number in WRONG).most_common(1)[0]
    assert f"most often: labelled {swapped[0][0]}, suggested {swapped[0][1]}: {swapped[1]}" in text
    assert "Only videos" not in text
    by_confidence = find(tmp_path / "sweep", score=ScoreName.self_confidence, output=str(tmp_path / "other"))
    assert float(by_confidence[0]["score"]) == float(by_confidence[0]["prob_label"])
    assert "score: the probability of the label: 0 suspicious, 1 sure of it" in capsys.readouterr().out


@pytest.mark.parametrize(("right", "weak"), [(26, True), (28, False)])  # of 60: Wilson's from 0.316, 0.347 on
def test_networks_that_are_no_better_than_the_largest_class_judge_nothing(
    right: int, weak: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Which is a third of the videos."""
    answers = np.where(np.arange(60) < right, TRUTH, (TRUTH + 1) % 3)
    find(write_test(tmp_path / "chance", answering(answers.tolist(), sure=0.6), TRUTH))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"these networks are right on {right / 60:.0%} of the videos; the largest class is 33%"
    assert (lines[1] == "too weak to judge labels: the list is mostly their own errors") == weak
    assert "confident learning flags" in lines[1 + weak]


def test_what_is_not_judged_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = find(folds(tmp_path / "sweep", left_out=(1, 3)))
    assert len(rows) == 36
    text = capsys.readouterr().out
    assert "The videos of folds 1, 3 of 5 are not judged" in text
    assert "1_data.fold-1: failed" in text
    find(write_test(tmp_path / "single", probabilities(), LABELS))
    assert "Only videos of the test split are judged" in capsys.readouterr().out
    for number, section in enumerate([{"data.folds": 10**15}, {"data.folds": [5]}]):  # of anybody's record
        find(write_run(tmp_path / f"odd{number}", probabilities(), LABELS, section))
    text = capsys.readouterr().out
    assert f"of {10**15} are not judged" in text
    assert "Only videos of the test split are judged" in text


def test_several_runs_on_a_video_are_averaged_and_unlabelled_ones_are_not_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    labels = LABELS.copy()
    labels[7] = -1
    for seed in (1, 2):
        write_run(tmp_path / "runs" / str(seed), probabilities(seed), labels, {"trainer.seed": seed})
    rows = find("runs/1", "runs/2")  # in label_errors/
    assert len(rows) == 59
    row = next(row for row in rows if row["path"] == "4.mp4")
    mean = (probabilities(1)[4] + probabilities(2)[4]) / 2
    assert float(row["prob_suggested"]) == pytest.approx(mean.max(), abs=1e-6)


def test_several_labels_per_video(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generator = np.random.default_rng(3)
    truth = generator.random((80, 4)) < 0.4
    probs = np.clip(truth * 0.7 + generator.normal(0.15, 0.08, truth.shape), 0.01, 0.99)
    labels = truth.copy()
    labels[11, 2] ^= True
    probs[11, 2] = 0.95 if truth[11, 2] else 0.03
    rows = find(write_test(tmp_path / "t", probs, labels.astype(int), names="wxyz"))
    assert (rows[0]["path"], rows[0]["issue"]) == ("11.mp4", "yes")
    assert rows[0]["suggested"] == ";".join(np.array(list("wxyz"))[truth[11]])
    assert rows[0]["prob_label"] == ""
    assert capsys.readouterr().out.startswith("confident learning flags ")  # no one class is what to beat


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"split": "train"}, "was tested on train, whose labels it has learned"),
        ({"names": ("walk", "run", "fly")}, "has other classes"),
        ({"labels": TRUTH}, "4.mp4: is labelled fall in one of the runs, run in "),
    ],
)
def test_runs_that_do_not_go_together(tmp_path: Path, content: dict[str, Any], said: str) -> None:
    write_test(tmp_path / "a", probabilities(), LABELS)
    write_test(tmp_path / "b", probabilities(), content.pop("labels", LABELS), **content)
    with pytest.raises(VidtrainError, match=said):
        find(tmp_path / "a", tmp_path / "b", output=str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_probabilities_that_are_none(tmp_path: Path) -> None:
    folder = write_test(tmp_path / "a", probabilities(), LABELS)
    np.save(folder / "probabilities.npy", np.full((60, 3), np.nan, np.float32))
    with pytest.raises(VidtrainError, match="not finite"):
        find(folder)


def test_a_sheet_of_the_first_of_a_real_run(trained: Path, tmp_path: Path, call: Call) -> None:
    text = call("label_errors", trained, "clips=3", "output=found").stdout
    assert "3 of them to look at: found/suspects.png" in text
    with Image.open("found/suspects.png") as sheet:
        assert sheet.width > sheet.height > 300
    with Path("found/suspects.csv").open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    assert len(rows) == 8
    first = Path(rows[0]["file"])
    gone = first.rename(first.with_suffix(".gone"))
    try:
        text = call("label_errors", trained, "clips=3", "output=found").stdout
    finally:
        gone.rename(first)
    assert f"not on the sheet: {first}: " in text
    assert "2 of them to look at" in text
    assert "clips=-1" in error_line(call("label_errors", trained, "clips=-1", check=2))

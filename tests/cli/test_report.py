"""vidtrain report on the command line, and the page that a training leaves."""

from __future__ import annotations

import base64
import csv
import io
import os
import re
import shlex
import shutil
from pathlib import Path

import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.cli.conftest import Call, error_line
from tests.reports.made import write_made_test
from tests.reports.test_page import Parsed
from vidtrain.commands.thumbnails import Thumbnails
from vidtrain.reports.results import ScoredVideo, TestResult
from vidtrain.shell import cli

DRAWN = ["report=true", "eval.figures=true", "logger=[jsonl,tensorboard]"]


@pytest.fixture(scope="module")
def reported(tiny: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with its figures and its page. Read it, do not change it."""
    folder = tmp_path_factory.mktemp("reported") / "run"
    with pytest.raises(SystemExit) as end:
        cli.main(["train", *tiny, "trainer.epochs=1", *DRAWN, f"run_dir={folder}"])
    assert end.value.code == 0
    return folder


def images(page: Parsed) -> list[Image.Image]:
    sources = [image["src"] for image in page.all("img")]
    return [
        Image.open(io.BytesIO(base64.b64decode(source.removeprefix("data:image/webp;base64,")))) for source in sources
    ]


def test_a_training_leaves_its_page_with_the_very_clips(reported: Path) -> None:
    page = Parsed((reported / "report.html").read_text(encoding="utf-8"))
    wrong = [v for v in TestResult.read(reported / "test").predictions() if v.top[0][0] != v.labels[0]]
    assert wrong  # of eight videos after one epoch
    shown = images(page)
    assert len(shown) >= len(wrong)
    assert all(image.format == "WEBP" and image.n_frames == 10 for image in shown)
    assert {video.path for video in wrong} <= set(page.text.splitlines())
    assert "trainer.epochs" in page.text
    assert "epochs: 1" in page.text  # of the whole configuration, as YAML
    assert re.search(r"train 16, val 8, test 8", page.text)
    assert "of 8 test videos" in page.text  # the durations
    assert f"checkpoint={reported / 'best.pt'}" in page.text


def test_a_training_leaves_its_figures(reported: Path) -> None:
    assert {f.name for f in (reported / "figures").iterdir()} == {"learning_curves.png", "learning_curves.svg"}
    names = {file.stem for file in (reported / "test" / "figures").glob("*.png")}
    assert {"confusion", "classes", "reliability"} <= names
    events = EventAccumulator(str(reported / "tensorboard")).Reload()
    assert {f"test/{name}" for name in names} <= set(events.Tags()["images"])
    assert "test/move_left" in events.Tags()["tensors"]  # precision over recall


def test_without_figures_and_report_there_are_none(trained: Path) -> None:
    assert not list(trained.rglob("figures"))
    assert not (trained / "report.html").exists()


def test_report_of_a_run_of_its_test_and_of_a_checkpoint(trained: Path, call: Call, tmp_path: Path) -> None:
    run = shutil.copytree(trained, tmp_path / "a run, with = in its name")
    assert call("report", run, "thumbnails=1").stdout.startswith(f"report: {run / 'report.html'} (0.")
    whole = Parsed((run / "report.html").read_text(encoding="utf-8"))
    assert [section["href"] for section in whole.all("a")][:2] == ["#learning", "#confusion"]
    call("report", run / "test", "output=own.html", "thumbnails=0")
    assert not (run / "test" / "report.html").exists()
    alone = Parsed((tmp_path / "own.html").read_text(encoding="utf-8"))
    assert "#learning" in [section["href"] for section in alone.all("a")]  # of the run that it belongs to
    assert not alone.all("img")
    call("report", run / "best.pt", "output=same.html", "thumbnails=1")
    assert (
        Parsed((tmp_path / "same.html").read_text(encoding="utf-8")).text.split()
        == whole.text.replace(str(run), str(run)).split()
    )


def test_the_labels_that_label_errors_suspects_are_on_the_page(trained: Path, call: Call, tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    run = shutil.copytree(trained, sweep / "0")
    shutil.copytree(trained / "test", sweep / "1" / "test")
    call("label_errors", sweep, "clips=0")
    with (sweep / "suspects.csv").open("a", encoding="utf-8") as lines:
        lines.write("9,of/another_fold.mp4,,,0.1,yes,0.1,0.9,\n")
    call("report", run, "thumbnails=0")
    text = Parsed((run / "report.html").read_text(encoding="utf-8")).text
    assert "Labels that may be wrong" in text
    assert "another_fold" not in text
    call("label_errors", run, "clips=0")
    with (run / "suspects.csv").open(newline="", encoding="utf-8") as lines:
        issues = [row for row in csv.DictReader(lines) if row["issue"] == "yes"]
    assert issues, "of eight videos of a network that has hardly learned"
    call("report", run, "thumbnails=2")
    page = Parsed((run / "report.html").read_text(encoding="utf-8"))
    assert "#suspects" in [link["href"] for link in page.all("a")]
    text = page.text.splitlines()
    for row in issues:
        assert row["path"] in text
        assert row["score"] in text
    assert len(images(page)) >= 1


def test_mistakes_are_one_line(call: Call, tmp_path: Path) -> None:
    assert error_line(call("report", "nowhere", check=2)) == "run=nowhere: no such folder"
    (tmp_path / "empty").mkdir()
    assert "neither a run" in error_line(call("report", "empty", check=2))
    for number, name in enumerate(("later", "earlier")):
        run = tmp_path / "runs" / "a b" / name
        run.mkdir(parents=True)
        (run / "config.json").write_text("{}")
        os.utime(run / "config.json", (1000 - number, 1000 - number))
    for folder in ("runs/a b", "runs"):
        assert error_line(call("report", folder, check=2)) == (
            f"run={folder}: a report is of one run, and this folder holds runs: vidtrain report 'runs/a b/later'; "
            f"of all of them: vidtrain compare {shlex.quote(folder)} output=page.html"
        )
    assert not list(tmp_path.rglob("report.html"))


def test_a_page_is_not_written_through_a_link(call: Call, tmp_path: Path) -> None:
    write_made_test(tmp_path / "out", 2, 8)
    (tmp_path / "mine.txt").write_text("mine")
    for name in ("report.html", ".report.html.part"):
        (tmp_path / "out" / name).symlink_to(tmp_path / "mine.txt")
    call("report", "out")
    assert (tmp_path / "mine.txt").read_text() == "mine"
    assert not (tmp_path / "out" / "report.html").is_symlink()


# ---------------------------------------------------------------- thumbnails


@pytest.fixture
def clip(trained: Path) -> ScoredVideo:
    return TestResult.read(trained / "test").predictions()[0]


def test_thumbnails_show_the_segment_and_are_decoded_once(clip: ScoredVideo, monkeypatch: pytest.MonkeyPatch) -> None:
    thumbnails = Thumbnails(60, "x")
    whole = thumbnails.of(clip)
    assert whole.animated is not None
    assert whole.still is not None
    assert thumbnails.durations[clip.file] == pytest.approx(12 / 16)
    part = thumbnails.of(ScoredVideo(clip.path, clip.file, clip.labels, clip.top, 0.25, 0.5))
    assert part.animated is not None
    with Image.open(io.BytesIO(whole.animated)) as all_of_it, Image.open(io.BytesIO(part.animated)) as four:
        assert (all_of_it.n_frames, four.n_frames) == (10, 4)
    assert thumbnails.probe([clip, clip], 1) == [pytest.approx(0.75)]
    monkeypatch.setattr(thumbnails, "reader", None)
    assert thumbnails.of(clip) is whole


def test_thumbnails_that_cannot_be_made_say_why(clip: ScoredVideo, tmp_path: Path) -> None:
    def of(file: Path, *segment: float) -> str:
        shown = Thumbnails(60, "x").of(ScoredVideo("x", str(file), ("a",), (("b", 1.0),), *segment))
        assert shown.animated is None
        return shown.note

    (tmp_path / "text.mp4").write_text("no video")
    assert "no such file" in of(tmp_path / "gone.mp4")
    assert of(tmp_path / "text.mp4")
    assert "begins at 5 s" in of(Path(clip.file), 5.0)
    assert Thumbnails(-1, "x").of(clip).note == "not decoded: -1 s for thumbnails were over; x"
    assert Thumbnails(-1, "x").probe([clip], 5) == []


def test_the_rows_of_a_csv_are_bounded(call: Call, tmp_path: Path) -> None:
    write_made_test(tmp_path / "out", 2, 8)
    with (tmp_path / "out" / "not_scored.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["path", "reason"], *[[f"{n}.mp4" + "x" * 5000, "gone"] for n in range(5000)]])
    call("report", "out")
    assert (tmp_path / "out" / "report.html").stat().st_size < 200_000
    assert "and 4900 more" in (tmp_path / "out" / "report.html").read_text()

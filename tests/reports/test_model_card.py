"""The model card states what was measured, what was not, and where the network ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.reports.made import made_result
from tests.reports.test_segments_page import write_segments_test
from vidtrain.commands.publish_card import _facts, _tested
from vidtrain.errors import ConfigError
from vidtrain.reports import model_card
from vidtrain.tasks.classification.task import Classification
from vidtrain.tasks.segments.task import Segments

TITLES = {"top1": "top-1", "mean_class": "mean class accuracy", "map": "mAP"}


def made_test(**parts: Any) -> model_card.Tested:
    given = {"split": "test", "protocol": "16x2 clips", "scored": 5, "listed": 9, "missing": 1, "unreadable": 2}
    return model_card.Tested(**{**given, "not_finite": 1, "values": {"top1": 0.8, "mean_class": 0.75}, **parts})


def card(test: model_card.Tested | None = None, **parts: Any) -> str:
    given: dict[str, Any] = {
        "title": "c3d for birds",
        "model": "c3d",
        "paper": "Tran et al. 2015",
        "parameters": 79_630_000,
        "class_names": ["walk", "run"],
        "multi_label": False,
        "clips": "16 frames every 2",
        "averaged": "10x1 views",
        "dataset": "birds",
        "primary": "top1",
        "titles": TITLES,
        "tested": test,
        "training": ["Trained for up to 3 epochs."],
        "versions": {"torch": "2.10"},
    }
    return model_card.ModelCard(**{**given, **parts}).to_markdown()


def section(text: str, title: str) -> str:
    return text.partition(f"\n## {title}")[2].partition("\n## ")[0]


def test_what_was_not_scored_is_counted_and_is_a_limit() -> None:
    text = card(made_test())
    assert "**top-1 0.800** on 5 of the 9 videos of the test split of birds." in text
    assert (
        "Scored 5 of 9 videos (1 not on disk, 2 unreadable, 1 without a finite output). Protocol: 16x2 clips."
        in section(text, "Results")
    )
    limits = section(text, "Limits")
    assert "- 4 of the 9 listed videos are in no number." in limits
    assert "- The numbers come without intervals." in limits
    whole = card(made_test(scored=9, missing=0, unreadable=0, not_finite=0))
    assert "Scored 9 of 9 videos. Protocol" in whole
    assert "in no number" not in whole


def test_rows_are_the_metrics_that_the_test_has() -> None:
    rows = [line for line in section(card(made_test()), "Results").splitlines() if line.startswith("| ")]
    assert rows == ["| metric | value | interval |", "| top-1 | 0.8000 |  |", "| mean class accuracy | 0.7500 |  |"]


def test_an_interval_says_over_how_many_of_what() -> None:
    test = made_test(intervals={"top1": (0.61, 0.92)}, level=0.9, count=12, over="groups")
    said = "90 % interval 0.610 to 0.920 over 12 groups"
    text = card(test)
    assert f"**top-1 0.800** ({said}) on 5" in text
    assert f"| top-1 | 0.8000 | {said} |" in text
    assert "| mean class accuracy | 0.7500 |  |" in text
    assert "come without intervals" not in text


def test_a_test_without_the_primary_number_and_no_test() -> None:
    assert "It was tested on 5 of 9 videos." in card(made_test(values={}))
    nothing = card()
    assert "It comes without the result of a test." in nothing
    assert "No result of a test was at hand" in section(nothing, "Results")
    assert "- Its accuracy is not stated." in section(nothing, "Limits")


def test_the_weakest_classes_and_those_without_a_video_are_limits() -> None:
    weakest = [(f"class_{n}", n / 10, n + 3) for n in range(7)]
    limits = section(card(made_test(weakest=weakest, unseen=1)), "Limits")
    assert "- 1 of its 2 classes have no test video." in limits
    assert "class\\_0 (0.00 of 3), class\\_1 (0.10 of 4)" in limits
    assert "class\\_4 (0.40 of 7)" in limits
    assert "class\\_5" not in limits


def test_several_labels_are_said_in_the_first_line_and_in_the_limits() -> None:
    one, several = card(made_test()), card(made_test(values={"map": 0.5}), multi_label=True, primary="map")
    assert "any number of which may hold for a video" in several
    assert "gives each class a probability of its own" in section(several, "Limits")
    assert "**mAP 0.500**" in several
    assert "any number of which" not in one
    assert "answers with one of its classes" in section(one, "Limits")


def test_of_many_classes_the_first_are_named() -> None:
    names = [f"c{n}" for n in range(405)]
    listed = section(card(class_names=names), "Classes (405)")
    assert "c0, c1, " in listed
    assert "c399 and 5 more, see id2label in config.json" in listed
    assert "c400" not in listed
    assert "more" not in section(card(class_names=names[:400]), "Classes (400)")


@pytest.mark.parametrize(
    ("license", "expected"),
    [
        ("Apache-2.0", {"license": "apache-2.0"}),
        (None, {}),
        ('Mine: "only"\n- x', {"license": "other", "license_name": 'Mine: "only"\\n- x'}),
    ],
)
def test_the_head_is_what_the_hub_reads(license: str | None, expected: dict[str, str]) -> None:
    text = card(license=license, model='c3d"\nlicense: mit')
    head = yaml.safe_load(text.split("---\n")[1])
    assert {key: head[key] for key in head if key.startswith("license")} == expected
    assert (head["library_name"], head["pipeline_tag"]) == ("vidtrain", "video-classification")
    assert head["tags"] == ["vidtrain", "video-classification", 'c3d"\nlicense: mit']
    said = section(text, "Licence").strip()
    assert said == (license.replace("\n", "\\\\n") if license else "None is stated by whoever published this folder.")


def test_how_transformers_loads_it_is_said_where_it_does() -> None:
    text = card(architecture="VivitForVideoClassification", notes=["Its GELU differs."])
    assert yaml.safe_load(text.split("---\n")[1])["library_name"] == "transformers"
    use = section(text, "Use")
    assert 'AutoModelForVideoClassification.from_pretrained("THIS_FOLDER")' in use
    assert "- Its GELU differs." in use
    assert "AutoModel" not in card()


def test_data_and_training_and_versions() -> None:
    made = section(card(), "Data and training").strip().splitlines()
    assert made == ["- Data: birds.", "- Trained for up to 3 epochs.", "- Versions: torch 2.10."]
    assert "A video classifier: c3d (Tran et al. 2015), 79.630 M parameters, 2 classes. It reads" in card()
    assert "c3d, 79.630 M" in card(paper=None)


def test_the_facts_of_a_result() -> None:
    result = made_result(9, 90, [f"k{n}" for n in range(9)])
    for number, row in enumerate(result["classes"]):
        row |= {"recall": 1 - number / 10, "support": 10}
    result["classes"][8] |= {"support": 0, "recall": None}
    result |= {"not_finite": ["a.mp4", "b.mp4"], "unreadable": 3, "balanced_accuracy": True, "loss": None}
    facts = _facts(result, Classification(result["class_names"]))
    assert (facts.scored, facts.listed, facts.missing, facts.unreadable, facts.not_finite) == (90, 92, 1, 3, 2)
    assert facts.unseen == 1
    assert [name for name, _, _ in facts.weakest] == ["k7", "k6", "k5", "k4", "k3"]
    assert facts.weakest[0] == ("k7", pytest.approx(0.3), 10)
    assert facts.values == {"top1": result["top1"], "mean_class": result["mean_class"]}
    assert facts.intervals == {"top1": tuple(result["intervals"]["values"]["top1"])}
    bare = _facts({**result, "intervals": None, "classes": None}, Classification(result["class_names"]))
    assert (bare.intervals, bare.weakest, bare.unseen) == ({}, [], 0)


def test_what_happens_when_is_another_card(tmp_path: Path) -> None:
    content = {"class_names": ["walk", "run", "rest"]}
    write_segments_test(tmp_path / "out")
    task = Segments(content["class_names"])
    facts = _tested({"result": str(tmp_path / "out")}, content, task)
    assert facts is not None
    assert (facts.unseen, facts.scored, facts.listed) == (1, 2, 3)
    assert facts.weakest == [("walk", pytest.approx(2 / 3), 3), ("run", 1.0, 1)]
    text = card(
        facts, primary=task.primary, titles=task.titles, finds_segments=True, class_names=content["class_names"]
    )
    assert "What happens when in a video: c3d" in text
    assert "**mAP@0.5 0.833** on 2 of the 3 videos" in text
    assert "input=long.mp4 timeline=true" in section(text, "Use")
    assert "- 1 of its 3 classes have no test segment." in section(text, "Limits")
    least = "Found least well, with AP@0.5 and number of test segments: walk (0.67 of 3), run (1.00 of 1)."
    assert least in section(text, "Limits")
    with pytest.raises(ConfigError, match="of other classes"):
        _tested({"result": str(tmp_path / "out")}, content, Classification(content["class_names"]))


def test_a_network_on_features_is_asked_about_features() -> None:
    text = card(reads_features=True)
    assert "It reads no frames but features of videos, by `vidtrain extract`" in text
    assert "16 frames" not in text.partition("## Results")[0]
    use = section(text, "Use")
    assert 'vidtrain.load_model("THIS_FOLDER")' in use
    assert "vidtrain eval checkpoint=THIS_FOLDER data=features data.root=FEATURES" in use
    assert "predict" not in use
    assert "predict" in section(card(), "Use")

"""The page of a run: complete, harmless whatever a class is called, and one file."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.reports.made import made_answers, write_made_test
from vidtrain.commands import report
from vidtrain.commands.report import _commands, _csv, _of_test, after_training, write_report
from vidtrain.commands.thumbnails import Thumbnails
from vidtrain.errors import ConfigError, DataError
from vidtrain.options.non_default import unusual
from vidtrain.reports.curves import Panel, learning_curves_figure
from vidtrain.reports.page.charts import confusion_pattern, line_chart, ticks
from vidtrain.reports.page.markup import Html, Number, element, escape, joined, table
from vidtrain.reports.page.style import POLICY, SCRIPT
from vidtrain.reports.results import TestResult, notation_in_words
from vidtrain.terminal import printable

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(2)>',
    "' onmouseover='alert(3)",
    "</style><script>alert(4)</script>",
    "</title><h1>x",
    "<!--",
    "&lt;b&gt; &amp;",
    "\x1b[31mred\u202e",
    "喧嘩 ${oc.env:HOME}",
    "https://example.org/x.png",
    "]]>",
    "a\nb",
]
TAGS = {
    *["html", "head", "meta", "title", "style", "body", "script", "header", "nav", "main", "footer", "section", "div"],
    *["h1", "h2", "h3", "p", "a", "ul", "li", "b", "i", "span", "small", "pre", "code", "details", "summary"],
    *["table", "thead", "tbody", "tr", "th", "td", "figure", "figcaption", "picture", "source", "img", "wbr"],
    *["svg", "line", "text", "polyline", "circle", "rect"],
}


class Parsed(HTMLParser):
    """What a browser makes of a page: its elements with their attributes, its text, its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.scripts: list[str] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attributes}))
        if tag not in ("meta", "img", "source", "wbr"):
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attributes}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, f"{tag} closes another element"

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "script":
            self.scripts.append(data)
        elif self.elements and self.elements[-1][0] == "wbr":  # one word, which may be broken here
            self.words[-1] += data
        elif not self._open or self._open[-1] != "style":
            self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self) -> str:
        return "\n".join(self.words)

    @property
    def balanced(self) -> bool:
        return not self._open


def run_folder(folder: Path, classes: int, videos: int, names: list[str] | None = None) -> Path:
    """A run with a test, as a training leaves it."""
    write_made_test(folder / "test", classes, videos, names)
    (folder / ".hydra").mkdir()
    (folder / ".hydra" / "overrides.yaml").write_text(
        "- experiment=demo\n- data.root='/a b/$(rm -rf x)'\n- run_dir=x\n"
    )
    config = {"trainer": {"epochs": 5, "batch_size": 16}, "data": {"_target_": "evil.call", "root": "<b>"}}
    (folder / "config.json").write_text(json.dumps(config))
    lines = [
        {"kind": kind, "update": n, "epoch": n, "loss": 2 / n} for n in range(1, 4) for kind in ("train_epoch", "val")
    ]
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (folder / "suspects.csv").write_text("rank,path,label,suggested\n1,videos/7.mp4,<i>walk</i>,run\n")
    result = {"summary": {}, "test": {}, "val": {"top1": 0.5}, "primary": "top1", "checkpoint": "best.pt"}
    result |= {"params": 1_500_000, "minutes": 3.25, "clips_per_second": float("nan")}
    result |= {"videos": {"train": 7, "test": "<u>"}, "environment": {"torch": "<2.10>"}}
    result["choices"] = {"model": "c3d", "data": "../../x"}
    (folder / "result.json").write_text(json.dumps(result))
    return folder


def test_nothing_that_a_run_is_called_does_anything(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run", len(HOSTILE), 120, HOSTILE)
    size = write_report(folder, tmp_path / "page.html", 12, 10)
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert size == len(text.encode()) < 5e6
    page = Parsed(text)
    assert page.balanced
    for name in HOSTILE:
        assert printable(name) in page.text
    assert page.scripts == [SCRIPT]
    attributes = [(tag, key, value) for tag, found in page.elements for key, value in found.items()]
    assert not [a for a in attributes if a[1].startswith("on")]
    for tag, key, value in attributes:
        if key in ("href", "src", "srcset", "action", "data", "background", "xlink:href", "formaction"):
            assert value.startswith(("#", "data:image/")), (tag, key, value[:80])
    assert "url(" not in text
    assert "@import" not in text
    assert {tag for tag, _ in page.elements} <= TAGS


def test_the_policy_lets_the_pages_own_script_run_and_no_other(tmp_path: Path) -> None:
    write_report(run_folder(tmp_path / "run", 3, 30), tmp_path / "page.html", 0, 10)
    page = Parsed((tmp_path / "page.html").read_text(encoding="utf-8"))
    [policy] = [m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    assert policy == POLICY
    assert "default-src 'none'" in policy
    digest = base64.b64encode(hashlib.sha256(page.scripts[0].encode()).digest()).decode()
    assert policy.endswith(f"script-src 'sha256-{digest}'")


@pytest.mark.parametrize(("classes", "videos"), [(2, 20), (8, 80), (400, 1600)])
def test_a_page_has_its_sections_and_every_link_leads_somewhere(tmp_path: Path, classes: int, videos: int) -> None:
    folder = run_folder(tmp_path / "run", classes, videos)
    assert write_report(folder, tmp_path / "page.html", 6, 10) < 5e6
    page = Parsed((tmp_path / "page.html").read_text(encoding="utf-8"))
    ids = [found["id"] for _, found in page.elements if "id" in found]
    assert max(Counter(ids).values()) == 1
    assert [link["href"].removeprefix("#") for link in page.all("a")] == ids
    assert ids == [
        *["learning", "confusion", "pairs", "errors", "classes", "reliability", "views", "suspects", "data"],
        *["configuration", "environment", "commands"],
    ]
    probs, labels = made_answers(classes, videos)
    right = int((probs.argmax(1) == labels).sum())
    top1 = right / videos
    assert f"Top-1 {top1:.3f}: {right} of {videos} test videos right, 95 % interval {top1 - 0.05:.3f} to " in page.text
    assert f"Scored {videos} of {videos + 2} (1 not on disk, 1 unreadable); 8x1 clips at 32 px" in page.text
    assert len([t for t in page.all("table") if t.get("class") == "confusion"]) == (classes <= 40)
    assert len([i for i in page.all("img") if i.get("class") == "pattern"]) == (classes > 40)
    assert "videos/gone.mp4" in page.text
    assert "<i>walk</i>" in page.text
    assert "1.5 M" in page.text
    assert "3.2\nminutes" in page.text
    assert "clips/s" not in page.text  # which is no number
    assert "model=c3d data=../../x" in page.text
    assert "vidtrain train experiment=demo 'data.root=/a b/$(rm -rf x)'" in page.text  # nothing for a shell to do
    assert "run_dir=x" not in page.text


def test_the_most_certain_errors_come_first_and_say_why_they_are_not_shown(tmp_path: Path) -> None:
    write_made_test(tmp_path / "out", 4, 60)
    write_report(tmp_path / "out", tmp_path / "page.html", 5, 10)
    page = Parsed((tmp_path / "page.html").read_text(encoding="utf-8"))
    probs, labels = made_answers(4, 60)
    wrong = np.flatnonzero(probs.argmax(1) != labels)
    worst = wrong[np.argsort(-probs[wrong].max(1), kind="stable")][:5]
    errors = page.text[page.text.index("Most confident errors", page.text.index("Most confident errors") + 1) :]
    shown = re.findall(r"videos/(\d+)\.mp4", errors[: errors.index("Classes")])
    assert shown == [str(n) for n in worst]
    assert errors.count("no such file") == 5


def test_suspects_are_those_with_an_issue_and_their_clips(tmp_path: Path) -> None:
    write_made_test(tmp_path / "out", 3, 30)
    lines = ["rank,path,start,label,suggested,issue,prob_suggested,file"]
    lines += [
        f"{n},v/{n}.mp4,{n}.5,walk,run,{'no' if n == 2 else 'yes'},0.9{n},/nowhere/secret/{n}.mp4" for n in (1, 2, 3)
    ]
    (tmp_path / "out" / "suspects.csv").write_text("\n".join([*lines, "4,short", ""]))
    write_report(tmp_path / "out", tmp_path / "page.html", 2, 10)
    page = Parsed((tmp_path / "page.html").read_text(encoding="utf-8"))
    text = page.text[page.text.rindex("Labels that may be wrong") : page.text.rindex("Data")]
    assert re.findall(r"v/\d\.mp4.*", text) == ["v/1.mp4 from 1.5 s", "v/1.mp4", "v/3.mp4"]
    assert " 0.910" in text
    assert "secret" not in text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hydra: {runtime: {config_sources: [{path: HERE/my conf, provider: command-line}]}}", 1),
        ("hydra: {runtime: {config_sources: [{path: HERE/conf, provider: main}]}}", 0),
        ("hydra: {runtime: {config_sources: [{path: [1], provider: command-line}]}}", 0),
        ("hydra: [", 0),
        ("- 1", 0),
    ],
)
def test_the_command_keeps_the_folder_of_ones_own_configs(
    text: str, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "overrides.yaml").write_text(
        "- run_dir=there\n- experiment=mine\n- resume=auto\n- sweep.trial=3\n"
    )
    (tmp_path / ".hydra" / "hydra.yaml").write_text(text.replace("HERE", str(tmp_path)))
    own = expected * "--config-dir 'my conf' "
    again = _commands(tmp_path, tmp_path)["train it again:"]
    assert again == f"vidtrain train {own}experiment=mine"


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such folder"):
        write_report(tmp_path / "nowhere", tmp_path / "page.html", 1, 1)
    with pytest.raises(ConfigError, match="neither a run"):
        write_report(tmp_path, tmp_path / "page.html", 1, 1)
    folder = run_folder(tmp_path / "run", 3, 30)
    (folder / "test" / "result.json").write_text('{"top1": 1}')
    with pytest.raises(DataError, match="format"):
        write_report(folder, tmp_path / "page.html", 1, 1)
    assert not (tmp_path / "page.html").exists()


def test_after_a_training_a_page_that_cannot_be_written_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = run_folder(tmp_path / "run", 3, 30)
    assert after_training(folder) == folder / "report.html"
    (folder / "test" / "predictions.csv").write_text("path\n")
    assert after_training(folder) is None
    assert [r.getMessage().split("(")[0] for r in caplog.records] == [
        f"{folder}/report.html: this page is not written "
    ]


def test_a_run_without_a_test_says_so(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run", 3, 30)
    for file in (folder / "test").iterdir():
        file.unlink()
    write_report(folder, tmp_path / "page.html", 4, 1)
    page = Parsed((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert "Not tested; best on the validation split: top1 0.500" in page.text
    assert [link["href"] for link in page.all("a")][:2] == ["#learning", "#suspects"]


def test_a_test_of_eval_is_shown_with_the_run_above_it(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run", 3, 30)
    write_made_test(folder / "eval" / "one_clip", 3, 60)
    write_report(folder / "eval" / "one_clip", tmp_path / "page.html", 0, 1)
    page = Parsed((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert "run/eval/one_clip" in page.text
    assert "of 60 test videos right" in page.text
    assert page.all("a")[0]["href"] == "#learning"


def test_a_table_of_a_stranger_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.csv"
    file.write_text("a,b\n" + ",".join(["x" * 500] * 20) + "\n" + "1,2\n" * 150)
    found = _csv(file)
    assert found is not None
    assert (found.header, found.total, len(found.rows)) == (["a", "b"], 151, 100)
    assert found.rows[0] == ["x" * 400] * 12
    monkeypatch.setattr(report, "_LARGEST_CSV", file.stat().st_size - 1)
    assert _csv(file) is None
    assert _csv(tmp_path) is None


# ---------------------------------------------------------------- the parts


def test_only_html_is_not_escaped() -> None:
    assert escape('<a b="c">') == "&lt;a b=&quot;c&quot;&gt;"
    assert escape(Html("<b>")) == "<b>"
    assert element("p", "<b>", Html("<i>x</i>"), class_='"', data_v=1, id=None) == (
        '<p class="&quot;" data-v="1">&lt;b&gt;<i>x</i></p>'
    )
    assert joined(["<", Html("<br>")], ", ") == "&lt;, <br>"
    assert isinstance(joined([]), Html)


def test_a_table_sorts_numbers_by_their_values_and_knows_those_without() -> None:
    html = table(
        ["name", "n"], [["b", Number(2, "d")], ["a", Number(None)], ["c", Number(0.25, bar=True)]], sortable=True
    )
    assert [cell.get("data-v") for cell in Parsed(html).all("td")] == [None, "2", None, None, None, "0.25"]
    assert [cell.get("class") for cell in Parsed(html).all("th")] == [None, "n"]
    assert "--w:25.0%" in html


def test_a_table_without_titles_has_no_header_row() -> None:
    assert [tag for tag, _ in Parsed(table(["", ""], [["torch", "2.10"]])).elements].count("tr") == 1
    assert not Parsed(table(["", ""], [])).all("th")
    assert len(Parsed(table(["", "n"], [])).all("th")) == 2


def test_a_pair_that_was_confused_once_is_shown_where_none_was_more_often(tmp_path: Path) -> None:
    for name, confusion in (("once", [[3, 1], [0, 4]]), ("more", [[2, 2], [1, 3]])):
        write_made_test(tmp_path / name, 2, 8)
        test = TestResult.read(tmp_path / name)
        own = TestResult(test.folder, {**test.content, "confusion": confusion}, test.class_names)
        shown = [found.pair.count for found in _of_test(own, 12, Thumbnails(-1, "x"))["pairs"]]
        assert shown == ([1] if name == "once" else [2]), name


def test_ticks_are_round_and_inside() -> None:
    assert ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert ticks(0.3, 3, whole=True) == [1, 2, 3]
    assert ticks(0.02, 12.9, whole=True) == [5, 10]
    assert ticks(1, 1.4, whole=True) == [1]
    assert ticks(0.2, 0.4, whole=True) == [0.2, 0.25, 0.3, 0.35, 0.4]  # there is no whole one
    assert ticks(0.93, 0.97) == [0.93, 0.94, 0.95, 0.96, 0.97]
    assert ticks(1e-13, 3e-13) == [1e-13, 1.5e-13, 2e-13, 2.5e-13, 3e-13]
    for low, high in ((-1e15, 1e15), (3, 3.0001), (1, 10_000)):
        found = ticks(low, high)
        assert 2 <= len(found) <= 6
        assert low <= found[0] < found[-1] <= high


def test_epochs_are_whole() -> None:
    points = [(0.5, 3.0), (1.0, 2.0), (1.5, 1.0), (2.0, 0.5)]
    shown = re.findall(r">([\d.]+)</text>", str(line_chart({"": points}, title="loss", x_title="epoch", counts=True)))
    assert shown[:2] == ["1", "2"]
    axes = learning_curves_figure([Panel("loss", {"": points})]).axes[0]
    assert [tick for tick in axes.get_xticks() if 0.5 <= tick <= 2] == [1, 2]


def test_the_notation_of_a_protocol_is_explained() -> None:
    said = notation_in_words("16x5 clips at 112 px (short side 128), 6x1 views (clips x crops), probabilities averaged")
    assert said == " 16x5 clips: 16 frames each, 5 frames of the video apart."
    assert notation_in_words("8 segments at 112 px") == ""


def test_what_is_more_is_drawn_higher() -> None:
    html = line_chart({"a": [(0.0, 1.0), (1.0, 3.0), (2.0, 2.0)]}, title="t", x_title="x")
    ups = [float(circle["cy"]) for circle in Parsed(html).all("circle")]
    assert ups == [192.0, 10.0, 101.0]


def test_labels_of_an_axis_stand_beside_its_title() -> None:
    """Which ends 16 from the left; a digit is about 6 wide."""
    html = line_chart({"": [(1.0, 0.00125), (2.0, 0.00125)]}, title="learning rate", x_title="x")
    labels = re.findall(r'x="([\d.]+)" y="[\d.]+" text-anchor="end">([^<]+)<', str(html))
    assert "0.00125" in [text for _, text in labels]
    assert min(float(x) - 6 * len(text) for x, text in labels) >= 16


def test_a_line_of_one_value_is_drawn_in_the_middle() -> None:
    html = line_chart({"a": [(1.0, 5.0), (2.0, 5.0)]}, title="t", x_title="x")
    assert {circle["cy"] for circle in Parsed(html).all("circle")} == {"101.0"}
    assert Parsed(line_chart({"a": [(1.0, 0.0)]}, title="t", x_title="x")).balanced


def test_a_pattern_is_as_opaque_as_its_row_is_full() -> None:
    confusion = np.zeros((1000, 1000), dtype=np.int64)
    confusion[np.arange(1000), np.arange(1000)] = 3
    confusion[:, 0] = 1
    [image] = Parsed(confusion_pattern(confusion)).all("img")
    with Image.open(io.BytesIO(base64.b64decode(image["src"].split(",")[1]))) as found:
        alpha = np.asarray(found)[..., 3] / 255
    assert alpha.shape == (500, 500)
    assert alpha[5, 5] == pytest.approx(np.sqrt(0.75), abs=0.01)
    assert alpha[5, 0] == pytest.approx(np.sqrt(0.25), abs=0.01)
    assert alpha[5, 7] == 0


def test_options_that_are_the_usual_ones_are_not_named() -> None:
    config = {
        "trainer": {"epochs": 5, "batch_size": 16, "grad": 1},
        "optimizer": {"_target_": "torch.optim.SGD", "lr": 0.05, "weight_decay": 0.0001},
        "transform": {"size": 64, "resize": 72},
        "data": {"_target_": "mine.videos", "root": "x", "own": None},
        "logger": {},
    }
    found = {key: (value, usual) for key, value, usual, _ in unusual(config, {"transform": "small", "data": "mine"})}
    assert found == {
        "trainer.epochs": ("5", "20"),
        "trainer.grad": ("1", ""),
        "data._target_": ("mine.videos", ""),
        "data.root": ("x", ""),
    }
    [(key, *row, _)] = unusual({"data": {"root": "x"}}, {"data": "list"})
    assert (key, row) == ("data.root", ["x", ""])  # has to be given, so there is no default
    texts = {key: text for key, _, _, text in unusual(config, {})}
    assert texts["transform.size"].startswith("Height and width of")
    elsewhere = {"data": {"lr": 0.05, "momentum": 0.9}}  # of which ../optimizer/sgd would be the usual ones
    assert [key for key, *_ in unusual(elsewhere, {"data": "../optimizer/sgd"})] == ["data.lr", "data.momentum"]

"""The model card of a published network, README.md of its folder: what it is, how it was measured, where it ends.

It states what the run has written down, and says of the rest that nobody has.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from vidtrain.reports.table import markdown_text as _md
from vidtrain.terminal import printable

_MOST_CLASSES = 400  # of the list of classes
_WEAKEST = 5
_LICENSE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]{0,60}")
"""An identifier; the hub writes them in small letters."""


@dataclass(frozen=True)
class Tested:
    """The result of a test, as its result.json has it.

    values: by key, of what `titles` name. intervals: by key, (low, high). over: what they were resampled over. weakest:
    (class, recall, videos), of segments (class, AP@0.5, segments), the lowest first. unseen: how many classes have no
    test video or segment.
    """

    split: str
    protocol: str
    scored: int
    listed: int
    missing: int
    unreadable: int
    not_finite: int
    values: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    level: float = 0.95
    count: int = 0
    over: str = "videos"
    weakest: Sequence[tuple[str, float, int]] = ()
    unseen: int = 0


@dataclass(frozen=True)
class ModelCard:
    """All that the card says. Texts are plain: they are escaped here."""

    title: str
    model: str
    paper: str | None
    parameters: int
    class_names: Sequence[str]
    multi_label: bool
    clips: str
    averaged: str
    """The views of a prediction and how they are averaged."""
    dataset: str
    primary: str
    titles: Mapping[str, str]
    tested: Tested | None
    training: Sequence[str]
    """Sentences on how it was trained."""
    versions: Mapping[str, str]
    license: str | None = None
    architecture: str | None = None
    """The class of transformers that loads it."""
    notes: Sequence[str] = ()
    """How its logits differ there."""
    finds_segments: bool = False
    """It says what happens when."""
    reads_features: bool = False
    """Not frames but what `vidtrain extract` has made of them."""

    def to_markdown(self) -> str:
        parts = [
            self._front_matter(),
            f"# {_md(self.title)}",
            self._what(),
            "## Use",
            self._use(),
            "## Results",
            self._results(),
            "## Limits",
            "\n".join(f"- {line}" for line in self._limits()),
            "## Data and training",
            "\n".join(f"- {_md(line)}" for line in self._made()),
            f"## Classes ({len(self.class_names)})",
            self._classes(),
            "## Licence",
            _md(self.license) if self.license else "None is stated by whoever published this folder.",
        ]
        return "\n\n".join(parts) + "\n"

    def _front_matter(self) -> str:
        """What the hub reads: YAML, whose texts are written as JSON, which is YAML, too."""
        lines = ["library_name: " + ("transformers" if self.architecture else "vidtrain")]
        if self.license and _LICENSE.fullmatch(self.license):
            lines.append(f"license: {json.dumps(self.license.lower())}")
        elif self.license:
            lines += ["license: other", f"license_name: {json.dumps(printable(self.license))}"]
        lines += ["pipeline_tag: video-classification", "tags:", "- vidtrain", "- video-classification"]
        lines.append(f"- {json.dumps(self.model)}")
        return "\n".join(["---", *lines, "---"])

    def _what(self) -> str:
        paper = f" ({_md(self.paper)})" if self.paper else ""
        where = "at a time" if self.finds_segments else "for a video"
        several = f", any number of which may hold {where}" if self.multi_label else ""
        reads = f"clips of {_md(self.clips)}. A prediction is made of {_md(self.averaged)}"
        if self.reads_features:
            reads = "no frames but features of videos, by `vidtrain extract` and the network of those in training"
        what = "What happens when in a video" if self.finds_segments else "A video classifier"
        return (
            f"{what}: {_md(self.model)}{paper}, {self.parameters / 1e6:.3f} M parameters, "
            f"{len(self.class_names)} classes{several}. It reads {reads}.\n\n{self._verdict()}"
        )

    def _verdict(self) -> str:
        if self.tested is None:
            return "It comes without the result of a test."
        key, test = self.primary, self.tested
        if key not in test.values:
            return f"It was tested on {test.scored} of {test.listed} videos."
        interval = self._interval(key)
        return (
            f"**{_md(self.titles.get(key, key))} {test.values[key]:.3f}**{f' ({interval})' if interval else ''} on "
            f"{test.scored} of the {test.listed} videos of the {_md(test.split)} split of {_md(self.dataset)}."
        )

    def _interval(self, key: str) -> str:
        if self.tested is None or key not in self.tested.intervals:
            return ""
        (low, high), test = self.tested.intervals[key], self.tested
        return f"{test.level * 100:g} % interval {low:.3f} to {high:.3f} over {test.count} {_md(test.over)}"

    def _use(self) -> str:
        if self.reads_features:
            load = 'model, content = vidtrain.load_model("THIS_FOLDER")'
            test = "vidtrain eval checkpoint=THIS_FOLDER data=features data.root=FEATURES"
            return _block("python", "import vidtrain", "", load) + "\n\n" + _block("", test)
        name, ask, way = "clip.mp4", "clf.predict", ""
        if self.finds_segments:
            name, ask, way = "long.mp4", "clf.timeline", " timeline=true"
        text = _block("python", "import vidtrain", "", 'clf = vidtrain.load("THIS_FOLDER")', f'print({ask}("{name}"))')
        text += "\n\n" + _block("", f"vidtrain predict checkpoint=THIS_FOLDER input={name}{way}")
        if self.architecture is None:
            return text
        text += "\n\nIn transformers, which leaves the choice of the frames to you:\n\n" + _block(
            "python",
            "from transformers import AutoVideoProcessor, AutoModelForVideoClassification",
            "",
            'processor = AutoVideoProcessor.from_pretrained("THIS_FOLDER")',
            'model = AutoModelForVideoClassification.from_pretrained("THIS_FOLDER").eval()',
            'logits = model(**processor(frames, return_tensors="pt")).logits  # frames: uint8 (T, H, W, 3)',
        )
        notes = ["The frames are scaled with another filter there, so numbers differ a little.", *self.notes]
        return text + "\n\n" + "\n".join(f"- {_md(note)}" for note in notes)

    def _results(self) -> str:
        test = self.tested
        if test is None:
            return "No result of a test was at hand when this folder was written."
        shown = [(key, title) for key, title in self.titles.items() if key in test.values]
        rows = [f"| {_md(title)} | {test.values[key]:.4f} | {self._interval(key)} |" for key, title in shown]
        why = {"not on disk": test.missing, "unreadable": test.unreadable, "without a finite output": test.not_finite}
        left = ", ".join(f"{count} {reason}" for reason, count in why.items() if count)
        scored = f"Scored {test.scored} of {test.listed} videos{f' ({left})' if left else ''}."
        table = "\n".join(["| metric | value | interval |", "|---|---|---|", *rows])
        return f"{table}\n\n{scored} Protocol: {_md(test.protocol)}."

    def _limits(self) -> list[str]:
        every = "gives each class a probability of its own" if self.multi_label else "answers with one of its classes"
        every = "finds its own classes only" if self.finds_segments else every
        limits = [f"It {every}, whatever it sees: it has not been told what else there is."]
        test, unit = self.tested, "segment" if self.finds_segments else "video"
        if test is None:
            return [*limits, "Its accuracy is not stated."]
        limits.append(f"It was measured on {_md(self.dataset)} only; how it does on other videos was not measured.")
        if test.scored < test.listed:
            limits.append(f"{test.listed - test.scored} of the {test.listed} listed videos are in no number.")
        if not test.intervals:
            limits.append("The numbers come without intervals.")
        if test.unseen:
            limits.append(f"{test.unseen} of its {len(self.class_names)} classes have no test {unit}.")
        if test.weakest:
            named = [f"{_md(name)} ({value:.2f} of {count})" for name, value, count in test.weakest[:_WEAKEST]]
            least = "Found least well, with AP@0.5" if self.finds_segments else "Recognised least often, with recall"
            limits.append(f"{least} and number of test {unit}s: {', '.join(named)}.")
        return limits

    def _made(self) -> list[str]:
        versions = ", ".join(f"{name} {number}" for name, number in self.versions.items())
        return [f"Data: {self.dataset}.", *self.training, *([f"Versions: {versions}."] if versions else [])]

    def _classes(self) -> str:
        named = ", ".join(map(_md, self.class_names[:_MOST_CLASSES]))
        more = len(self.class_names) - _MOST_CLASSES
        return named + (f" and {more} more, see id2label in config.json" if more > 0 else "")


def _block(language: str, *lines: str) -> str:
    return "\n".join([f"```{language}", *lines, "```"])

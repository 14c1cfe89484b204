"""vidtrain label_errors: the videos whose label is most likely wrong, by runs that were not trained on them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from omegaconf import MISSING

from vidtrain import build
from vidtrain.commands.extract import manifest_of_videos
from vidtrain.commands.tested_runs import ClassifiedRun, TestedRun, by_task, tested_runs
from vidtrain.data.clips.dataset import EvalViews
from vidtrain.data.features.files import Video
from vidtrain.data.settings import EvalConfig, SampleMode, SamplerConfig, TransformConfig
from vidtrain.errors import ConfigError, DataError, one_of
from vidtrain.options.invocation import Invocation
from vidtrain.options.path_options import expand_home
from vidtrain.ranges import number
from vidtrain.reports.contact_sheet import write_contact_sheet
from vidtrain.reports.results import ScoredVideo
from vidtrain.reports.table import table
from vidtrain.runs.atomic import prepare_folder, write_csv
from vidtrain.runs.names import SUSPECTS
from vidtrain.tasks.classification.confident_learning import (
    LabelQuality,
    ScoreName,
    label_quality,
    multi_label_quality,
)
from vidtrain.tasks.classification.intervals import share_interval
from vidtrain.terminal import print_line, said_when_slow
from vidtrain.types import FilePath
from vidtrain.untrusted_data import has_types

_SHEET: Final = "suspects.png"
_SHOWN: Final = 10  # videos on the terminal
_MOST_FOLDS: Final = 10_000  # that are looked for
_FRAMES: Final = 8  # of a video on the sheet
_SCORES: Final = {
    ScoreName.normalized_margin: "0 suspicious, 0.5 undecided between the label and another class, 1 sure of the label",
    ScoreName.self_confidence: "the probability of the label: 0 suspicious, 1 sure of it",
}


@dataclass
class LabelErrorsConfig:
    runs: list[FilePath] = MISSING
    """A sweep over data.fold, or runs or output folders of eval: the words after label_errors."""
    score: ScoreName = ScoreName.normalized_margin
    """normalized_margin ranks by how much more probable another class is, self_confidence by how improbable the label
    is."""
    clips: int = number(24, least=0, most=200)
    """Videos on the contact sheet, a row each, the most suspicious first; 0: no sheet."""
    output: FilePath | None = None
    """Folder for suspects.csv and suspects.png; null: the one that is named, or label_errors/ where several are."""
    decoder: Any = MISSING


def run(call: Invocation[LabelErrorsConfig]) -> None:
    """Write suspects.csv and suspects.png, print the first of the list."""
    options = call.options
    runs, untested = tested_runs(options.runs)
    if not runs:
        raise ConfigError(f"none of these runs has been tested: {one_of(untested, 5)}")
    classified, other = by_task(runs)
    if other:
        raise ConfigError(f"{other[0].folder}: a run with task=segments, whose segments have no label to judge")
    judged = _judged(classified)
    quality = judged.quality(options.score)
    order = np.argsort(quality.scores, kind="stable")
    suspects = [judged.suspect(row, rank, quality) for rank, row in enumerate(order.tolist(), 1)]
    folder = prepare_folder(_folder(options), "output")
    segmented = any(suspect.video.start is not None for suspect in suspects)
    header = ["rank", "path", *(["start", "end"] if segmented else []), "label", "suggested", "score", "issue"]
    write_csv(
        folder / SUSPECTS,
        [*header, "prob_label", "prob_suggested", "file"],
        (suspect.cells(segmented=segmented) for suspect in suspects),
    )
    _print(judged, suspects, [*_coverage(runs), *untested], options.score)
    print_line(f"all {len(suspects)}, the most suspicious first: {folder / SUSPECTS}")
    if options.clips:
        with said_when_slow(f"drawing {folder / _SHEET}"):
            _sheet(options, suspects[: options.clips], folder / _SHEET)


# ---------------------------------------------------------------- what was predicted


@dataclass(frozen=True)
class Suspect:
    """A video, the most suspicious with rank 1. suggested: its labels as the network would have them. probs: of the
    label and of the suggestion, nan where a video has several."""

    rank: int
    video: ScoredVideo
    suggested: str
    score: float
    issue: bool
    probs: tuple[float, float]

    @property
    def label(self) -> str:
        return ";".join(self.video.labels)

    def cells(self, *, segmented: bool) -> list[Any]:
        seconds = ["" if value is None else value for value in (self.video.start, self.video.end)] if segmented else []
        probs = ["" if np.isnan(p) else f"{p:.6f}" for p in self.probs]
        issue = "yes" if self.issue else "no"
        named = [self.rank, self.video.path, *seconds, self.label, self.suggested]
        return [*named, f"{self.score:.6f}", issue, *probs, self.video.file]


@dataclass(frozen=True)
class Judged:
    """Videos with their labels and the probabilities, float32 (n, K), of runs that were not trained on them."""

    class_names: Sequence[str]
    multi_label: bool
    videos: Sequence[ScoredVideo]
    labels: npt.NDArray[np.int64]
    probs: npt.NDArray[np.float32]

    def quality(self, score: ScoreName) -> LabelQuality:
        if self.multi_label:
            return multi_label_quality(self.probs, self.labels.astype(bool), score)
        return label_quality(self.probs, self.labels, score)

    def strength(self) -> list[str]:
        """How good the networks are that judge the labels, and whether that is too little. Of several labels per video
        nothing: no one class is what a network without knowledge would answer."""
        if self.multi_label:
            return []
        count = len(self.labels)
        right = float((self.probs.argmax(1) == self.labels).mean())
        largest = int(np.bincount(self.labels).max()) / count
        said = f"these networks are right on {right:.0%} of the videos; the largest class is {largest:.0%}"
        if share_interval(right, count)[0] > largest:
            return [said]
        return [said, "too weak to judge labels: the list is mostly their own errors"]

    def suspect(self, row: int, rank: int, quality: LabelQuality) -> Suspect:
        score, issue = float(quality.scores[row]), bool(quality.issues[row])
        if self.multi_label:
            names = (self.class_names[k] for k in np.flatnonzero(quality.suggested[row]).tolist())
            return Suspect(rank, self.videos[row], ";".join(names), score, issue, (np.nan, np.nan))
        best = int(quality.suggested[row])
        probs = float(self.probs[row, self.labels[row]]), float(self.probs[row, best])
        return Suspect(rank, self.videos[row], self.class_names[best], score, issue, probs)


def _judged(runs: Sequence[ClassifiedRun]) -> Judged:
    """The videos with a label of all tests; of one that several runs were tested on, the mean of the probabilities."""
    first = runs[0].test
    rows: dict[tuple[Any, ...], int] = {}
    videos: list[ScoredVideo] = []
    parts = []
    for run in runs:
        test = run.test
        if test.content["split"] == "train":
            raise ConfigError(
                f"{run.folder}: was tested on train, whose labels it has learned: give tests on other videos"
            )
        if test.class_names != first.class_names or test.multi_label != first.multi_label:
            raise ConfigError(f"{run.folder}: has other classes than {runs[0].folder}: give runs of one dataset")
        own = test.predictions()
        known = [n for n, video in enumerate(own) if video.labels or test.multi_label]
        for n in known:
            if own[n].key not in rows:
                rows[own[n].key] = len(videos)
                videos.append(own[n])
            elif own[n].labels != videos[rows[own[n].key]].labels:
                said = [";".join(video.labels) for video in (videos[rows[own[n].key]], own[n])]
                raise DataError(f"{own[n].path}: is labelled {said[0]} in one of the runs, {said[1]} in {run.folder}")
        parts.append((test, known, np.array([rows[own[n].key] for n in known], dtype=np.int64)))
    if len(first.class_names) < 2 or not videos:
        raise ConfigError(f"{runs[0].folder}: {len(videos)} videos with a label, {len(first.class_names)} classes")
    sums, counts = np.zeros((len(videos), len(first.class_names)), np.float32), np.zeros(len(videos), np.float32)
    for test, known, places in parts:
        np.add.at(sums, places, test.probabilities()[known])
        np.add.at(counts, places, 1)
    if not np.isfinite(sums).all():
        raise DataError("probabilities.npy of one of the runs holds numbers that are not finite")
    return Judged(first.class_names, first.multi_label, videos, first.labels(videos), sums / counts[:, None])


def _coverage(runs: Sequence[TestedRun[Any]]) -> list[str]:
    """A line about videos of the dataset that no run was tested on, as far as the configurations say."""
    sections = [data for run in runs if isinstance(data := run.config.get("data"), dict)]
    folds = {(data["folds"], data["fold"]) for data in sections if has_types(data, folds=int, fold=int)}
    totals = {total for total, _ in folds}
    if not totals:
        return ["Only videos of the test split are judged; runs with data.folds=5 data.fold=0,1,2,3,4 judge all."]
    missing = sorted(set(range(min(max(totals), _MOST_FOLDS))) - {fold for _, fold in folds})
    if len(totals) > 1 or not missing:
        return []
    named = f"fold{'s' if len(missing) > 1 else ''} {one_of(map(str, missing))} of {max(totals)}"
    return [f"The videos of {named} are not judged: no run was tested on them."]


# ---------------------------------------------------------------- what is shown


def _folder(options: LabelErrorsConfig) -> Path:
    if options.output is not None:
        return Path(options.output)
    return Path(expand_home(options.runs[0])) if len(options.runs) == 1 else Path("label_errors")


def _print(judged: Judged, suspects: Sequence[Suspect], notes: Sequence[str], score: ScoreName) -> None:
    issues = [suspect for suspect in suspects if suspect.issue]
    share = len(issues) / len(suspects)
    for line in judged.strength():
        print_line(line)
    print_line(f"confident learning flags {len(issues)} of {len(suspects)} labels ({share:.1%})")
    for note in notes:
        print_line(note)
    rows = [
        [s.rank, _end(s.video.path, 48), s.label, s.suggested, f"{s.score:.3f}", "yes" if s.issue else "no"]
        for s in suspects[:_SHOWN]
    ]
    print("\n" + table(["rank", "video", "label", "suggested", "score", "issue"], rows))
    print(f"score: {_SCORES[score]}\n")
    if not judged.multi_label:
        pairs = Counter((suspect.label, suspect.suggested) for suspect in issues).most_common(5)
        if pairs and pairs[0][1] > 1:
            said = (f"labelled {label}, suggested {other}: {count}" for (label, other), count in pairs)
            print_line("most often: " + "; ".join(said))


def _sheet(options: LabelErrorsConfig, suspects: Sequence[Suspect], file: Path) -> None:
    """The contact sheet, of those videos that can be read."""
    spread = SamplerConfig(num_frames=_FRAMES, mode=SampleMode.segments)
    parts = build.make_parts(options.decoder, spread, TransformConfig(size=112, resize=112))
    manifest = manifest_of_videos([Video(s.video.file, s.video.start, s.video.end) for s in suspects])
    views = EvalViews(manifest, parts, EvalConfig(clips=1))
    clips, titles = [], []
    for row, suspect in enumerate(suspects):
        sample = views[row]
        for bad in sample.bad:
            print_line(f"not on the sheet: {bad.path}: {bad.reason}")
        if sample.inputs is not None:
            clips.append(sample.inputs["rgb"][0].numpy())
            said = f"{suspect.rank}. label {suspect.label or 'none'}, suggested {suspect.suggested or 'none'}"
            titles.append(f"{said} ({suspect.score:.3f})   {_end(suspect.video.path, 70)}")
    if clips:
        write_contact_sheet(file, clips, titles, heading="labels, the most suspicious first", frames=_FRAMES)
        print_line(f"{len(clips)} of them to look at: {file}")


def _end(path: str, most: int) -> str:
    return path if len(path) <= most else f"...{path[3 - most :]}"

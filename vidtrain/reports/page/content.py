"""What a report is made of: plain values, read and chosen before a line of HTML is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from vidtrain.reports.confusion import ConfusedPair
from vidtrain.reports.curves import Curves
from vidtrain.reports.results import ScoredVideo, TestFolder, TestResult
from vidtrain.reports.segment_results import SegmentsResult


@dataclass(frozen=True)
class Clip:
    """A scored video and its thumbnail: animated and still are WebP files; without them `note` says why."""

    video: ScoredVideo
    animated: bytes | None = None
    still: bytes | None = None
    note: str = ""


@dataclass(frozen=True)
class PairClips:
    """Two classes that are confused, and some of the videos."""

    pair: ConfusedPair
    clips: Sequence[Clip]


@dataclass(frozen=True)
class OptionRow:
    """An option of the run: what it was, what it is by itself ("" where that is not known), what it does."""

    key: str
    value: str
    usual: str
    text: str


@dataclass(frozen=True)
class CsvRows:
    """A table as a CSV file has it: the first rows, and how many there are."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    total: int


@dataclass(frozen=True)
class ReportContent:
    """All that a page shows; what is empty has no section.

    title: names the run. test: None of a run that was not tested; segments: the test of task=segments, in its place.
    primary: the key of the number that either is judged by. titles: key -> title of the numbers of a test.
    numbers: of the run beside its test: title -> text. seconds: durations of `probed` test videos. not_scored:
    path and reason. choices: group -> choice. config: the whole configuration as text. commands: what it does -> the
    command line.
    """

    title: str
    test: TestResult | None
    titles: Mapping[str, str]
    primary: str = "top1"
    segments: SegmentsResult | None = None
    curves: Curves = field(default_factory=Curves)
    numbers: Mapping[str, str] = field(default_factory=dict)
    validation: str = ""
    errors: Sequence[Clip] = ()
    pairs: Sequence[PairClips] = ()
    suspects: CsvRows | None = None
    suspect_clips: Sequence[Clip] = ()
    not_scored: CsvRows | None = None
    seconds: Sequence[float] = ()
    splits: Mapping[str, int] = field(default_factory=dict)
    choices: Mapping[str, str] = field(default_factory=dict)
    options: Sequence[OptionRow] = ()
    config: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    commands: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()

    @property
    def tested(self) -> TestFolder | None:
        """The test, of either task."""
        return self.segments if self.test is None else self.test


def confident_errors(videos: Sequence[ScoredVideo], most: int) -> list[ScoredVideo]:
    """The videos whose most probable class is none of theirs, the most certain first."""
    wrong = [video for video in videos if video.labels and video.top and video.top[0][0] not in video.labels]
    return sorted(wrong, key=lambda video: -video.top[0][1])[:most]


def examples(
    videos: Sequence[ScoredVideo], pair: ConfusedPair, class_names: Sequence[str], most: int
) -> list[ScoredVideo]:
    """Videos of the one class that were taken for the other, the most certain first."""
    true, answer = class_names[pair.true], class_names[pair.predicted]
    return [v for v in confident_errors(videos, len(videos)) if v.labels == (true,) and v.top[0][0] == answer][:most]

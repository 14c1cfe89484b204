"""The scores of a split of untrimmed videos: average precision by overlap in time, and what frames say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vidtrain.segments import Floats, Segment
from vidtrain.tasks.segments.average_precision import (
    THRESHOLDS,
    THUMOS_THRESHOLDS,
    ByVideo,
    average_precision,
    mean_average_precision,
    thumos_average_precision,
)
from vidtrain.tasks.segments.frame_metrics import (
    F1_OVERLAPS,
    Labels,
    background_share,
    edit_score,
    frame_accuracy,
    frame_labels,
    segmental_f1,
)
from vidtrain.tasks.settings import SegmentsConfig
from vidtrain.tasks.task import Predictions

FRAMES_PER_SECOND: Final = 25.0
"""At which what happens is compared frame by frame, whatever the rate of the videos."""
_WORST: Final = 6  # videos that are drawn
_MOST_DRAWN: Final = 1000  # segments of each
_ALL: Final = tuple(sorted({*THUMOS_THRESHOLDS, *THRESHOLDS}))
TITLES: Final = {
    "map_50": "mAP@0.5",
    "map_75": "mAP@0.75",
    "map_mean": "mAP@0.5:0.95",
    "map_thumos": "mAP@0.3:0.7",
    "frame_accuracy": "frame accuracy",
    "f1_10": "F1@10",
    "f1_25": "F1@25",
    "f1_50": "F1@50",
    "edit": "edit score",
    "loss": "loss",
}
"""Key -> title of all that a test measures, in the order of the tables. mAP is ActivityNet's; the mean over 0.3:0.7 is
what papers report of THUMOS14."""


@dataclass
class SegmentScores:
    """Of n videos; implements tasks.task.Scores.

    The columns of `predictions`: truth Sequences (m, 3) of start, end, class; found Sequences (k, 4) with a score;
    seconds float64 (n,), the length of each; least float64 (n,), the score from which on segments count frame by frame,
    as for the average precision all of them are ranked; highest float64 (n,), of any class in any window, the averaged
    probability that the threshold is for; loss float32 (n,).

    config: how windows became segments.
    """

    predictions: Predictions
    class_names: Sequence[str]
    config: SegmentsConfig
    primary: str = "map_50"

    @cached_property
    def truth(self) -> ByVideo:
        """By the number of the video."""
        return self._segments("truth")

    @cached_property
    def found(self) -> ByVideo:
        """By the number of the video."""
        return self._segments("found")

    @property
    def _kept(self) -> ByVideo:
        """Of those found the ones that count frame by frame."""
        least = self.predictions.columns["least"].tolist() if len(self.predictions) else []
        pairs = zip(self.found.items(), least, strict=True)
        return {video: [s for s in own if s.score >= score] for (video, own), score in pairs}

    def _segments(self, column: str) -> dict[str, list[Segment]]:
        if not len(self.predictions):
            return {}
        tables = zip(self.predictions.videos.tolist(), self.predictions.columns[column].each(), strict=True)
        return {
            str(row): [Segment(s, e, self.class_names[int(k)], *score or [1.0]) for s, e, k, *score in table.tolist()]
            for row, table in tables
        }

    @cached_property
    def _of_classes(self) -> dict[str, Floats]:
        """Average precision at each of _ALL, by class; nan where the truth has none of it."""
        return {name: average_precision(self.truth, self.found, name, _ALL) for name in self.class_names}

    @cached_property
    def _precision(self) -> dict[float, float]:
        """The mean over the classes, by overlap."""
        values = mean_average_precision(
            self.truth, self.found, self.class_names, _ALL, of=lambda _, __, name, ___: self._of_classes[name]
        )
        return dict(zip(_ALL, values.tolist(), strict=True))

    @cached_property
    def _frames(self) -> tuple[list[Labels], list[Labels]]:
        """Of every video what truly happens in each frame, and what was found."""
        seconds = self.predictions.columns["seconds"].tolist() if len(self.predictions) else []
        sides = (self.truth, self._kept)
        made = [
            [
                frame_labels(own, self.class_names, s, FRAMES_PER_SECOND)
                for own, s in zip(side.values(), seconds, strict=True)
            ]
            for side in sides
        ]
        return made[0], made[1]

    def summary(self) -> dict[str, float]:
        """TITLES by key; nan where no video has a segment."""
        precision, f1 = self._precision, segmental_f1(*self._frames)
        loss = float(self.predictions.columns["loss"].mean()) if len(self.predictions) else float("nan")
        return {
            "map_50": precision[0.5],
            "map_75": precision[0.75],
            "map_mean": float(np.mean([precision[t] for t in THRESHOLDS])),
            "map_thumos": float(np.mean([precision[t] for t in THUMOS_THRESHOLDS])),
            "frame_accuracy": frame_accuracy(*self._frames),
            **{f"f1_{round(100 * overlap)}": value for overlap, value in zip(F1_OVERLAPS, f1, strict=True)},
            "edit": edit_score(*self._frames),
            "loss": loss,
        }

    def rank(self) -> list[float]:
        """A video without a finite output has no segment here, or a network that diverges would rank by the rest."""
        values = self.summary()
        return [values[self.primary] * self.predictions.finite_share, -values["loss"]]

    def report(self) -> dict[str, Any]:
        """The precision at every overlap by both definitions, what each class scored, and the worst videos with all
        that is drawn of them: a segment is [start, end, row of segment_classes], of those found with a score."""
        kit = mean_average_precision(
            self.truth, self.found, self.class_names, THUMOS_THRESHOLDS, of=thumos_average_precision
        )
        return {
            "segment_classes": [self._of_class(name) for name in self.class_names],
            "map_by_overlap": {f"{overlap:g}": _or_none(value) for overlap, value in self._precision.items()},
            "map_by_overlap_thumos_kit": {
                f"{overlap:g}": _or_none(value) for overlap, value in zip(THUMOS_THRESHOLDS, kit.tolist(), strict=True)
            },
            "segments": sum(map(len, self.truth.values())),
            "segments_found": sum(map(len, self.found.values())),
            "least_score": max(self.predictions.columns["least"].tolist(), default=0.0)
            if len(self.predictions)
            else 0.0,
            "background": _or_none(background_share(self._frames[0])),
            "worst": [self._drawn(number, accuracy) for number, accuracy in self._worst()],
        }

    def _of_class(self, name: str) -> dict[str, Any]:
        at_half, at_three_quarters = (float(self._of_classes[name][_ALL.index(overlap)]) for overlap in (0.5, 0.75))
        truth, kept = (sum(s.label == name for own in side.values() for s in own) for side in (self.truth, self._kept))
        precision = {"ap_50": _or_none(at_half), "ap_75": _or_none(at_three_quarters)}
        return {"name": name, "segments": truth, "found": kept, **precision}

    def _drawn(self, number: int, accuracy: float) -> dict[str, Any]:
        """A video for the report, see reports/segment_results.py."""
        row = str(int(self.predictions.videos[number]))
        seconds = float(self.predictions.columns["seconds"][number])
        truth, found = (sorted(side[row], key=lambda s: s.start)[:_MOST_DRAWN] for side in (self.truth, self._kept))
        places = [[round(s.start, 3), round(s.end, 3), self.class_names.index(s.label)] for s in (*truth, *found)]
        scored = [[*place, round(s.score, 4)] for place, s in zip(places[len(truth) :], found, strict=True)]
        about = {"video": self._name(number), "frame_accuracy": accuracy, "seconds": round(seconds, 3)}
        return {**about, "truth": places[: len(truth)], "found": scored}

    def _name(self, number: int) -> str:
        names = self.predictions.names
        return f"video {int(self.predictions.videos[number])}" if names is None else names[number]

    def _worst(self) -> list[tuple[int, float]]:
        """(number among those scored, accuracy of its frames), the lowest first."""
        each = [frame_accuracy([one], [other]) for one, other in zip(*self._frames, strict=True)]
        order = np.argsort(each, kind="stable")[:_WORST].tolist()
        return [(number, each[number]) for number in order]

    def remarks(self) -> list[str]:
        if not len(self.predictions) or any(self.found.values()):
            return []
        highest, config = self.predictions.columns["highest"].max().item(), self.config
        why = f"the highest probability was {highest:.3g}, below task.threshold={config.threshold:g}"
        if highest >= config.threshold:
            why = f"all were shorter than task.min_seconds={config.min_seconds:g}"
        return [f"no segment was found in any video: {why}: has the network learned anything?"]

    def figures(self) -> dict[str, Callable[[], npt.NDArray[np.uint8]]]:
        """What truly happens and what was found, one over the other, of the worst videos."""
        if not len(self.predictions):
            return {}

        def draw() -> npt.NDArray[np.uint8]:
            from vidtrain.reports.timeline import CompareRow, comparison_image  # matplotlib takes a second

            seconds, truth, found = (
                self.predictions.columns["seconds"].tolist(),
                *map(list, (self.truth.values(), self._kept.values())),
            )
            rows = [
                CompareRow(f"{self._name(n)}  {accuracy:.2f}", seconds[n], truth[n], found[n])
                for n, accuracy in self._worst()
            ]
            return comparison_image(rows, self.class_names)

        return {"timelines": draw}


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else value

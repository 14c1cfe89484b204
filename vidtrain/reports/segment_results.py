"""What a test with task=segments has left in its folder, as the report reads it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from vidtrain.reports.result_format import check_segments_result
from vidtrain.reports.results import TestFolder, TestResult, is_of_segments, opened_test
from vidtrain.segments import Segment


@dataclass(frozen=True)
class DrawnVideo:
    """A video of which result.json holds what truly happens in it and what was found, both by their start.

    path: as the list of the dataset has it. seconds: its length. accuracy: share of its frames that are right. The
    found ones are those that count frame by frame.
    """

    path: str
    seconds: float
    accuracy: float
    truth: Sequence[Segment]
    found: Sequence[Segment]


@dataclass(frozen=True)
class SegmentsResult(TestFolder):
    """The test of what happens when."""

    @classmethod
    def of(cls, folder: Path, content: dict[str, Any]) -> SegmentsResult:
        """From `opened_test`, within it: ValueError where content is not as described."""
        check_segments_result(content)
        return cls(folder, content, tuple(row["name"] for row in content["segment_classes"]))

    @cached_property
    def worst(self) -> list[DrawnVideo]:
        """Those with the fewest right frames, the worst first."""
        names = self.class_names
        return [
            DrawnVideo(
                video["video"],
                float(video["seconds"]),
                float(video["frame_accuracy"]),
                *(
                    [Segment(float(s), float(e), names[label], *score or [1.0]) for s, e, label, *score in video[part]]
                    for part in ("truth", "found")
                ),
            )
            for video in self.content["worst"]
        ]


def read_test(folder: str | Path) -> TestResult | SegmentsResult:
    """The test of either task.

    Raises:
        DataError: there is none, of another format, or not as described.
    """
    with opened_test(folder) as (home, content):
        return (SegmentsResult if is_of_segments(content) else TestResult).of(home, content)

"""Segments of videos as files that other programs read."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from vidtrain.reports.table import table
from vidtrain.runs.atomic import whole_file, write_csv, write_json, write_text
from vidtrain.segments import Segment
from vidtrain.terminal import printable

COLUMNS = ("file", "start", "end", "label", "score")


class Segmented(Protocol):
    """A video with its segments. seconds: its length."""

    @property
    def path(self) -> str: ...
    @property
    def seconds(self) -> float: ...
    @property
    def segments(self) -> Sequence[Segment]: ...


def clock(seconds: float) -> str:
    """'1:02:03.450', the hours always there, to the millisecond: WebVTT's time, which ELAN reads too."""
    millis = round(seconds * 1000)
    return f"{millis // 3600000:02d}:{millis // 60000 % 60:02d}:{millis // 1000 % 60:02d}.{millis % 1000:03d}"


def segments_table(segments: Sequence[Segment]) -> str:
    """For the terminal."""
    rows = [(clock(s.start), clock(s.end), f"{s.seconds:.2f}", s.label, f"{s.score:.3f}") for s in segments]
    return table(("start", "end", "seconds", "label", "score"), rows)


def write_segments_csv(file: Path, videos: Iterable[Segmented]) -> None:
    """A row per segment: file, start, end (seconds), label, score. ELAN imports it, columns assigned in its dialog."""
    write_csv(
        file,
        COLUMNS,
        (
            (video.path, f"{s.start:.3f}", f"{s.end:.3f}", s.label, f"{s.score:.4f}")
            for video in videos
            for s in video.segments
        ),
    )


def write_boris_events(file: Path, video: Segmented) -> None:
    """The events of a media observation as BORIS pastes them: time, subject, behavior, modifier, comment, frame index.

    A state begins and ends by an event of its name each. Segments of a label that touch are one: BORIS leaves out an
    event that it has already. It takes every line for one, so that there is no header and no end of the last line.
    """
    events: list[tuple[float, str, str]] = []
    last: dict[str, int] = {}  # where in events the latest segment of a label ends
    for s in sorted(video.segments, key=lambda s: s.start):
        start, end, label = round(s.start, 3), round(s.end, 3), printable(s.label)
        at = last.get(label)
        if at is not None and start <= events[at][0]:
            events[at] = (max(end, events[at][0]), label, "")
            continue
        events += [(start, label, f"{s.score:.2f}"), (end, label, "")]
        last[label] = len(events) - 1
    lines = [f"{time:.3f}\t\t{label}\t\t{comment}\tNA" for time, label, comment in sorted(events)]
    write_text(file, "\n".join(lines), errors="replace", newline="\n")


def write_vtt(file: Path, video: Segmented) -> None:
    """WebVTT: a cue per segment, which players show over the video."""
    with whole_file(file, "w", encoding="utf-8", errors="replace") as out:
        out.write("WEBVTT\n")
        for s in video.segments:
            text = html.escape(printable(s.label), quote=False)  # cues are marked up: <b>, &amp;
            out.write(f"\n{clock(s.start)} --> {clock(s.end)}\n{text} {s.score:.0%}\n")


def write_segments_json(file: Path, video: Segmented, details: Mapping[str, Any]) -> None:
    """{"file", "seconds", "segments": [{"start", "end", "label", "score"}, ...], and the details, plain values}."""
    segments = [
        {"start": round(s.start, 3), "end": round(s.end, 3), "label": s.label, "score": round(s.score, 4)}
        for s in video.segments
    ]
    write_json(file, {"file": video.path, "seconds": round(video.seconds, 3), "segments": segments, **details})

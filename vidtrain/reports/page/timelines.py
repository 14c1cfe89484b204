"""The sections of a report on task=segments: what happens when, truly and as it was found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vidtrain.reports.page.charts import line_chart, ticks
from vidtrain.reports.page.content import ReportContent
from vidtrain.reports.page.markup import Html, Number, class_table, element, joined
from vidtrain.reports.results import scored_sentence
from vidtrain.reports.segment_results import DrawnVideo, SegmentsResult
from vidtrain.reports.table import counted
from vidtrain.segments import Segment

_HIT = 0.5  # tIoU with a segment of the class, from which on one counts as found
_MOST_LANES = 16  # classes that are drawn of a video
_MOST_NAMED = 30  # segments of a lane that are read aloud
_MOST_CLASSES = 1000  # rows of the table
_NOTHING = Html("")


# ---------------------------------------------------------------- the answer


def verdict_of_segments(test: SegmentsResult) -> Html:
    """The number, what it is of, and what it means."""
    classes = f"{len(test.class_names)} class{'es' * (len(test.class_names) != 1)}"
    true = f"{counted(test.part('segments'), 'segment')} of {classes}"
    where = f"{counted(test.scored, 'video')} of the {test.part('split')} split"
    value = test.numbers.get("map_50")
    headline = (
        f"mAP@0.5 {value:.3f} on {where}, with {true}."
        if value is not None
        else f"Nothing happens in the {where} that were scored."
    )
    sentences = [one for one in (_counts(test), _borders(test), _weakest(test), _baseline(test)) if one]
    line = scored_sentence(dict(test.content))
    return joined(
        [
            element("p", headline, class_="verdict"),
            element("p", line, class_="soft"),
            element("p", " ".join(sentences)),
        ]
    )


def _counts(test: SegmentsResult) -> str:
    kept, least = sum(row["found"] for row in test.part("segment_classes")), test.part("least_score")
    scored = f" with a score of {least:g} or more" if least else ""
    return f"{counted(kept, 'segment')} {'were' if kept != 1 else 'was'} found{scored}."


def _borders(test: SegmentsResult) -> str:
    half, close = test.numbers.get("map_50"), test.numbers.get("map_75")
    if not half or close is None:
        return ""
    return f"Where an overlap of 0.75 is asked for in place of 0.5, mAP is {close:.3f}: how well the borders fit."


def _weakest(test: SegmentsResult) -> str:
    ranked = _ranked(test)
    if len(ranked) < 2:
        return ""
    names = ", ".join(f"“{row['name']}” ({row['ap_50']:.2f})" for row in ranked[: min(3, len(ranked) // 2)])
    return f"Lowest average precision: {names}."


def _baseline(test: SegmentsResult) -> str:
    background, accuracy = test.part("background"), test.numbers.get("frame_accuracy")
    if background is None or accuracy is None:
        return ""
    return (
        f"Of all frames {accuracy:.3f} have the right class; an answer of nothing at all would be right for "
        f"{background:.3f}."
    )


def _ranked(test: SegmentsResult) -> list[Mapping[str, Any]]:
    """The classes that occur, the lowest average precision first."""
    known = [row for row in test.part("segment_classes") if row["ap_50"] is not None]
    return sorted(known, key=lambda row: (row["ap_50"], -row["segments"]))


# ---------------------------------------------------------------- scores


def overlaps(content: ReportContent) -> Html:
    """mAP over the overlap that is asked for, by both definitions."""
    if content.segments is None:
        return _NOTHING
    kinds = {"ActivityNet": "map_by_overlap", "THUMOS14's kit": "map_by_overlap_thumos_kit"}
    lines = {
        title: [
            (float(overlap), float(value)) for overlap, value in content.segments.part(key).items() if value is not None
        ]
        for title, key in kinds.items()
    }
    if not any(lines.values()):
        return _NOTHING
    chart = line_chart(lines, title="mAP", x_title="overlap in time (tIoU) that is asked for", share=True)
    kit = (
        "ActivityNet's evaluator ranks what was found by its score, as today's papers do. THUMOS14's kit gives each "
        "true segment what overlaps it most, however low its score: where much is found faintly, it says less."
    )
    return joined([element("div", chart, class_="row"), element("p", kit, class_="note")])


def segment_classes(content: ReportContent) -> Html:
    """A sortable table, the lowest average precision first, then classes that the split does not have."""
    if content.segments is None:
        return _NOTHING
    ranked = _ranked(content.segments)
    ranked += [row for row in content.segments.part("segment_classes") if row["ap_50"] is None]
    rows = [
        [
            row["name"],
            Number(row["segments"], "d"),
            Number(row["found"], "d"),
            Number(row["ap_50"], ".3f", bar=True),
            Number(row["ap_75"], ".3f"),
        ]
        for row in ranked[:_MOST_CLASSES]
    ]
    header = ["class", "segments", "found", "AP@0.5", "AP@0.75"]
    return class_table(header, rows, len(ranked))


# ---------------------------------------------------------------- timelines


def timelines(content: ReportContent) -> Html:
    """Of the worst videos what truly happens, and below it what was found, a lane per class."""
    videos = [] if content.segments is None else content.segments.worst
    if not videos:
        return _NOTHING
    key = [
        element("span", element("i", class_=kind), text)
        for kind, text in (
            ("true", "truly, found"),
            ("true missed", "truly, missed"),
            ("found", "found, the fainter the lower its score"),
            ("found wrong", "found, and no true one is as near"),
        )
    ]
    note = f"Those with the smallest share of right frames. Found: by one of the class with tIoU {_HIT:g} or more."
    return joined([element("p", note), element("p", *key, class_="key lanes"), *map(_timeline, videos)])


def _timeline(video: DrawnVideo) -> Html:
    names = list(dict.fromkeys(s.label for s in sorted((*video.truth, *video.found), key=lambda s: s.start)))
    seconds = max([video.seconds, *(s.end for s in (*video.truth, *video.found))]) or 1.0
    lanes = []
    for name in names[:_MOST_LANES]:
        truth, found = ([s for s in side if s.label == name] for side in (video.truth, video.found))
        bars = [*(_bar(s, found, seconds, "true") for s in truth), *(_bar(s, truth, seconds, "found") for s in found)]
        track = element("div", *bars, class_="track", role="img", aria_label=_read_aloud(name, truth, found))
        lanes += [element("span", name, class_="lane", title=name), track]
    scale = 60.0 if seconds > 600 else 1.0
    marks = [
        element("span", f"{at:g}", style=f"left:{100 * at * scale / seconds:.2f}%")
        for at in ticks(0.0, seconds / scale, 6)
    ]
    lanes += [
        element("span", "minutes" if scale > 1 else "seconds", class_="lane"),
        element("div", *marks, class_="ticks"),
    ]
    title = element("h3", f"{video.path}: {video.accuracy:.3f} of its frames are right")
    more = len(names) - _MOST_LANES
    rest = element("p", f"and {more} more classes", class_="note") if more > 0 else _NOTHING
    return element("figure", title, element("div", *lanes, class_="lanes"), rest, class_="timeline")


def _bar(one: Segment, others: Sequence[Segment], seconds: float, kind: str) -> Html:
    hit = any(one.overlap(other) >= _HIT for other in others)
    place = f"left:{100 * one.start / seconds:.3f}%;width:{100 * one.seconds / seconds:.3f}%"
    score = f" ({one.score:.2f})" if kind == "found" else ""
    if kind == "found":
        place += f";opacity:{0.3 + 0.7 * one.score:.2f}"
    elif not hit:
        kind = "true missed"
    if kind == "found" and not hit:
        kind = "found wrong"
    return element("i", class_=kind, style=place, title=f"{one.label} {one.start:.2f} to {one.end:.2f} s{score}")


def _read_aloud(name: str, truth: Sequence[Segment], found: Sequence[Segment]) -> str:
    """What a bar shows to the eye, in words."""

    def listed(segments: Sequence[Segment]) -> str:
        shown = ", ".join(f"{s.start:.1f} to {s.end:.1f}" for s in segments[:_MOST_NAMED])
        return (shown or "never") + (f" and {len(segments) - _MOST_NAMED} more" if len(segments) > _MOST_NAMED else "")

    return f"{name}, seconds: truly {listed(truth)}; found {listed(found)}"

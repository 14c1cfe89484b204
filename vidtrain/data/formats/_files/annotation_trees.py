"""Segments out of JSON and XML: ActivityNet, THUMOS, BORIS' projects, Label Studio, ELAN, and what `vidtrain predict
timeline=true` writes. All are a stranger's data: plain values of the types that are expected, and nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import unquote
from xml.parsers import expat

from vidtrain.data.formats._files.annotation_record import POINTS, Annotations, Toggles, seconds_of
from vidtrain.data.formats._files.text_files import read_json_text
from vidtrain.errors import DataError

_DEEPEST: Final = 32  # elements of XML within each other; ELAN has 5


def read_annotation_json(into: Annotations) -> None:
    """Read a JSON file into annotations.

    Raises:
        DataError: it is none of those that are known.
    """
    content, into.entries = read_json_text(into.file), True
    if isinstance(content, dict):
        if isinstance(content.get("observations"), dict):
            return _read_boris(into, content)
        if isinstance(content.get("segments"), list) and isinstance(content.get("file"), str):
            return _read_own(into, content)
        videos = content.get("database", content)
        if isinstance(videos, dict) and any(isinstance(v, dict) and "annotations" in v for v in videos.values()):
            return _read_activitynet(into, videos)
    if isinstance(content, list) and content and all(isinstance(task, dict) for task in content):
        return _read_label_studio(into, content)
    raise DataError(
        f"{into.file}: none of the JSON files with segments that are known: ActivityNet's and THUMOS', a project of "
        "BORIS, an export of Label Studio, segments.json of `vidtrain predict`"
    )


def _read_own(into: Annotations, content: Mapping[str, Any]) -> None:
    for number, one in enumerate(content["segments"], 1):
        label = one.get("label") if isinstance(one, dict) else None
        if not isinstance(label, str) or not into.add(
            (one.get("start"), one.get("end")), number, content["file"], label
        ):
            into.wrong(number, json.dumps(one), "start, end and label")


def _read_activitynet(into: Annotations, videos: Mapping[str, Any]) -> None:
    """{id: {subset, annotations: [{segment: [start, end], label}]}}"""
    for number, (video, entry) in enumerate(videos.items(), 1):
        listed = entry.get("annotations") if isinstance(entry, dict) else None
        if not isinstance(listed, list):
            into.wrong(number, json.dumps({video: entry}), "subset and annotations, [{segment: [start, end], label}]")
            continue
        subset = str(entry.get("subset", ""))
        into.videos.setdefault(video, subset)
        for one in listed:
            times, label = (one.get("segment"), one.get("label")) if isinstance(one, dict) else (None, None)
            pair = tuple(times) if isinstance(times, list) and len(times) == 2 else (None, None)
            text = label if isinstance(label, str) else ""
            if not into.add((pair[0], pair[1]), number, video, text, subset=subset):
                into.wrong(number, json.dumps({video: one}), "segment: [start, end] and label", *pair)


def _read_boris(into: Annotations, content: Mapping[str, Any]) -> None:
    """A project of BORIS: events [time, subject, code, modifier, comment]; a state begins and ends in turn."""
    kinds = content.get("behaviors_conf")
    known = kinds.values() if isinstance(kinds, dict) else ()
    points = {str(k.get("code")) for k in known if isinstance(k, dict) and "POINT" in str(k.get("type")).upper()}
    for number, (name, observation) in enumerate(content["observations"].items(), 1):
        files = observation.get("file") if isinstance(observation, dict) else None
        media = files.get("1") if isinstance(files, dict) else None
        events = observation.get("events") if isinstance(observation, dict) else None
        if not isinstance(media, list) or not isinstance(events, list):
            into.wrong(number, str(name), "an observation with media files and events")
            continue
        if len(media) != 1 or not isinstance(media[0], str):
            into.wrong(number, str(name), f"one video in player 1, not {len(media)} one after the other")
            continue
        into.videos.setdefault(media[0], "")
        shift, states = seconds_of(observation.get("time offset", 0)) or 0.0, Toggles(into)
        rows = [event for event in events if isinstance(event, list) and len(event) >= 4]
        if len(rows) < len(events):
            into.wrong(number, str(name), "events of the form [time, subject, code, modifier, comment]")
        for time, subject, code, modifier, *_ in sorted(rows, key=lambda row: seconds_of(row[0]) or 0.0):
            seconds = into.seconds(time)
            if not isinstance(code, str):
                into.wrong(number, f"{name}: {json.dumps(code)}", "the code of a behavior, text")
            elif code in points:
                into.skipped[POINTS] += 1
            elif seconds is None or not states.note(
                seconds - shift, number, (media[0], code, f"{subject}\0{modifier}")
            ):
                into.wrong(number, f"{name}: {time} {code}", "the time of an event in seconds", time)
        states.close()


def _read_label_studio(into: Annotations, tasks: list[dict[str, Any]]) -> None:
    """Exports of Label Studio, JSON and JSON-MIN: timeline labels count frames from 1, the last one included; ranges of
    audio and video players are seconds."""
    for number, task in enumerate(tasks, 1):
        video, results = _video_of(task), list(_results(task))
        if video is None:
            into.wrong(number, json.dumps(task), "a task of Label Studio with the path of a video in data")
            continue
        into.videos.setdefault(video, "")
        for value in results:
            named = (value[k] for k in ("timelinelabels", "labels") if isinstance(value.get(k), list))
            labels: list[Any] = next(named, [])
            ranges = value.get("ranges", [value] if "start" in value else [])
            counted = "ranges" in value
            for one in ranges if isinstance(ranges, list) else []:
                times = [one.get(key) if isinstance(one, dict) else None for key in ("start", "end")]
                start, end = map(into.seconds, times)
                if counted and start is not None:
                    start = max(start - 1, 0.0)
                for label in labels:
                    if not isinstance(label, str):
                        into.wrong(number, json.dumps(value), "labels that are text")
                    elif not into.add((start, end), number, video, label, frames=counted):
                        into.wrong(number, json.dumps(one), "start and end", *times)


def _video_of(task: Mapping[str, Any]) -> str | None:
    """The path or address of a task's video."""
    data = task.get("data") if isinstance(task.get("data"), dict) else task
    assert isinstance(data, Mapping)
    named = [data[k] for k in ("video", "video_url", "url", "file_upload") if isinstance(data.get(k), str)]
    texts = [v for v in data.values() if isinstance(v, str) and re.search(r"\.\w{2,4}(\?.*)?$", v)]
    found = next(iter([*named, *texts]), None)
    return None if found is None else unquote(re.sub(r"^.*[?&]d=", "", found))  # /data/local-files/?d=PATH


def _results(task: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The values of all results of a task; those of a cancelled annotation are none."""
    kept = task.get("annotations", task.get("completions"))
    if isinstance(kept, list):
        for one in kept:
            if isinstance(one, dict) and not one.get("was_cancelled") and isinstance(one.get("result"), list):
                yield from (
                    r["value"] for r in one["result"] if isinstance(r, dict) and isinstance(r.get("value"), dict)
                )
        return
    for value in task.values():  # JSON-MIN: a list of values by the name of the control
        if isinstance(value, list):
            yield from (one for one in value if isinstance(one, dict) and ("start" in one or "ranges" in one))


# ---------------------------------------------------------------- ELAN


class _Eaf:
    """The parts of an .eaf file that say what happens when. No entity is ever declared, let alone expanded."""

    def __init__(self) -> None:
        self.media: list[tuple[str, float]] = []  # the path, and what of it is second 0 of the annotations
        self.times: dict[str, float] = {}
        self.marks: list[tuple[str, str, str, str, int]] = []  # tier, first slot, last slot, value, line
        self._depth, self._tier, self._slots = 0, "", ("", "")
        self._text: list[str] | None = None
        self.parser = expat.ParserCreate()
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._characters
        self.parser.StartDoctypeDeclHandler = self._refuse
        self.parser.EntityDeclHandler = self._refuse

    def _refuse(self, *_: object) -> None:
        raise ValueError("it declares a document type or entities, which ELAN never does")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise ValueError(f"elements more than {_DEEPEST} deep")
        if name == "MEDIA_DESCRIPTOR":
            origin = seconds_of(attributes.get("TIME_ORIGIN", "0"))
            if origin is None:
                raise ValueError("the TIME_ORIGIN of a MEDIA_DESCRIPTOR is no number of milliseconds")
            url = attributes.get("RELATIVE_MEDIA_URL") or attributes.get("MEDIA_URL", "")
            self.media.append((url, origin / 1000))
        elif name == "HEADER" and (units := attributes.get("TIME_UNITS", "milliseconds")) != "milliseconds":
            raise ValueError(f"its TIME_UNITS are {units[:40]!r}, expected 'milliseconds'")
        elif name == "TIME_SLOT" and "TIME_VALUE" in attributes:
            self.times[attributes.get("TIME_SLOT_ID", "")] = float(attributes["TIME_VALUE"]) / 1000
        elif name == "TIER":
            self._tier = attributes.get("TIER_ID", "")
        elif name == "ALIGNABLE_ANNOTATION":
            self._slots = attributes.get("TIME_SLOT_REF1", ""), attributes.get("TIME_SLOT_REF2", "")
        elif name == "ANNOTATION_VALUE" and self._slots[0]:
            self._text = []

    def _end(self, name: str) -> None:
        self._depth -= 1
        if name == "ANNOTATION_VALUE" and self._text is not None:
            value = "".join(self._text).strip()
            self.marks.append((self._tier, *self._slots, value, self.parser.CurrentLineNumber))
            self._text = None
        elif name == "ALIGNABLE_ANNOTATION":
            self._slots = "", ""

    def _characters(self, text: str) -> None:
        if self._text is not None:
            self._text.append(text)


def read_eaf(into: Annotations) -> None:
    """Read a file of ELAN: the annotations of all tiers that have times; one without text is called as its tier.

    Raises:
        DataError: it is none.
    """
    eaf = _Eaf()
    try:
        eaf.parser.Parse(into.file.read_bytes(), True)
    except (expat.ExpatError, ValueError, LookupError, OSError) as error:
        raise DataError(f"{into.file}: not a file of ELAN that can be read ({error})") from None
    media = [(url, origin) for url, origin in eaf.media if url]
    named, origin = media[0] if media else (into.file.stem, 0.0)
    video = unquote(re.sub(r"^file:/*(?=/|[A-Za-z]:)", "", named))
    into.videos.setdefault(video, "")
    if len(media) > 1:
        into.notes.append(f"{into.file}: names {len(media)} media files; its segments are taken of the first, {video}")
    for tier, first, last, value, line in eaf.marks:
        start, end = eaf.times.get(first), eaf.times.get(last)
        if start is None or end is None:
            into.skipped["have no time of their own"] += 1  # ELAN lets annotations share a stretch
        elif not into.add((start + origin, end + origin), line, video, value or tier):
            into.wrong(line, value, "an annotation with a begin and an end")

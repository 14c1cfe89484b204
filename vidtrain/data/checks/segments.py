"""Untrimmed videos in numbers: how much of them is labelled, with what, and where labels overlap."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vidtrain.data.checks.probe_video import Probe
from vidtrain.data.manifest.manifest import Manifest, VideoData

Spans = npt.NDArray[np.float64]
_SHOWN = 10  # classes in a line


@dataclass(frozen=True)
class Coverage:
    """Of the readable videos of a split whose rows are segments.

    seconds: of all videos. labelled: of those the seconds with a label, each counted once. of_class: float64 (K,), the
    seconds of each class, each counted once. gaps: float64 (n,), the stretches without a label. overlapping: segments
    that overlap another one of their video; same: of these, another one of their own class. beyond: segments that end
    half a second or more after their video, or begin after it.
    """

    videos: int
    segments: int
    seconds: float
    labelled: float
    of_class: Spans
    gaps: Spans
    overlapping: int
    same: int
    beyond: int

    @property
    def background(self) -> float:
        """Share of the time without a label, in [0, 1]."""
        return 1 - self.labelled / max(self.seconds, 1e-9)


_LATE = 0.5  # seconds: annotators round


def coverage(manifest: Manifest, probes: Mapping[str, Probe], classes: int) -> Coverage | None:
    """None where rows are whole videos, or none can be read.

    probes: of every file, by absolute path.
    """
    if manifest.starts is None or manifest.ends is None:
        return None
    rows: dict[str, list[int]] = {}
    for row, path in enumerate(manifest.paths):
        rows.setdefault(os.path.abspath(path), []).append(row)  # noqa: PTH100 - keeps links as they are
    known = {path: own for path, own in rows.items() if probes[path].error is None}
    if not known:
        return None
    seconds, labelled, of_class, gaps = 0.0, 0.0, np.zeros(classes), list[Spans]()
    overlapping = same = beyond = 0
    for path, own in known.items():
        end = probes[path].line.end
        spans = np.stack([manifest.starts[own], manifest.ends[own]], 1)
        beyond += int(((spans[:, 1] > end + _LATE) & np.isfinite(spans[:, 1]) | (spans[:, 0] >= end)).sum())
        spans = np.minimum(spans, end)
        labels, whole = manifest.labels[own], _union(spans)
        seconds, labelled = seconds + end, labelled + _length(whole)
        edges = np.concatenate([[0.0], whole.ravel(), [end]]).reshape(-1, 2)
        gaps.append((edges[:, 1] - edges[:, 0])[edges[:, 1] > edges[:, 0]])
        for label in np.unique(labels[labels >= 0]).tolist():
            of_class[label] += _length(_union(spans[labels == label]))
            same += _overlapping(spans[labels == label])
        overlapping += _overlapping(spans)
    segments = sum(map(len, known.values()))
    parts = len(known), segments, seconds, labelled, of_class, np.concatenate(gaps), overlapping, same, beyond
    return Coverage(*parts)


def _union(spans: Spans) -> Spans:
    """float64 (m, 2): what the spans cover, ascending and apart."""
    found: list[list[float]] = []
    for start, end in sorted(spans.tolist()):
        if found and start <= found[-1][1]:
            found[-1][1] = max(found[-1][1], end)
        elif end > start:
            found.append([start, end])
    return np.array(found, np.float64).reshape(-1, 2)


def _length(spans: Spans) -> float:
    return float((spans[:, 1] - spans[:, 0]).sum())


def _overlapping(spans: Spans) -> int:
    """How many share time with another one."""
    if len(spans) < 2:
        return 0
    spans = spans[np.lexsort((spans[:, 1], spans[:, 0]))]
    latest = np.maximum.accumulate(spans[:, 1])
    with_earlier = np.concatenate([[False], spans[1:, 0] < latest[:-1]])
    with_later = np.concatenate([spans[1:, 0] < spans[:-1, 1], [False]])
    return int((with_earlier | with_later).sum())


def coverage_lines(data: VideoData, probes: Mapping[str, Probe]) -> list[str]:
    """A line per split that has something without a label, or overlaps; of the classes the _SHOWN most frequent."""
    lines = []
    for split, manifest in data.splits.items():
        found = coverage(manifest, probes, data.num_classes)
        if found is None or not (found.background > 0.01 or found.overlapping):
            continue
        overlaps = f"{found.overlapping} overlap" + (f" ({found.same} their own class)" if found.same else "")
        beyond = f", {found.beyond} end after their video" if found.beyond else ""
        median = float(np.median(found.gaps)) if len(found.gaps) else 0.0
        gaps = f"{len(found.gaps)} gaps of {median:.2f} s (median)"
        size = f"{found.segments} segments in {found.videos} videos of {found.seconds:.0f} s"
        shares = _shares(found, data.class_names)
        background = f"background {found.background:.0%} in {gaps}; share of the time: {shares}"
        lines.append(f"{split}: {size}, {overlaps}{beyond}; {background}")
    return lines


def _shares(found: Coverage, class_names: Sequence[str]) -> str:
    order = np.argsort(-found.of_class, kind="stable")[:_SHOWN].tolist()
    shown = [f"{class_names[n]} {found.of_class[n] / found.seconds:.1%}" for n in order]
    return ", ".join(shown) + (", ..." if len(class_names) > _SHOWN else "")

"""From the probabilities of windows that slide over a video to segments with a label. Pure numpy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from vidtrain.segments import Floats, Segment, Windows
from vidtrain.tasks.settings import SegmentsConfig


@dataclass(frozen=True)
class _Piece:
    start: float
    end: float
    label: int

    @property
    def seconds(self) -> float:
        return self.end - self.start


def find_segments(
    windows: Windows, class_names: Sequence[str], config: SegmentsConfig, *, multi_label: bool = False
) -> list[Segment]:
    """The segments of a video by their start. With one class per video they do not overlap.

    Each cell has the class with the highest averaged probability, or, multi_label, every class that reaches the
    threshold; equal neighbours are one. Then those of one class that lie close together are merged, unless one of
    another class that is long enough to stay lies between, and short ones are dropped.
    """
    if not len(windows):
        return []
    config.check(class_names)
    probs, cells = averaged(windows, config), windows.cells()
    background = [class_names.index(name) for name in config.background]
    active = probs >= config.threshold
    if not multi_label:
        best = probs.argmax(1)
        active &= np.arange(probs.shape[1]) == best[:, None]
    active[:, background] = False
    pieces = [
        piece for label in np.flatnonzero(active.any(0)).tolist() for piece in _pieces(active[:, label], cells, label)
    ]
    pieces = _merged(pieces, config, multi_label)
    found = [
        Segment(piece.start, piece.end, class_names[piece.label], _score(piece, probs[:, piece.label], cells))
        for piece in pieces
        if piece.seconds >= config.min_seconds
    ]
    return sorted(found, key=lambda segment: (segment.start, segment.end, segment.label))


def averaged(windows: Windows, config: SegmentsConfig) -> npt.NDArray[np.float32]:
    """float32 (n, K): the probabilities that are held against the threshold."""
    return windows.smoothed(smoothing_of(config, float(windows.ends[0] - windows.starts[0])))


def smoothing_of(config: SegmentsConfig, first: float) -> float:
    """Seconds. first: the length of the first window, which a stream knows from the start."""
    return first / 2 if config.smoothing is None else config.smoothing


def why_no_segment(windows: Windows, class_names: Sequence[str], config: SegmentsConfig) -> str:
    """How far the most probable class stayed below the threshold; "" where one reached it."""
    classes = [k for k, name in enumerate(class_names) if name not in config.background]
    if not len(windows) or not classes:
        return ""
    highest = averaged(windows, config)[:, classes].max(0)
    best = int(highest.argmax())
    if highest[best] >= config.threshold:
        return ""
    digits = 2 if config.threshold - highest[best] > 0.01 else 6
    reached = f"{class_names[classes[best]]} {highest[best]:.{digits}f}"
    return f"no class reached segments.threshold={config.threshold:g}; the highest was {reached}"


def _pieces(active: npt.NDArray[np.bool_], cells: Floats, label: int) -> Iterator[_Piece]:
    """Stretches of cells that are active and touch."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], active, [False]]).astype(np.int8)))
    for first, stop in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        start = first
        for cell in range(first + 1, stop + 1):
            if cell == stop or cells[cell, 0] > cells[cell - 1, 1]:
                yield _Piece(float(cells[start, 0]), float(cells[cell - 1, 1]), label)
                start = cell


def _merged(pieces: Sequence[_Piece], config: SegmentsConfig, multi_label: bool) -> list[_Piece]:
    """Pieces of one class as one where no more than merge_seconds lie between; what that covers is dropped."""
    if config.merge_seconds <= 0:
        return list(pieces)
    staying = [piece for piece in pieces if piece.seconds >= config.min_seconds and not multi_label]
    merged: list[_Piece] = []
    for piece in sorted(pieces, key=lambda piece: (piece.label, piece.start)):
        last = merged[-1] if merged and merged[-1].label == piece.label else None
        if last is not None and piece.start - last.end <= config.merge_seconds:
            between = (o for o in staying if o.label != piece.label and last.end <= o.start and o.end <= piece.start)
            if not any(between):
                merged[-1] = replace(last, end=piece.end)
                continue
        merged.append(piece)
    return merged if multi_label else _apart(merged)


def _apart(pieces: Sequence[_Piece]) -> list[_Piece]:
    """Without overlaps: of two pieces the one that begins first keeps what both have."""
    found: list[_Piece] = []
    for piece in sorted(pieces, key=lambda piece: (piece.start, -piece.end)):
        start = max(piece.start, found[-1].end) if found else piece.start
        if start < piece.end:
            found.append(replace(piece, start=start))
    return found


def _score(piece: _Piece, probs: npt.NDArray[np.float32], cells: Floats) -> float:
    """The mean over the cells within the piece, by their length."""
    inside = (cells[:, 0] >= piece.start - 1e-9) & (cells[:, 1] <= piece.end + 1e-9)
    lengths = np.maximum(cells[inside, 1] - cells[inside, 0], 1e-9)
    return float(np.average(probs[inside], weights=lengths))

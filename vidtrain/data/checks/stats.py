"""The videos of a data set in numbers, and what they say about the clips that are to be cut from them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from vidtrain.data.checks.check import frames_needed
from vidtrain.data.checks.probe_video import Probe
from vidtrain.data.clips.sampling import ClipSpec
from vidtrain.data.manifest.manifest import Manifest, VideoData
from vidtrain.errors import DataError

_UNEVEN: Final = 3.0  # the largest class over the smallest from which a hint is worth its line
_MIXED: Final = 1.25  # the 95 % frame rate over the 5 % one
_LARGE: Final = 1.5  # short side over the training size from which a prepared copy pays
_LONG: Final = 20.0  # a video over a clip from which one clip says little


@dataclass(frozen=True)
class Stats:
    """N rows whose video can be read.

    splits: (N,) names. labels: int64 (N,), -1 unknown. frames: int64 (N,), of the row's segment. seconds, fps: float64
    (N,). heights, widths: int64 (N,), of the frame as shown. sizes: int64 (N,) bytes of the file. codecs: (N,).
    counts: by split, int64 (K,) rows of each class, readable or not; a row with several classes counts in each.
    unreadable: rows whose file cannot be read.
    missing: rows whose file is not on the disk.
    """

    splits: npt.NDArray[np.str_]
    labels: npt.NDArray[np.int64]
    frames: npt.NDArray[np.int64]
    seconds: npt.NDArray[np.float64]
    fps: npt.NDArray[np.float64]
    heights: npt.NDArray[np.int64]
    widths: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    codecs: npt.NDArray[np.str_]
    class_names: tuple[str, ...]
    counts: dict[str, npt.NDArray[np.int64]]
    unreadable: int
    missing: int

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def short_sides(self) -> npt.NDArray[np.int64]:
        return np.minimum(self.heights, self.widths)


def collect(data: VideoData, probes: Mapping[str, Probe]) -> Stats:
    """The numbers of a dataset.

    Args:
        data: the lists.
        probes: of every file in them, by absolute path.

    Raises:
        DataError: no video of it can be read.
    """
    columns: list[tuple[str, int, int, float, float, int, int, int, str]] = []  # in the order of the fields
    unreadable = 0
    for split, manifest in data.splits.items():
        for row, path in enumerate(manifest.paths):
            probe = probes[os.path.abspath(path)]  # noqa: PTH100 - keeps links as they are
            shown, length = (0, 0.0) if probe.error is not None else _length(manifest, row, probe)
            if not shown:
                unreadable += 1
                continue
            place = split, int(manifest.labels[row]), shown, length
            columns.append((*place, probe.fps, probe.height, probe.width, probe.size, probe.codec))
    if not columns:
        raise DataError("no video of the dataset can be read; `vidtrain data check` says why")
    splits, labels, frames, seconds, fps, heights, widths, sizes, codecs = map(np.array, zip(*columns, strict=True))
    return Stats(
        splits=splits,
        labels=labels,
        frames=frames,
        seconds=seconds,
        fps=fps,
        heights=heights,
        widths=widths,
        sizes=sizes,
        codecs=codecs,
        class_names=data.class_names,
        counts={split: _counts(manifest, data.num_classes) for split, manifest in data.splits.items()},
        unreadable=unreadable,
        missing=sum(len(manifest.missing) for manifest in data.splits.values()),
    )


def _length(manifest: Manifest, row: int, probe: Probe) -> tuple[int, float]:
    """Frames and seconds of a row, 0 when its segment lies beyond the video."""
    first = None if manifest.starts is None else float(manifest.starts[row])
    last = None if manifest.ends is None else float(manifest.ends[row])
    line = probe.line
    try:
        place = line.within(first, last)
    except DataError:
        return 0, 0.0
    begin, end = line.seconds(np.array(place)).tolist()
    return place[1] - place[0], end - begin


def _counts(manifest: Manifest, classes: int) -> npt.NDArray[np.int64]:
    labels = manifest.labels if manifest.tags is None else manifest.tags.values
    return np.bincount(labels[labels >= 0], minlength=classes)


def advice(stats: Stats, spec: ClipSpec, *, short_side: int) -> list[str]:
    """Sentences about clips, rates, classes and sizes, each with the option that answers it.

    Args:
        stats: the dataset.
        spec: the clip.
        short_side: pixels that training scales the short side to.
    """
    said = [_on_clips(stats, spec), _on_rates(stats, spec), _on_length(stats, spec), _on_classes(stats)]
    said += [_on_size(stats, short_side), _on_broken(stats)]
    return [sentence for sentence in said if sentence]


def needed(stats: Stats, spec: ClipSpec) -> npt.NDArray[np.int64]:
    """int64 (N,): the frames that a clip takes up in each video."""
    rates, place = np.unique(stats.fps, return_inverse=True)
    return np.array([frames_needed(spec, float(rate)) for rate in rates], dtype=np.int64)[place]


def _on_clips(stats: Stats, spec: ClipSpec) -> str:
    frames = needed(stats, spec)
    short = int((stats.frames < frames).sum())
    if spec.mode == "segments":
        clip = f"a clip takes a frame from each of {spec.num_frames} parts of the video"
    else:
        seconds = float(np.median(frames / stats.fps))
        clip = f"a clip of {_shape(spec)} spans {seconds:.2g} s in the median video"
    if not short:
        return f"{clip}; every video is long enough"
    return (
        f"{clip}; {_share(short, len(stats))} of the videos are shorter (sampler.short={spec.short}){_fit(stats, spec)}"
    )


def _shape(spec: ClipSpec) -> str:
    if spec.fps is not None:
        return f"{spec.num_frames} frames at {spec.fps:g} fps"
    return f"{spec.num_frames} frames, {spec.step(1.0):g} apart"


def _fit(stats: Stats, spec: ClipSpec) -> str:
    """The stride with which a clip would fit, where a smaller one would help."""
    if spec.mode == "segments" or spec.fps is not None or spec.window is not None or spec.num_frames < 2:
        return ""
    stride = (int(np.quantile(stats.frames, 0.05)) - 1) // (spec.num_frames - 1)
    return f"; with sampler.stride={stride} it fits into 95 % of them" if 0 < stride < spec.stride else ""


def _on_rates(stats: Stats, spec: ClipSpec) -> str:
    low, high = np.quantile(stats.fps, [0.05, 0.95])
    if spec.mode == "segments" or spec.fps is not None or high < _MIXED * low:
        return ""
    rate = float(np.median(stats.fps)) / spec.step(1.0)
    return (
        f"90 % of the frame rates run from {low:.3g} to {high:.3g} fps, so a clip covers {high / low:.2g} times as "
        f"much time in some videos as in others: sampler.fps={rate:.3g} makes them alike"
    )


def _on_length(stats: Stats, spec: ClipSpec) -> str:
    times = float(np.median(stats.frames / needed(stats, spec)))
    if spec.mode == "segments" or times < _LONG:
        return ""
    return f"the median video is {times:.0f} clips long: a test needs many clips (eval.clips), or lists with segments"


def _on_classes(stats: Stats) -> str:
    train = stats.counts.get("train", next(iter(stats.counts.values())))
    there = train[train > 0]
    if len(there) < 2 or there.max() < _UNEVEN * there.min():
        return ""
    most, least = int(train.argmax()), int(np.where(train > 0, train, train.max() + 1).argmin())
    return (
        f"classes are uneven: {stats.class_names[most]} has {train[most]} videos, {stats.class_names[least]} has "
        f"{train[least]} ({train[most] / train[least]:.3g} times); sampler.class_balance=1 draws them alike"
    )


def _on_size(stats: Stats, short_side: int) -> str:
    sides = stats.short_sides
    median, small = float(np.median(sides)), int((sides < short_side).sum())
    if median > _LARGE * short_side:
        return (
            f"the median short side is {median:.0f} pixels, training scales it to {short_side}: "
            "`vidtrain data prepare` makes a copy that decodes several times as fast"
        )
    if small:
        return f"{_share(small, len(stats))} of the videos are smaller than transform.resize={short_side}: scaled up"
    return ""


def _on_broken(stats: Stats) -> str:
    if not stats.unreadable:
        return ""
    return f"unreadable videos: {stats.unreadable}; `vidtrain data check` names them and leaves them out"


def _share(part: int, total: int) -> str:
    """'12 %', never '0 %' or '100 %' of what is not none or all."""
    share = 100 * part / total
    return (
        f"{share:.0f} %" if 1 <= share <= 99 or part == total else f"{share:.2g} %" if share < 1 else f"{share:.1f} %"
    )


def quantiles(values: Sequence[float] | npt.NDArray[np.float64]) -> list[float]:
    """min, 5 %, median, 95 %, max."""
    return [float(q) for q in np.quantile(values, [0.0, 0.05, 0.5, 0.95, 1.0])]

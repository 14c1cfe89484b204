"""A classifier that slides over untrimmed videos: how right its segments are, and how fast it is.

    vidtrain train experiment=demo
    python benchmarks/bench_timeline.py runs/motion/slow_fusion/.../best.pt --write benchmarks/timeline.md

The videos are those of data=motion_long, test split: eight classes with known times, and stretches in which nothing
happens. The network has never seen such a stretch: it was trained on clips that were cut out by hand, and a threshold
is all that tells "nothing". The options of the segments are chosen on the val split, from the grid below.
"""

from __future__ import annotations

import argparse
import itertools
import platform
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import vidtrain
from vidtrain.commands.timeline import Slider, VideoTimeline
from vidtrain.data.manifest.manifest import Manifest
from vidtrain.data.motion.motion_long import motion_long
from vidtrain.data.motion.rendered_folder import FPS
from vidtrain.segments import Segment
from vidtrain.tasks.segments.average_precision import THRESHOLDS, ByVideo, mean_average_precision
from vidtrain.tasks.segments.frame_metrics import frame_accuracy, frame_labels
from vidtrain.tasks.segments.from_windows import find_segments
from vidtrain.tasks.settings import SegmentsConfig

GRID: dict[str, Sequence[Any]] = {
    "smoothing": [0.0, 0.5, 1.0],
    "threshold": [0.3, 0.5, 0.7, 0.9],
    "min_seconds": [0.0, 0.5, 1.0],
}


def truth_of(manifest: Manifest, names: Sequence[str]) -> ByVideo:
    found: dict[str, list[Segment]] = {}
    assert manifest.starts is not None
    assert manifest.ends is not None
    rows = zip(manifest.paths, manifest.labels.tolist(), manifest.starts.tolist(), manifest.ends.tolist(), strict=True)
    for path, label, start, end in rows:
        found.setdefault(path, []).append(Segment(start, end, names[label], 1.0))
    return found


def segmented(timelines: Sequence[VideoTimeline], names: Sequence[str], config: SegmentsConfig) -> ByVideo:
    return {t.path: find_segments(t.windows, names, config) for t in timelines if t.windows is not None}


def scores(truth: ByVideo, found: ByVideo, seconds: dict[str, float], names: Sequence[str]) -> dict[str, float]:
    precision = mean_average_precision(truth, found, names)
    frames = [[frame_labels(own[path], names, seconds[path], FPS) for path in truth] for own in (truth, found)]
    return {
        "mAP@0.5": float(precision[THRESHOLDS.index(0.5)]),
        "mAP@0.75": float(precision[THRESHOLDS.index(0.75)]),
        "mAP@0.5:0.95": float(precision.mean()),
        "frame accuracy": frame_accuracy(*frames),
    }


def main() -> None:
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--root", type=Path, default=Path("data/motion"), help="where motion_long is made")
    parser.add_argument("--hop", type=int, help="source frames from window to window; default a quarter of a window")
    parser.add_argument("--write", type=Path, help="write the table to this Markdown file")
    options = parser.parse_args()
    clf = vidtrain.load(options.checkpoint)
    data, names = motion_long(options.root), clf.class_names
    slider = Slider(clf, SegmentsConfig(), hop=options.hop)
    made: dict[str, list[VideoTimeline]] = {}
    for split in ("val", "test"):
        began, cpu = time.perf_counter(), time.process_time()
        made[split] = list(slider.timelines(sorted(set(data.splits[split].paths)), workers=0))
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    windows = sum(len(t.windows) for t in made["test"] if t.windows is not None)
    lengths = {t.path: t.seconds for split in made.values() for t in split}
    truths = {split: truth_of(data.splits[split], names) for split in made}
    choices = [SegmentsConfig(**dict(zip(GRID, values, strict=True))) for values in itertools.product(*GRID.values())]
    best = max(
        choices,
        key=lambda c: scores(truths["val"], segmented(made["val"], names, c), lengths, names)["mAP@0.5"],
    )
    found = scores(truths["test"], segmented(made["test"], names, best), lengths, names)
    plain = scores(truths["test"], segmented(made["test"], names, SegmentsConfig()), lengths, names)
    lines = [
        "# Sliding a classifier over untrimmed videos",
        "",
        f"`{' '.join(['python benchmarks/bench_timeline.py', *map(str, sys.argv[1:])])}`, {time.strftime('%Y-%m-%d')}, "
        f"Python {platform.python_version()}, PyTorch {torch.__version__}, {clf.device}. {clf!r}",
        "",
        f"data=motion_long, test: {len(made['test'])} videos, {sum(t.seconds for t in made['test']):.0f} s, "
        f"{sum(map(len, truths['test'].values()))} segments of {len(names)} classes.",
        "",
        f"| segments | {' | '.join(found)} |",
        f"|---|{'---|' * len(found)}",
        f"| default options | {' | '.join(f'{value:.3f}' for value in plain.values())} |",
        f"| chosen on val: smoothing {best.smoothing:g}, threshold {best.threshold:g}, "
        f"min_seconds {best.min_seconds:g} | {' | '.join(f'{value:.3f}' for value in found.values())} |",
        "",
        f"{windows} windows in {seconds:.1f} s ({cpu:.1f} s of processor time): {windows / cpu:.0f} windows and "
        f"{sum(t.seconds for t in made['test']) / cpu:.1f} s of video per second of processor time; "
        f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB.",
        "",
    ]
    print("\n".join(lines))
    if options.write:
        before = options.write.read_text(encoding="utf-8") if options.write.is_file() else ""
        rest = before[before.index("\n## ") :] if "\n## " in before else ""  # of other commands
        options.write.write_text("\n".join(lines) + rest, encoding="utf-8")


if __name__ == "__main__":
    main()

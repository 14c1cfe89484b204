"""What `vidtrain data prepare` gains on this machine: CPU time of a training clip, and bytes, of original and copies.

    python benchmarks/bench_prepare.py                      # writes two videos to a temporary folder, two minutes
    python benchmarks/bench_prepare.py my.mp4 other.avi     # the same for files of yours
    python benchmarks/bench_prepare.py --rounds 60 --json result.json

A clip is 16 frames, 4 apart, at a random place, with a short side of 128 pixels. The contestants: `decord` is bare
decord on the original with one thread, width and height given at open and one get_batch; `original` is vidtrain's
default reader on it; `copy` and `pack` are what prepare.format=video and prepare.format=jpeg make of it with their
defaults, read with vidtrain's readers. All open the file again each time, as a loader's worker does. Rounds are
interleaved, so that a busy machine slows all of them; the table shows medians. CPU time counts all threads.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import av
import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from bench_readers import SHORT_SIDE, SPEC, read_decord, write_video

from vidtrain.data.clips.crop import scaled_size
from vidtrain.data.clips.sampling import random_clip
from vidtrain.data.prepare.copy import Job, make_copy, suffix_of
from vidtrain.data.prepare.plan import stamp_of
from vidtrain.data.readers.any_path import AnyReader
from vidtrain.data.readers.base import VideoReader
from vidtrain.data.readers.pyav.reader import PyAVReader
from vidtrain.data.readers.timeline import Timeline
from vidtrain.data.settings import CopyFormat, PrepareConfig
from vidtrain.types import Indices

READER = AnyReader(PyAVReader())


@dataclass(frozen=True)
class Contestant:
    """A file and how a clip is read from it. `read` opens it, and closes it."""

    name: str
    path: str
    read: Callable[[str, Indices, tuple[int, int]], Any]
    size: tuple[int, int]


def read_clip(path: str, wanted: Indices, size: tuple[int, int]) -> None:
    with READER.open(path) as video:
        video.read(wanted, size)


def make_copies(original: str, folder: Path) -> dict[str, tuple[str, float]]:
    """{"copy": (path, CPU seconds it took), "pack": ...}, made as `vidtrain data prepare` does by default."""
    made = {}
    for name, kind in (("copy", CopyFormat.video), ("pack", CopyFormat.jpeg)):
        settings = replace(PrepareConfig(), format=kind, short_side=SHORT_SIDE)
        job = Job(original, str(folder / (Path(original).stem + "_128" + suffix_of(settings))), stamp_of(original))
        begin = time.process_time()
        make_copy(job, reader=READER, settings=settings, output=str(folder))
        made[name] = (job.target, time.process_time() - begin)
    return made


def contestants(original: str, copies: dict[str, tuple[str, float]]) -> list[Contestant]:
    """decord (where it is installed) and vidtrain's reader on the original, then the copies."""
    found = [Contestant("original", original, read_clip, _size(READER, original))]
    found += [Contestant(name, path, read_clip, _size(READER, path)) for name, (path, _) in copies.items()]
    try:
        import decord
    except ImportError:
        return found
    decord.logging.set_level(decord.logging.QUIET)
    return [Contestant("decord", original, read_decord, found[0].size), *found]


def measure(entries: list[Contestant], rounds: int) -> dict[str, float]:
    """The median CPU milliseconds of a training clip for each contestant; all read the same clips."""
    with READER.open(entries[0].path) as video:
        info = video.info
    times: dict[str, list[float]] = {entry.name: [] for entry in entries}
    for number in range(rounds + 1):
        clip = random_clip(Timeline.of(info), SPEC, np.random.default_rng(number))[0]
        for entry in entries:
            begin = time.process_time()
            entry.read(entry.path, clip, entry.size)
            if number:  # the first round warms up
                times[entry.name].append((time.process_time() - begin) * 1e3)
    return {name: statistics.median(values) for name, values in times.items()}


def opening(path: str, rounds: int) -> float:
    """The median CPU milliseconds of opening a file and closing it."""
    times = []
    for _ in range(rounds):
        begin = time.process_time()
        with READER.open(path):
            pass
        times.append((time.process_time() - begin) * 1e3)
    return statistics.median(times)


def bench(original: str, folder: Path, rounds: int) -> dict[str, Any]:
    """All figures of one video."""
    copies = make_copies(original, folder)
    ms = measure(contestants(original, copies), rounds)
    with READER.open(original) as video:
        info = video.info
    return {
        "video": f"{info.width}x{info.height}, {info.num_frames} frames",
        "ms": ms,
        "open_ms": {name: opening(path, rounds) for name, (path, _) in copies.items()},
        "bytes": {"original": Path(original).stat().st_size}
        | {name: Path(path).stat().st_size for name, (path, _) in copies.items()},
        "prepare_s": {name: seconds for name, (_, seconds) in copies.items()},
    }


def show(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        base = "decord" if "decord" in row["ms"] else "original"
        print(f"{row['video']}")
        print(f"  {'':10}{'ms per clip':>12}{f'against {base}':>18}{'of it opening':>16}{'bytes':>12}{'share':>8}")
        for name, ms in row["ms"].items():
            size = row["bytes"].get(name, row["bytes"]["original"])
            share = size / row["bytes"]["original"]
            opened = f"{row['open_ms'][name]:.2f}" if name in row["open_ms"] else ""
            print(f"  {name:10}{ms:12.2f}{row['ms'][base] / ms:17.1f}x{opened:>16}{size:12}{share:8.1%}")
        print("  made in CPU seconds: " + ", ".join(f"{name} {s:.1f}" for name, s in row["prepare_s"].items()))


def main() -> None:
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("videos", nargs="*", help="files to measure; none: two written for the purpose")
    parser.add_argument("--rounds", type=int, default=40, help="measured rounds (default 40)")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        videos = [str(Path(video).absolute()) for video in options.videos]
        if not videos:
            videos = [str(folder / "small.mp4"), str(folder / "large.mp4")]
            write_video(Path(videos[0]), 256, 340)
            write_video(Path(videos[1]), 720, 1280)
        rows = [bench(path, folder, options.rounds) for path in videos]
    show(rows)
    if options.json:
        versions = {"python": platform.python_version(), "av": av.__version__, "numpy": np.__version__}
        result = {"versions": versions, "machine": platform.machine(), "rounds": options.rounds, "rows": rows}
        options.json.write_text(json.dumps(result, indent=1) + "\n")


def _size(reader: VideoReader, path: str) -> tuple[int, int]:
    with reader.open(path) as video:
        return scaled_size(video.info, SHORT_SIDE)


if __name__ == "__main__":
    main()

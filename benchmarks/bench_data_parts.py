"""The measurements of bench_data.py, one function a part."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bench_peers as peers
import numpy as np
import torch
from bench_prepare import bench as bench_copies
from torch.utils.data import DataLoader

from vidtrain.data.clips.crop import Crop, scaled_size
from vidtrain.data.clips.dataset import ClipParts, EvalViews, TrainClips
from vidtrain.data.clips.loader import TrainLoader
from vidtrain.data.clips.sampling import random_clip, uniform_clips
from vidtrain.data.clips.transforms import EvalCrops
from vidtrain.data.clips.workers import Workers
from vidtrain.data.manifest.manifest import Manifest
from vidtrain.data.readers.any_path import AnyReader
from vidtrain.data.readers.pyav.reader import PyAVReader
from vidtrain.data.readers.timeline import Timeline
from vidtrain.data.settings import EvalConfig, SamplerConfig, TransformConfig

SHORT, CROP, FRAMES, STRIDE = 128, 112, 16, 4
SPEC = SamplerConfig(FRAMES, STRIDE)
TRANSFORM = TransformConfig(size=CROP, resize=SHORT)
READER = AnyReader(PyAVReader())
CLIP_PARTS = ClipParts(READER, SPEC, TRANSFORM)
OURS = "vidtrain"


@dataclass
class Table:
    title: str
    header: list[str]
    rows: list[list[str]]
    note: str = ""
    numbers: dict[str, Any] = field(default_factory=dict)


def to_text(table: Table) -> str:
    widths = [max(len(row[n]) for row in [table.header, *table.rows]) for n in range(len(table.header))]
    lines = [
        "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in [table.header, *table.rows]
    ]
    return "\n".join([*lines, *([table.note] if table.note else [])])


def to_markdown(table: Table) -> str:
    rows = [table.header, ["---"] * len(table.header), *table.rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def take_turns(
    contestants: Mapping[str, Callable[[int], Any]], rounds: int, clock: Callable[[], float]
) -> dict[str, float]:
    """The median time of each, in the units of the clock; round 0 warms up and does not count."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds + 1):
        for name, call in contestants.items():
            begin = clock()
            call(number)
            if number:
                times[name].append(clock() - begin)
    return {name: statistics.median(values) for name, values in times.items()}


def compared(title: str, ms: dict[str, dict[str, float]], note: str = "") -> Table:
    """A row per contestant, two columns per video: milliseconds, and how many times as long as ours."""
    header = ["", *(cell for video in ms for cell in (f"{video}: ms", "x"))]
    names = list(next(iter(ms.values())))
    rows = [
        [name, *(cell for found in ms.values() for cell in (f"{found[name]:.1f}", f"{found[name] / found[OURS]:.2f}"))]
        for name in names
    ]
    return Table(title, header, rows, note, {"ms": ms})


# ---------------------------------------------------------------- clips and views


def clips(videos: dict[str, Path], folder: Path, rounds: int, avi: Path | None) -> list[Table]:
    """A training clip."""
    ms, same = {}, True
    for name, path in videos.items():
        contestants = _clip_contestants(str(path))
        ms[name] = {k: 1e3 * v for k, v in take_turns(contestants, rounds, time.process_time).items()}
        same = same and _equals_full_decode(str(path))
    sample = _our_clip(str(next(iter(videos.values()))), 0)
    note = (
        f"A clip leaves the worker as {sample.dtype}, {sample.nbytes / 1e6:.2f} MB. Frames equal a full decode, "
        f"bit for bit: {'yes' if same else 'NO'}. The libav floor decodes every frame from the keyframe before the "
        "clip to its end and converts none; vidtrain can be below it because it lets the decoder skip what nobody "
        "needs."
    )
    return [compared("A training clip, 16 x 4 at 112 x 112, CPU time", ms, note)]


def _places(path: str, number: int) -> tuple[Any, Any]:
    """What is known of a video, and the frames of clip `number`: those that TrainClips draws for that copy."""
    with READER.open(path) as video:
        info = video.info
    return info, random_clip(Timeline.of(info), SPEC, np.random.default_rng((0, 0, 0, number)))[0]


def _our_clip(path: str, number: int) -> torch.Tensor:
    inputs = TrainClips(Manifest.of([path], [0]), CLIP_PARTS, seed=0)[(0, 0, number)].inputs
    assert inputs is not None
    return inputs["rgb"]


def _clip_contestants(path: str) -> dict[str, Callable[[int], Any]]:
    info, _ = _places(path, 0)
    size = scaled_size(info, SHORT)
    drawn = {number: _places(path, number)[1] for number in range(200)}
    found: dict[str, Callable[[int], Any]] = {OURS: lambda n: _our_clip(path, n)}
    if peers.have_decord():
        found["decord"] = lambda n: peers.decord_clip(path, drawn[n], size, CROP)
    if peers.have_pytorchvideo():
        found["PyTorchVideo"] = lambda n: peers.pytorchvideo_clip(
            path, drawn[n][0] / info.fps, (drawn[n][-1] + 1) / info.fps, FRAMES, SHORT, [1]
        )
    found["libav floor"] = lambda n: peers.decode_only(path, int(drawn[n][0]), int(drawn[n][-1]), info.fps)
    return found


def _equals_full_decode(path: str) -> bool:
    info, _ = _places(path, 0)
    size = scaled_size(info, SHORT)
    whole = np.stack(list(peers.decode_all(path, size)))
    same = True
    for number in range(20):
        wanted = _places(path, number)[1]
        with READER.open(path) as video:
            same = same and np.array_equal(video.read(wanted, size), whole[wanted])
    return same


def views(videos: dict[str, Path], folder: Path, rounds: int, avi: Path | None) -> list[Table]:
    """10 x 3 views of a video."""
    ms = {}
    for name, path in videos.items():
        contestants = _view_contestants(str(path))
        ms[name] = {k: 1e3 * v for k, v in take_turns(contestants, max(3, rounds // 6), time.process_time).items()}
    note = (
        "One open per view is vidtrain's own reader, opened for each of the 30 views. The raw decode reads the file "
        "from start to end with libav and converts nothing."
    )
    return [compared("10 x 3 test views of a video, CPU time", ms, note)]


def _view_contestants(path: str) -> dict[str, Callable[[int], Any]]:
    info, _ = _places(path, 0)
    wanted = uniform_clips(Timeline.of(info), SPEC, 10)
    cuts = EvalCrops(TRANSFORM, 3).all(info)
    views = EvalViews(Manifest.of([path], [0]), CLIP_PARTS, EvalConfig(clips=10, crops=3))

    def one_by_one(cut: Crop, indices: Any) -> Any:
        with READER.open(path) as video:
            return cut.apply(video.read(indices, cut.read_size))

    found: dict[str, Callable[[int], Any]] = {OURS: lambda n: views[0]}
    if peers.have_pytorchvideo():
        found["PyTorchVideo"] = lambda n: [
            peers.pytorchvideo_clip(path, clip[0] / info.fps, (clip[-1] + 1) / info.fps, FRAMES, SHORT, [crop])
            for clip in wanted
            for crop in (0, 1, 2)
        ]
    found["one open per view"] = lambda n: [one_by_one(cut, clip) for clip in wanted for cut in cuts]
    found["raw decode of the file"] = lambda n: peers.decode_only(path, 0, info.num_frames, info.fps)
    return found


# ---------------------------------------------------------------- copies, loader


def copies(videos: dict[str, Path], folder: Path, rounds: int, avi: Path | None) -> list[Table]:
    """What `vidtrain data prepare` makes; benchmarks/bench_prepare.py by itself says more."""
    tables = []
    for name, path in videos.items():
        found = bench_copies(str(path), folder, rounds)
        base = found["ms"].get("decord", found["ms"]["original"])
        sizes = found["bytes"]
        rows = [
            [kind, f"{ms:.2f}", f"{base / ms:.1f}", f"{sizes.get(kind, sizes['original']) / sizes['original']:.0%}"]
            for kind, ms in found["ms"].items()
        ]
        header = ["", "ms per clip", "clips/s against decord on the original", "bytes"]
        tables.append(Table(f"Prepared copies of {name}, CPU time of a training clip", header, rows, "", found))
    return tables


def loader(videos: dict[str, Path], folder: Path, rounds: int, avi: Path | None) -> list[Table]:
    """Clips a second out of a DataLoader."""
    files = sorted(str(p) for p in avi.rglob("*.avi")) if avi else [str(videos["340x256"])]
    info, _ = _places(files[0], 0)
    paths = files * (180 // len(files))
    size = scaled_size(info, SHORT)
    seconds = ((FRAMES - 1) * STRIDE + 1) / info.fps
    clips = TrainClips(Manifest.of(paths, [0] * len(paths)), CLIP_PARTS, seed=0)
    found: dict[str, Callable[[int], Any]] = {OURS: lambda n: TrainLoader(clips, Workers(2), batch_size=4).epoch(n)}
    if peers.have_decord():
        decord = peers.DecordClips(paths, FRAMES, STRIDE, size, CROP)
        found["decord"] = lambda n: iter(DataLoader(decord, 4, shuffle=True, num_workers=2, drop_last=True))
    if peers.have_pytorchvideo():
        few = peers.pytorchvideo_dataset(paths[: len(paths) // 3], FRAMES, seconds, SHORT, CROP)
        found["PyTorchVideo"] = lambda n: iter(DataLoader(few, 4, num_workers=2, drop_last=True))
    rates: dict[str, list[float]] = {name: [] for name in found}
    for number in range(max(3, rounds // 6)):
        for name, start in found.items():
            rates[name].append(_rate(start(number)))
    median = {name: statistics.median(values) for name, values in rates.items()}
    rows = [[name, f"{rate:.0f}", f"{median[OURS] / rate:.2f}"] for name, rate in median.items()]
    title = f"DataLoader, 2 processes, batches of 4, {len(files)} files of {info.width}x{info.height}: wall clock"
    return [Table(title, ["", "clips/s", "vidtrain is faster by"], rows, "", {"clips_per_second": median})]


def _rate(batches: Any) -> float:
    """Clips a second from the first batch on."""
    marks = [time.perf_counter() for _ in batches]
    # two batches a worker were ready when the first one came
    marks = marks[4:]
    return 4 * (len(marks) - 1) / (marks[-1] - marks[0])


# ---------------------------------------------------------------- memory, manifest


def memory(videos: dict[str, Path], folder: Path, rounds: int, avi: Path | None) -> list[Table]:
    """Growth over 2,000 opens, in a process of its own."""
    return [_script("Memory", "opens", str(videos["340x256"]))]


def manifest(videos: dict[str, Path], folder: Path, rounds: int, avi: Path | None) -> list[Table]:
    """Large lists, in a process of its own."""
    return [_script("Large lists", "lists", str(folder))]


def _script(title: str, task: str, argument: str) -> Table:
    script = Path(__file__).with_name("bench_memory.py")
    done = subprocess.run(
        [sys.executable, str(script), task, argument], capture_output=True, text=True, check=True, env=os.environ
    )
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    return Table(title, ["", "measured", "wanted"], rows)


PARTS: dict[str, Callable[[dict[str, Path], Path, int, Path | None], list[Table]]] = {
    "clips": clips,
    "views": views,
    "copies": copies,
    "loader": loader,
    "memory": memory,
    "manifest": manifest,
}

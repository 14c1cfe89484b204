"""What long lists cost: 650,000 rows, as Kinetics-700 has, and 10 million, measured in processes of their own. Linux.

    python benchmarks/bench_scale.py                             # about 10 minutes, 3 GB of memory, 2 GB of disk
    python benchmarks/bench_scale.py --rows 650000               # other numbers of rows
    python benchmarks/bench_scale.py --write benchmarks/scale_lists.md

The rows are paths of Kinetics-700's form over 700 links to one small video, so that whatever row a worker draws, it
decodes a real clip. What a list costs is the difference to one of 700 rows, measured in the same way:

open      `read_index` and the paths of the first and the last row, in a process that has imported vidtrain
worker    memory that a decoding process has for itself (Private_Dirty in /proc) behind 40 batches of 8 clips,
          forked from the main process as Linux does it up to Python 3.13, and spawned as macOS, Windows and later do
order     CPU time to the first batch of an epoch, and in the middle of one, which a resume needs; peak memory of it
train     CPU time of `vidtrain train` over one batch of a tiny network, whole
write     `write_index`, in the process that made the list; its time and the most memory that it had
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from bench_data import processor
from bench_data_parts import Table, to_markdown, to_text

from vidtrain.data.manifest.index import read_index, write_index
from vidtrain.data.manifest.manifest import Manifest, VideoData

CLASSES = 700
FEW = 700
"""Rows of the list that the others are compared to."""
BATCHES = 40
ROUNDS = 3
WINDOW = 10_000


# ---------------------------------------------------------------- in processes of their own


def make(folder: Path, rows: int) -> dict[str, float]:
    """An index of so many rows, and what writing it took."""
    before = _peak(forget=True)
    train = Manifest.of(_paths(folder, rows), (row % CLASSES for row in range(rows)))
    val = Manifest.of(_paths(folder, CLASSES), range(CLASSES))
    began = time.process_time()
    write_index(folder, VideoData(tuple(f"class {n:03}" for n in range(CLASSES)), {"train": train, "val": val}))
    size = sum(file.stat().st_size for file in folder.glob("*.npy"))
    return {"write_s": time.process_time() - began, "write_mb": _peak() - before, "disk_mb": size / 1e6}


def _paths(folder: Path, rows: int) -> Iterator[str]:
    return (f"{folder}/train/class_{n % CLASSES:03}_of_kinetics/{'x' * 11}_000021_000031.mp4" for n in range(rows))


def open_(folder: Path, rows: int) -> dict[str, float]:
    """Opening it, wall clock and memory."""
    before, began = _own("self"), time.perf_counter()
    found = read_index(folder).splits["train"]
    first, last = found.paths[0], found.paths[rows - 1]
    seconds = time.perf_counter() - began
    assert len(found) == rows
    assert first.endswith(".mp4") == last.endswith(".mp4") is True
    return {"open_s": seconds, "open_mb": _own("self") - before}


def worker(folder: Path, method: str) -> dict[str, float]:
    """The memory that decoding processes have for themselves, the median of two."""
    from vidtrain.data.clips.dataset import ClipParts, TrainClips
    from vidtrain.data.clips.loader import TrainLoader
    from vidtrain.data.clips.workers import Workers
    from vidtrain.data.readers.any_path import AnyReader
    from vidtrain.data.readers.pyav.reader import PyAVReader
    from vidtrain.data.settings import SamplerConfig, TransformConfig

    multiprocessing.set_start_method(method)
    manifest = read_index(folder).splits["train"]
    parts = ClipParts(AnyReader(PyAVReader()), SamplerConfig(8, 2), TransformConfig(size=32, resize=36))
    loader = TrainLoader(TrainClips(manifest, parts, seed=0), Workers(2), batch_size=8)
    began, found = time.perf_counter(), []
    for number, batch in enumerate(loader.epoch(0)):
        assert not batch.bad, batch.bad
        if not number:
            first = time.perf_counter() - began
        if number == BATCHES:
            children = [child.pid for child in multiprocessing.active_children()]
            found = [_own(str(pid)) for pid in children]
            break
    return {f"{method}_mb": statistics.median(found), f"{method}_first_s": first}


def order(folder: Path, kind: str) -> dict[str, float]:
    """The order of an epoch: CPU time to its first batch, of its middle, and the most memory that it takes."""
    from vidtrain.data.clips.loader import EpochBatchSampler, row_weights
    from vidtrain.data.clips.shard_order import ShardOrder

    manifest = read_index(folder).splits["train"]
    began = time.process_time()
    if kind == "shards":  # what making their names takes is not the order's
        deque(_Members(manifest.paths), maxlen=0)
    names = time.process_time() - began
    before, began = _peak(forget=True), time.process_time()
    batches = EpochBatchSampler(
        len(manifest),
        64,
        seed=0,
        weights=row_weights(manifest, 1.0 if kind == "balanced" else 0.0, None),
        shards=ShardOrder.of(_Members(manifest.paths), WINDOW) if kind == "shards" else None,
        rank=1,
        ranks=8,
    )
    made = time.process_time() - began - names
    times = []
    middle = len(batches) // 2
    wanted: list[Any] = []
    for start in (0, middle):
        batches.start = start
        began = time.process_time()
        found = next(iter(batches))
        times.append(time.process_time() - began)
        wanted.append(found)
    batches.start = 0
    for number, keys in enumerate(batches):
        if number == middle:
            assert keys == wanted[1], "a resume has another order"
            break
    return {f"{kind}_made_s": made, f"{kind}_s": times[0], f"{kind}_resume_s": times[1], f"{kind}_mb": _peak() - before}


class _Members:
    """The same paths as members of shards of 1,000 each."""

    def __init__(self, paths: Any) -> None:
        self._paths = paths

    def __iter__(self) -> Iterator[str]:
        for row, path in enumerate(self._paths):
            yield f"/data/k700/train-{row // 1000:06}.tar@{row % 1000 * 300_032 + 512}+299008/{path[-60:]}"


def train(folder: Path, _: str) -> dict[str, float]:
    """`vidtrain train` of a tiny network over one batch, CPU seconds."""
    options = ["model=slow_fusion", "model.width=4", "sampler.num_frames=8", "sampler.stride=1", "transform.size=32"]
    options += ["transform.resize=36", "trainer.epochs=1", "trainer.max_batches=1", "trainer.batch_size=8"]
    options += ["trainer.num_workers=0", "trainer.test=false", "eval.val_clips=1", "logger=jsonl", "report=false"]
    options += ["trainer.device=cpu", "schedule.warmup_epochs=0", "data.val_fraction=0"]
    with tempfile.TemporaryDirectory() as runs:
        began = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [sys.executable, "-m", "vidtrain", "train", "data=index", f"data.root={folder}", *options]
        done = subprocess.run([*command, f"run_dir={runs}/run"], capture_output=True, text=True, check=False)
        assert not done.returncode, done.stderr
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = ended.ru_utime + ended.ru_stime - began.ru_utime - began.ru_stime
    return {"train_s": seconds, "train_mb": ended.ru_maxrss / 1024}


def _own(process: str) -> float:
    """Megabytes that a process shares with no other and that no file holds."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty:")) / 1024


def _peak(*, forget: bool = False) -> float:
    """The most megabytes that this process has had since it was asked to forget what it had before."""
    if forget:
        Path("/proc/self/clear_refs").write_text("5")
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


# ---------------------------------------------------------------- the parent


def measure(rows: int, folder: Path, video: Path, rounds: int) -> dict[str, float]:
    """Everything of a list of so many rows; medians."""
    for path in set(_paths(folder, CLASSES)):
        Path(path).parent.mkdir(parents=True)
        Path(path).symlink_to(video)
    tasks: list[tuple[str, Any, int]] = [("make", rows, 1), ("open", rows, rounds)]
    tasks += [("worker", method, 1) for method in ("fork", "spawn")]
    tasks += [("order", kind, 1) for kind in ("random", "balanced", "shards")]
    tasks += [("train", "", rounds)]
    found: dict[str, float] = {}
    for task, argument, times in tasks:
        each = [_child(task, folder, argument) for _ in range(times)]
        found |= {name: statistics.median(one[name] for one in each) for name in each[0]}
        print(f"{rows:,} rows: {task} {argument}: {found}", file=sys.stderr, flush=True)
    return found


def _child(task: str, folder: Path, argument: Any) -> dict[str, float]:
    command = [sys.executable, __file__, "--task", task, "--folder", str(folder), "--argument", str(argument)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    answer: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return answer


def tables(found: dict[int, dict[str, float]]) -> list[Table]:
    few, lists = found[FEW], [rows for rows in found if rows != FEW]

    def row(title: str, name: str, unit: str, digits: int, *, above: bool = False, wanted: str = "") -> list[str]:
        cells = [f"{found[rows][name] - above * few[name]:.{digits}f} {unit}" for rows in lists]
        return [title, *cells, wanted]

    start = Table(
        "Start and memory",
        ["", *(f"{rows:,} rows" for rows in lists), "wanted"],
        [
            row("the index on disk", "disk_mb", "MB", 0),
            row("open, wall clock", "open_s", "s", 3, wanted="< 1 s"),
            row("open, memory of the process's own", "open_mb", "MB", 1),
            row("a worker more than with 700 rows, forked", "fork_mb", "MB", 1, above=True, wanted="< 5 MB"),
            row("a worker more than with 700 rows, spawned", "spawn_mb", "MB", 1, above=True, wanted="< 5 MB"),
            row("first batch of 2 forked workers, wall clock", "fork_first_s", "s", 2),
            row("first batch of 2 spawned workers, wall clock", "spawn_first_s", "s", 2),
            row("`vidtrain train`, more CPU than with 700 rows", "train_s", "s", 2, above=True),
            row("`vidtrain train`, more peak memory", "train_mb", "MB", 0, above=True),
            row("write_index, CPU", "write_s", "s", 1),
            row("the list and write_index, peak memory", "write_mb", "MB", 0),
        ],
    )
    orders = []
    for kind, title in (
        ("random", "random"),
        ("balanced", "sampler.class_balance=1"),
        ("shards", f"sampler.shuffle_window={WINDOW}, shards of 1,000"),
    ):
        orders += [
            row(f"{title}: once at the start", f"{kind}_made_s", "s", 2),
            row(f"{title}: to the first batch of an epoch", f"{kind}_s", "s", 2),
            row(f"{title}: to a batch in the middle (resume)", f"{kind}_resume_s", "s", 2),
            row(f"{title}: peak memory, of the main process alone", f"{kind}_mb", "MB", 0),
        ]
    order_table = Table(
        "Order of an epoch, CPU time", ["", *(f"{rows:,} rows" for rows in lists)], [o[:-1] for o in orders]
    )
    return [start, order_table]


def main() -> None:
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[650_000, 10_000_000], help="rows of the lists")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="times that short measurements are taken")
    parser.add_argument("--write", type=Path, help="write the tables to this Markdown file")
    parser.add_argument("--task", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--argument", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.task is not None:
        tasks: dict[str, Callable[[], dict[str, float]]] = {
            "make": lambda: make(given.folder, int(given.argument)),
            "open": lambda: open_(given.folder, int(given.argument)),
            "worker": lambda: worker(given.folder, given.argument),
            "order": lambda: order(given.folder, given.argument),
            "train": lambda: train(given.folder, given.argument),
        }
        print(json.dumps(tasks[given.task]()))
        return
    from bench_readers import write_video

    began = time.time()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    found: dict[int, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name:
        video = Path(name) / "small.mp4"
        write_video(video, 64, 80, seconds=2)
        for rows in [FEW, *given.rows]:
            home = Path(name) / str(rows)
            home.mkdir()
            found[rows] = measure(rows, home, video, given.rounds)
    made = tables(found)
    for table in made:
        print(f"\n{table.title}\n{to_text(table)}")
    if given.write:
        words = " ".join(["benchmarks/bench_scale.py", *sys.argv[1:]])
        versions = f"python {sys.version.split()[0]}, numpy {np.__version__}"
        head = [f"`python {words}`, {time.strftime('%Y-%m-%d')}, {processor()}, {versions},"]
        head += [f"{(time.time() - began) / 60:.0f} minutes.", ""]
        parts = [part for table in made for part in (f"### {table.title}", "", to_markdown(table), "")]
        given.write.write_text("\n".join([*head, *parts]).rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

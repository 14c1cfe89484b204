"""Memory and start-up figures of bench_data.py, each in a process that has done nothing before. Linux.

    python benchmarks/bench_memory.py opens VIDEO       # growth over 2,000 opened videos
    python benchmarks/bench_memory.py lists FOLDER      # 5 million rows in an index; 240,000 rows of a Kinetics CSV

Prints lines of three columns, separated by tabs: what, measured, wanted.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

from vidtrain.data.manifest.index import read_index, write_index
from vidtrain.data.manifest.manifest import Manifest, VideoData

ROWS = 5_000_000
CSV_ROWS = 240_000


def kilobytes(name: str) -> int:
    """A field of /proc/self/smaps_rollup: Rss, or Anonymous, which leaves out the pages of mapped files."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def opens(video: str) -> None:
    import numpy as np

    from vidtrain.data.readers.pyav.reader import PyAVReader

    reader, wanted = PyAVReader(), np.arange(0, 64, 4)

    def some(count: int) -> None:
        for number in range(count):
            with reader.open(video) as opened:
                if number % 10 == 0:
                    opened.read(wanted, (128, 170))

    some(200)
    before = kilobytes("Rss")
    some(2000)
    print(f"growth over 2,000 opened videos, every tenth read\t{(kilobytes('Rss') - before) / 1024:.1f} MB\t<= 10 MB")


def lists(folder: str) -> None:
    # in processes of their own: this one must not have seen a million strings
    for task in ("make", "open", "csv"):
        subprocess.run([sys.executable, __file__, task, folder], check=True)


def make(folder: str) -> None:
    paths = (f"/data/k400/train/class{n % 400:03d}/{n:011d}_000000_000010.mp4" for n in range(ROWS))
    rows = Manifest.of(paths, (n % 400 for n in range(ROWS)))
    write_index(Path(folder) / "large", VideoData(tuple(f"class{n:03d}" for n in range(400)), {"train": rows}))


def open_(folder: str) -> None:
    began = time.perf_counter()
    rows = read_index(Path(folder) / "large").splits["train"]
    first = rows.paths[len(rows) - 1]
    seconds = time.perf_counter() - began
    assert first.endswith(".mp4")
    print(f"an index of 5,000,000 rows opens in\t{seconds:.3f} s\t< 1 s")
    context = multiprocessing.get_context("fork")
    answers: multiprocessing.Queue[int] = context.Queue()
    workers = [context.Process(target=_touch, args=(rows, answers)) for _ in range(2)]
    for worker in workers:
        worker.start()
    grown = max(answers.get() for _ in workers)
    for worker in workers:
        worker.join()
    print(f"growth of a worker that reads 1,000,000 of them\t{grown / 1024:.1f} MB\t< 5 MB")


def _touch(rows: Manifest, answers: multiprocessing.Queue[int]) -> None:
    for row in range(1000):  # what the first look costs anyway
        rows.paths[row]
    before = kilobytes("Anonymous")
    for row in range(0, len(rows), len(rows) // 1_000_000):
        rows.paths[row]
        int(rows.labels[row])
    answers.put(kilobytes("Anonymous") - before)


def csv(folder: str) -> None:
    from vidtrain.data.clips.dataset import ClipParts, TrainClips
    from vidtrain.data.clips.loader import TrainLoader
    from vidtrain.data.clips.workers import Workers
    from vidtrain.data.formats.kinetics import kinetics
    from vidtrain.data.readers.pyav.reader import PyAVReader
    from vidtrain.data.settings import SamplerConfig, TransformConfig

    video = (Path(folder) / "small.mp4").read_bytes()
    root = Path(folder) / "kinetics"
    for split, count in (("train", CSV_ROWS), ("val", 2_000)):
        lines = ["label,youtube_id,time_start,time_end,split"]
        for number in range(count):
            name = f"class {number % 400:03d}"
            home = root / split / name
            if number < 400:
                home.mkdir(parents=True)
            file = home / f"{split[0]}{number:010d}_000000_000010.mp4"
            if number < 8:
                file.write_bytes(video)
            else:  # a file system allows 65,000 names of one file, or fewer
                os.link(
                    root / split / f"class {number % 8:03d}" / f"{split[0]}{number % 8:010d}_000000_000010.mp4", file
                )
            lines.append(f"{name},{split[0]}{number:010d},0,10,{split}")
        (root / f"{split}.csv").write_text("\n".join(lines) + "\n")

    began, processor = time.perf_counter(), time.process_time()
    data = kinetics(root)
    parts = ClipParts(PyAVReader(), SamplerConfig(num_frames=16, stride=4), TransformConfig(size=112, resize=128))
    next(TrainLoader(TrainClips(data.splits["train"], parts, seed=0), Workers(0), batch_size=8).epoch(0))
    seconds, processor = time.perf_counter() - began, time.process_time() - processor
    assert len(data.splits["train"]) == CSV_ROWS
    took = f"{seconds:.2f} s, {processor:.2f} s of CPU"
    print(f"a Kinetics CSV of 240,000 rows, to the first batch of 8 clips\t{took}\t< 3 s")


def main() -> None:
    tasks = {"opens": opens, "lists": lists, "make": make, "open": open_, "csv": csv}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=tasks, help="make, open and csv are the parts of lists")
    parser.add_argument("path", help="opens: a video; lists: a folder with small.mp4 to write to")
    given = parser.parse_args()
    tasks[given.task](given.path)


if __name__ == "__main__":
    main()

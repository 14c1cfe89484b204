"""What an epoch of a probe costs on features that `vidtrain extract` has written, and over the videos themselves.

    python benchmarks/bench_probe.py                                             # 64 clips of the built-in dataset
    python benchmarks/bench_probe.py data=ucf101 data.root=DIR data.val_fraction=0.2 transform=crop

Three trainings of one probe, a grid of nine linear layers on a frozen ResNet-18 (random weights: they do not change the
time) over clips of 8 frames: over videos; on features that are read in every epoch; on features that are kept in
memory. The time of an epoch is that of a run of many epochs less that of a run of one, by their difference in epochs:
starting the program, the extraction and the test are not in it, the validation and the checkpoint of each epoch are.
Linux, since it counts processor seconds of all processes.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

CLIP = ["sampler.num_frames=8", "sampler.stride=2", "trainer.num_workers=0"]
BUILT_IN = ["data=motion", "data.train_scenes=8", "data.val_scenes=2", "data.test_scenes=1", "transform=small"]
RUN = ["model=probe", "trainer.batch_size=32", "trainer.test=false", "logger=jsonl", "trainer.num_workers=0"]


def main() -> None:
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="*", default=BUILT_IN, help="options of the data and the transform")
    parser.add_argument("--epochs", type=int, default=60, help="of the longer run on features (default 60)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        net = ["model=late_fusion", "model.backbone=resnet18"]
        spent(home, "extract", *net, *options.data, *CLIP, "output=features")
        size = sum(file.stat().st_size for file in (home / "features").rglob("*.npy"))
        over = [*options.data, *CLIP, "model.network=resnet18", "model.clip=8"]
        rows = {"over videos": epoch(home, "videos", 2, *over)}
        for kept, memory in (("read in every epoch", 0), ("kept in memory", 1)):
            what = ["data=features", f"data.root={home / 'features'}", f"data.memory_gb={memory}"]
            rows[f"features, {kept}"] = epoch(home, f"memory_{memory}", options.epochs, *what)
    print(f"{'':30}  seconds  processor seconds  times as fast")
    first = rows["over videos"][1]
    for label, (wall, cpu) in rows.items():
        print(f"{label:30}  {wall:7.3f}  {cpu:17.3f}  {first / cpu:13.0f}")
    threads = os.environ.get("OMP_NUM_THREADS")
    print(
        f"features: {size / 1e6:.1f} MB of files. Times as fast: by processor seconds, which depend little on what "
        f"else runs. {platform.machine()}, {os.cpu_count()} cores, OMP_NUM_THREADS={threads}, "
        f"python {platform.python_version()}, torch {torch.__version__}"
    )


def epoch(home: Path, name: str, epochs: int, *what: str) -> tuple[float, float]:
    """(seconds, processor seconds) of one epoch."""
    ends = {n: spent(home, "train", *RUN, *what, f"trainer.epochs={n}", f"run_dir={name}_{n}") for n in (1, epochs)}
    wall, cpu = (last - first for first, last in zip(ends[1], ends[epochs], strict=True))
    return wall / (epochs - 1), cpu / (epochs - 1)


def spent(home: Path, *command: str) -> tuple[float, float]:
    """(seconds, processor seconds) of a run of vidtrain and of the processes that it has started."""
    began = time.perf_counter()
    with (home / "log.txt").open("w+") as log:
        process = subprocess.Popen([sys.executable, "-m", "vidtrain", *command], cwd=home, stdout=log, stderr=log)
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            log.seek(0)
            sys.exit(f"vidtrain {' '.join(command)}:\n{log.read()}")
    return time.perf_counter() - began, usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()

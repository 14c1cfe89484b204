"""The table of benchmarks/motion.md: small networks trained on the built-in dataset, from the folders of their runs.

    vidtrain train -m experiment=motion_small model=i3d_tiny run_dir=...      # the runs, in whatever order
    python benchmarks/bench_motion.py runs/motion/*/* --write benchmarks/motion.md

Reads each run's result.json and best.pt, counts parameters and multiply-adds at the clip it was trained on, and
measures the training step here (fp32, batches of noise of the run's size, all networks in turns, median of the rounds).
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vidtrain import build
from vidtrain.data.motion.motion import CLASSES
from vidtrain.engine.checkpoints.checkpoint import load_checkpoint
from vidtrain.engine.precision import Precision
from vidtrain.engine.preprocess import ModelRunner, Preprocess, model_inputs
from vidtrain.engine.settings import PrecisionName
from vidtrain.engine.speed.timing import Step, random_batch
from vidtrain.models.inspect.summary import cost
from vidtrain.tasks.classification.task import Classification

CHANCE = (
    "The eight classes come in four pairs, each the other one played backwards, and every single frame looks the same "
    "in all classes: 0.125 is what a net that sees single frames can reach, 0.5 one that is blind to their order."
)

USUAL_VIDEOS = 512
USUAL_SIZE = 64
USUAL_BATCH = 16


@dataclass
class Run:
    """A finished run: what it was, what it reached, and its training step on a batch of noise."""

    folder: Path
    config: dict[str, Any]
    model: str
    result: dict[str, Any]
    params: int
    macs: int
    step: Step
    batch: Any
    seconds: list[float]

    @classmethod
    def of(cls, folder: Path) -> Run:
        content = load_checkpoint(folder / "best.pt")
        config, classes = content["config"], len(content["class_names"])
        frames, size = config["sampler"]["num_frames"], config["transform"]["size"]
        with torch.device("meta"):
            params, macs = cost(build.bare_model(config["model"], classes), frames, size)
        model = build.bare_model(config["model"], classes)
        cpu = torch.device("cpu")
        preprocess = Preprocess(config["transform"]["mean"], config["transform"]["std"], cpu)
        optimizer = build.build_optimizer(config["optimizer"], model)
        network = ModelRunner(model, preprocess, Precision(PrecisionName.fp32, cpu))
        task = Classification(content["class_names"])
        step = Step(network, optimizer, task)
        batch = random_batch(config["trainer"]["batch_size"], frames, size, task, inputs=model_inputs(model))
        result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        return cls(folder, config, _name(content, config), result, params, macs, step, batch, [])

    @property
    def recipe(self) -> str:
        config, trainer = self.config, self.config["trainer"]
        optimizer, patch = config["optimizer"], config["model"].get("patch")
        videos, size = _training_videos(config["data"]), config["transform"]["size"]
        flow = config.get("flow", {"source": "none"})
        parts = [
            f"{optimizer['_target_'].rpartition('.')[2]} {optimizer['lr']:g}",
            f"{trainer['epochs']} epochs" + (f" of {videos} videos" if videos != USUAL_VIDEOS else ""),
            f"batches of {trainer['batch_size']}" if trainer["batch_size"] != USUAL_BATCH else "",
            f"{size} px" if size != USUAL_SIZE else "",
            f"patches of {patch}" if patch else "",
            f"flow: {flow['method'] or flow['source']}" if flow["source"] != "none" else "",
        ]
        return ", ".join(filter(None, parts))

    def row(self) -> list[str]:
        test = self.result["test"]
        rate = len(self.batch) / statistics.median(self.seconds)
        return [
            self.model,
            f"{test['top1']:.3f}",
            f"{test['clip_top1']:.3f}",
            f"{test['scored']}/{test['listed']}",
            f"{self.params / 1e6:.3f} M",
            f"{self.macs / 1e9:.3f}",
            f"{rate:.0f}",
            self.recipe,
        ]


def main() -> None:
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="folders of finished runs")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of the timing (default 5)")
    parser.add_argument("--write", type=Path, help="write the table to this Markdown file, above its notes")
    options = parser.parse_args()
    runs = [Run.of(folder) for folder in options.runs if (folder / "result.json").is_file()]
    for _ in range(options.rounds + 1):
        for run in runs:
            began = time.perf_counter()
            run.step(run.batch)
            run.seconds.append(time.perf_counter() - began)
    for run in runs:
        del run.seconds[0]
    text = _markdown(runs, options.rounds)
    print(text)
    if options.write:
        notes = _notes(options.write)
        options.write.parent.mkdir(parents=True, exist_ok=True)
        options.write.write_text(text + notes, encoding="utf-8")


def _notes(path: Path) -> str:
    """What a person has written below the table: it stays."""
    old = path.read_text(encoding="utf-8") if path.is_file() else ""
    _, heading, notes = old.partition("\n## Notes\n")
    return heading + notes


def _name(content: dict[str, Any], config: dict[str, Any]) -> str:
    """The model's, with the option that makes it another network."""
    name = str(content["choices"]["model"])
    attention = config["model"].get("attention")
    return f"{name}, attention={attention}" if attention not in (None, "divided") and "timesformer" in name else name


def _training_videos(data: dict[str, Any]) -> int:
    """Of the built-in set, or of copies of it that `vidtrain data prepare` wrote."""
    if "train_scenes" in data:
        return len(CLASSES) * int(data["train_scenes"])
    return len(build.build_data(data).splits["train"])


def _markdown(runs: list[Run], rounds: int) -> str:
    header = ["model", "test top-1, 10 clips", "one clip", "scored", "params", "GMAC", "clips/s", "trained with"]
    lines = [header, ["---"] * len(header), *(run.row() for run in runs)]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    clips = {run.result["test"]["protocol"] for run in runs}
    return (
        "# Small networks on the built-in dataset\n\n"
        f"{CHANCE}\n\n{table}\n\n"
        f"Protocol: {'; '.join(sorted(clips, reverse=True))}. Seed 0; {USUAL_SIZE} px and {USUAL_VIDEOS} "
        f"training videos (`data.train_scenes`, 8 each) and batches of {USUAL_BATCH} where nothing else stands. "
        "Commands: `vidtrain train experiment=motion_small model=MODEL` (SGD), `experiment=motion_adamw` (AdamW), "
        "`experiment=motion_32` (32 px, from prepared copies), with the epochs and learning rates of the last "
        "column. GMAC: 10^9 multiply-adds of one clip at the size it was trained on. clips/s: forward, backward "
        f"and update in fp32 on batches of noise, {rounds} rounds in turns, threads: {torch.get_num_threads()}.\n\n"
        f"{datetime.date.today().isoformat()}, {platform.processor() or platform.machine()}, {os.cpu_count()} cores, "
        f"python {platform.python_version()}, torch {torch.__version__.partition('+')[0]}.\n\n"
        "Anew: `python benchmarks/bench_motion.py RUN_FOLDERS --write benchmarks/motion.md`\n"
    )


if __name__ == "__main__":
    main()

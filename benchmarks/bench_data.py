"""How fast vidtrain loads data on this machine, beside decord 0.6.0, PyTorchVideo 0.1.5 and bare libav, in one run.

    pip install decord==0.6.0 pytorchvideo==0.1.5        # those that are missing are skipped
    python benchmarks/bench_data.py                         # about 15 minutes; two videos are written for the purpose
    python benchmarks/bench_data.py --avi FOLDER            # the loader's part on files of yours, UCF101's AVIs say
    python benchmarks/bench_data.py --only clips views      # parts: clips views copies loader memory manifest
    python benchmarks/bench_data.py --write benchmarks/data.md --json data.json

clips     a training clip, 16 frames 4 apart, cropped to 112 x 112: CPU milliseconds
views     10 x 3 test views of a video: CPU milliseconds
copies    a training clip from what `vidtrain data prepare` makes, and its bytes: CPU milliseconds
loader    clips per second out of a DataLoader with 2 processes: wall clock
memory    growth over 2,000 opened videos
manifest  5 million rows: time to open, growth of a process that reads a million; 240,000 rows of a Kinetics CSV

Contestants take turns in each round, so that a busy machine slows all of them; figures are medians of the rounds. CPU
time counts all threads of the process, which is told to use one. Every file is opened again for each item.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))
import bench_data_parts as parts
from bench_readers import write_video

PACKAGES = ("torch", "torchvision", "av", "numpy", "decord", "pytorchvideo")


def main() -> None:
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=parts.PARTS, default=list(parts.PARTS), help="some parts only")
    parser.add_argument("--rounds", type=int, default=30, help="rounds of each part (default 30)")
    parser.add_argument("--avi", type=Path, help="folder of videos for the loader's part; none: the small one written")
    parser.add_argument("--write", type=Path, help="write the tables to this Markdown file")
    parser.add_argument("--json", type=Path, help="write the numbers to this file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    began = time.time()
    tables: list[parts.Table] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        videos = {"340x256": folder / "small.mp4", "1280x720": folder / "large.mp4"}
        write_video(videos["340x256"], 256, 340)
        write_video(videos["1280x720"], 720, 1280)
        for part in options.only:
            found = parts.PARTS[part](videos, folder, options.rounds, options.avi)
            for table in found:
                print(f"\n{table.title}\n{parts.to_text(table)}", flush=True)
            tables += found
    facts = _facts(options.rounds, (time.time() - began) / 60)
    if options.write:
        options.write.parent.mkdir(parents=True, exist_ok=True)
        options.write.write_text(_markdown(tables, facts), encoding="utf-8")
    if options.json:
        content = {**facts, "tables": [vars(table) for table in tables]}
        options.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _facts(rounds: int, minutes: float) -> dict[str, Any]:
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "command": "python " + " ".join(["benchmarks/bench_data.py", *_without_paths(sys.argv[1:])]),
        "date": time.strftime("%Y-%m-%d"),
        "processor": processor(),
        "versions": versions,
        "rounds": rounds,
        "minutes": round(minutes, 1),
    }


def _without_paths(arguments: list[str]) -> list[str]:
    """The command as another person would type it."""
    return ["FOLDER" if before == "--avi" else word for before, word in zip(["", *arguments], arguments, strict=False)]


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
        return f"{name}, {sum(line.startswith('processor') for line in lines)} cores"
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _markdown(tables: list[parts.Table], facts: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in facts["versions"].items())
    head = [
        "# Loading data, beside the public peers",
        "",
        f"`{facts['command']}`, {facts['date']}, {facts['processor']}, {facts['minutes']:g} minutes.",
        f"{versions}. Medians of {facts['rounds']} rounds in which the contestants take turns; the script's head says",
        "what each number is.",
    ]
    for table in tables:
        head += ["", f"## {table.title}", "", parts.to_markdown(table), "", table.note]
    return "\n".join(head).rstrip() + "\n"


if __name__ == "__main__":
    main()

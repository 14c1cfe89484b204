"""How long commands take to start: CPU time until the first frame is asked for, beside that of importing PyTorch.

    python benchmarks/bench_startup.py CHECKPOINT VIDEO [--runs 5]

Prints the median of so many processes each, behind one that is not counted. CPU time, user and system, of the whole
process: the wall clock would measure what else the machine does. Bytecode is kept, as it is of an installed package:
without it Python compiles each module again, in every process. eval tests the checkpoint on its own data.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

IMPORT = "import time, torch; print('CPU', time.process_time())"
# the readers ask PyAV for the file; eval of one process and predict of one file decode in this process
UNTIL_OPENED = """
import os, sys, time
import av

def opened(*args, **kwargs):
    print("CPU", time.process_time(), flush=True)
    os._exit(0)

av.open = opened
from vidtrain.shell import cli
cli.main(sys.argv[1:])
"""
WHOLE = """
import atexit, sys, time

atexit.register(lambda: print("CPU", time.process_time(), flush=True))
from vidtrain.shell import cli
cli.main(sys.argv[1:])
"""


IN_THIS = ["trainer.num_workers=0", "eval.figures=false"]


def seconds(script: str, *arguments: str, runs: int, bytecode: str) -> float:
    """Median of the CPU seconds that a script reports. bytecode: folder for it."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    found = []
    for _ in range(runs + 1):
        done = subprocess.run(
            [sys.executable, "-c", script, *arguments],
            env={**kept, "PYTHONPYCACHEPREFIX": bytecode},
            capture_output=True,
            text=True,
            check=True,
        )
        found.append(float(next(line for line in done.stdout.splitlines() if line.startswith("CPU")).split()[1]))
    return median(found[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("video")
    parser.add_argument("--runs", type=int, default=5, help="processes of each command, whose median is printed")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(given.checkpoint, given.video, given.runs, str(Path(folder) / "bytecode"), f"output={folder}/eval")


def measure(checkpoint: str, video: str, runs: int, bytecode: str, output: str) -> None:
    torch = seconds(IMPORT, runs=runs, bytecode=bytecode)
    print(f"import torch                        {torch:5.2f} s")
    for title, script, command in (
        ("vidtrain --help", WHOLE, ["--help"]),
        ("predict, until the video is opened", UNTIL_OPENED, ["predict", f"checkpoint={checkpoint}", f"input={video}"]),
        ("eval, until a video is opened", UNTIL_OPENED, ["eval", f"checkpoint={checkpoint}", *IN_THIS, output]),
        ("predict, whole", WHOLE, ["predict", f"checkpoint={checkpoint}", f"input={video}"]),
        ("inspect model=slow_fusion, whole", WHOLE, ["inspect", "model=slow_fusion"]),
    ):
        spent = seconds(script, *command, runs=runs, bytecode=bytecode)
        print(f"{title:35} {spent:5.2f} s, {spent - torch:+.2f} s")


if __name__ == "__main__":
    main()

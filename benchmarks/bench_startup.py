"""How long commands take to start: CPU time until the first frame is asked for, beside that of importing PyTorch.

    python benchmarks/bench_startup.py CHECKPOINT VIDEO [--runs 5]

Prints the median of so many processes each. CPU time, user and system, of the whole process: the wall clock would
measure what else the machine does.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from statistics import median

IMPORT = "import time, torch; print('CPU', time.process_time())"
# the readers ask PyAV for the file; eval of one process and predict of one file decode in this process
UNTIL_OPENED = """
import sys, time
import av

opening = av.open

def opened(*args, **kwargs):
    print("CPU", time.process_time(), flush=True)
    av.open = opening
    return opening(*args, **kwargs)

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


def seconds(script: str, *arguments: str, runs: int) -> float:
    """Median of the CPU seconds that a script reports."""
    found = []
    for _ in range(runs):
        done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True)
        found.append(float(next(line for line in done.stdout.splitlines() if line.startswith("CPU")).split()[1]))
    return median(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("video")
    parser.add_argument("--runs", type=int, default=5, help="processes of each command, whose median is printed")
    given = parser.parse_args()
    checkpoint, video, runs = given.checkpoint, given.video, given.runs
    torch = seconds(IMPORT, runs=runs)
    print(f"import torch                        {torch:5.2f} s")
    for title, script, command in (
        ("vidtrain --help", WHOLE, ["--help"]),
        ("predict, until the video is opened", UNTIL_OPENED, ["predict", f"checkpoint={checkpoint}", f"input={video}"]),
        ("predict, whole", WHOLE, ["predict", f"checkpoint={checkpoint}", f"input={video}"]),
        ("inspect model=slow_fusion, whole", WHOLE, ["inspect", "model=slow_fusion"]),
    ):
        spent = seconds(script, *command, runs=runs)
        print(f"{title:35} {spent:5.2f} s, {spent - torch:+.2f} s")


if __name__ == "__main__":
    main()

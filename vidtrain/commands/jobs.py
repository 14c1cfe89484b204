"""Where the files of a dataset are worked at: in processes of this machine, on a cluster, as one part beside others."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path

from vidtrain.child_python_path import run_command
from vidtrain.commands.dataset_videos import listed, num_workers
from vidtrain.data.jobs.parts import Part, PartMade
from vidtrain.data.jobs.pool import Executor
from vidtrain.data.jobs.ray_executor import RayExecutor
from vidtrain.data.settings import ExecutorName, JobsConfig
from vidtrain.errors import ConfigError, VidtrainError
from vidtrain.options.schema import DataCommandConfig
from vidtrain.ranges import LONGEST
from vidtrain.terminal import printable_lines


def workers_of(options: DataCommandConfig) -> int | Executor:
    """The number of processes on this machine, or what has a cluster do the work."""
    jobs, count = options.jobs, num_workers(options)
    if jobs.executor is ExecutorName.local:
        return count
    if jobs.part is not None:
        raise ConfigError(f"jobs.part={jobs.part}: jobs={jobs.executor} makes the shares: leave it out")
    return RayExecutor(jobs.address, options.num_workers, jobs.chunk, jobs.cpus, jobs.gpus, jobs.deaths)


def words_of_part(verb: str, jobs: JobsConfig, workers: str) -> list[str]:
    """The arguments of this very command as one of a single machine, to which jobs.part may be added.

    Args:
        workers: the option for processes, which become as many as a job has processors, unless they are given.
    """
    if {"-m", "--multirun"} & set(sys.argv):
        raise ConfigError(f"jobs={jobs.executor}: not with -m; give a command for each")
    given = [word for word in sys.argv[1:] if not word.lstrip("+~").startswith(("jobs.", "jobs="))]
    if not any(word.lstrip("+").startswith(f"{workers}=") for word in given):
        given.append(f"{workers}={max(1, math.ceil(jobs.cpus))}")
    return [verb, *given]


def done_on_ray(jobs: JobsConfig, workers: str) -> bool:
    """Have a Ray cluster do `vidtrain extract` part by part, each a process, where jobs=ray says so; False: do it here.

    Raises:
        VidtrainError: a part, or the last process that writes the lists, has failed.
    """
    if jobs.executor is not ExecutorName.ray:
        return False
    words, here = words_of_part("extract", jobs, workers), os.getcwd()  # noqa: PTH109
    executor = RayExecutor(jobs.address, None, 1, jobs.cpus, jobs.gpus, jobs.deaths)
    parts = [(*words, f"jobs.part={number}/{jobs.parts}") for number in range(1, jobs.parts + 1)]
    for stage in (parts, [tuple(words)]):
        failed = ""
        for outcome in executor.run(run_command, [(one, here) for one in stage], LONGEST):
            if outcome.error is None:
                print((outcome.value or "").splitlines()[0] if stage is parts else outcome.value)
            failed = failed or outcome.error or ""
        if failed:
            raise VidtrainError(f"jobs=ray: {failed}; the same command goes on with what is missing")
    return True


def part_of(jobs: JobsConfig) -> Part | None:
    """The part that this process does; None: all."""
    return None if jobs.part is None else Part.of(jobs.part)


def part_summary(part: Part, done: PartMade, output: Path) -> str:
    """What came of a part, and what remains to be done."""
    return printable_lines(
        [
            f"part {part}: {done.made + done.kept} in {output} ({done.made} now, {done.kept} before)",
            *listed("bad", done.bad),
            "when all parts have ended, give the command without jobs.part: it makes what is missing, and the lists",
        ]
    )

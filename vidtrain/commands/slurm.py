"""A command over many files as an array of Slurm jobs, a part each, and a job behind it that writes the lists."""

from __future__ import annotations

import math
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from vidtrain.commands.jobs import words_of_part
from vidtrain.data.settings import ExecutorName, JobsConfig
from vidtrain.errors import ConfigError, VidtrainError
from vidtrain.terminal import print_line

_PATIENCE: Final = 120.0  # seconds for sbatch to answer


def submitted(verb: str, jobs: JobsConfig, output: str | Path, workers: str) -> bool:
    """Hand this command to Slurm, where jobs=slurm says so; False: it is to be done here.

    Args:
        verb: the command, "data".
        output: the folder that is written to. Scripts and logs go to a folder beside it, OUTPUT.slurm.
        workers: the option for processes, which become as many as a job has processors.

    Raises:
        ConfigError: an option that cannot be used, or no sbatch here.
        VidtrainError: Slurm refuses it.
    """
    if jobs.executor is not ExecutorName.slurm:
        return False
    if jobs.part is not None:
        raise ConfigError(f"jobs.part={jobs.part}: jobs=slurm makes the parts, jobs.parts={jobs.parts}: leave it out")
    folder = Path(f"{Path(output).absolute()}.slurm")
    words = [*_program(), *words_of_part(verb, jobs, workers)]
    most = "" if jobs.at_once is None else f"%{jobs.at_once}"
    array = [f"--array=1-{jobs.parts}{most}", f"--output={_escaped(folder)}/part-%a.log"]
    part = f'jobs.part="$SLURM_ARRAY_TASK_ID/{jobs.parts}"'
    scripts = {
        folder / "parts.sh": _script(jobs, array, f"{shlex.join(words)} {part}"),
        folder / "last.sh": _script(jobs, [f"--output={_escaped(folder)}/last.log"], shlex.join(words)),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in scripts.items():
        file.write_text(text, encoding="utf-8", errors="surrogateescape")
    parts, last = scripts
    if not jobs.submit:
        print_line(f"scripts: {parts}, and {last} for when all its jobs have ended")
        return True
    number = _sbatch([str(parts)])
    # whatever came of the parts: what is missing is made then
    behind = _sbatch([f"--dependency=afterany:{number}", str(last)])
    print_line(f"Slurm has it: job {number}, {jobs.parts} parts, then {behind}, which writes the lists")
    print_line(f"scripts and logs: {folder}; the same command later goes on with what is missing")
    return True


def _program() -> list[str]:
    program = Path(sys.executable).with_name("vidtrain")
    return [str(program)] if program.is_file() else [sys.executable, "-m", "vidtrain"]


def _script(jobs: JobsConfig, own: Sequence[str], command: str) -> str:
    gpus = [f"--gpus-per-task={jobs.gpus:g}"] if jobs.gpus else []
    asked = {"partition": jobs.partition, "account": jobs.account, "time": jobs.time, "mem": jobs.memory}
    options = [
        "--job-name=vidtrain",
        "--ntasks=1",
        f"--cpus-per-task={max(1, math.ceil(jobs.cpus))}",
        *gpus,
        *(f"--{name}={value}" for name, value in asked.items() if value is not None),
        "--requeue",
        "--open-mode=append",
        *own,
        *jobs.sbatch,
    ]
    for line in options:
        if "\n" in line:
            raise ConfigError(f"jobs: a line break in {line!r}")
    return "\n".join(["#!/bin/bash", *(f"#SBATCH {one}" for one in options), "", *jobs.setup, f"exec {command}", ""])


def _escaped(folder: Path) -> str:
    """As Slurm reads the name of a log: % begins a number of the job."""
    return shlex.quote(str(folder).replace("%", "%%"))


def _sbatch(words: Sequence[str]) -> str:
    """Submit; returns the number of the job."""
    program = shutil.which("sbatch")
    if program is None:
        raise ConfigError(
            "jobs=slurm: there is no sbatch here: give the command on a login node of the cluster, or with "
            "jobs.submit=false, which writes the scripts only"
        )
    try:
        done = subprocess.run(
            [program, "--parsable", *words], capture_output=True, text=True, timeout=_PATIENCE, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise VidtrainError(f"jobs=slurm: sbatch does not answer ({error})") from None
    if done.returncode:
        raise VidtrainError(f"jobs=slurm: sbatch refuses it: {' '.join(done.stderr.split())}")
    return done.stdout.strip().partition(";")[0]

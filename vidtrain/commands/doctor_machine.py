"""Processors, memory, limits and environment of this machine, each with what to change where it limits vidtrain."""

from __future__ import annotations

import locale
import os
import platform
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vidtrain.child_python_path import processors, shared_memory

GB: Final = 1e9
_VARIABLES: Final = (
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES"),
    *("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF", "CUDA_LAUNCH_BLOCKING", "NCCL_DEBUG", "NCCL_P2P_DISABLE"),
    *("NCCL_IB_DISABLE", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "SLURM_JOB_NUM_NODES", "SLURM_CPUS_PER_TASK"),
    *("PYTHONHASHSEED", "LANG", "LC_ALL"),
)
_LEAST_SHARED: Final = 1.0  # GB: a batch of 64 clips of 16 x 224 x 224 is 0.15, and each worker has two under way
_LEAST_FILES: Final = 1024
_LEAST_DISK: Final = 5.0  # GB: checkpoints of a large network, thrice
_LEAST_MEMORY: Final = 4.0  # GB
_NETWORK: Final = ("nfs", "cifs", "smb", "fuse.sshfs", "lustre", "gpfs", "beegfs", "ceph", "glusterfs", "afs", "9p")


@dataclass(frozen=True)
class Finding:
    """One line of the text. advice: what to change, "" for nothing."""

    name: str
    value: str
    advice: str = ""


def machine() -> list[Finding]:
    """The system, its processors, its memory."""
    where = ", in a container" if Path("/.dockerenv").exists() or "container" in os.environ else ""
    found = [
        Finding("system", f"{platform.system()} {platform.release()} on {platform.machine()}{where}"),
        processors_found(processors(), os.cpu_count() or 1, _quota(Path("/sys/fs/cgroup"))),
    ]
    total, free = _memory()
    if total:
        found.append(memory_found(total / GB, free / GB, _memory_limit(Path("/sys/fs/cgroup")) / GB))
    return found


def processors_found(usable: int, there: int, quota: float | None) -> Finding:
    """quota: processors' worth of time that a container may use; None: no limit."""
    limited = quota is not None and quota < usable
    value = f"{usable} usable of {there}" + (f", limited to the time of {quota:g} by the container" if limited else "")
    advice = ""
    if limited:
        workers = max(1, int(quota or 1))
        advice = (
            f"the container has the time of {quota:g} processors and shows {usable}: give it more, or say "
            f"trainer.num_workers={workers} and OMP_NUM_THREADS={workers}, as more processes only wait for each other"
        )
    return Finding("processors", value, advice)


def memory_found(total: float, free: float, limit: float) -> Finding:
    """In GB. limit: of the container; 0: none."""
    most = min(total, limit) if limit else total
    value = f"{free:.1f} of {total:.1f} GB free" + (f", limited to {limit:.1f} by the container" if limit else "")
    low = min(free, most) < _LEAST_MEMORY
    return Finding("memory", value, "little memory is free: fewer trainer.num_workers, smaller batches" * low)


def limits(folder: Path) -> list[Finding]:
    """Shared memory, open files, disks. folder: where runs are to be written."""
    found = [shared_memory_found(*(size / GB for size in shared_memory()))]
    try:
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        found.append(open_files_found(soft, hard))
    except ImportError:  # Windows
        pass
    try:
        free = shutil.disk_usage(folder).free / GB
        found.append(disk_found(free, _file_system(folder)))
    except OSError as error:
        found.append(Finding("disk of the runs", str(error.strerror), "folder=: name a folder that is there"))
    return found


def shared_memory_found(free: float, total: float) -> Finding:
    """In GB; 0: no limit of its own."""
    if not total:
        return Finding("shared memory", "no limit of its own")
    advice = (
        "shared memory is small, so batches cross through pipes, which is slower: docker run --shm-size=8g, or "
        "--ipc=host"
    )
    return Finding("shared memory", f"{free:.2f} of {total:.2f} GB free", advice * (free < _LEAST_SHARED))


def open_files_found(soft: int, hard: int) -> Finding:
    """The limits of one process, -1: none."""
    few = 0 <= soft < _LEAST_FILES
    advice = f"few open files are allowed: ulimit -n {hard if hard > 0 else _LEAST_FILES * 4}"
    return Finding("open files", "unlimited" if soft < 0 else f"{soft} (at most {hard})", advice * few)


def disk_found(free: float, kind: str) -> Finding:
    """free: GB. kind: of the file system, "" where it is not known."""
    advice = "little room for checkpoints: another run_dir, or trainer.keep_last=1" * (free < _LEAST_DISK)
    if not advice and kind.startswith(_NETWORK):
        advice = (
            f"runs are written to a network file system ({kind}): keep the videos, or copies of them made by "
            "vidtrain data prepare, on a local disk"
        )
    return Finding("disk of the runs", f"{free:.0f} GB free{f', {kind}' * bool(kind)}", advice)


def surroundings(environment: Mapping[str, str] = os.environ) -> list[Finding]:
    """Encoding, and the variables that change what a run does: these alone, as others hold secrets and paths."""
    coding = f"{sys.getfilesystemencoding()} names, {(getattr(sys.stdout, 'encoding', '') or '?').lower()} output"
    plain = locale.getpreferredencoding(False).lower() in ("ascii", "ansi_x3.4-1968", "us-ascii")
    found = [Finding("text", coding, "file names beyond ASCII print as codes: export LANG=C.UTF-8" * plain)]
    for name in _VARIABLES:
        if name in environment:
            blocking = name == "CUDA_LAUNCH_BLOCKING" and environment[name] not in ("", "0")
            advice = "CUDA_LAUNCH_BLOCKING makes every GPU step wait: unset it unless you look for a fault" * blocking
            found.append(Finding(name, environment[name], advice))
    return found


def _number(file: Path) -> str:
    """The start of a small file of the kernel, "" where it is not there."""
    try:
        with file.open(encoding="ascii") as text:
            return text.read(64).strip()
    except (OSError, ValueError):
        return ""


def _quota(folder: Path) -> float | None:
    """Processors' worth of time of this control group, version 2 or 1."""
    allowed, _, period = _number(folder / "cpu.max").partition(" ")
    if not allowed:
        allowed, period = (_number(folder / "cpu" / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
    return int(allowed) / int(period) if allowed.isdigit() and period.isdigit() and int(period) else None


def _memory_limit(folder: Path) -> int:
    text = _number(folder / "memory.max") or _number(folder / "memory" / "memory.limit_in_bytes")
    return int(text) if text.isdigit() and int(text) < 1 << 60 else 0  # version 1 writes a huge number for "none"


def _memory() -> tuple[int, int]:
    """(all, free) bytes of memory; (0, 0) where the system does not say."""
    try:
        page = os.sysconf("SC_PAGE_SIZE")
        total = page * os.sysconf("SC_PHYS_PAGES")
        free = page * os.sysconf("SC_AVPHYS_PAGES") if "SC_AVPHYS_PAGES" in os.sysconf_names else total
    except (AttributeError, ValueError, OSError):
        return 0, 0
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError, StopIteration):
        pass
    return total, free


def _file_system(folder: Path) -> str:
    """The kind of the file system that a folder lies in, "" where /proc does not say."""
    try:
        mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines()]
    except OSError:
        return ""
    here = folder.resolve()
    above = [(len(place), kind) for place, kind in mounts if here.is_relative_to(place)]
    return max(above, key=lambda found: found[0])[1] if above else ""

"""What `vidtrain bench` found: a table for the terminal, JSON for programs."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from vidtrain.engine.speed.bench import BenchRow, utilisation
from vidtrain.engine.speed.memory import what_is_counted
from vidtrain.reports.table import table

_HEAD = ("precision", "compiled", "batch", "train clips/s", "infer clips/s", "wait %", "GB", "TFLOP/s", "MFU %", "")


@dataclass(frozen=True)
class Report:
    """Everything about one model.

    Attributes:
        clip: frames and side. macs: multiply-adds of a clip. ceilings: operations per second by precision.
        with_data: whether a real loader was measured.
        trained: share of the parameters, in words.
    """

    model: str
    clip: tuple[int, int]
    params: int
    macs: int
    device: torch.device
    ceilings: Mapping[str, float]
    rows: Sequence[BenchRow]
    with_data: bool
    trained: str

    def to_text(self) -> str:
        frames, side = self.clip
        ceilings = ", ".join(f"{name} {rate / 1e12:.3g}" for name, rate in self.ceilings.items())
        lines = [
            f"{self.model}: clips of {frames} x {side} x {side}, {self.macs / 1e9:.3f} GMAC, "
            f"{self.params / 1e6:.3f} M parameters, on {device_name(self.device)}, PyTorch {torch.__version__}",
            self.trained,
            "",
            table(_HEAD, [self._cells(row) for row in self.rows]),
            "",
            "train: forward, backward and update of what is trained, from uint8 clips at hand. infer: forward in eval "
            "mode, not compiled.",
            "wait %: share of training that waits for the loader"
            + ("." if self.with_data else ": give data=... for it."),
            f"GB: {what_is_counted(self.device)}, in training.",
            "MFU: 3 x 2 x GMAC x clips/s, what a training of everything computes, over the fastest product of square "
            f"matrices measured here, TFLOP/s: {ceilings or '-'}.",
        ]
        return "\n".join(lines)

    def _cells(self, row: BenchRow) -> tuple[str, ...]:
        mfu = self._utilisation(row)
        spent = "" if row.compile_seconds is None else f"{row.compile_seconds:.0f} s to compile"
        return (
            row.precision,
            "yes" if row.compiled else "no",
            str(row.batch_size),
            _number(row.train),
            _number(row.infer),
            _number(row.waiting, 100) if self.with_data else "no data",
            _number(row.memory, 1e-9),
            _number(None if row.train is None else 6 * self.macs * row.train, 1e-12),
            _number(mfu, 100),
            row.note or spent,
        )

    def _utilisation(self, row: BenchRow) -> float | None:
        ceiling = self.ceilings.get(row.precision)
        return None if ceiling is None else utilisation(row, self.macs, ceiling)

    def to_json(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "clip": {"frames": self.clip[0], "size": self.clip[1]},
            "params": self.params,
            "trained": self.trained,
            "gmac": self.macs / 1e9,
            "device": device_name(self.device),
            "versions": {"torch": torch.__version__, "python": platform.python_version()},
            "memory_is": what_is_counted(self.device),
            "matmul_flops_per_second": dict(self.ceilings),
            "rows": [{**asdict(row), "mfu": self._utilisation(row)} for row in self.rows],
        }


def device_name(device: torch.device) -> str:
    """The GPU's name, or the processor's with the number of threads that PyTorch uses."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type != "cpu":
        return device.type
    return f"{_processor()}, {torch.get_num_threads()} threads"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _number(value: float | None, scale: float = 1.0) -> str:
    """Three digits."""
    if value is None:
        return "-"
    shown = value * scale
    return f"{shown:.0f}" if shown >= 100 else f"{shown:.3g}"

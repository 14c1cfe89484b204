"""How much memory something takes at its peak."""

from __future__ import annotations

import ctypes
import gc
import re
import sys
from pathlib import Path

import torch

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class PeakMemory:
    """Bytes at the peak since this was made.

    On a CUDA device those of PyTorch's tensors, all that live; on the CPU what the process has grown by, which Linux
    alone tells. None where it is not known.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._before: int | None = None
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
        elif device.type == "cpu" and sys.platform == "linux":
            _give_back()
            try:
                _CLEAR.write_text("5")  # the peak is counted from zero from here
                self._before = _status("VmRSS")
            except OSError:
                pass

    def bytes(self) -> int | None:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        return None if self._before is None else max(0, _status("VmHWM") - self._before)


def what_is_counted(device: torch.device) -> str:
    return {
        "cuda": "the most that PyTorch's tensors took at once",
        "cpu": "growth of the process to its peak",
    }.get(device.type, "not known on this device")


def _status(key: str) -> int:
    found = re.search(rf"^{key}:\s+(\d+) kB", _STATUS.read_text(), re.MULTILINE)
    assert found, f"no {key} in {_STATUS}"
    return 1024 * int(found.group(1))


def _give_back() -> None:
    """What is freed goes back to the system, or the next measurement would find room in it and see no growth."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
    if trim is not None:
        trim(0)

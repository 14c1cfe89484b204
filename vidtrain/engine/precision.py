"""Device and arithmetic, chosen from the machine and said."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from vidtrain.engine.settings import PrecisionName
from vidtrain.errors import ConfigError


def choose_device(name: str, local_rank: int | None = None) -> torch.device:
    """'auto' -> a CUDA GPU, else Apple's, else the CPU.

    Args:
        local_rank: the number of this process among several on this machine: with auto or cuda, each has its own GPU.

    Raises:
        ConfigError: the device is not there.
    """
    if local_rank is not None and name in ("auto", "cuda") and torch.cuda.is_available():
        count = torch.cuda.device_count()
        if local_rank >= count:
            raise ConfigError(f"trainer.device={name}: {local_rank + 1} or more processes, and {count} GPUs here")
        return torch.device("cuda", local_rank)
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"trainer.device={name}: not a device; allowed: auto, cpu, cuda, cuda:N, mps") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"trainer.device={name}: this machine shows {torch.cuda.device_count()} CUDA devices to PyTorch "
            f"{torch.__version__}; use trainer.device=auto"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError(f"trainer.device={name}: PyTorch finds no Apple GPU here; use trainer.device=auto")
    return device


class Precision:
    """autocast and loss scaling for one device.

    name: fp32, bf16 or fp16; dtype: what it computes in, None for float32. The scaler does nothing unless name is fp16.
    """

    def __init__(self, wanted: PrecisionName, device: torch.device) -> None:
        self.device = device
        self.name = _choose(wanted, device).value
        self.dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.name)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.name == "fp16")

    @property
    def sums_device(self) -> torch.device:
        """Where float64 sums are kept: Apple's GPUs have no float64."""
        return torch.device("cpu") if self.device.type == "mps" else self.device

    def autocast(self) -> AbstractContextManager[object]:
        if self.dtype is None:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)


def _choose(wanted: PrecisionName, device: torch.device) -> PrecisionName:
    if wanted is PrecisionName.auto:
        if device.type != "cuda":
            return PrecisionName.fp32
        # bf16 has fp32's range and needs no scaling; GPUs before Ampere only emulate it
        return PrecisionName.bf16 if torch.cuda.get_device_capability(device)[0] >= 8 else PrecisionName.fp16
    if wanted is PrecisionName.fp16 and device.type == "cpu":
        raise ConfigError("trainer.precision=fp16: not on the CPU; use fp32 or bf16")
    return wanted

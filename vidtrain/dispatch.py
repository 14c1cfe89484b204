"""A view of every operator of PyTorch that runs, without the seconds that PyTorch's own base class costs."""

from __future__ import annotations

from torch.utils._python_dispatch import TorchDispatchMode


class DispatchMode(TorchDispatchMode):
    """A TorchDispatchMode whose first operator does not import torch._dynamo, two seconds of processor time.

    PyTorch imports it to keep torch.compile out of `__torch_dispatch__`: not for what runs in compiled code.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

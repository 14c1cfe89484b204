"""Event files for TensorBoard."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from vidtrain.loggers.logger import LoggedRun, Logger


class TensorBoard(Logger):
    """Scalars as KIND/NAME, and images, in the run's folder tensorboard/.

    Args:
        images: also a grid of training clips and the confusion matrix of each validation.
    """

    output = "tensorboard/"

    def __init__(self, *, images: bool = True) -> None:
        self.images = images
        self._writer: Any = None
        self._before: Callable[[threading.ExceptHookArgs], Any] | None = None

    def start(self, run: LoggedRun) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._before, threading.excepthook = threading.excepthook, self._on_thread_error
        # purge_step hides the points that a killed run had written after its last checkpoint
        purge = None if run.resumed_at is None else run.resumed_at[0] + 1
        self._writer = SummaryWriter(str(run.folder / "tensorboard"), purge_step=purge)

    def scalars(self, kind: str, update: int, epoch: float, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(f"{kind}/{name}", value, update)

    def image(self, name: str, update: int, pixels: npt.NDArray[np.uint8]) -> None:
        if self.images:
            self._writer.add_image(name, pixels, update, dataformats="HWC")

    def close(self) -> None:
        try:
            if self._writer is not None:
                self._writer.close()
        finally:
            if self._before is not None and threading.excepthook == self._on_thread_error:
                threading.excepthook = self._before

    def _on_thread_error(self, args: threading.ExceptHookArgs) -> None:
        """TensorBoard writes from a thread of its own, which prints a traceback when the disk is full, and then raises
        the same error from the next call, where it is logged in one line."""
        if self._before is not None and not isinstance(args.exc_value, OSError):
            self._before(args)

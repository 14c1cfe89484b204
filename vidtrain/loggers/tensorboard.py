"""Event files for TensorBoard."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from vidtrain.loggers.logger import LoggedRun, Logger, flat_options


class TensorBoard(Logger):
    """Scalars as KIND/NAME, images, curves of precision over recall, and the options beside the final numbers (tab
    HParams, where the runs of a sweep line up), in the run's folder tensorboard/.

    Args:
        images: also training clips, still and moving, the confusion matrix of each validation, the figures of the test.
    """

    output = "tensorboard/"

    def __init__(self, *, images: bool = True) -> None:
        self.images = images
        self._writer: Any = None
        self._before: Callable[[threading.ExceptHookArgs], Any] | None = None
        self._options: dict[str, bool | int | float | str] = {}

    def start(self, run: LoggedRun) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._before, threading.excepthook = threading.excepthook, self._on_thread_error
        # purge_step hides the points that a killed run had written after its last checkpoint
        purge = None if run.resumed_at is None else run.resumed_at[0] + 1
        self._writer = SummaryWriter(str(run.folder / "tensorboard"), purge_step=purge)
        self._options = flat_options(run.config)

    def scalars(self, kind: str, update: int, epoch: float, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(f"{kind}/{name}", value, update)

    def image(self, name: str, update: int, pixels: npt.NDArray[np.uint8]) -> None:
        if self.images:
            self._writer.add_image(name, pixels, update, dataformats="HWC")

    def video(self, name: str, update: int, frames: npt.NDArray[np.uint8], fps: float) -> None:
        """As an animated GIF among the images: SummaryWriter.add_video needs moviepy, and FFmpeg, for the same."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        from vidtrain.reports.animation import animated_gif

        if self.images:
            _, height, width, _ = frames.shape
            image = Summary.Image(height=height, width=width, colorspace=3)
            image.encoded_image_string = animated_gif(frames, fps)
            self._writer._get_file_writer().add_summary(Summary(value=[Summary.Value(tag=name, image=image)]), update)

    def precision_recall(
        self, name: str, update: int, truth: npt.NDArray[np.bool_], scores: npt.NDArray[np.float32]
    ) -> None:
        self._writer.add_pr_curve(name, truth, scores, update)

    def finish(self, update: int, values: Mapping[str, float]) -> None:
        from torch.utils.tensorboard.summary import hparams

        finals = {f"final/{name}": value for name, value in values.items()}
        for summary in hparams(self._options, finals):
            self._writer._get_file_writer().add_summary(summary)
        for name, value in finals.items():
            self._writer.add_scalar(name, value, update)

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

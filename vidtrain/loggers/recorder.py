"""What a training logs, drawn in one place and handed to all of its loggers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vidtrain.loggers.logger import LoggedRun, Logger, cannot_write, reason

log = logging.getLogger("vidtrain")


class RunRecorder:
    """Implements engine.progress.Recorder with any number of loggers, by name.

    Nothing that goes wrong in a logger ends a training: it is logged once, and that logger is skipped from then on.
    """

    def __init__(self, run: LoggedRun, loggers: Mapping[str, Logger]) -> None:
        self._run = run
        self._all = list(loggers.values())
        self._working = dict(loggers)
        self._not_drawn: set[str] = set()
        self._each(lambda logger: logger.start(run))

    def scalars(self, kind: str, update: int, epoch: float, values: dict[str, float]) -> None:
        self._each(lambda logger: logger.scalars(kind, update, epoch, dict(values)))

    def clips(self, update: int, views: Tensor) -> None:
        """A figure of up to eight clips as the model gets them, one per row: uint8 (B, V, T, H, W, 3)."""
        self.figure("clips", update, lambda: _grid(views))

    def figure(self, name: str, update: int, draw: Callable[[], npt.NDArray[np.uint8]]) -> None:
        """A figure, uint8 (H, W, 3), drawn once for all loggers, where one shows it."""
        if name in self._not_drawn or not any(logger.images for logger in self._working.values()):
            return
        try:
            pixels = draw()
        except Exception as error:
            self._not_drawn.add(name)
            log.warning("%s", cannot_write(f"the figure of {name}", self._run.folder, error))
            return
        self._each(lambda logger: logger.image(name, update, pixels))

    def close(self) -> None:
        """Close all loggers, also those that have failed."""
        self._each(lambda logger: logger.close())
        for logger in self._all:
            if logger not in self._working.values():
                with suppress(Exception):
                    logger.close()
        self._all, self._working = [], {}

    def _each(self, call: Callable[[Logger], None]) -> None:
        for name, logger in list(self._working.items()):
            with self._going_on(name, logger):
                call(logger)

    @contextmanager
    def _going_on(self, name: str, logger: Logger) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            del self._working[name]
            if logger.output:
                log.warning("%s", cannot_write(logger.output, self._run.folder, error))
            else:
                log.warning("logger.%s failed (%s); the training goes on without", name, reason(error))


def _grid(views: Tensor) -> npt.NDArray[np.uint8]:
    """Up to eight frames of up to eight clips, uint8 (H, W, 3). views: uint8 (B, V, T, H, W, 3)."""
    rows = views.flatten(0, 1)[:8]
    rows = rows[:, torch.linspace(0, rows.shape[1] - 1, min(8, rows.shape[1])).long()]
    count, frames, height, width, _ = rows.shape
    image = rows.permute(0, 2, 1, 3, 4).reshape(count * height, frames * width, 3)
    return np.asarray(image.cpu().numpy(), dtype=np.uint8)

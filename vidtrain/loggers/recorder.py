"""What a training logs, drawn in one place and handed to all of its loggers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vidtrain.loggers.logger import LoggedRun, Logger, cannot_write, reason

log = logging.getLogger("vidtrain")

_FPS = 8.0  # of moving images: slow enough to be looked at
_MOST_CLIPS, _MOST_FRAMES = 8, 16  # of one


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

    def clips(self, update: int, views: Tensor, targets: Tensor) -> None:
        """Up to eight clips as the model gets them: a figure with one per row, and a moving image under their labels.

        views: uint8 (B, V, T, H, W, 3). targets: as in a Batch.
        """
        self.figure("clips", update, lambda: _grid(views))
        name = "clips/video"
        if (frames := self._drawn(name, lambda: _moving(views, targets, self._run.class_names))) is not None:
            self._each(lambda logger: logger.video(name, update, frames, _FPS))

    def figure(self, name: str, update: int, draw: Callable[[], npt.NDArray[np.uint8]]) -> None:
        """A figure, uint8 (H, W, 3), drawn once for all loggers, where one shows it."""
        if (pixels := self._drawn(name, draw)) is not None:
            self._each(lambda logger: logger.image(name, update, pixels))

    def precision_recall(
        self, name: str, update: int, truth: npt.NDArray[np.bool_], scores: npt.NDArray[np.float32]
    ) -> None:
        self._each(lambda logger: logger.precision_recall(name, update, truth, scores))

    def finish(self, update: int, values: Mapping[str, float]) -> None:
        """The final numbers; see Logger.finish."""
        self._each(lambda logger: logger.finish(update, dict(values)))

    def files(self, files: Sequence[Path]) -> None:
        """Files of the test; see Logger.files."""
        self._each(lambda logger: logger.files(files))

    def _drawn(self, name: str, draw: Callable[[], npt.NDArray[np.uint8]]) -> npt.NDArray[np.uint8] | None:
        """None where no logger shows it, or it cannot be drawn, which is logged once."""
        if name in self._not_drawn or not any(logger.images for logger in self._working.values()):
            return None
        try:
            return draw()
        except Exception as error:
            self._not_drawn.add(name)
            log.warning("%s", cannot_write(f"the figure of {name}", self._run.folder, error))
            return None

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


def _moving(views: Tensor, targets: Tensor, class_names: Sequence[str]) -> npt.NDArray[np.uint8]:
    """The first view of each clip, uint8 (T, H, W, 3). views: uint8 (B, V, T, H, W, 3). targets: as in a Batch."""
    from vidtrain.reports.animation import labelled_grid

    clips = views[:_MOST_CLIPS, 0]
    clips = clips[:, torch.linspace(0, clips.shape[1] - 1, min(_MOST_FRAMES, clips.shape[1])).long()]
    labels = [_label(target, class_names) for target in targets[:_MOST_CLIPS].tolist()]
    return labelled_grid(list(clips.cpu().numpy()), labels)


def _label(target: int | list[float], class_names: Sequence[str]) -> str:
    numbers = [n for n, there in enumerate(target) if there] if isinstance(target, list) else [target]
    return ", ".join(class_names[n] for n in numbers if 0 <= n < len(class_names))

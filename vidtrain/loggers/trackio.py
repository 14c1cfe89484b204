"""Trackio, which keeps its runs on this machine; https://huggingface.co/docs/trackio."""

from __future__ import annotations

import io
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from vidtrain.loggers.logger import LoggedRun
from vidtrain.loggers.tracker import Tracker, config_of, prefixed


class Trackio(Tracker):
    """Numbers, images, options, final numbers and files of a run, where Trackio keeps all of its runs (TRACKIO_DIR);
    `trackio show --project vidtrain` shows them.

    Args:
        project, images, files: see Tracker.
        space: a Space of the Hugging Face hub to log to, USER/NAME, as whom its own login says; None: this machine.
    """

    library: ClassVar[str] = "trackio"

    def __init__(
        self,
        *,
        project: str = "vidtrain",
        space: str | None = None,
        images: bool = True,
        files: bool = True,
    ) -> None:
        super().__init__(project=project, images=images, files=files)
        self.space = space
        self._run: Any = None

    def start(self, run: LoggedRun) -> None:
        known = self.known_as(run)
        name = known or f"{run.folder.name}-{uuid.uuid4().hex[:6]}"
        with _quiet(), _offline(self.space is None):
            import trackio

            self._run = trackio.init(
                project=self.project,
                name=name,
                space_id=self.space,
                config=config_of(run),
                resume="never" if known is None else "allow",
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )
        self.keep(run, name)

    def scalars(self, kind: str, update: int, epoch: float, values: dict[str, float]) -> None:
        self._run.log({**prefixed(kind, values), "epoch": epoch}, step=update)

    def image(self, name: str, update: int, pixels: npt.NDArray[np.uint8]) -> None:
        import trackio

        self._run.log({name: trackio.Image(pixels)}, step=update)

    def finish(self, update: int, values: Mapping[str, float]) -> None:
        self._run.log(prefixed("final", values), step=update)

    def files(self, files: Sequence[Path]) -> None:
        import trackio

        if not self.wants_files or not files:
            return
        artifact = trackio.Artifact(f"{self._run.name}-{files[0].parent.name}", type="result")
        for file in files:
            artifact.add_file(str(file))
        self._run.log_artifact(artifact)

    def close(self) -> None:
        if self._run is not None:
            import trackio

            with _quiet():
                trackio.finish()
            self._run = None


@contextmanager
def _quiet() -> Iterator[None]:
    """Trackio prints what it does to the terminal; a run prints its table there."""
    with redirect_stdout(io.StringIO()):
        yield


@contextmanager
def _offline(local: bool) -> Iterator[None]:
    """Without the question of who is logged in at the hub, whose name Trackio would put beside the options."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or local
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before

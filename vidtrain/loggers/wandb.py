"""Weights & Biases; https://docs.wandb.ai."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from vidtrain.loggers.logger import LoggedRun
from vidtrain.loggers.tracker import Tracker, config_of, prefixed


class WeightsAndBiases(Tracker):
    """Numbers, images, options, final numbers and files of a run, in the run's folder wandb/.

    Args:
        project, images, files: see Tracker.
        mode: offline writes to the folder alone, and `wandb sync RUN/wandb/offline-*` uploads it later; online uploads
            while it trains, as whom WANDB_API_KEY or `wandb login` says.
        entity: the team or user whose project it is; None: the account's own.
    """

    library: ClassVar[str] = "wandb"
    output = "wandb/"

    def __init__(
        self,
        *,
        project: str = "vidtrain",
        entity: str | None = None,
        mode: Literal["offline", "online"] = "offline",
        images: bool = True,
        files: bool = True,
    ) -> None:
        super().__init__(project=project, images=images, files=files)
        self.entity = entity
        self.mode = mode
        self._run: Any = None

    def start(self, run: LoggedRun) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # read when it is imported
        import wandb

        known = self.known_as(run)
        self._run = wandb.init(
            project=self.project,
            entity=self.entity,
            name=run.folder.name,
            id=known or uuid.uuid4().hex[:12],
            # offline, `wandb sync` joins the files of one id
            resume="allow" if self.mode == "online" else None,
            mode=self.mode,
            dir=str(run.folder),
            config=config_of(run),
            # neither the program's text nor its output, nor what else runs on this machine
            settings=wandb.Settings(
                silent=True,
                console="off",
                disable_code=True,
                disable_git=True,
                x_disable_meta=True,
                x_disable_stats=True,
                x_save_requirements=False,
            ),
        )
        self.keep(run, self._run.id)

    def scalars(self, kind: str, update: int, epoch: float, values: dict[str, float]) -> None:
        self._run.log({**prefixed(kind, values), "epoch": epoch}, step=update)

    def image(self, name: str, update: int, pixels: npt.NDArray[np.uint8]) -> None:
        import wandb

        self._run.log({name: wandb.Image(pixels)}, step=update)

    def finish(self, update: int, values: Mapping[str, float]) -> None:
        self._finished = True
        self._run.summary.update(prefixed("final", values))

    def files(self, files: Sequence[Path]) -> None:
        for file in files if self.wants_files else ():
            copy = Path(self._run.dir) / file.parent.name / file.name  # of a file elsewhere it would keep a link
            copy.parent.mkdir(exist_ok=True)
            shutil.copyfile(file, copy)
            self._run.save(str(copy), base_path=self._run.dir, policy="now")

    def close(self) -> None:
        if self._run is not None:
            self._run.finish(exit_code=0 if self._finished else 1)
            self._run = None

"""MLflow; https://mlflow.org/docs/latest."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from vidtrain.loggers.logger import LoggedRun, flat_options
from vidtrain.loggers.tracker import Tracker, prefixed

_LONGEST_VALUE = 500  # characters of a parameter, what all versions of its servers take
_AT_ONCE = 100  # parameters of a request


class MLflow(Tracker):
    """Numbers, images, options, final numbers and files of a run.

    Args:
        project, images, files: see Tracker; the project is MLflow's experiment.
        tracking_uri: where to; None: MLFLOW_TRACKING_URI, where it is set, else mlflow.db and mlflow/ in the run's
            folder, which `mlflow ui --backend-store-uri sqlite:///RUN/mlflow.db` shows.
    """

    library: ClassVar[str] = "mlflow"

    def __init__(
        self,
        *,
        project: str = "vidtrain",
        tracking_uri: str | None = None,
        images: bool = True,
        files: bool = True,
    ) -> None:
        super().__init__(project=project, images=images, files=files)
        self.tracking_uri = tracking_uri
        self._client: Any = None
        self._run = ""

    def start(self, run: LoggedRun) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when it is imported
        from mlflow.tracking import MlflowClient

        logging.getLogger("mlflow").setLevel(logging.WARNING)  # which tables it makes
        logging.getLogger("alembic").setLevel(logging.WARNING)
        uri, home = self.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI"), run.folder.absolute()
        client = MlflowClient(tracking_uri=uri or f"sqlite:///{home / 'mlflow.db'}")
        known = self.known_as(run)
        if known is not None:
            client.update_run(known, status="RUNNING")
            self._run = known
        else:
            experiment = client.get_experiment_by_name(self.project)
            if experiment:
                number = experiment.experiment_id
            else:
                number = client.create_experiment(self.project, None if uri else (home / "mlflow").as_uri())
            self._run = client.create_run(number, run_name=run.folder.name).info.run_id
            self._log_options(client, flat_options(run.config))
            self.keep(run, self._run)
        self._client = client

    def _log_options(self, client: Any, options: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        params = [Param(_allowed(key), str(value)[:_LONGEST_VALUE]) for key, value in options.items()]
        for first in range(0, len(params), _AT_ONCE):
            client.log_batch(self._run, params=params[first : first + _AT_ONCE])

    def scalars(self, kind: str, update: int, epoch: float, values: dict[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        found = {**prefixed(kind, values), f"{kind}/epoch": epoch}
        metrics = [Metric(_allowed(name), float(value), now, update) for name, value in found.items()]
        self._client.log_batch(self._run, metrics=metrics)

    def image(self, name: str, update: int, pixels: npt.NDArray[np.uint8]) -> None:
        self._client.log_image(self._run, pixels, key=_allowed(name), step=update)

    def finish(self, update: int, values: Mapping[str, float]) -> None:
        self._finished = True
        for name, value in prefixed("final", values).items():
            self._client.log_metric(self._run, _allowed(name), value, step=update)

    def files(self, files: Sequence[Path]) -> None:
        for file in files if self.wants_files else ():
            self._client.log_artifact(self._run, str(file), artifact_path=file.parent.name)

    def close(self) -> None:
        if self._client is not None:
            self._client.set_terminated(self._run, "FINISHED" if self._finished else "KILLED")
            self._client = None


def _allowed(name: str) -> str:
    """A name with the characters that MLflow takes in one."""
    return re.sub(r"[^\w\-. :/]", "_", name)

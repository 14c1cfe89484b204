"""What the loggers of experiment trackers share. Their libraries are extras of vidtrain, imported when a run starts.

A tracker writes to this machine unless its options say otherwise. Keys and accounts are the library's own matter: it
finds them in the environment or where its `login` has put them, and no option of vidtrain holds one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, ClassVar

from vidtrain.errors import ConfigError
from vidtrain.loggers.logger import LoggedRun, Logger
from vidtrain.runs.atomic import write_json
from vidtrain.untrusted_data import read_mapping

KEPT = "trackers.json"
"""In the run's folder: {logger: its name of the run}, by which a resumed run is continued."""
_NAME = re.compile(r"[\w.-]{1,200}")


class Tracker(Logger):
    """A Logger that needs the library of an extra of the same name.

    Args:
        project: under which the tracker keeps the run.
        images: also training clips, the confusion matrix of each validation, the figures of the test.
        files: also the files of the test, which hold paths of this machine: result.json, predictions.csv ...

    Raises:
        ConfigError: the library is not installed.
    """

    library: ClassVar[str]

    def __init__(self, *, project: str = "vidtrain", images: bool = True, files: bool = True) -> None:
        if find_spec(self.library) is None:
            raise ConfigError(
                f"logger={self.library}: the package {self.library} is not installed: "
                f"pip install 'vidtrain[{self.library}]'"
            )
        self.project = project
        self.images = images
        self.wants_files = files
        self._finished = False
        """Whether the training has come to its end."""

    def known_as(self, run: LoggedRun) -> str | None:
        """The tracker's name of the run that is resumed; None: a new one, or one that this tracker has not seen."""
        if run.resumed_at is None:
            return None
        try:
            name = read_mapping(run.folder / KEPT).get(self.library)
        except (OSError, ValueError):
            return None
        return name if isinstance(name, str) and _NAME.fullmatch(name) else None

    def keep(self, run: LoggedRun, name: str) -> None:
        """Write down what `known_as` is to return."""
        file = run.folder / KEPT
        try:
            kept = read_mapping(file)
        except (OSError, ValueError):
            kept = {}
        write_json(file, {**kept, self.library: name})


def config_of(run: LoggedRun) -> dict[str, Any]:
    """The run's options without those of the loggers."""
    return {str(key): value for key, value in run.config.items() if key != "logger"}


def prefixed(kind: str, values: Mapping[str, float]) -> dict[str, float]:
    """{"train/loss": ...}: the names that numbers have in every tracker."""
    return {f"{kind}/{name}": value for name, value in values.items()}

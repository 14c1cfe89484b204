"""What runs are called: runs/DATA/MODEL/DATE_TIME, with a number behind it where two began within a second; and what
their files are called."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path
from typing import Final

BEST: Final = "best.pt"
LAST: Final = "last.pt"
CONFIG: Final = "config.json"
"""The resolved configuration of a run, written when it starts."""
METRICS_LOG: Final = "metrics.jsonl"
RESULT: Final = "result.json"
"""Of a test, and of a run, where it is written last: its presence says that the run is complete."""
PREDICTIONS: Final = "predictions.csv"
PROBABILITIES: Final = "probabilities.npy"
NOT_SCORED: Final = "not_scored.csv"
SUSPECTS: Final = "suspects.csv"
_STAMP: Final = "%Y-%m-%d_%H-%M-%S"
_NAME: Final = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2}_[0-9]{2}-[0-9]{2}-[0-9]{2})(?:_([0-9]{1,4}))?")


def run_name(number: int = 1) -> str:
    """The name of a run that begins now; number: from 2 on where one of that name is there."""
    stamp = datetime.now().strftime(_STAMP)
    return stamp if number == 1 else f"{stamp}_{number}"


def newest_run(folder: Path, file: str) -> Path | None:
    """Of the runs in runs/DATA/MODEL the one that began last and holds `file`; None: there is none."""
    found = [
        ((name[1], int(name[2] or 1)), below)
        for below in folder.iterdir()
        if (name := _NAME.fullmatch(below.name)) is not None and (below / file).is_file()
    ]
    return max(found)[1] if found else None

"""A process of a sweep: one run, for as long as the process that has started it lives."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from typing import Final

_GRACE: Final = 60.0  # seconds in which a run saves when it is told to end


def main() -> None:
    """Run the command whose arguments are the first line of stdin, a JSON list.

    Stdin stays open as long as the other process lives: its end tells this one to save and end, so that no run goes on
    behind the back of a sweep that is continued. Exit codes as `cli.main`, and EXIT_CONFIG.
    """
    arguments = json.loads(sys.stdin.buffer.readline())
    pipe = os.dup(sys.stdin.fileno())
    with open(os.devnull) as nothing:  # noqa: PTH123
        os.dup2(nothing.fileno(), sys.stdin.fileno())
    threading.Thread(target=_end_with, args=(pipe,), daemon=True).start()
    from vidtrain.errors import EXIT_CONFIG, ConfigError
    from vidtrain.shell import cli

    try:
        cli.main(arguments)
    except SystemExit as end:
        if isinstance(end.__cause__, ConfigError):
            raise SystemExit(EXIT_CONFIG) from None
        raise


def _end_with(pipe: int) -> None:
    while os.read(pipe, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE)
    os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))

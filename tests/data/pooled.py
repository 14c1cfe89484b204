"""Functions for the processes of test_pool.py, which import this module without pytest."""

from __future__ import annotations

import ctypes
import os
import signal
import time

from vidtrain.errors import ConfigError, VideoError


def square(number: int) -> int:
    return number * number


def processor_time(_: int) -> float:
    """Seconds that the worker has worked so far."""
    return time.process_time()


def misbehave(item: str) -> str:
    """Do what the item says."""
    if item == "hang":
        # native code that keeps the interpreter's lock: no Python signal handler and no thread gets a turn
        ctypes.PyDLL(None).sleep(60) if os.name == "posix" else time.sleep(60)
    if item == "abort":
        os.abort()
    if item == "exit":
        os._exit(3)
    if item == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if item == "video":
        raise VideoError("clip.mp4", "is not a video")
    if item == "config":
        raise ConfigError("decoder=decord needs the package decord")
    if item == "lambda":
        return lambda: 1  # type: ignore[return-value]
    return f"{item} by {os.getpid()}"

"""The process at the other end of `guarded`: a loop of requests on standard input and answers on standard output.

Started by `guarded` alone. Imports what the reader needs, and torch only if that does.
"""

from __future__ import annotations

import faulthandler
import os
import pickle
import signal
import traceback
from pathlib import Path
from typing import IO, Any, Final

import numpy as np

from vidtrain.data.readers.base import OpenVideo, VideoReader
from vidtrain.errors import VidtrainError

_GRACE: Final = 2.0  # seconds after which the child ends itself, had nobody killed it: its parent may be gone


def main() -> None:
    """Serve until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's affair
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not end up among the answers
    reader: VideoReader = pickle.loads(pickle.load(requests))
    try:
        getattr(reader, "prepare", lambda: None)()
    except VidtrainError as error:
        _reply(answers, "error", error)
        return
    _reply(answers, "ready", None)
    videos: dict[int, OpenVideo] = {}
    with Path(os.devnull).open("w") as nowhere:
        while True:
            try:
                seconds, *request = pickle.load(requests)
            except EOFError:
                os._exit(0)
            faulthandler.dump_traceback_later(seconds + _GRACE, exit=True, file=nowhere)
            _serve(reader, videos, request, answers)
            faulthandler.cancel_dump_traceback_later()


def _serve(reader: VideoReader, videos: dict[int, OpenVideo], request: list[Any], answers: IO[bytes]) -> None:
    action, what, *rest = request
    if action == "close":  # nobody waits for an answer
        try:
            videos.pop(what).close()
        except Exception:
            traceback.print_exc()
        return
    try:
        if action == "open":
            number = max(videos, default=-1) + 1
            videos[number] = reader.open(what)
            _reply(answers, "info", (number, videos[number].info))
        else:
            frames = np.ascontiguousarray(videos[what].read(*rest))
            _reply(answers, "frames", frames.shape)
            answers.write(frames.data.cast("B") if frames.size else b"")
            answers.flush()
    except (VidtrainError, IndexError) as error:
        _reply(answers, "error", error)
    except Exception:
        _reply(answers, "error", RuntimeError(f"in the process that reads videos:\n{traceback.format_exc()}"))


def _reply(answers: IO[bytes], kind: str, answer: Any) -> None:
    pickle.dump((kind, answer), answers, protocol=pickle.HIGHEST_PROTOCOL)
    answers.flush()

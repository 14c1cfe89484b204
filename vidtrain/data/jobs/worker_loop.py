"""The process at the other end of `killable`: a loop of requests on standard input and answers on standard output.

Started by `killable` alone. Imports what the function needs that it is sent first, and torch only if that does.

    request    kind (1 byte), seconds (8), length (8), then that many bytes: a pickle
    answer     length (8), then a pickle of (pickle of (value, error, its traceback), sizes), then the arrays of the
               value, of these sizes, as they lie in memory
"""

from __future__ import annotations

import faulthandler
import os
import pickle
import signal
import struct
import sys
import threading
import traceback
from collections.abc import Callable
from queue import SimpleQueue
from typing import IO, Any, Final

if sys.platform == "linux":
    import fcntl

FUNCTION: Final = b"F"  # to be called from now on; answered when it is ready
ASK: Final = b"A"
TELL: Final = b"T"  # not answered
HEAD: Final = struct.Struct("<cdQ")
LENGTH: Final = struct.Struct("<Q")
_GRACE: Final = 2.0  # seconds after which this process ends itself, had nobody killed it
_MOST: Final = (
    20  # times its limit that a request may take: the parent knows how long this process waited for a processor
)

_NO_ARGUMENTS: Final = pickle.dumps(())

Answer = tuple[Any, BaseException | None, str]


def main() -> None:
    """Serve until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the parent decides
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGIO})
    requests, answers = os.fdopen(os.dup(0), "rb", 0), os.fdopen(os.dup(1), "wb", 0)
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(2, 1)  # what a library prints must not end up among the answers
    waiting: SimpleQueue[tuple[bytes, float, bytearray]] = SimpleQueue()
    threading.Thread(target=_listen, args=(requests, waiting), daemon=True).start()
    function: Callable[..., Any] = _none
    while True:
        kind, seconds, data = waiting.get()
        # end this process even where native code keeps the interpreter, so that no thread hears that the parent ended
        faulthandler.dump_traceback_later(_MOST * seconds + _GRACE, exit=True, file=nowhere)
        _end_with_parent(requests.fileno(), kind == ASK)
        if kind == FUNCTION:
            function, answer = _loaded(data)
        else:
            answer = _called(function, data)
        _end_with_parent(requests.fileno(), False)
        if kind != TELL:
            _reply(answers, answer)
        elif answer[1] is not None:
            print(answer[2], end="", flush=True)
        faulthandler.cancel_dump_traceback_later()


def _end_with_parent(requests: int, yes: bool) -> None:
    """Have the kernel end this process when anything happens on a pipe: its end, while a request is worked at."""
    if sys.platform == "linux":
        flags = fcntl.fcntl(requests, fcntl.F_GETFL)
        fcntl.fcntl(requests, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(requests, fcntl.F_SETFL, flags | os.O_ASYNC if yes else flags & ~os.O_ASYNC)


def read_into(file: IO[bytes], target: Any) -> None:
    """Fill a buffer from an unbuffered file; EOFError when that ends before."""
    rest = memoryview(target).cast("B") if memoryview(target).nbytes else b""
    while len(rest):
        count = file.readinto(rest)  # type: ignore[attr-defined]
        if not count:
            raise EOFError
        rest = rest[count:]


def read_bytes(file: IO[bytes], count: int) -> bytearray:
    """The next bytes of an unbuffered file."""
    found = bytearray(count)
    read_into(file, found)
    return found


def write_all(file: IO[bytes], data: Any) -> None:
    """Write to an unbuffered file, which takes as much at a time as its pipe has room for."""
    rest = memoryview(data)
    while len(rest):
        rest = rest[file.write(rest) :]


def _listen(requests: IO[bytes], waiting: SimpleQueue[tuple[bytes, float, bytearray]]) -> None:
    """Take in requests, in a thread of its own: it notices that the parent has ended also while one is worked at."""
    try:
        while True:
            kind, seconds, length = HEAD.unpack(read_bytes(requests, HEAD.size))
            waiting.put((kind, seconds, read_bytes(requests, length)))
    except (EOFError, OSError):
        os._exit(0)


def _none(*_: Any) -> None:
    raise AssertionError("a request before the function")


def _loaded(data: bytearray) -> tuple[Callable[..., Any], Answer]:
    """The function, which may have a method `prepare`: called once, before the time of a request counts."""
    loaded: list[Callable[..., Any]] = []

    def load() -> None:
        loaded.append(pickle.loads(data))
        getattr(loaded[0], "prepare", lambda: None)()

    answer = _called(load)
    return (loaded[0] if loaded else _none), answer


def _called(function: Callable[..., Any], arguments: bytes | bytearray = _NO_ARGUMENTS) -> Answer:
    try:
        return function(*pickle.loads(arguments)), None, ""
    except BaseException as error:
        return None, _portable(error), traceback.format_exc()


def _portable(error: BaseException) -> BaseException:
    """The exception, or one that says the same where it does not survive pickling."""
    try:
        same = pickle.loads(pickle.dumps(error))
    except Exception:
        same = None
    return error if type(same) is type(error) else RuntimeError(f"{type(error).__name__}: {error}")


def _reply(answers: IO[bytes], answer: Answer) -> None:
    arrays: list[pickle.PickleBuffer] = []
    try:
        body = pickle.dumps(answer, protocol=5, buffer_callback=arrays.append)
    except BaseException as error:  # a value that does not pickle
        arrays, body = [], pickle.dumps((None, _portable(error), traceback.format_exc()))
    parts = [array.raw() for array in arrays]
    head = pickle.dumps((body, [part.nbytes for part in parts]))
    write_all(answers, LENGTH.pack(len(head)) + head)
    for part in parts:
        write_all(answers, part)

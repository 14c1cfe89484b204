"""Python processes without the seconds of their imports: forked from one that has imported PyTorch, Hydra and vidtrain.

    Python(["-m", "vidtrain", "train", ...], cwd=folder, env=environment(), stderr=PIPE, text=True)

is `subprocess.Popen([sys.executable, *ARGUMENTS], ...)`: a child of this process with streams, folder, environment,
signals and an exit of its own. It is not for what happens before or while modules are imported. Where variables that
are read then differ from those that the tests were started with, and off Linux, it starts Python as usual.

Run as a program this file is the process that is forked, which imports once for all tests of a worker.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import json
import os
import random
import runpy
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Final

_READ_AT_START: Final = ("PYTHON", "OMP_", "MKL_", "OPENBLAS_", "KMP_", "LD_", "MALLOC_", "TORCH", "LANG", "LC_")
"""How variables begin that Python or a library reads when it starts; PYTHONPATH is seen to."""
_SET_BY_VIDTRAIN: Final = {"OMP_WAIT_POLICY": "passive", "TORCH_CPP_LOG_LEVEL": "ERROR"}
"""Before it imports PyTorch; a command that runs in the process of the tests leaves them behind."""
_SET_BY_TORCH: Final = "TORCHINDUCTOR_CACHE_DIR"
"""By the first training in the process of the tests, and read when something is compiled, not when PyTorch starts."""
_ENVIRONMENT: Final = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
"""Of the tests, as they were started."""
_LARGEST: Final = 1 << 17
_PR_SET_CHILD_SUBREAPER: Final = 36
_IMPORTED: Final = (
    *("hydra", "torch", "torch._dynamo", "torch.distributed"),  # an optimizer imports _dynamo
    *("vidtrain.commands.train", "vidtrain.commands.eval", "vidtrain.commands.predict", "vidtrain.commands.extract"),
)


# ---------------------------------------------------------------- in the tests


class Python(subprocess.Popen[Any]):
    """`subprocess.Popen` of this Python with arguments that begin with -m MODULE, -c CODE or a script."""

    def __init__(self, arguments: Sequence[str | Path], **options: Any) -> None:
        super().__init__([sys.executable, *map(str, arguments)], **options)

    def _execute_child(
        self,
        args: Any,
        executable: Any,
        preexec_fn: Any,
        close_fds: Any,
        pass_fds: Any,
        cwd: Any,
        env: Any,
        startupinfo: Any,
        creationflags: Any,
        shell: Any,
        p2cread: int,
        p2cwrite: int,
        c2pread: int,
        c2pwrite: int,
        errread: int,
        errwrite: int,
        *others: Any,
    ) -> None:
        environment = dict(os.environ if env is None else env)
        if not _can_be_forked(environment) or preexec_fn or pass_fds:
            given = (args, executable, preexec_fn, close_fds, pass_fds, cwd, env, startupinfo, creationflags, shell)
            streams = (p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)
            super()._execute_child(*given, *streams, *others)  # type: ignore[misc]
            return
        try:
            request = {"arguments": args[1:], "cwd": str(Path(cwd or ".").absolute()), "environment": environment}
            ours = [end if end != -1 else number for number, end in enumerate((p2cread, c2pwrite, errwrite))]
            self.pid = _server().fork(request, ours)
            self._child_created = True
        finally:
            self._close_pipe_fds(p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)  # type: ignore[attr-defined]


def run(arguments: Sequence[str | Path], *, timeout: float = 300, **options: Any) -> subprocess.CompletedProcess[str]:
    """`subprocess.run([sys.executable, *ARGUMENTS], capture_output=True, text=True)` by `Python`."""
    with Python(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def _can_be_forked(environment: dict[str, str]) -> bool:
    def read_at_start(variables: dict[str, str]) -> dict[str, str]:
        seen_to = {
            "PYTHONPATH",
            _SET_BY_TORCH,
            *(name for name, value in _SET_BY_VIDTRAIN.items() if variables.get(name) == value),
        }
        return {k: v for k, v in variables.items() if k.startswith(_READ_AT_START) and k not in seen_to}

    return sys.platform == "linux" and read_at_start(environment) == read_at_start(_ENVIRONMENT)


class _Server:
    """The process that is forked, a child of this one."""

    def __init__(self) -> None:
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env=_ENVIRONMENT | _SET_BY_VIDTRAIN,
            )
        self.of = os.getpid()

    def fork(self, request: dict[str, Any], streams: Sequence[int]) -> int:
        """The number of a process that does what is asked, with these as stdin, stdout and stderr."""
        message = json.dumps(request).encode()
        assert len(message) < _LARGEST, "too long for one message"
        _adopt_orphans(True)
        try:
            socket.send_fds(self._channel, [message], list(streams))
            answer = self._channel.recv(100)
        finally:
            _adopt_orphans(False)
        assert answer, "the process that is forked has ended"
        return int(answer)


_servers: list[_Server] = []


def _server() -> _Server:
    if not _servers or _servers[0].of != os.getpid():
        _servers[:] = [_Server()]
    return _servers[0]


def _adopt_orphans(on: bool) -> None:
    """Whether a process below this one whose parent ends becomes a child of this one."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, int(on), 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


# ---------------------------------------------------------------- in the process that is forked


def _serve(channel: socket.socket) -> Callable[[], None] | None:
    """Fork whenever asked; returns in each child what it is to do, and in this process, at the end, None."""
    while True:
        message, streams, *_ = socket.recv_fds(channel, _LARGEST, 3)
        if not message:
            return None
        (number, tell), (wait, go) = os.pipe(), os.pipe()
        between = os.fork()  # ends at once, so that its child is adopted by the tests
        if not between:
            child = os.fork()
            if child:
                os.write(tell, str(child).encode())
                os._exit(0)
            os.close(go)
            os.read(wait, 1)  # until it has been adopted
            for end in (number, tell, wait, channel.detach()):
                os.close(end)
            return _become(json.loads(message), streams)
        os.waitpid(between, 0)
        channel.send(os.read(number, 100))
        for end in (number, tell, wait, go, *streams):
            os.close(end)


def _become(request: dict[str, Any], streams: Sequence[int]) -> Callable[[], Any]:
    """Make this process what a new one would be; returns its work."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    for stream in streams:
        os.close(stream)
    # what they were made for could be sought in
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        old = getattr(sys, name)
        new = os.fdopen(number, old.mode, 1 if name == "stderr" else -1, old.encoding, old.errors)
        setattr(sys, name, new)
        setattr(sys, f"__{name}__", new)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    random.seed()  # which has been drawn from the system when it was imported, as numpy's
    sys.modules["numpy"].random.seed()
    sys.argv = list(request["arguments"])
    kind, script = sys.argv[0], Path(sys.argv[0]).absolute()
    searched = {"-m": request["cwd"], "-c": ""}.get(kind, str(script.parent))
    more = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry and entry not in sys.path]
    sys.path[:1] = [searched, *more]
    if kind not in ("-m", "-c"):
        return lambda: runpy.run_path(kind, run_name="__main__")
    what = sys.argv.pop(1)
    if kind == "-m":
        return lambda: runpy.run_module(what, run_name="__main__", alter_sys=True)
    sys.modules["__main__"] = module = ModuleType("__main__")
    return lambda: exec(compile(what, "<string>", "exec"), module.__dict__)


def _work_and_end(work: Callable[[], Any]) -> None:
    """As Python ends, but for the million objects that are taken apart for nobody: half a second of a child's time,
    since each page of them is copied first. What ends in another way than by an exit ends as ever."""
    code: Any = None
    try:
        work()
    except SystemExit as end:
        code = end.code
    if not isinstance(code, int | None):
        raise SystemExit(code)
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            raise SystemExit(code) from None
    os._exit(code or 0)


if __name__ == "__main__":
    sys.path[0] = ""  # not the folder of this file
    for module in _IMPORTED:
        import_module(module)
    gc.freeze()  # a child that looked for garbage would copy all of it
    work = _serve(socket.socket(fileno=int(sys.argv[1])))
    if work is not None:
        _work_and_end(work)

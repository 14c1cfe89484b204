"""`trainer.devices=N`: N processes of one training on this machine, started by torch's elastic launcher."""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import signal
import sys
import traceback
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from vidtrain.child_python_path import keep_working_folder_out
from vidtrain.commands import run_dir
from vidtrain.errors import EXIT_INTERRUPTED, EXIT_UNFINISHED, ConfigError, StoppedError, VidtrainError
from vidtrain.terminal import printable

_MISTAKE = 2  # the exit code of a user's mistake, as of the program itself


def launch(run: Callable[[Any], Any], call: Any, *, count: int, device: str) -> None:
    """Do `run(call)` in `count` processes; both are pickled.

    Args:
        device: trainer.device, where each is to run.

    Raises:
        ConfigError: there are fewer GPUs.
        VidtrainError: one of the processes has failed, and said why; the others were ended.
        StoppedError: a signal asked for it.
    """
    on_gpu = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    if on_gpu and count > torch.cuda.device_count():
        raise ConfigError(f"trainer.devices={count}: this machine shows {torch.cuda.device_count()} GPUs to PyTorch")
    settings = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        monitor_interval=0.2,
        start_method="spawn",
    )
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
    # a process that ends at once leaves its locks to Python's tracker of such things, which would complain last of all
    quiet = "ignore::UserWarning:multiprocessing.resource_tracker"
    os.environ["PYTHONWARNINGS"] = ",".join(filter(None, [os.environ.get("PYTHONWARNINGS"), quiet]))
    for name in ("torch.distributed.elastic", "torch.distributed.elastic.agent.server.api"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        with _passing_on_usr1():
            elastic_launch(settings, _work)(pickle.dumps((run, call)), pickle.dumps(HydraConfig.instance().cfg))
    except ChildFailedError as error:
        raise _what_ended({rank: failure.exitcode for rank, failure in error.failures.items()}, count) from None
    except SignalException as error:
        code = EXIT_INTERRUPTED if error.sigval is signal.SIGINT else EXIT_UNFINISHED
        raise StoppedError(f"{error.sigval.name} received; the same command with resume=auto continues", code) from None


def _work(task: bytes, hydra: bytes) -> None:
    """One of the processes."""
    from hydra.core.utils import configure_log

    keep_working_folder_out()
    # as in a process of its own: its decoding processes would be spawned like itself, and import PyTorch each
    multiprocessing.set_start_method(None, force=True)
    run_dir.register()
    composed = pickle.loads(hydra)
    HydraConfig.instance().cfg = composed
    configure_log(composed.hydra.job_logging, composed.hydra.verbose)
    try:
        run, call = pickle.loads(task)
        run(call)
    except StoppedError as error:
        _leave(error.exit_code, "" if error.already_printed else printable(f"vidtrain: {error}"))
    except VidtrainError as error:
        _leave(_MISTAKE, "" if error.already_printed else printable(f"vidtrain: error: {error}"))
    except BaseException:
        _leave(1, f"process {os.environ['RANK']} of {os.environ['WORLD_SIZE']}:\n{traceback.format_exc()}")


def _what_ended(codes: dict[int, int], count: int) -> VidtrainError:
    """For the exit codes of the processes that ended by themselves, or by a signal: what the launcher says last."""
    by_signal = next((rank for rank, code in codes.items() if code < 0 and -code != signal.SIGTERM), None)
    # one with a traceback before those that only heard of it and ended as after a mistake
    found = sorted((code == _MISTAKE, rank) for rank, code in codes.items() if code > 0 and code != EXIT_UNFINISHED)
    failed = found[0][1] if found else None
    if failed is not None:
        said = "see its message above" if codes[failed] == _MISTAKE else "see its traceback above"
        return VidtrainError(f"process {failed} of {count} ended with code {codes[failed]}: {said}")
    if by_signal is not None:
        number = -codes[by_signal]
        name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
        hint = " (out of memory?)" if name == "SIGKILL" else ""
        return StoppedError(
            f"process {by_signal} of {count} was ended by {name}{hint}; the same command with resume=auto continues "
            "from the last save"
        )
    return StoppedError("the processes have ended, see above; the same command with resume=auto continues")


def _leave(code: int, message: str) -> None:
    """At once: what the others wait for in this process will never come."""
    if message:
        print(message, file=sys.stderr, flush=True)
    os._exit(code)


@contextmanager
def _passing_on_usr1() -> Iterator[None]:
    """Slurm's warning goes to this process; those that train have to hear of it."""
    if not hasattr(signal, "SIGUSR1"):
        yield
        return

    def pass_on(number: int, frame: Any) -> None:
        for child in multiprocessing.active_children():
            if child.pid is not None:
                os.kill(child.pid, number)

    before = signal.signal(signal.SIGUSR1, pass_on)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, before)

"""argv -> command. Imports hydra only when a command runs, and never torch: help answers at once."""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from vidtrain import __version__
from vidtrain.child_python_path import keep_working_folder_out
from vidtrain.engine.devices.environment import RESTARTS
from vidtrain.engine.signals import EndedBySignal, ending_in_order
from vidtrain.errors import EXIT_INTERRUPTED, ConfigError, StoppedError, VidtrainError, did_you_mean, one_of
from vidtrain.models.settings import START_KEYS
from vidtrain.options.commands import COMMANDS, FROM_CHECKPOINT, check_action
from vidtrain.options.option_texts import choices_of, conf_dir
from vidtrain.options.path_options import expand_homes, name_positional, quote_paths
from vidtrain.shell.flags import config_dir, refuse_shadowed_configs, split_flags
from vidtrain.terminal import accept_any_text, on_terminal, printable, said_when_slow

_THE_DISK = (
    *(errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EPERM, getattr(errno, "EDQUOT", errno.ENOSPC), errno.EFBIG),
    *(errno.EIO, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG),
)
"""Errors of the operating system that are nobody's mistake in the program."""
_OF_EVERY_MODEL = tuple(f"model.{key}" for key in START_KEYS)
_OF_ANY_KEYS = {"predict": "live.options", "train": "sweep.space"}
"""Command -> its section that no schema lists the keys of."""
_OF_SEVERAL = ("logger", "hook", "experiment", "debug")
"""Groups of which several can be chosen: logger=[jsonl,tensorboard]."""
_NO_GROUPS = ("eval", "trainer")
"""Sections of a checkpoint that commands have whose groups do not name them."""


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """The `vidtrain` program.

    Exit codes: 0 done, 1 our mistake, 2 the user's mistake, 75 a training that was told to stop and has saved (start it
    again with resume=auto), 130 interrupted by Ctrl-C, 143 or 129 by SIGTERM or SIGHUP.
    """
    accept_any_text()
    try:
        code = _main(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
    except KeyboardInterrupt as interrupt:
        given = sys.argv[1:] if argv is None else list(argv)
        key = "sweep.resume" if {"-m", "--multirun"} & {*given} else "resume"
        saved = f"; if it has saved anything, the same command with {key}=auto continues"
        hint = saved if given[:1] == ["train"] else ""
        print(f"vidtrain: interrupted{hint}", file=sys.stderr)
        code = interrupt.exit_code if isinstance(interrupt, EndedBySignal) else EXIT_INTERRUPTED
    except BrokenPipeError:
        code = _discard_output()
    except Exception as error:
        mistake = users_mistake(error)
        if mistake is None and _interrupted(error):
            print("vidtrain: interrupted", file=sys.stderr)
            raise SystemExit(EXIT_INTERRUPTED) from None
        if mistake is None:
            raise
        raise SystemExit(report(mistake)) from mistake
    raise SystemExit(code)


def _discard_output() -> int:
    """For `vidtrain inspect | head`: what is still to be printed goes nowhere; returns the exit code."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _interrupted(error: BaseException | None) -> bool:
    """Whether Ctrl-C is behind it: numpy and torch make another error of it while they are imported."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt) or "KeyboardInterrupt" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def report(mistake: VidtrainError) -> int:
    """Print the line that the user reads; returns the exit code."""
    if not mistake.already_printed:
        kind = "" if isinstance(mistake, StoppedError) else "error: "
        print(printable(f"vidtrain: {kind}{mistake}"), file=sys.stderr)
    return mistake.exit_code if isinstance(mistake, StoppedError) else 2


def users_mistake(error: Exception) -> VidtrainError | None:
    """The error as the user should read it, None when it is ours and keeps its traceback."""
    if isinstance(error, VidtrainError):
        return error
    if isinstance(error, OSError) and error.errno in _THE_DISK:
        where = f"{error.filename}: " if error.filename else ""
        return VidtrainError(f"{where}{error.strerror}; what was written before is kept")
    return None


def _main(argv: list[str]) -> int:
    from vidtrain.shell import help as help_text

    if not argv or argv[0] in ("-h", "--help", "help"):
        print(help_text.overview())
        return 0
    if argv[0] in ("--version", "-V"):
        print(f"vidtrain {__version__}")
        return 0
    if argv[0] in ("--shell-completion", "-sc"):
        return _complete(argv)
    command, rest = argv[0], argv[1:]
    if command not in COMMANDS:
        hint = did_you_mean(command, COMMANDS)
        raise ConfigError(f"no command '{command}'{hint}; commands: {one_of(COMMANDS)}; see vidtrain --help")
    if "--help" in rest or "-h" in rest:
        print(help_text.command(command, rest, config_dir(split_flags(rest)[0])))
        return 0
    flags, overrides = split_flags(rest)
    folder, in_sweep = config_dir(flags), "-m" in flags or "--multirun" in flags
    if command == "data":
        overrides = _data_action(overrides)
    overrides = [re.sub(r"^\+(?=(experiment|debug)=)", "", o) for o in overrides]  # as where no default lists the group
    overrides = name_positional(overrides, command)
    _refuse_lists(overrides)
    if command == "train" and "${" in (here := os.getcwd()):  # noqa: PTH109
        raise ConfigError(f"{here}: Hydra reads the ${{ in this folder's name as a reference: train in another folder")
    overrides = quote_paths(overrides, command, multirun=in_sweep, config_dir=folder)
    if command in FROM_CHECKPOINT:
        sections = (*COMMANDS[command].groups.split(), *_NO_GROUPS)
        overrides = [_add_below_checkpoint(o, sections) for o in overrides]
    overrides = [f"++{o}" if _no_schema_lists(o.split("=", 1)[0], command) else o for o in overrides]
    if folder is not None:
        refuse_shadowed_configs(folder)
    if command == "train" and not in_sweep and not any(re.match(r"\+*resume=", o) for o in overrides):
        overrides += _resumed_after_restart()
    if in_sweep:
        from vidtrain.shell import multirun

        overrides = multirun.prepared(command, overrides, folder)
    return _run_hydra(command, flags, overrides)


def _refuse_lists(overrides: Sequence[str]) -> None:
    """Of most groups one is chosen: Hydra takes a list, and data=[] for no data."""
    for override in overrides:
        key, _, value = override.lstrip("+").partition("=")
        if value.startswith("[") and key and key not in _OF_SEVERAL and (conf_dir() / key).is_dir():
            raise ConfigError(f"{key}={value}: expected one {key}, got a list; allowed: {one_of(choices_of(key))}")


def _resumed_after_restart() -> list[str]:
    """torchrun starts the very same command again when it has lost a process."""
    if RESTARTS not in os.environ:
        return []
    from vidtrain.engine.devices.distributed import join

    restarted = join().any(os.environ[RESTARTS] != "0")  # the agent of another node may not have counted it
    return ["resume=auto"] * any(restarted)


def _data_action(overrides: list[str]) -> list[str]:
    """`vidtrain data make data=motion` -> action=make data=motion; what is none ends here, before the imports."""
    if overrides and "=" not in overrides[0]:
        check_action(overrides[0])
        return [f"action={overrides[0]}", *overrides[1:]]
    return overrides if any(o.startswith("action=") for o in overrides) else ["action=info", *overrides]


def _no_schema_lists(key: str, command: str) -> bool:
    return key in _OF_EVERY_MODEL or f"{key}.".startswith(f"{_OF_ANY_KEYS.get(command)}.")


def _add_below_checkpoint(override: str, sections: Sequence[str]) -> str:
    """A key below a section that a checkpoint brings is not there yet when Hydra reads the command line."""
    key = override.split("=", 1)[0]
    return f"++{override}" if "." in key and key.split(".", 1)[0] in sections else override


def _run_hydra(command: str, flags: list[str], overrides: list[str]) -> int:
    # On the CPU the loader's workers share the processors with the model. OpenMP threads that spin while they wait for
    # each other then take the time of the one they wait for: measured 4 instead of 30 clips/s on two busy cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    # processes that train together and lose one another would print pages of C++ frames; what is said is one line
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    keep_working_folder_out()
    # Hydra then raises what it finds instead of printing it with parts of a traceback; _explain makes it one line
    os.environ["HYDRA_FULL_ERROR"] = "1"
    with said_when_slow("importing Hydra", on_terminal):
        import hydra

        from vidtrain.commands import run_dir, sweep
        from vidtrain.options import schema as config
        from vidtrain.shell import experiment_parts, hydra_errors
        from vidtrain.shell.hydra_speedups import composed_once, composed_without_copies, ignore_notices

    sweep.failed.clear()
    ignore_notices()
    config.register(command, "train")  # the keys of a checkpoint are those of train
    run_dir.register()
    # by path, not pkg://vidtrain.conf: in a clone beside an installed copy, `python -m vidtrain` imports the clone,
    # which has conf/ beside the package
    program = hydra.main(config_path=str(conf_dir()), config_name=command, version_base="1.3")(task(command))
    ending = nullcontext() if command == "train" else ending_in_order()  # a training saves and says more
    saved, sys.argv = sys.argv, ["vidtrain", *flags, *overrides]
    try:
        with composed_once(flags, overrides), composed_without_copies(), experiment_parts.cut_to(command), ending:
            program()
    except Exception as error:
        sweep.remove_refused()
        message = hydra_errors.explain(error, command, overrides, in_sweep="-m" in flags or "--multirun" in flags)
        if message is None:
            raise
        raise ConfigError(message) from error
    finally:
        sys.argv = saved
    if sweep.failed:
        raise VidtrainError(f"{len(sweep.failed)} of the runs failed: " + "; ".join(sweep.failed))
    return 0


def task(command: str) -> Callable[[Any], Any]:
    """What Hydra calls with the composed configuration, once a run.

    A run of a sweep that fails is reported and recorded, and the sweep goes on; a single run ends.
    """

    def run(cfg: Any) -> Any:
        from hydra.core.hydra_config import HydraConfig
        from hydra.types import RunMode
        from omegaconf import OmegaConf

        from vidtrain.commands import run_dir, sweep
        from vidtrain.options.invocation import Invocation
        from vidtrain.shell import hydra_errors

        in_sweep = HydraConfig.get().mode == RunMode.MULTIRUN
        if in_sweep:
            sweep.forget_failure()
        try:
            plain = OmegaConf.to_container(cfg, resolve=False)  # what a checkpoint or file brings is not there yet
            hydra_errors.refuse_missing(plain)
            for key, path in expand_homes(plain, command).items():
                OmegaConf.update(cfg, key, path)
            with said_when_slow("importing PyTorch", on_terminal):
                module = import_module(f"vidtrain.commands.{command}")
            return module.run(Invocation.of(cfg))
        except BrokenPipeError:  # or Hydra would speak of it
            raise SystemExit(_discard_output()) from None
        except KeyboardInterrupt:
            run_dir.remove_refused(Path(HydraConfig.get().runtime.output_dir))
            raise
        except Exception as error:
            mistake = users_mistake(error)
            if (
                in_sweep
                and isinstance(mistake, StoppedError)
                and HydraConfig.get().runtime.choices["hydra/launcher"] == "basic"
            ):
                raise SystemExit(report(mistake)) from None  # the sweep was told to, not this run of it
            if in_sweep:
                sweep.record_failure(mistake or error, with_traceback=mistake is None)
                return None
            if mistake is None:
                raise
            folder = Path(HydraConfig.get().runtime.output_dir)
            if run_dir.remove_refused(folder) and command == "train" and not isinstance(mistake, StoppedError):
                left = f"vidtrain: {folder} holds what was trained; resume=auto goes on there"
                print(printable(left), file=sys.stderr)
            raise SystemExit(report(mistake)) from mistake

    return run


def _complete(argv: list[str]) -> int:
    """Shell completion: the command's name is ours, the rest is Hydra's."""
    line = os.environ.get("COMP_LINE", "")
    words = line.split()
    if any(word.startswith("query=") for word in argv):
        from vidtrain.shell.completion import line_for_hydra

        if len(words) < 2 or (len(words) == 2 and not line.endswith(" ")):
            start = words[1] if len(words) == 2 else ""
            print("\n".join(c for c in COMMANDS if c.startswith(start)))
            return 0
        if words[1] not in COMMANDS:
            return 0
        os.environ["COMP_LINE"] = line_for_hydra(line)
        return _run_hydra(words[1], argv[:1], argv[1:])
    if not any(word.startswith(("install=", "uninstall=")) for word in argv):
        print('eval "$(vidtrain --shell-completion install=bash)"    # or zsh, fish')
        return 0
    return _run_hydra("train", argv[:1], argv[1:])

"""vidtrain board: TensorBoard over runs, on this machine only."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vidtrain.errors import ConfigError, VidtrainError
from vidtrain.options.invocation import Invocation
from vidtrain.ranges import number
from vidtrain.terminal import print_line
from vidtrain.types import FilePath

_ADDRESS = "127.0.0.1"
_EVENTS = "events.out.tfevents.*"


@dataclass
class BoardConfig:
    runs: list[FilePath] = field(default_factory=lambda: ["runs"])
    """Folders of runs, or folders above them: vidtrain board runs/motion runs/sweeps/..."""
    port: int = number(6006, least=0, most=65535)
    """Of the server on 127.0.0.1, which other machines cannot reach; 0: any that is free."""


def run(call: Invocation[BoardConfig]) -> None:
    """Serve until Ctrl-C."""
    options = call.options
    folders = [Path(folder) for folder in options.runs]
    _check(folders)
    with tempfile.TemporaryDirectory(prefix="vidtrain_board_") as shelf:
        logdir = folders[0] if len(folders) == 1 else shelved(folders, Path(shelf))
        command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logdir)]
        command += ["--host", _ADDRESS, "--port", str(options.port)]
        print_line(f"TensorBoard of {', '.join(map(str, folders))}; Ctrl-C ends it")
        try:
            code = subprocess.run(command, check=False).returncode
        except KeyboardInterrupt:  # which TensorBoard has got, too
            return
    if code:
        raise VidtrainError(f"TensorBoard ended with exit code {code}; its own message is above")


def shelved(folders: Sequence[Path], shelf: Path) -> Path:
    """A folder with a link to each: TensorBoard shows one tree, and its list of several folders knows no commas.

    Links are called what distinguishes the folders: a/b/run and a/c/run are b/run and c/run.
    """
    absolute = list(dict.fromkeys(folder.absolute() for folder in folders))
    for count in range(1, max(len(folder.parts) for folder in absolute) + 1):
        names = [Path(*[part.strip("/\\:") or "root" for part in folder.parts[-count:]]) for folder in absolute]
        if len(set(names)) == len(names):
            break
    for name, folder in zip(names, absolute, strict=True):
        link = shelf / name
        link.parent.mkdir(parents=True, exist_ok=True)
        try:
            link.symlink_to(folder, target_is_directory=True)
        except OSError as error:  # Windows without its developer mode
            raise ConfigError(
                f"runs={folder}: cannot be shown beside the others ({error}): give the folder above"
            ) from None
    return shelf


def _check(folders: Sequence[Path]) -> None:
    if not folders:
        raise ConfigError("runs=[]: no folder")
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"runs={folder}: no such folder")
        if next(folder.rglob(_EVENTS), None) is None:
            raise ConfigError(f"runs={folder}: no event files below it; logger=[jsonl,tensorboard] writes them")

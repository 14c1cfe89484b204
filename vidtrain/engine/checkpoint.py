"""Checkpoints: complete or absent, self-describing, and never code.

A file holds plain values and tensors only and is read with torch.load(weights_only=True), so opening a stranger's
checkpoint runs nothing.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import torch

from vidtrain import __version__
from vidtrain.errors import CheckpointError

FORMAT = 1
_REQUIRED = ("format", "model", "config", "class_names")


def versions() -> dict[str, str]:
    """The versions that a result depends on."""
    import av
    import torchvision

    return {
        "vidtrain": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "torchvision": str(torchvision.__version__),
        "av": av.__version__,
    }


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write beside `path`, flush to the disk, then rename: a reader sees the old file or the new one.

    Raises:
        CheckpointError: the disk is full or not writable; the file at `path` is then as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            torch.save({"format": FORMAT, "versions": versions(), **content}, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except (OSError, RuntimeError) as error:  # torch's writer reports a full disk as a RuntimeError
        temporary.unlink(missing_ok=True)
        kept = f"; {path} is the last good one" if path.exists() else ""
        raise CheckpointError(f"cannot write {path}: {_reason(error)}{kept}") from error


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """The content of a checkpoint, tensors on the CPU.

    Raises:
        CheckpointError: missing, truncated, not a checkpoint of vidtrain, or written by a newer vidtrain.
    """
    path = Path(path)
    if path.is_dir():
        best = path / "best.pt"
        hint = f"; did you mean {best}?" if best.is_file() else ""
        raise CheckpointError(f"{path} is a folder, not a checkpoint file{hint}")
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; a run writes best.pt and last.pt into its folder")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen types for a damaged file
        raise CheckpointError(
            f"{path}: cannot be read as a checkpoint ({path.stat().st_size} bytes): truncated, or another kind of file"
        ) from error
    missing = [key for key in _REQUIRED if not isinstance(content, dict) or key not in content]
    if missing:
        raise CheckpointError(f"{path}: not a checkpoint of vidtrain: it has no {', '.join(missing)}")
    if content["format"] > FORMAT:
        raise CheckpointError(
            f"{path}: format {content['format']}, this vidtrain {__version__} reads up to {FORMAT}: update vidtrain"
        )
    return content


def rng_state(device: torch.device) -> dict[str, Any]:
    """State of torch's generators, which dropout and random frames draw from."""
    state: dict[str, Any] = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def restore_rng(state: dict[str, Any], device: torch.device) -> None:
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


def _sync_folder(folder: Path) -> None:
    """Make the rename itself survive a power cut; Windows has no such call."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _reason(error: BaseException) -> str:
    cause = error if isinstance(error, OSError) else error.__context__
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    return str(error).split("\n", 1)[0]

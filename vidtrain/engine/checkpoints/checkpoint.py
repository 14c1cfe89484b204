"""Checkpoints: complete or absent, self-describing, and never code.

A file holds plain values and tensors only and is read as such (vidtrain.torch_files), so opening a stranger's
checkpoint runs nothing; what its configuration may call is decided in vidtrain.options.instantiate.
"""

from __future__ import annotations

import logging
import os
import platform
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vidtrain import __version__, torch_files
from vidtrain.engine.checkpoints.background import Background, copied
from vidtrain.engine.checkpoints.content_checks import Average, check_content, check_optimizer
from vidtrain.engine.devices.distributed import World
from vidtrain.engine.devices.memory_format import match_layout
from vidtrain.errors import CheckpointError, ConfigError
from vidtrain.runs.atomic import whole_file

log = logging.getLogger("vidtrain")

FORMAT = 3
_REQUIRED = ("format", "model", "config")
_PATIENCE = 30.0  # seconds that the end of a failed training waits for shards


def versions() -> dict[str, str]:
    """The versions that a result depends on."""
    import av

    return {
        "vidtrain": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "torchvision": metadata.version("torchvision"),
        "av": av.__version__,
    }


def save_checkpoint(path: Path, content: dict[str, Any], before: Callable[[], None] | None = None) -> None:
    """Write a checkpoint in the place of `path`: a reader sees the old file or the new one.

    Args:
        before: called when the new file is whole, before it takes its place.

    Raises:
        CheckpointError: the disk is full or not writable; the file at `path` is then as it was.
    """
    try:
        with whole_file(path, before=before) as file:
            torch.save({"format": FORMAT, "versions": versions(), **content}, file)
    except (OSError, RuntimeError) as error:  # torch's writer reports a full disk as a RuntimeError
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
    if path.exists() and not path.is_file():
        raise CheckpointError(f"{path}: is not a regular file")
    if not path.exists():
        raise CheckpointError(f"{path}: no such file; a run writes best.pt and last.pt into its folder")
    try:
        content = torch_files.load(path, check_sums=True, zipped=True)
    except torch_files.UnreadableError as error:
        raise CheckpointError(f"{path}: not a checkpoint of vidtrain: {error}") from error
    except Exception as error:  # torch raises half a dozen types for a damaged file
        raise CheckpointError(
            f"{path}: cannot be read as a checkpoint ({path.stat().st_size} bytes): truncated, damaged or another "
            "kind of file"
        ) from error
    missing = [key for key in _REQUIRED if not isinstance(content, dict) or key not in content]
    if missing:
        raise CheckpointError(f"{path}: not a checkpoint of vidtrain: it has no {', '.join(missing)}")
    try:
        check_content(content)
    except ValueError as error:
        raise CheckpointError(f"{path}: not a checkpoint of vidtrain: {error}") from error
    if content["format"] != FORMAT:
        way = "update vidtrain" if content["format"] > FORMAT else "train again, or use the vidtrain that wrote it"
        raise CheckpointError(f"{path}: format {content['format']}, vidtrain {__version__} reads {FORMAT}: {way}")
    return content


class Checkpoints:
    """The checkpoints of a run: best.pt, and last.pt with the ones before it (last.1.pt is the newest of these).

    Args:
        folder: the run's.
        keep_last: how many of the last ones are kept, 1 or more.
        world: only the main process writes,
        sharded: but each its part of a last.pt where the weights are spread over several (FSDP).
        plain: makes of the weights what best.pt holds of them, where that is not all.
        in_background: they are written by a thread, from a copy in the CPU's memory, while training goes on. Its errors
            are raised by the next call of `check`, `wait` or a save; `best_is_gone` and `load_best` wait for it.
        describe: what every checkpoint says of itself: the configuration, what the task needs to be built again.
    """

    def __init__(
        self,
        folder: Path,
        *,
        keep_last: int = 2,
        world: World | None = None,
        sharded: bool = False,
        plain: Callable[[dict[str, Any]], Mapping[str, Any]] = dict,
        in_background: bool = False,
        describe: Mapping[str, Any] | None = None,
    ) -> None:
        if keep_last < 1:
            raise ConfigError(f"trainer.keep_last={keep_last}: must be 1 or more")
        self.folder = folder
        self.keep_last = keep_last
        self.world = world or World()
        self.sharded = sharded and self.world.size > 1
        self.plain = plain
        self.describe = dict(describe or {})
        self._background = Background() if in_background else None
        self._aside = self.world.aside() if in_background and self.sharded else self.world

    @property
    def last(self) -> Path:
        return self.folder / "last.pt"

    @property
    def best(self) -> Path:
        return self.folder / "best.pt"

    def load_best(self) -> dict[str, Any] | None:
        """The content of best.pt; None, with a warning, where it is gone or damaged."""
        self.wait()
        try:
            return load_checkpoint(self.best)
        except CheckpointError as error:
            log.warning("%s; using the weights of the last epoch", error)
            return None

    def best_is_gone(self) -> bool:
        """Whether somebody has removed best.pt, as the main process sees it; called by all of them."""
        self.wait(self.best)
        return self.world.from_main(not self.best.is_file())

    def weights(self, model: nn.Module) -> dict[str, Any]:
        """All weights of the model, as best.pt keeps them. To be called by all processes."""
        if self.sharded:
            from vidtrain.engine.checkpoints.shards import full_weights

            with self.world.together():
                return dict(self.plain(full_weights(model)))
        return dict(self.plain(model.state_dict()))

    def save_best(self, content: dict[str, Any]) -> None:
        if self.world.is_main:
            self._save(self.best, {**self.describe, **content})

    def save_last(
        self, content: dict[str, Any], model: nn.Module, optimizer: torch.optim.Optimizer, ema: Average | None
    ) -> None:
        """Write last.pt; the one that was there becomes last.1.pt, and so on. To be called by all processes."""
        if self.sharded:
            self._save_sharded(content, model, optimizer, ema)
            return
        if not self.world.is_main:
            return
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "ema": ema and ema.state_dict()}
        self._save(self.last, {**self.describe, **content, **state}, before=self._shift)

    def _save(self, path: Path, content: dict[str, Any], before: Callable[[], None] | None = None) -> None:
        if self._background is None:
            save_checkpoint(path, content, before)
            return
        self.wait(path)  # two copies of one file are never in memory
        self._background.start(path.name, partial(save_checkpoint, path, copied(content), before))

    # ---------------------------------------------------------------- the thread that writes

    def check(self) -> None:
        """Raise the CheckpointError of a file that could not be written in the background."""
        if self._background is not None:
            self._background.check()

    def wait(self, path: Path | None = None) -> None:
        """Until the file at `path`, or all, are on the disk. Raises CheckpointError where one could not be written."""
        if self._background is not None:
            self._background.wait(None if path is None else path.name)

    @contextmanager
    def written(self) -> Iterator[None]:
        """At its end all is on the disk that was saved inside, whatever error ends it; an interrupt does not wait."""
        try:
            yield
        except Exception:
            if self._background is not None:
                # shards are written together, with processes that may be lost
                self._background.join(_PATIENCE if self.sharded else None)
            raise
        self.wait()

    # ---------------------------------------------------------------- last.pt

    def load_last(self) -> dict[str, Any] | None:
        """The newest that is whole; damaged ones are skipped with a warning. None where there is none at all.

        Raises:
            CheckpointError: all are damaged.
        """
        problem = None
        for file in self._lasts():
            try:
                content = load_checkpoint(file)
                self._check_shards(content)
            except CheckpointError as error:
                log.warning("%s; the one before it is taken", error)
                problem = error
                continue
            return content
        if problem is not None:
            raise problem
        return None

    def restore(
        self, content: dict[str, Any], model: nn.Module, optimizer: torch.optim.Optimizer, ema: Average | None
    ) -> None:
        """Put what `load_last` returned into the model, its optimizer and its average."""
        if bool(content.get("sharded")) != self.sharded:
            raise CheckpointError(
                f"{self.last}: saved with trainer.strategy={'fsdp or hsdp' if content.get('sharded') else 'ddp'} and "
                "several devices or one: continue it with the strategy it was saved with, and fsdp or hsdp with more "
                "than one device"
            )
        if ema is not None and content["ema"] is None:
            raise CheckpointError(
                f"{self.last}: saved without an average of the weights: continue with trainer.ema=null"
            )
        if self.sharded:
            from vidtrain.engine.checkpoints.shards import load_shards

            load_shards(self.folder / content["sharded"], model, optimizer, ema)
            if ema is not None:
                ema.updates = content["ema"]["updates"]
            return
        model.load_state_dict(content["model"])
        usual = [{key: type(value) for key, value in group.items()} for group in optimizer.param_groups]
        optimizer.load_state_dict(content["optimizer"])
        check_optimizer(optimizer, usual)
        match_layout(optimizer)
        if ema is not None:
            ema.load_state_dict(content["ema"])

    def _save_sharded(
        self, content: dict[str, Any], model: nn.Module, optimizer: torch.optim.Optimizer, ema: Average | None
    ) -> None:
        from vidtrain.engine.checkpoints.shards import SUFFIX, copied_parts, parts_of

        name = f"last.{content['progress']['update']}{SUFFIX}"
        average = None if ema is None else {"updates": ema.updates}
        own = {**self.describe, **content, "model": {}, "ema": average, "sharded": name}
        if self._background is None:
            self._write_sharded(own, parts_of(model, optimizer, ema))
            return
        self.wait(self.last)
        parts = copied_parts(parts_of(model, optimizer, ema))
        self._background.start(self.last.name, partial(self._write_sharded, copied(own), parts))

    def _write_sharded(self, content: dict[str, Any], parts: dict[str, Any]) -> None:
        from vidtrain.engine.checkpoints.shards import SUFFIX, save_shards

        sums = save_shards(self.folder / content["sharded"], parts, self._aside)
        if not self.world.is_main:
            return
        save_checkpoint(self.last, {**content, "shards": sums}, before=self._shift)
        used = {load_checkpoint(file).get("sharded") for file in self._lasts()}
        cut_off = self.folder.glob(f".last.*{SUFFIX}.tmp")  # by a kill while they were written
        for folder in (*self.folder.glob(f"last.*{SUFFIX}"), *cut_off):
            if folder.name not in used:
                shutil.rmtree(folder, ignore_errors=True)

    def _check_shards(self, content: dict[str, Any]) -> None:
        if self.sharded and content.get("sharded"):
            from vidtrain.engine.checkpoints.shards import check_shards

            check_shards(self.folder / content["sharded"], content.get("shards"), self.world)

    def _lasts(self) -> list[Path]:
        """Those that are there, the newest first."""
        numbered = [self.folder / f"last.{number}.pt" for number in range(1, 100)]
        return [file for file in (self.last, *numbered) if file.is_file()]

    def _shift(self) -> None:
        """Make room for a new last.pt without a moment in which there is none."""
        for number in range(self.keep_last - 1, 0, -1):
            newer = self.last if number == 1 else self.folder / f"last.{number - 1}.pt"
            older = self.folder / f"last.{number}.pt"
            if not newer.is_file():
                continue
            if number > 1:
                newer.replace(older)
                continue
            link = self.folder / f".last.{os.getpid()}.tmp"
            link.unlink(missing_ok=True)
            try:
                os.link(newer, link)
            except OSError:  # a file system without links
                newer.replace(older)
            else:
                link.replace(older)


def _reason(error: BaseException) -> str:
    cause = error if isinstance(error, OSError) else error.__context__
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    return str(error).split("\n", 1)[0]

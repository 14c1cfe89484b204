"""A folder of made videos: written once, found again, whichever process comes first."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar, Protocol

import av
from tqdm import tqdm

from vidtrain.child_python_path import processors
from vidtrain.data.motion.scene import Yuv420
from vidtrain.errors import DataError
from vidtrain.runs.atomic import whole_file
from vidtrain.untrusted_data import read_json

FPS = 16

_QUANTISER = "24"
_STALE_SECONDS = 600.0  # an unfinished folder that nobody has touched for so long belongs to a killed run


class FolderRecipe(Protocol):
    """All that the files depend on; a dataclass. folder: a name of its own for each recipe."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def folder(self) -> str: ...


def made_folder(root: Path, recipe: FolderRecipe, make: Callable[[Path], None]) -> Path:
    """The folder of a recipe below `root`, made on first use.

    Each set of parameters has a folder of its own, so that a sweep over them, even in parallel, neither remakes nor
    replaces what another run reads. Nothing but our own unfinished work is ever deleted.

    Args:
        make: writes the files to a folder that it is given.

    Raises:
        DataError: `root` holds something else.
    """
    folder = root / recipe.folder
    if not _is_made(folder, recipe):
        _refuse_foreign(root)
        _make_once(folder, recipe, make)
    return folder


def existing_folder(root: Path, recipe: FolderRecipe) -> Path:
    """As `made_folder`, but writes nothing: for options out of a file, which may say where and how much to write.

    Raises:
        DataError: the dataset is not there.
    """
    folder = root / recipe.folder
    if not _is_made(folder, recipe):
        raise DataError(
            f"{folder}: the motion data of the checkpoint are not there, and a checkpoint makes no files: give "
            "data=motion with its options yourself, which makes them, or data.root=FOLDER where they are"
        )
    return folder


def _is_made(folder: Path, recipe: FolderRecipe) -> bool:
    """Whether these files are there. A folder gets its final name when it is complete."""
    if not folder.exists():
        return False
    with contextlib.suppress(OSError, ValueError):
        if read_json(folder / "motion.json") == asdict(recipe):
            return True
    raise DataError(f"{folder}: was not made by motion data; remove it, or change data.root")


def _refuse_foreign(root: Path) -> None:
    if root.exists() and not root.is_dir():
        raise DataError(f"{root}: is a file, expected a folder for motion data; change data.root")
    names = sorted(entry.name for entry in root.iterdir()) if root.exists() else []
    ours = any(name.startswith(".making-") or (root / name / "motion.json").exists() for name in names)
    theirs = [name for name in names if not name.startswith(".")]
    if theirs and not ours:
        raise DataError(f"{root}: holds other files ({theirs[0]}); set data.root to a new or empty folder")


def _make_once(folder: Path, recipe: FolderRecipe, make: Callable[[Path], None]) -> None:
    """Write beside the final place, then rename: a killed run leaves nothing under that name."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    for old in folder.parent.glob(".making-*"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - old.stat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(old, ignore_errors=True)
    making = folder.parent / f".making-{uuid.uuid4().hex}"
    try:
        make(making)
        try:
            making.rename(folder)
        except OSError:
            if not _is_made(folder, recipe):  # True: another process was first, and its files equal ours
                raise
    finally:
        shutil.rmtree(making, ignore_errors=True)


def in_threads(folder: Path, recipe: FolderRecipe, jobs: Iterable[Callable[[], None]], unit: str) -> None:
    """Do the jobs that write the files of a folder, and then motion.json, by which it is known to be complete.

    In threads, since numpy and the encoder let go of the GIL and a script without a __main__ guard works, too.
    """
    pool = ThreadPoolExecutor(min(8, processors()))
    try:
        waiting = [pool.submit(job) for job in jobs]
        for job in tqdm(as_completed(waiting), "making motion data", len(waiting), unit=unit, delay=1.0, disable=None):
            job.result()
            os.utime(folder)  # a sign of life to other processes, see _STALE_SECONDS
    finally:
        pool.shutdown(cancel_futures=True)
    with whole_file(folder / "motion.json", "w", encoding="utf-8") as file:
        file.write(json.dumps(asdict(recipe), indent=1) + "\n")


def encode(path: Path, images: Yuv420) -> None:
    """Write frames, uint8 (T, 3 * H / 2, W), as H.264 with intra frames only: see motion.py for why."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = images.shape[2], images.shape[1] * 2 // 3, "yuv420p"
        stream.thread_count = 1  # the same bytes on any machine
        # a fixed quantiser, not crf: its rate control remembers earlier frames
        stream.options = {"preset": "superfast", "tune": "zerolatency", "qp": _QUANTISER, "g": "1"}
        for number, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format="yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())

"""The built-in dataset: shapes that move, turn and grow. Only the order of the frames distinguishes the classes.

Eight classes in four pairs; each class of a pair is the other one played backwards. The rules that make it so:

* Four attributes of a shape, x, y, angle and size, are phases on a circle. In a video one of them advances at
  a constant speed, the other three stand still, and all four start at independent uniform phases. A uniform
  phase plus any constant is a uniform phase, so every frame of every class, at every time, has exactly the same
  law: a net that sees one frame cannot beat 1 in 8.
* The frames are stationary in time, so an evenly spaced clip played backwards is a clip of the other class of
  the pair, wherever it was cut: a net that is blind to the order of frames cannot beat 1 in 2.
* x and y wrap around the frame. The size wraps like a Shepard tone: a large shape fades out while a small copy
  of it fades in at its centre.
* Each scene (textures, outline, colours) is rendered in all eight classes, and no scene is in two splits.
* H.264 with intra frames only and one fixed quantiser: a decoded frame depends on nothing but that frame, so
  the codec tells neither the direction of time nor the kind of motion. The two files of a pair decode to the
  same frames, bit for bit.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
import uuid
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from tqdm import tqdm

from vidtrain.children import processors
from vidtrain.data.manifest.manifest import Manifest, VideoData
from vidtrain.data.motion.scene import scene_clips
from vidtrain.errors import DataError
from vidtrain.plain import read_json
from vidtrain.ranges import takes
from vidtrain.runs.atomic import whole_file

CLASSES = ("move_left", "move_right", "move_up", "move_down", "turn_cw", "turn_ccw", "grow", "shrink")
FLIP_PAIRS = (("move_left", "move_right"), ("turn_cw", "turn_ccw"))
# (as rendered, played backwards), in the order of the attributes x, y, angle, size
PAIRS = (("move_right", "move_left"), ("move_down", "move_up"), ("turn_cw", "turn_ccw"), ("grow", "shrink"))
SPLITS = ("train", "val", "test")
FPS = 16

_VERSION = 1  # of the pictures: raise it when they change, so that old files are not taken for new ones
_QUANTISER = "24"
_STALE_SECONDS = 600.0  # an unfinished folder that nobody has touched for so long belongs to a killed run


@dataclass(frozen=True)
class Recipe:
    """All that the files depend on.

    seed: of textures, outlines, colours, positions and speeds. Same seed, same files.
    train_scenes, val_scenes, test_scenes: scenes of each split; each gives 8 videos, one per class.
    size: side of the square frames in pixels. num_frames: of a video, at 16 frames per second.
    """

    seed: int = 0
    train_scenes: int = 64
    val_scenes: int = 8
    test_scenes: int = 40
    size: int = 112
    num_frames: int = 40
    version: int = field(default=_VERSION, init=False)

    def __post_init__(self) -> None:
        for key in ("train_scenes", "val_scenes", "test_scenes"):
            self._check(key, getattr(self, key) >= 1, "1 or more")
        self._check("seed", self.seed >= 0, "0 or more")
        self._check("size", self.size >= 32 and self.size % 2 == 0, "an even number of pixels, 32 or more")
        self._check("num_frames", self.num_frames >= 2, "2 or more")

    def _check(self, key: str, fine: bool, expected: str) -> None:
        if not fine:
            raise DataError(f"motion data: {key}={getattr(self, key)}: expected {expected}")

    @property
    def scenes(self) -> dict[str, int]:
        return {"train": self.train_scenes, "val": self.val_scenes, "test": self.test_scenes}

    @property
    def folder(self) -> str:
        scenes = "-".join(str(count) for count in self.scenes.values())
        return f"v{self.version}_seed{self.seed}_scenes{scenes}_{self.size}px_{self.num_frames}f"


@takes(Recipe)
def motion(root: str | Path, **options: Any) -> VideoData:
    """The built-in dataset, made on first use.

    Each set of parameters has a folder of its own below `root`, so that a sweep over them, even in parallel,
    neither remakes nor replaces what another run reads. Nothing but our own unfinished work is ever deleted.

    Args:
        root: folder for the files; absent, empty, or one that this function has written to.
        options: those of Recipe.

    Returns:
        Splits train, val and test of 8 * scenes videos: <root>/<parameters>/<split>/<class>/<scene>.mp4

    Raises:
        DataError: `root` holds something else, or a parameter is out of range.
    """
    recipe = Recipe(**options)
    folder = Path(root) / recipe.folder
    if not _is_made(folder, recipe):
        _refuse_foreign(Path(root))
        _make_once(folder, recipe)
    return _data(folder, recipe)


@takes(Recipe)
def existing_motion(root: str | Path, **options: Any) -> VideoData:
    """As `motion`, but writes nothing: for options out of a file, which may say where and how much to write.

    Raises:
        DataError: the dataset is not there.
    """
    recipe = Recipe(**options)
    folder = Path(root) / recipe.folder
    if not _is_made(folder, recipe):
        raise DataError(
            f"{folder}: the motion data of the checkpoint are not there, and a checkpoint makes no files: give "
            "data=motion with its options yourself, which makes them, or data.root=FOLDER where they are"
        )
    return _data(folder, recipe)


def _data(folder: Path, recipe: Recipe) -> VideoData:
    return VideoData(CLASSES, {split: _manifest(folder, recipe, split) for split in SPLITS}, FLIP_PAIRS)


def _manifest(folder: Path, recipe: Recipe, split: str) -> Manifest:
    scenes = range(recipe.scenes[split])
    paths = [str(_file(folder, split, name, scene)) for name in CLASSES for scene in scenes]
    return Manifest.of(paths, [label for label in range(len(CLASSES)) for _ in scenes])


def _file(folder: Path, split: str, name: str, scene: int) -> Path:
    return folder / split / name / f"{scene:05d}.mp4"


def _is_made(folder: Path, recipe: Recipe) -> bool:
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


def _make_once(folder: Path, recipe: Recipe) -> None:
    """Write beside the final place, then rename: a killed run leaves nothing under that name."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    for old in folder.parent.glob(".making-*"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - old.stat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(old, ignore_errors=True)
    making = folder.parent / f".making-{uuid.uuid4().hex}"
    try:
        make_motion(making, recipe)
        try:
            making.rename(folder)
        except OSError:
            if not _is_made(folder, recipe):  # True: another process was first, and its files equal ours
                raise
    finally:
        shutil.rmtree(making, ignore_errors=True)


def make_motion(folder: Path, recipe: Recipe) -> None:
    """Write the files to <folder>/<split>/<class>/<scene>.mp4, and motion.json last."""
    for split in SPLITS:
        for name in CLASSES:
            (folder / split / name).mkdir(parents=True, exist_ok=True)
    # threads, since numpy and the encoder let go of the GIL and a script without a __main__ guard works, too
    pool = ThreadPoolExecutor(min(8, processors()))
    try:
        jobs = [
            pool.submit(_write_scene, folder, recipe, split, scene)
            for split, count in recipe.scenes.items()
            for scene in range(count)
        ]
        for job in tqdm(as_completed(jobs), "making motion data", len(jobs), unit="scene", delay=1.0, disable=None):
            job.result()
            os.utime(folder)  # a sign of life to other processes, see _STALE_SECONDS
    finally:
        pool.shutdown(cancel_futures=True)
    with whole_file(folder / "motion.json", "w", encoding="utf-8") as file:
        file.write(json.dumps(asdict(recipe), indent=1) + "\n")


def _write_scene(folder: Path, recipe: Recipe, split: str, scene: int) -> None:
    clips = scene_clips((recipe.seed, SPLITS.index(split), scene), recipe.size, recipe.num_frames)
    for (name, reverse), clip in zip(PAIRS, clips, strict=True):
        pictures = [av.VideoFrame.from_ndarray(picture, format="yuv420p") for picture in clip]
        _encode(_file(folder, split, name, scene), pictures)
        _encode(_file(folder, split, reverse, scene), pictures[::-1])


def _encode(path: Path, pictures: list[av.VideoFrame]) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = pictures[0].width, pictures[0].height, "yuv420p"
        stream.thread_count = 1  # the same bytes on any machine
        # a fixed quantiser, not crf: its rate control remembers earlier frames
        stream.options = {"preset": "superfast", "tune": "zerolatency", "qp": _QUANTISER, "g": "1"}
        for number, picture in enumerate(pictures):
            picture.pts, picture.time_base = number, Fraction(1, FPS)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())

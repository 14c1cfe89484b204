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

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from vidtrain.data.manifest.manifest import SPLITS, Manifest, VideoData
from vidtrain.data.motion.rendered_folder import encode, existing_folder, in_threads, made_folder
from vidtrain.data.motion.scene import scene_clips
from vidtrain.errors import DataError
from vidtrain.ranges import takes

CLASSES = ("move_left", "move_right", "move_up", "move_down", "turn_cw", "turn_ccw", "grow", "shrink")
FLIP_PAIRS = (("move_left", "move_right"), ("turn_cw", "turn_ccw"))
# (as rendered, played backwards), in the order of the attributes x, y, angle, size
PAIRS = (("move_right", "move_left"), ("move_down", "move_up"), ("turn_cw", "turn_ccw"), ("grow", "shrink"))

_VERSION = 1  # of the frames: raise it when they change, so that old files are not taken for new ones


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
    """The built-in dataset, made on first use, see `made_folder`.

    Args:
        root: folder for the files; absent, empty, or one that this function has written to.
        options: those of Recipe.

    Returns:
        Splits train, val and test of 8 * scenes videos: <root>/<parameters>/<split>/<class>/<scene>.mp4

    Raises:
        DataError: `root` holds something else, or a parameter is out of range.
    """
    recipe = Recipe(**options)
    return _data(made_folder(Path(root), recipe, partial(make_motion, recipe=recipe)), recipe)


@takes(Recipe)
def existing_motion(root: str | Path, **options: Any) -> VideoData:
    """As `motion`, but writes nothing, see `existing_folder`."""
    recipe = Recipe(**options)
    return _data(existing_folder(Path(root), recipe), recipe)


def _data(folder: Path, recipe: Recipe) -> VideoData:
    return VideoData(CLASSES, {split: _manifest(folder, recipe, split) for split in SPLITS}, FLIP_PAIRS)


def _manifest(folder: Path, recipe: Recipe, split: str) -> Manifest:
    scenes = range(recipe.scenes[split])
    paths = [str(_file(folder, split, name, scene)) for name in CLASSES for scene in scenes]
    return Manifest.of(paths, [label for label in range(len(CLASSES)) for _ in scenes])


def _file(folder: Path, split: str, name: str, scene: int) -> Path:
    return folder / split / name / f"{scene:05d}.mp4"


def make_motion(folder: Path, recipe: Recipe) -> None:
    """Write the files to <folder>/<split>/<class>/<scene>.mp4, and motion.json last."""
    for split in SPLITS:
        for name in CLASSES:
            (folder / split / name).mkdir(parents=True, exist_ok=True)
    scenes = [(split, scene) for split, count in recipe.scenes.items() for scene in range(count)]
    in_threads(folder, recipe, [partial(_write_scene, folder, recipe, *scene) for scene in scenes], "scene")


def _write_scene(folder: Path, recipe: Recipe, split: str, scene: int) -> None:
    clips = scene_clips((recipe.seed, SPLITS.index(split), scene), recipe.size, recipe.num_frames)
    for (name, reverse), clip in zip(PAIRS, clips, strict=True):
        encode(_file(folder, split, name, scene), clip)
        encode(_file(folder, split, reverse, scene), clip[::-1])

"""Untrimmed videos from the scenes of `motion`: what happens in them, when, and long stretches of nothing.

The benchmark for segments. A shape moves, turns or grows for a while, rests, does something else; its phases go on from
where they were, so no frame tells what happens at it. While it rests the scene may be cut to another one: a change that
is no class. The times of all segments are known to the frame.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from vidtrain.data.manifest.manifest import SPLITS, Manifest, VideoData
from vidtrain.data.motion.motion import CLASSES, FLIP_PAIRS, PAIRS
from vidtrain.data.motion.rendered_folder import FPS, encode, existing_folder, in_threads, made_folder
from vidtrain.data.motion.scene import SPEEDS, Scene, Yuv420, draw_scene, render
from vidtrain.errors import DataError
from vidtrain.ranges import takes

_VERSION: Final = 1  # of the frames: raise it when they change, so that old files are not taken for new ones
_ACTIVE: Final = (1.5, 4.5)  # seconds of a segment
_STILL: Final = (0.75, 3.0)  # seconds of rest
_NO_REST: Final = 0.25  # chance that the next segment follows at once
_NEW_SCENE: Final = 0.3  # chance of a cut to another scene while the shape rests


@dataclass(frozen=True)
class LongRecipe:
    """All that the files depend on.

    seed: of textures, outlines, colours, positions, speeds and times. Same seed, same files.
    train_videos, val_videos, test_videos: videos of each split. seconds: of a video, at 16 frames per second.
    size: side of the square frames in pixels.
    """

    seed: int = 0
    train_videos: int = 24
    val_videos: int = 8
    test_videos: int = 24
    seconds: int = 40
    size: int = 112
    version: int = field(default=_VERSION, init=False)

    def __post_init__(self) -> None:
        for key, fine, expected in (
            *((key, getattr(self, key) >= 1, "1 or more") for key in ("train_videos", "val_videos", "test_videos")),
            ("seed", self.seed >= 0, "0 or more"),
            ("seconds", 8 <= self.seconds <= 600, "8 to 600"),
            ("size", self.size >= 32 and self.size % 2 == 0, "an even number of pixels, 32 or more"),
        ):
            if not fine:
                raise DataError(f"motion_long: {key}={getattr(self, key)}: expected {expected}")

    @property
    def videos(self) -> dict[str, int]:
        return {"train": self.train_videos, "val": self.val_videos, "test": self.test_videos}

    @property
    def folder(self) -> str:
        counts = "-".join(str(count) for count in self.videos.values())
        return f"long_v{self.version}_seed{self.seed}_videos{counts}_{self.size}px_{self.seconds}s"


@dataclass(frozen=True)
class Event:
    """Frames [start, stop) of a video. label: class number, None where the shape rests. cut: a new scene begins."""

    start: int
    stop: int
    label: int | None
    cut: bool = False


@takes(LongRecipe)
def motion_long(root: str | Path, **options: Any) -> VideoData:
    """The built-in dataset of untrimmed videos, made on first use, see `made_folder`.

    Args:
        root: folder for the files; absent, empty, or one that this function or `motion` has written to.
        options: those of LongRecipe.

    Returns:
        A row per segment, with its start and end in seconds: <root>/<parameters>/<split>/<video>.mp4

    Raises:
        DataError: `root` holds something else, or a parameter is out of range.
    """
    recipe = LongRecipe(**options)
    return _data(made_folder(Path(root), recipe, partial(_make, recipe=recipe)), recipe)


@takes(LongRecipe)
def existing_motion_long(root: str | Path, **options: Any) -> VideoData:
    """As `motion_long`, but writes nothing, see `existing_folder`."""
    recipe = LongRecipe(**options)
    return _data(existing_folder(Path(root), recipe), recipe)


def _data(folder: Path, recipe: LongRecipe) -> VideoData:
    splits = {}
    for split, count in recipe.videos.items():
        rows = [
            (str(_file(folder, split, number)), event)
            for number in range(count)
            for event in events(recipe, split, number)
            if event.label is not None
        ]
        whole = Manifest.of((path for path, _ in rows), (event.label or 0 for _, event in rows))
        starts, ends = (np.array([getattr(event, key) / FPS for _, event in rows]) for key in ("start", "stop"))
        splits[split] = Manifest(whole.paths, whole.labels, starts, ends)
    return VideoData(CLASSES, splits, FLIP_PAIRS)


def events(recipe: LongRecipe, split: str, number: int) -> list[Event]:
    """What happens in a video, from its first frame to its last; two segments of one class never touch."""
    rng = _generator(recipe, split, number, 0)
    end, at, last = recipe.seconds * FPS, 0, -1
    found: list[Event] = []
    while True:
        rest = 0 if found and rng.random() < _NO_REST else round(rng.uniform(*_STILL) * FPS)
        label = int(rng.choice([label for label in range(len(CLASSES)) if label != last]))
        begin, cut = at + rest, bool(found) and rng.random() < _NEW_SCENE
        stop = begin + round(rng.uniform(*_ACTIVE) * FPS)
        if stop > end:
            break
        if rest:
            found.append(Event(at, begin, None, cut))
        found.append(Event(begin, stop, label))
        at, last = stop, label
    return [*found, Event(at, end, None)] if at < end else found


def _make(folder: Path, recipe: LongRecipe) -> None:
    for split in SPLITS:
        (folder / split).mkdir(parents=True, exist_ok=True)
    videos = [(split, number) for split, count in recipe.videos.items() for number in range(count)]
    in_threads(folder, recipe, [partial(_write, folder, recipe, *video) for video in videos], "video")


def _write(folder: Path, recipe: LongRecipe, split: str, number: int) -> None:
    encode(_file(folder, split, number), np.concatenate(list(_frames(recipe, split, number))))


def _frames(recipe: LongRecipe, split: str, number: int) -> Iterator[Yuv420]:
    rng = _generator(recipe, split, number, 1)
    scene, phases = draw_scene(rng, recipe.size), rng.uniform(size=4)
    for event in events(recipe, split, number):
        if event.cut:  # in the middle of the rest
            half = (event.stop - event.start) // 2
            yield _still(scene, phases, half)
            scene, phases = draw_scene(rng, recipe.size), rng.uniform(size=4)
            yield _still(scene, phases, event.stop - event.start - half)
        elif event.label is None:
            yield _still(scene, phases, event.stop - event.start)
        else:
            moving, forwards = _motion_of(event.label)
            path = np.tile(phases, (event.stop - event.start, 1))
            step = rng.uniform(*SPEEDS[moving]) * (1 if forwards else -1)
            path[:, moving] += step * np.arange(1, len(path) + 1)
            phases = path[-1]
            yield render(scene, path % 1.0)


def _still(scene: Scene, phases: np.ndarray[Any, np.dtype[np.float64]], count: int) -> Yuv420:
    frame = render(scene, phases[None] % 1.0)
    return np.repeat(frame, count, axis=0)


def _motion_of(label: int) -> tuple[int, bool]:
    """The attribute that changes, and whether it grows."""
    return next((n, CLASSES[label] == pair[0]) for n, pair in enumerate(PAIRS) if CLASSES[label] in pair)


def _generator(recipe: LongRecipe, split: str, number: int, use: int) -> np.random.Generator:
    return np.random.default_rng((recipe.seed, SPLITS.index(split), number, use, 1))


def _file(folder: Path, split: str, number: int) -> Path:
    return folder / split / f"{number:05d}.mp4"

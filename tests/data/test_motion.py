from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest

from vidtrain.data.manifest.manifest import VideoData
from vidtrain.data.motion.motion import CLASSES, FLIP_PAIRS, PAIRS, Recipe, make_motion, motion
from vidtrain.data.motion.rendered_folder import encode
from vidtrain.data.motion.scene import draw_scene, render, scene_clips
from vidtrain.errors import DataError

SMALL = {"train_scenes": 1, "val_scenes": 1, "test_scenes": 1, "size": 32, "num_frames": 4}


def decode(path: str | Path) -> npt.NDArray[np.uint8]:
    """Luma (T, H, W)."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="gray") for frame in container.decode(video=0)])


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> VideoData:
    root = tmp_path_factory.mktemp("motion") / "data"
    return motion(root, train_scenes=3, val_scenes=1, test_scenes=2, size=64, num_frames=16)


# ---------------------------------------------------------------- what is in it


def test_splits_classes_and_files(data: VideoData) -> None:
    assert data.class_names == CLASSES
    assert set(sum(data.flip_pairs, ())) < set(CLASSES)
    assert {s: Counter(m.labels.tolist()) for s, m in data.splits.items()} == {
        "train": dict.fromkeys(range(8), 3),
        "val": dict.fromkeys(range(8), 1),
        "test": dict.fromkeys(range(8), 2),
    }
    for split, manifest in data.splits.items():
        for path, label in zip(manifest.paths, manifest.labels, strict=True):
            assert Path(path).parts[-3:-1] == (split, CLASSES[label])
    with av.open(data.splits["test"].paths[0]) as container:
        stream = container.streams.video[0]
        assert (stream.codec.name, stream.width, stream.height, stream.average_rate) == ("h264", 64, 64, 16)
        assert len(list(container.decode(stream))) == 16


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        make_motion(tmp_path / name, Recipe(seed=seed, **SMALL))
    one, two, other = (files(tmp_path / name) for name in "abc")
    assert len(one) == 3 * 8 + 1
    assert one == two
    assert not set(one.values()) & set(other.values())


def test_no_scene_is_there_twice(data: VideoData) -> None:
    frames = [decode(path)[0] for m in data.splits.values() for path in m.paths if "move_right" in path]
    assert len({frame.tobytes() for frame in frames}) == 6


# ---------------------------------------------------------------- only the order of frames tells the class


def test_a_clip_played_backwards_is_its_twin(data: VideoData) -> None:
    for manifest in data.splits.values():
        for path in manifest.paths:
            for one, other in PAIRS:
                if f"/{one}/" in path:
                    backwards = decode(path.replace(f"/{one}/", f"/{other}/"))[::-1]
                    # bit for bit: each frame is coded by itself with a fixed quantiser
                    assert np.array_equal(decode(path), backwards)
                    assert not np.array_equal(decode(path), backwards[::-1])


def test_files_hold_what_was_rendered(data: VideoData) -> None:
    for (name, _), rendered in zip(PAIRS, scene_clips((0, 0, 0), 64, 16), strict=True):
        path = next(path for path in data.splits["train"].paths if f"/{name}/" in path)
        full_range = (rendered[:, :64].astype(float) - 16) * 255 / 219
        assert np.abs(decode(path) - full_range).mean() < 3  # quantiser 24


def test_a_coded_frame_does_not_know_its_neighbours(tmp_path: Path) -> None:
    clip = next(scene_clips((5, 0, 0), 64, 8))
    order = np.random.default_rng(0).permutation(8)
    for name, frames in (("a", clip), ("b", clip[order])):
        encode(tmp_path / f"{name}.mp4", frames)
    assert np.array_equal(decode(tmp_path / "b.mp4"), decode(tmp_path / "a.mp4")[order])


@pytest.mark.parametrize("size", [32, 112])
def test_a_frame_depends_on_its_own_phases_alone(size: int) -> None:
    rng = np.random.default_rng(3)
    scene, phases = draw_scene(rng, size), rng.uniform(size=(20, 4))
    together = render(scene, phases)
    assert np.array_equal(together, np.concatenate([render(scene, phases[n : n + 1]) for n in range(20)]))
    assert np.array_equal(together, render(scene, phases[::-1])[::-1])


Clips = Callable[[int], list[npt.NDArray[np.uint8]]]


SCENES = 50


def leak(clips_of: Clips, when: int) -> float:
    """Chance that frame `when` of the clips would differ so much between classes if it did not depend on them.

    For each scene one clip of each pair is taken, forwards or backwards by chance, since the two have frames in
    common. If a frame tells nothing of the class, the labels within a scene can be exchanged; the spread of the
    class means of coarse pixels is compared with that under 400 such exchanges.
    """
    rng = np.random.default_rng(7)
    features, labels = [], []
    for scene in range(SCENES):
        for pair, clip in enumerate(clips_of(scene)):
            backwards = int(rng.integers(2))
            luma = clip[-1 - when if backwards else when, :32].astype(np.float64)
            features.append(luma.reshape(8, 4, 8, 4).mean(axis=(1, 3)).ravel())
            labels.append(2 * pair + backwards)
    pixels, truth = np.array(features), np.array(labels)
    pixels = pixels.reshape(SCENES, 4, -1) - pixels.reshape(SCENES, 4, -1).mean(axis=1, keepdims=True)  # less the scene
    pixels = np.abs(pixels.reshape(4 * SCENES, -1))  # where the shape is, whether it is light or dark

    def spread(labels: npt.NDArray[np.int64]) -> float:
        means = np.eye(8)[labels].T @ pixels / np.maximum(np.bincount(labels, minlength=8), 1)[:, None]
        return float(means.var(axis=0).sum())

    seen = spread(truth)
    exchanged = [spread(rng.permuted(truth.reshape(SCENES, 4), axis=1).ravel()) for _ in range(400)]
    return float(np.mean([value >= seen for value in exchanged]))


def bounded_clips(scene: int) -> list[npt.NDArray[np.uint8]]:
    """The obvious rule instead of ours: no wrapping, a moving shape crosses the frame, a still one is anywhere."""
    rng = np.random.default_rng((1, scene))
    appearance = draw_scene(rng, 32)
    phases = np.tile(rng.uniform(size=(4, 1, 4)), (1, 8, 1))
    for moving in range(4):
        phases[moving, :, moving] = rng.uniform(0.0, 0.3) + np.linspace(0, 0.7, 8)
    return [render(appearance, p % 1.0) for p in phases]


@pytest.mark.parametrize("when", [0, pytest.param(3, marks=pytest.mark.slow)])
def test_a_single_frame_does_not_tell_the_class(when: int) -> None:
    assert leak(lambda scene: list(scene_clips((11, 0, scene), 32, 4)), when) > 0.01


def test_a_leak_would_be_seen() -> None:
    assert leak(bounded_clips, 0) < 0.01


# ---------------------------------------------------------------- the motion is what the class says


def test_phases_move_the_shape() -> None:
    scene = draw_scene(np.random.default_rng(0), 64)
    scene = replace(scene, background=np.full_like(scene.background, 128))

    def luma(**phases: float) -> npt.NDArray[np.int64]:
        row = {"x": 0.5, "y": 0.5, "angle": 0.1, "size": 0.4, **phases}
        return render(scene, np.array([[row["x"], row["y"], row["angle"], row["size"]]]))[0, :64].astype(np.int64)

    still = luma()
    assert np.array_equal(luma(x=0.75), np.roll(still, 16, axis=1))
    assert np.array_equal(luma(x=0.0), np.roll(still, -32, axis=1))  # around the border
    assert np.array_equal(luma(y=0.75), np.roll(still, 16, axis=0))
    clockwise, counter = np.rot90(still, -1), np.rot90(still)
    # the shape is looked up at the nearest point of a table, so not to the bit
    assert np.abs(luma(angle=0.35) - clockwise).mean() < 1 < np.abs(luma(angle=0.35) - counter).mean()
    areas = [(luma(size=size) != 128).sum() for size in (0.0, 0.2, 0.4, 0.6)]
    assert areas == sorted(areas)
    assert areas[-1] > 2 * areas[0]
    assert np.abs(luma(size=0.9999) - luma(size=0.0)).mean() < 0.1  # no jump where the size begins again


@pytest.mark.parametrize(
    ("name", "axis", "sign"), [("move_left", 2, -1), ("move_right", 2, 1), ("move_up", 1, -1), ("move_down", 1, 1)]
)
def test_files_move_as_their_class_says(data: VideoData, name: str, axis: int, sign: int) -> None:
    for path in data.splits["train"].paths:
        if f"/{name}/" not in path:
            continue
        video = decode(path).astype(float)
        changes = np.abs(np.diff(video, axis=0)).sum(axis=3 - axis)  # (T - 1, 64): where something moves
        around = np.exp(2j * np.pi * np.arange(64) / 64)
        angles = np.unwrap(np.angle(changes @ around))
        travelled = (angles[-1] - angles[0]) / (2 * np.pi)
        # 14 steps of 0.013 to 0.027 of the frame
        assert 0.15 < sign * travelled < 0.42


def test_pairs_cover_the_classes() -> None:
    assert sorted(sum(PAIRS, ())) == sorted(CLASSES)
    assert set(FLIP_PAIRS) <= {tuple(sorted(pair, key=CLASSES.index)) for pair in PAIRS}


# ---------------------------------------------------------------- files on disk


SCRIPT = """
import sys
from vidtrain.data.motion.motion import motion
motion(sys.argv[1], train_scenes=int(sys.argv[2]), val_scenes=1, test_scenes=1, size=32, num_frames=16)
"""


def start(root: Path, scenes: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", SCRIPT, str(root), str(scenes)], stderr=subprocess.DEVNULL)


def test_a_killed_run_leaves_nothing_that_passes_for_complete(tmp_path: Path) -> None:
    process = start(tmp_path, 2000)
    try:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob(".making-*/train/*/*.mp4")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".making-")
    data = motion(tmp_path, **SMALL)
    assert all(len(decode(path)) == 4 for m in data.splits.values() for path in m.paths)
    assert left.exists()  # it might belong to a run that is alive
    os.utime(left, (time.time() - 3600,) * 2)
    motion(tmp_path, **{**SMALL, "seed": 1})
    assert not left.exists()


def test_two_processes_at_once(tmp_path: Path) -> None:
    processes = [start(tmp_path / "data", 4) for _ in range(2)]
    assert [process.wait(timeout=60) for process in processes] == [0, 0]
    (made,) = (tmp_path / "data").iterdir()
    assert len(files(made)) == 8 * (4 + 1 + 1) + 1


def test_an_interrupted_run_cleans_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("vidtrain.data.motion.motion.encode", interrupt)
    with pytest.raises(KeyboardInterrupt):
        motion(tmp_path, **SMALL)
    assert not list(tmp_path.iterdir())


def test_it_is_made_once(tmp_path: Path) -> None:
    before = motion(tmp_path, **SMALL)
    times = {path: Path(path).stat().st_mtime_ns for path in before.splits["train"].paths}
    after = motion(tmp_path, **SMALL)
    assert {path: Path(path).stat().st_mtime_ns for path in after.splits["train"].paths} == times


def test_other_parameters_get_files_of_their_own(tmp_path: Path) -> None:
    first = motion(tmp_path, **SMALL)
    second = motion(tmp_path, **{**SMALL, "size": 48})
    assert decode(first.splits["val"].paths[0]).shape == (4, 32, 32)
    assert decode(second.splits["val"].paths[0]).shape == (4, 48, 48)
    stored = json.loads((Path(second.splits["val"].paths[0]).parents[2] / "motion.json").read_text())
    assert {key: stored[key] for key in SMALL} == {**SMALL, "size": 48}


def test_foreign_folders_are_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "holiday.mp4").write_bytes(b"mine")
    with pytest.raises(DataError, match=r"holds other files \(holiday.mp4\); set data.root to a new or empty folder"):
        motion(tmp_path, **SMALL)
    assert files(tmp_path) == {"holiday.mp4": b"mine"}
    with pytest.raises(DataError, match="is a file, expected a folder"):
        motion(tmp_path / "holiday.mp4", **SMALL)
    made = Path(motion(tmp_path / "new", **SMALL).splits["train"].paths[0]).parents[2]
    for content in ('{"seed": 5}', "not json", "[]"):
        (made / "motion.json").write_text(content)
        with pytest.raises(DataError, match="was not made by motion data; remove it, or change"):
            motion(tmp_path / "new", **SMALL)
    assert len(files(made)) == 25


@pytest.mark.parametrize(
    ("key", "value"),
    [("seed", -1), ("train_scenes", 0), ("test_scenes", -2), ("size", 33), ("size", 16), ("num_frames", 1)],
)
def test_parameters_out_of_range(tmp_path: Path, key: str, value: int) -> None:
    with pytest.raises(DataError, match=rf"motion data: {key}={value}: expected"):
        motion(tmp_path / "data", **{**SMALL, key: value})
    assert not (tmp_path / "data").exists()

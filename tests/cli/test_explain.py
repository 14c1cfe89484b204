"""vidtrain explain, and explain of a Predictor: the files, the numbers, the mistakes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import av
import numpy as np
import pytest

import vidtrain
from tests.cli.conftest import Call, error_line
from tests.videos import scene
from vidtrain.commands.explain import _folders
from vidtrain.errors import ConfigError
from vidtrain.explain.methods import MapOptions, Method
from vidtrain.reports.explanation import frame_scores, overlay
from vidtrain.tasks.classification.calibration import Calibration

FILES = {"strip.png", "overlay.mp4", "map.npy", "explanation.json"}


@pytest.fixture(scope="module")
def videos(trained: Path, tiny: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two videos with one name, in two folders, and a third."""
    folder = tmp_path_factory.mktemp("videos")
    root = Path(next(o for o in tiny if o.startswith("data.root=")).removeprefix("data.root="))
    files = sorted(root.rglob("test/**/*.mp4"))
    for name, file in zip(("a/clip.mp4", "b/clip.mp4", "other.mp4"), files, strict=False):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(file, folder / name)
    return folder


def test_what_it_writes_and_says(call: Call, trained: Path, videos: Path, tmp_path: Path) -> None:
    best, clip = f"checkpoint={trained / 'best.pt'}", videos / "other.mp4"
    first, second, third, *_ = call("explain", best, f"input={clip}", "method=gradcam").stdout.splitlines()
    folder = tmp_path / "explain" / "other"
    assert {file.name for file in folder.iterdir()} == FILES
    facts = json.loads((folder / "explanation.json").read_text(encoding="utf-8"))
    predicted = call("predict", best, f"input={clip}", "top=1").stdout.removeprefix(f"{clip}: ").split()
    assert facts["target"] == facts["predicted"] == predicted[0]
    assert first.startswith(f"{clip}: {predicted[0]} {facts['probability']:.4f} (clip {facts['clip']} of 2, ")
    assert second.startswith(f"  gradcam of {facts['layer']}; most of it at ")
    assert third.startswith("  without the 20% that it marks most: ")
    values = np.load(folder / "map.npy")
    assert values.shape == (8, 32, 32)
    assert values.dtype == np.float32
    assert values.max() == 1
    assert facts["frame_scores"] == pytest.approx(frame_scores(values).tolist(), abs=1e-4)
    with av.open(str(folder / "overlay.mp4")) as video:
        frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
        assert video.streams.video[0].codec_context.name == "h264"
        assert video.streams.video[0].average_rate == 16  # of the videos, at a stride of 1
    assert len(frames) == 8
    assert frames[0].shape == (224 + 24, 448, 3)
    seen = vidtrain.load(trained, device="cpu").explain(clip).frames[0].repeat(7, 0).repeat(7, 1)
    assert np.abs(frames[0][:224, :224].astype(int) - seen).mean() < 6  # the frame itself on the left
    assert (folder / "strip.png").read_bytes().startswith(b"\x89PNG")


def test_the_clip_and_the_class_that_are_asked_for(trained: Path, videos: Path) -> None:
    clf = vidtrain.load(trained, device="cpu")
    options = MapOptions(Method.gradcam)
    every = [clf.explain(videos / "other.mp4", clip=n, clips=3, options=options) for n in range(3)]
    best = clf.explain(videos / "other.mp4", clips=3, options=options)
    assert best.clip == int(np.argmax([one.probability for one in every]))
    assert best.probability == max(one.probability for one in every)
    assert [one.indices[0] for one in every] == sorted({int(one.indices[0]) for one in every})
    for one in every:
        assert np.allclose(one.seconds, one.indices / 16)
    whole = clf.predict(videos / "other.mp4", clips=3)
    assert np.mean([e.probability for e in every]) == pytest.approx(whole.probability, abs=1e-5)
    other = next(name for name in clf.class_names if name != whole.label)
    asked = clf.explain(videos / "other.mp4", target=other, options=options)
    assert (asked.target, asked.predicted) == (other, clf.predict(videos / "other.mp4").label)
    first, last = asked.seconds[[0, -1]]
    where = f"(clip {asked.clip} of 2, {first:.2f} s to {last:.2f} s); the video is classified as {asked.predicted}"
    assert asked.lines()[0].endswith(where)


def test_probabilities_are_those_at_the_temperature(trained: Path, videos: Path) -> None:
    clf = vidtrain.load(trained, device="cpu")
    options = MapOptions(layer="net")
    plain = clf.explain(videos / "other.mp4", options=options)
    clf.task.calibration = Calibration(temperature=0.05)
    found = clf.explain(videos / "other.mp4", options=options)
    assert found.probability > plain.probability + 0.01
    for one in (plain, found):
        assert one.deletion.whole == pytest.approx(one.probability, abs=1e-5)


def test_a_published_folder_is_explained_as_its_checkpoint(call: Call, trained: Path, videos: Path) -> None:
    call("publish", f"checkpoint={trained / 'best.pt'}", "output=out")
    options = MapOptions(layer="net.1")
    found, expected = (
        vidtrain.load(path, device="cpu").explain(videos / "other.mp4", options=options) for path in ("out", trained)
    )
    assert np.array_equal(found.values, expected.values)
    assert found.lines() == expected.lines()
    assert found.deletion == expected.deletion
    done = call(
        "explain", "checkpoint=out", f"input={videos / 'other.mp4'}", "layer=net.1", "window=[1,1]", "output=explained"
    )
    assert done.stdout.splitlines()[:3] == expected.lines()


def test_a_video_of_one_frame_names_it_once(trained: Path) -> None:
    found = vidtrain.load(trained, device="cpu").explain(scene(1, 48, 64), options=MapOptions(layer="net.1"))
    assert found.indices.tolist() == [0] * 8
    assert found.values.any()
    assert found.lines()[1].endswith("; most of it at 0.00 s")


def test_arrays_and_methods(trained: Path) -> None:
    clf = vidtrain.load(trained, device="cpu")
    options = MapOptions(Method.occlusion, window=(4, 16))
    found = clf.explain(scene(14, 48, 64), options=options)
    assert (found.path, found.method, found.layer) == ("video 0", "occlusion", None)
    layered = clf.explain(scene(14, 48, 64), options=MapOptions(layer="net.1"))
    assert (layered.method, layered.layer) == ("gradcam", "net.1")
    with pytest.raises(ConfigError, match="explain takes one video, got 2"):
        clf.explain([scene(14), scene(14)])


def test_several_videos_with_one_name(call: Call, trained: Path, videos: Path, tmp_path: Path) -> None:
    (videos / "a" / "broken.mp4").write_bytes(b"no video")
    try:
        done = call("explain", f"checkpoint={trained / 'best.pt'}", f"input={videos}", "output=o", "layer=net", check=2)
    finally:
        (videos / "a" / "broken.mp4").unlink()
    assert {folder.name for folder in (tmp_path / "o").iterdir()} == {"clip_1", "clip_2", "other"}
    assert "broken.mp4: " in done.stderr
    assert done.stdout.count("without the 20%") == 3
    assert _folders(["a/clip.mp4", "b/clip.mp4", "b/clip_2.mp4", "c"]) == ["clip_1", "clip_3", "clip_2", "c"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["target=move_lef"], "target=move_lef: the network has no such class (did you mean move_left?); it has: "),
        (["clip=2"], "has 2 clips, the last is clip=1"),
        (["method=rollout"], "method=rollout: SlowFusion has no attention with a gradient"),
        (["layer=net.99"], "layer=net.99: SlowFusion has none"),
        (["method=occlusion", "window=[4]"], "window=[4]: expected two numbers, frames and pixels"),
        (["method=occlusion", "window=[9,4]"], "window=[9, 4]: expected frames and pixels within the clip of 8 frames"),
        (["method=lime"], "rollout, gradcam, occlusion"),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_mistakes(call: Call, trained: Path, videos: Path, options: list[str], said: str) -> None:
    clip = f"input={videos / 'other.mp4'}"
    assert said in error_line(call("explain", f"checkpoint={trained / 'best.pt'}", clip, *options, check=2))


def test_an_overlay_is_coloured_where_the_map_is_large() -> None:
    frames = np.full((2, 4, 4, 3), 90, np.uint8)
    values = np.zeros((2, 4, 4), np.float32)
    values[1, :2] = 1
    seen = overlay(frames, values)
    assert (seen[0] == 90).all()
    assert (seen[1, 2:] == 90).all()
    assert (seen[1, :2] == [212, 213, 146]).all()  # a quarter of the frame, three of the last colour of inferno
    assert frame_scores(values).tolist() == [0, 1]
    assert frame_scores(0 * values).tolist() == [0, 0]

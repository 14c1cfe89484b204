"""vidtrain.load: from Python, with the numbers of the command line. Here, because it needs a trained network."""

from __future__ import annotations

import csv
import io
import logging
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra

import vidtrain
from tests.cli.conftest import Call, environment
from tests.models import parity
from tests.models.test_parity_resnets import PSF, renamed
from tests.videos import full_decode, scene, write_video
from vidtrain.commands.predictor import Predictor
from vidtrain.errors import CheckpointError, ConfigError, DataError, VideoError

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def clf(trained: Path) -> Predictor:
    return vidtrain.load(trained)


@pytest.fixture(scope="module")
def clips(trained: Path, tiny: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three videos."""
    folder = tmp_path_factory.mktemp("clips")
    root = Path(next(o for o in tiny if o.startswith("data.root=")).removeprefix("data.root="))
    for number, file in enumerate(sorted(root.rglob("test/**/*.mp4"))[::3][:3]):
        shutil.copy(file, folder / f"{number}.mp4")
    assert len(list(folder.iterdir())) == 3
    return folder


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ({}, []),
        ({"clips": 3, "crops": 3}, ["eval.clips=3", "eval.crops=3"]),
        ({"protocol": "pyslowfast", "crops": 1}, ["eval=pyslowfast", "eval.crops=1"]),
        ({"hop": 2, "batch_size": 3}, ["eval.hop=2", "eval.batch_size=3"]),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
def test_the_numbers_of_the_command(
    clf: Predictor,
    clips: Path,
    trained: Path,
    call: Call,
    tmp_path: Path,
    arguments: dict[str, Any],
    options: list[str],
) -> None:
    best = f"checkpoint={trained / 'best.pt'}"
    lines = call("predict", best, f"input={clips}", "top=8", *options, "output=p.csv").stdout.splitlines()
    predictions = clf.predict(clips, top=8, workers=0, **arguments)
    assert [str(prediction) for prediction in predictions] == lines
    with (tmp_path / "p.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row, prediction in zip(rows, predictions, strict=True):
        assert (row["path"], row["top1"]) == (prediction.path, prediction.label)
        assert [row[f"prob{n}"] for n in range(1, 9)] == [f"{p:.6f}" for _, p in prediction.top]
        named = dict(zip(clf.class_names, prediction.probabilities.tolist(), strict=True))
        assert dict(prediction.top) == named


def test_other_views_give_other_numbers(clf: Predictor, clips: Path) -> None:
    """Or the test above would hold nothing."""
    found = [
        clf.predict(clips / "0.mp4", **views).probabilities for views in ({}, {"clips": 1}, {"hop": 1}, {"crops": 10})
    ]
    assert len({tuple(probs.tolist()) for probs in found}) == len(found)


def test_what_may_be_asked_about(clf: Predictor, clips: Path, tmp_path: Path) -> None:
    file = clips / "1.mp4"
    one = clf.predict(str(file))
    assert one.path == str(file)
    assert len(one.top) == 5
    assert one.probability == one.top[0][1] == one.probabilities.max()
    assert repr(one).startswith(f"Prediction(path='{file}', top=[('{one.label}', ")

    def is_one(other: Any, name: str) -> None:
        assert torch.equal(other.probabilities, one.probabilities)
        assert other.path == name

    with file.open("rb") as handle:
        is_one(clf.predict(handle), str(file))
    is_one(clf.predict(io.BytesIO(file.read_bytes())), "video 0")
    first, again, third = clf.predict([file, str(file), clips / "2.mp4"])
    assert (first.path, again.path, third.path) == (str(file), str(file), str(clips / "2.mp4"))
    assert torch.allclose(first.probabilities, one.probabilities)
    assert torch.equal(first.probabilities, again.probabilities)
    assert not torch.allclose(third.probabilities, one.probabilities)
    assert [p.path for p in clf.predict(f"{clips}/[12].mp4")] == [str(file), str(clips / "2.mp4")]


def test_arrays_are_cut_and_scaled_as_files_are(clf: Predictor, tmp_path: Path) -> None:
    frames = scene(14, 48, 64)
    file = write_video(tmp_path / "rgb.mkv", frames, fps=25)
    assert np.array_equal(full_decode(file), frames)
    wanted = clf.predict(file, crops=3)
    array, tensor = clf.predict([frames, torch.from_numpy(frames)], crops=3)
    for found in (array, tensor, clf.predict(frames, crops=3)):
        assert torch.allclose(found.probabilities, wanted.probabilities, atol=1e-6)
    mixed = clf.predict([frames, file, frames[::-1].copy()], crops=3)
    assert [p.path for p in mixed] == ["video 0", str(file), "video 2"]
    assert torch.equal(mixed[0].probabilities, mixed[1].probabilities)
    assert not torch.allclose(mixed[2].probabilities, wanted.probabilities, atol=1e-6)


def test_the_rate_of_an_array(clf: Predictor, tmp_path: Path) -> None:
    frames = scene(40)
    file = write_video(tmp_path / "rgb.mkv", frames, fps=25)
    for views in ({"hop": "0.3s"}, {"protocol": "pyslowfast", "clips": 2}):
        with pytest.raises(ConfigError, match="fps is not set: the clips depend on the rate of the array"):
            clf.predict(frames, **views)
        found = [clf.predict(x, fps=fps, **views).probabilities for x, fps in ((file, None), (frames, 25), (frames, 9))]
        assert torch.allclose(found[0], found[1], atol=1e-6)
        assert not torch.allclose(found[0], found[2], atol=1e-6)


def test_features_of_each_view(clf: Predictor, clips: Path) -> None:
    one = clf.features(clips / "0.mp4", clips=3, crops=3)
    several = clf.features(clips, clips=3, crops=3)
    assert [tuple(f.shape) for f in several] == [tuple(one.shape)] * 3 == [(9, one.shape[1])] * 3
    assert torch.allclose(one, several[0], atol=1e-5)
    # what the head makes of them is what the network answers
    head = clf.model.get_submodule(clf.model.head_name)  # type: ignore[arg-type]
    mean = head(clf.features(clips / "0.mp4", layer="features", crops=3)).softmax(1).mean(0)
    assert torch.allclose(mean, clf.predict(clips / "0.mp4", crops=3).probabilities, atol=1e-5)
    name = next(
        name for name, module in clf.model.named_modules() if isinstance(module, torch.nn.Conv3d | torch.nn.Conv2d)
    )
    assert clf.features(clips / "0.mp4", layer=name).shape == (2, clf.model.get_submodule(name).out_channels)
    with pytest.raises(ConfigError, match="layer=nowhere: "):
        clf.features(clips / "0.mp4", layer="nowhere")


def test_what_it_is(clf: Predictor, trained: Path) -> None:
    seen = clf.preprocessing
    assert (seen.num_frames, seen.stride, seen.fps, seen.size, seen.resize) == (8, 1, None, 32, 32)
    assert (seen.mean, seen.std) == ((0.45, 0.45, 0.45), (0.225, 0.225, 0.225))
    assert seen.to_text().startswith("8 frames every 1 of the source, scaled to a short side of 32, crops of 32, mean")
    assert len(clf.class_names) == 8
    name = clf.config.model["_target_"].rpartition(".")[2]
    assert repr(clf).startswith(f"<vidtrain {name} from {trained / 'best.pt'}: 8 classes ({clf.class_names[0]}, ")
    assert "2x1 views (clips x crops)" in repr(clf)
    assert repr(clf).endswith("; on cpu>")
    assert clf.to("cpu") is clf
    with pytest.raises(ConfigError, match=r"trainer\.device=tpu"):
        clf.to("tpu")


def test_the_network_is_asked_in_eval_mode(clf: Predictor, clips: Path) -> None:
    clf.model.train()
    clf.predict(clips / "0.mp4")
    assert not any(module.training for module in clf.model.modules())


@pytest.mark.parametrize(
    ("videos", "arguments", "kind", "message"),
    [
        ("nowhere.mp4", {}, DataError, "input=nowhere.mp4: no such file, and no file matches it as a glob"),
        ([], {}, DataError, "no videos: the list is empty"),
        ([3], {}, ConfigError, "video 0: expected a path, an array, a tensor or a binary file, got int"),
        (np.zeros((4, 3, 8, 8), np.uint8), {}, VideoError, r"got uint8 \(4, 3, 8, 8\): move the colours to the end"),
        (np.zeros((4, 8, 8, 3)), {}, VideoError, "got float64 .*: give the values 0 to 255"),
        (np.zeros((1, 4, 8, 8, 3), np.uint8), {}, VideoError, "give several videos as a list"),
        (np.zeros((0, 8, 8, 3), np.uint8), {}, VideoError, r"expected uint8 \(frames, height, width, 3\), got uint8"),
        (np.zeros((9, 8, 8, 3), np.uint8), {"fps": 0}, DataError, "fps=0: must be above 0"),
        (np.zeros((9, 8, 8, 3), np.uint8), {"top": 0}, ConfigError, "top=0: must be at least 1"),
        (np.zeros((9, 8, 8, 3), np.uint8), {"clips": 0}, ConfigError, "clips=0: must be at least 1"),
        (np.zeros((9, 8, 8, 3), np.uint8), {"clips": "two"}, ConfigError, "clips: .*two"),
        (np.zeros((9, 8, 8, 3), np.uint8), {"crops": 4}, ConfigError, "crops=4: allowed are 1"),
        (np.zeros((9, 8, 8, 3), np.uint8), {"hop": "soon"}, ConfigError, "hop=soon"),
        (np.zeros((9, 8, 8, 3), np.uint8), {"protocol": "tms"}, ConfigError, "protocol=tms: .*did you mean tsm"),
    ],
)
def test_mistakes(clf: Predictor, videos: Any, arguments: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message) as caught:
        clf.predict(videos, **arguments)
    assert isinstance(caught.value, vidtrain.VidtrainError)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_open_as_text(clf: Predictor) -> None:
    with pytest.raises(ConfigError, match="video 0: is open as text; open it with mode 'rb'"):
        clf.predict(io.StringIO("x"))


def test_a_video_that_cannot_be_read(
    clf: Predictor, clips: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no video")
    with pytest.raises(VideoError, match=f"^{re.escape(str(bad))}: "):
        clf.predict(bad)
    with pytest.raises(VideoError, match=r"^video 0: "):
        clf.predict(io.BytesIO(b"no video"))
    with caplog.at_level(logging.WARNING, "vidtrain"):
        found = clf.predict([bad, clips / "0.mp4"])
    assert f"1 of 2 videos have no prediction; the first: {bad}: " in caplog.text
    assert found[0].error is not None
    assert str(found[0]) == f"{bad}: {found[0].error}"
    assert found[1].label == found[1].top[0][0]
    with pytest.raises(VideoError, match=re.escape(found[0].error)):
        _ = found[0].label
    with pytest.raises(DataError, match="2 of 2 videos have no prediction"):
        clf.predict([bad, bad])
    with pytest.raises(VideoError, match=re.escape(str(bad))):
        clf.features([clips / "0.mp4", bad])


def test_what_is_no_checkpoint(tmp_path: Path, trained: Path) -> None:
    with pytest.raises(CheckpointError, match=r"holds neither best\.pt nor last\.pt"):
        vidtrain.load(tmp_path)
    with pytest.raises(CheckpointError, match="no such file"):
        vidtrain.load(tmp_path / "best.pt")
    shutil.copy(trained / "last.pt", tmp_path)
    assert vidtrain.load(tmp_path).source == str(tmp_path / "last.pt")
    content = torch.load(trained / "best.pt", weights_only=True)
    content["config"]["model"]["_target_"] = "stranger.net"
    torch.save(content, tmp_path / "best.pt")
    with pytest.raises(CheckpointError, match=r"calls model._target_=stranger.net.*add trust=\[stranger\]"):
        vidtrain.load(tmp_path)
    with pytest.raises(ConfigError, match=r"model._target_=stranger\.net: cannot be imported"):
        vidtrain.load(tmp_path, trust=["stranger"])


@pytest.mark.slow
def test_a_published_file(clips: Path, tmp_path: Path, call: Call) -> None:
    net = vidtrain.create_model("slow_r50", num_classes=8, depth=14, width=8).eval()
    parity.drawn_weights(net)
    file = tmp_path / "slow.pyth"
    torch.save({"model_state": renamed(net, PSF)}, file)
    names = [f"name {n}" for n in range(8)]
    state = torch.get_rng_state()
    own = vidtrain.load(file, "slow_r50", class_names=names, num_frames=4, size=32)
    assert torch.equal(torch.get_rng_state(), state)
    assert own.class_names == names
    seen = own.preprocessing
    assert (seen.num_frames, seen.stride, seen.size, seen.mean) == (4, 8, 32, (0.45, 0.45, 0.45))
    (tmp_path / "names.txt").write_text("\n".join(names))
    weights = ["model=slow_r50", f"model.weights={file}", "class_names=names.txt"]
    clip = ["sampler.num_frames=4", "transform.size=32"]
    lines = call("predict", *weights, *clip, f"input={clips}").stdout.splitlines()
    assert [str(p) for p in own.predict(clips, workers=0)] == lines
    assert (
        str(vidtrain.load(file, "slow_r50", class_names="names.txt", num_frames=4, size=32).predict(clips)[0])
        == lines[0]
    )

    for arguments, kind, message in (
        ({"model": "slow_r5"}, ConfigError, r"no model 'slow_r5' \(did you mean slow_r50\?\)"),
        ({"model": "slow_r50", "class_names": names[1:]}, ConfigError, "has 8 classes, class_names has 7"),
        ({"model": "slow_r50", "deep": 3}, ConfigError, r"no key 'model\.deep'"),
        ({}, CheckpointError, "not a checkpoint of vidtrain"),
        ({"width": 8}, ConfigError, r"width=\.\.\. goes with a published file and model=NAME"),
    ):
        with pytest.raises(kind, match=message):
            vidtrain.load(file, **arguments)  # type: ignore[arg-type]


def test_a_checkpoint_is_no_published_file(trained: Path) -> None:
    with pytest.raises(ConfigError, match="a checkpoint of vidtrain brings its own model: leave out model"):
        vidtrain.load(trained / "best.pt", "slow_fusion")


def test_nothing_of_the_process_is_changed(clf: Predictor, clips: Path, trained: Path) -> None:
    root, state = logging.getLogger(), torch.get_rng_state()
    before = Path.cwd(), list(root.handlers), root.level, logging.getLogger("vidtrain").handlers, dict(environment())
    vidtrain.load(trained / "best.pt").predict(clips / "0.mp4")
    after = Path.cwd(), list(root.handlers), root.level, logging.getLogger("vidtrain").handlers, dict(environment())
    assert after == before
    assert not GlobalHydra.instance().is_initialized()
    assert torch.equal(torch.get_rng_state(), state)


def test_the_api_is_seen_before_it_is_imported() -> None:
    program = """
import sys, vidtrain
names = dir(vidtrain)
assert {"create_model", "list_models", "load", "load_model", "load_weights", "VidtrainError"} <= set(names), names
assert [n for n in names if n[0] == "_" and n[:2] != "__"] == []
assert len(vidtrain.list_models("*fusion")) == 3
assert issubclass(vidtrain.VidtrainError, Exception)
assert not {"torch", "numpy", "hydra"} & set(sys.modules)
"""
    assert all(getattr(vidtrain, name) is not None for name in vidtrain.__all__)
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT, timeout=120)


def test_the_examples_of_the_docs_run(
    trained: Path, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """docs/python.md; a line with a comment `# -> VALUE` after it is an expression that has this value."""
    text = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    code = "\n".join(line[4:] for line in text.splitlines() if line.startswith("    "))
    monkeypatch.chdir(tmp_path)
    shutil.copytree(clips, "clips")
    shutil.copytree(trained, "runs/mine")
    shutil.copy(clips / "0.mp4", "clip.mp4")
    code, checks = re.subn(r"^(.+?) +#(?: .*#)? -> (.+)$", r"assert str(\1) == '''\2'''", code, flags=re.MULTILINE)
    assert checks >= 4
    exec(compile(code, "python.md", "exec"), {})

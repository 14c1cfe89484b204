"""The script beside an ONNX file: the clips of vidtrain to the pixel, and its averages, without vidtrain or PyTorch."""

from __future__ import annotations

import ast
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
import torch

from tests.videos import scene, set_matrix, write_video
from vidtrain import build
from vidtrain.data.clips.dataset import EvalViews
from vidtrain.data.manifest.manifest import Manifest
from vidtrain.data.settings import EvalConfig, SamplerConfig, TransformConfig
from vidtrain.export import run_onnx, run_stream
from vidtrain.tasks.classification.calibration import Calibration
from vidtrain.tasks.classification.task import Classification

PYAV = {"_target_": "vidtrain.data.readers.pyav.reader.PyAVReader"}
WEIGHTS = np.random.default_rng(0).normal(0, 0.02, (3, 4))


class Colours:
    """In the place of a session: logits (N, 4) and probabilities of a clip's mean colour; keeps the clips."""

    def __init__(self, *, several: bool = False, scale: float = 1.0) -> None:
        self.seen: list[npt.NDArray[np.uint8]] = []
        self._several, self._scale = several, scale

    def run(self, outputs: list[str], inputs: dict[str, npt.NDArray[np.uint8]]) -> list[npt.NDArray[np.float32]]:
        assert outputs == ["logits", "probs"]
        self.seen.append(inputs["rgb"])
        logits = torch.from_numpy(self.logits(inputs["rgb"]))
        return [logits.numpy(), (logits.sigmoid() if self._several else logits.softmax(1)).numpy()]

    def logits(self, clips: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        return (self._scale * clips.mean((1, 2, 3)) @ WEIGHTS).astype(np.float32)


def about(sampler: Any, transform: Any, views: Any, **more: Any) -> dict[str, Any]:
    config = {"sampler": asdict(sampler), "transform": asdict(transform), "eval": asdict(views)}
    return {"config": config, "multi_label": False, "calibration": None, "inputs": {"rgb": {}}, **more}


def views_of(file: Path, sampler: Any, transform: Any, views: Any) -> torch.Tensor:
    """uint8 (V, T, H, W, 3), as vidtrain reads them."""
    sample = EvalViews(Manifest.of([str(file)], [-1]), build.make_parts(PYAV, sampler, transform), views)[0]
    assert sample.inputs is not None, sample.bad
    return sample.inputs["rgb"]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Wide, and upright by its display matrix."""
    folder = tmp_path_factory.mktemp("videos")
    for name in ("wide", "turned"):
        write_video(folder / f"{name}.mp4", scene(23, 48, 64), fps=25)
    turned = set_matrix(folder / "turned.mp4", 0, 1, -1, 0)
    return {"wide": folder / "wide.mp4", "turned": turned}


WAYS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "one clip": ({"stride": 2, "num_frames": 3}, {}, {"clips": 1}),
    "three clips": ({"stride": 1, "num_frames": 6}, {}, {"clips": 3}),
    "four clips": ({"stride": 2, "num_frames": 8}, {}, {"clips": 4}),
    "short": ({"stride": 3, "num_frames": 16}, {}, {"clips": 2}),
    "loop": ({"stride": 3, "num_frames": 16, "short": "loop"}, {}, {"clips": 2}),
    "rate": ({"fps": 7.0, "num_frames": 4}, {}, {"clips": 4}),
    "window": ({"window": 19, "num_frames": 8}, {}, {"clips": 2}),
    "segments": ({"mode": "segments", "num_frames": 5}, {}, {"clips": 3}),
    "unscaled": ({"num_frames": 2}, {"resize": 48, "size": 48}, {"clips": 1}),
    "three crops": ({"num_frames": 2}, {"resize": 40, "size": 24}, {"crops": 3, "clips": 2}),
    "ten crops": ({"num_frames": 2}, {"resize": 40, "size": 24}, {"crops": 10, "clips": 1}),
    "stretched": ({"num_frames": 2}, {"resize": "24x30", "size": 24}, {"clips": 1}),
    "stretched though to a square": ({"num_frames": 2}, {"resize": "24x30", "size": 24, "squash": True}, {"clips": 1}),
    "to a square": ({"num_frames": 2}, {"squash": True}, {"clips": 1}),
}


TURNED = ("unscaled", "three crops", "stretched")


@pytest.mark.parametrize(
    ("sampler", "transform", "views", "video"),
    [(*way, "wide") for way in WAYS.values()] + [(*WAYS[name], "turned") for name in TURNED],
)
def test_the_clips_are_vidtrains(sampler: Any, transform: Any, views: Any, video: str, videos: dict[str, Path]) -> None:
    parts = SamplerConfig(**sampler), TransformConfig(**{"resize": 32, "size": 32, **transform}), EvalConfig(**views)
    session = Colours()
    run_onnx.probabilities(str(videos[video]), session, about(*parts))
    assert np.array_equal(np.concatenate(session.seen), views_of(videos[video], *parts).numpy())


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("average", ["probabilities", "logits"])
@pytest.mark.parametrize("temperature", [None, 2.5])
@pytest.mark.parametrize("scale", [1.0, 100.0])
@pytest.mark.filterwarnings("error")
def test_the_probabilities_are_vidtrains(
    several: bool, average: str, temperature: float | None, scale: float, videos: dict[str, Path]
) -> None:
    """Also those of a network that is so sure that float32 has 0 and 1."""
    parts = SamplerConfig(num_frames=4), TransformConfig(resize=32, size=32), EvalConfig(clips=3, average=average)
    calibration = {"temperature": temperature}
    session = Colours(several=several, scale=scale)
    found = run_onnx.probabilities(
        str(videos["wide"]), session, about(*parts, multi_label=several, calibration=calibration)
    )
    logits = torch.from_numpy(session.logits(views_of(videos["wide"], *parts).numpy()))[None]
    task = Classification("abcd", several, calibration=calibration)
    wanted = task.columns(logits, torch.zeros(1, 4) if several else torch.tensor([-1]), average)["probs"][0]
    assert np.abs(found - wanted.numpy()).max() < 1e-6
    assert wanted.std() > 0.02


@pytest.mark.parametrize("video", ["wide", "turned"])
def test_a_stream_is_scaled_and_turned_as_a_video_is(video: str, videos: dict[str, Path]) -> None:
    how = asdict(TransformConfig(resize=32, size=24))
    with av.open(str(videos[video])) as source:
        frame = next(source.decode(video=0))
    assert np.array_equal(run_stream.image_of(frame, how), run_onnx.crops_of(frame, how, 1)[0])


@pytest.mark.parametrize("calibrated", [run_onnx.calibrated, run_stream.calibrated])
@pytest.mark.parametrize("several", [False, True])
@pytest.mark.filterwarnings("error")
def test_answers_that_are_sure_are_calibrated_as_vidtrains(calibrated: Any, several: bool) -> None:
    probs = torch.tensor([1.0, 0.25, 1e-30, 0.0])
    found = calibrated(probs.numpy(), {"multi_label": several, "calibration": {"temperature": 2.5}})
    wanted = Calibration(temperature=2.5).apply(probs, multi_label=several)
    assert np.allclose(found, wanted, rtol=1e-6, atol=0)


@pytest.mark.parametrize("script", [run_onnx, run_stream])
def test_a_class_name_does_not_steer_the_terminal(script: ModuleType) -> None:
    assert script.printable("Gähnen\x1b[2J\udcff") == "Gähnen\\x1b[2J\\udcff"


def test_it_needs_three_packages() -> None:
    tree = ast.parse(Path(run_onnx.__file__).read_text(encoding="utf-8"))
    names = [
        n.module if isinstance(n, ast.ImportFrom) else n.names[0].name for n in ast.walk(tree) if hasattr(n, "names")
    ]
    assert {str(name).split(".")[0] for name in names} - {"json", "sys", "pathlib", "typing"} == {
        "av",
        "numpy",
        "onnxruntime",
    }

"""predict of a stream with live.state: each answer is that of the frames which it says it is for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import av
import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

import vidtrain
from tests.cli.conftest import Call
from tests.models.recurrent import randomised
from tests.videos import scene, write_video
from vidtrain.commands.live import watch
from vidtrain.commands.live_answers import _Carrying, _Sliding, asked_of
from vidtrain.commands.predict import PredictConfig
from vidtrain.commands.predictor import Predictor
from vidtrain.commands.timeline import Slider
from vidtrain.data.clips.transforms import EvalCrops
from vidtrain.data.readers.pyav.reader import PyAVReader
from vidtrain.export import run_stream
from vidtrain.export.stream import SteppedNetwork
from vidtrain.live.settings import LiveConfig, StateName
from vidtrain.live.sources import live_source
from vidtrain.options.presets import section_as_written
from vidtrain.tasks.settings import SegmentsConfig


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("state")
    return write_video(folder / "a.mkv", scene(60), options={"qp": "0"})


def said(
    trained: Path, model: nn.Module, video: Path, mode: StateName, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> tuple[list[dict[str, Any]], Predictor]:
    """The lines of a network on a video, a window of 8 frames, 2 apart, every 4 frames."""
    before = vidtrain.load(trained)
    before.config.sampler.stride, before.config.eval.hop = 2, 4
    clf = Predictor(before.config, model, before.class_names, torch.device("cpu"))
    options = PredictConfig(input="-", top=8, live=LiveConfig(state=mode))
    with video.open("rb") as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        source = live_source("-", options.live)
        assert source is not None
        capsys.readouterr()
        watch(clf, source, options)
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()], clf


def probabilities(clf: Predictor, video: Path, first: int, last: int) -> Any:
    """Of the samples from one frame to another, both included, 2 frames apart."""
    with PyAVReader().open(str(video)) as opened:
        cut = EvalCrops(clf.config.transform).all(opened.info)[0]
        frames = cut.apply(opened.read(np.arange(first, last + 1, 2), cut.read_size))
    transform = clf.config.transform
    x = (torch.from_numpy(frames).permute(3, 0, 1, 2)[None] / 255 - torch.tensor(transform.mean).view(3, 1, 1, 1)) / (
        torch.tensor(transform.std).view(3, 1, 1, 1)
    )
    with torch.no_grad():
        return clf.model(x)[0].softmax(0).numpy()


RNN: dict[str, Any] = {"size": 32, "clip": 2, "network": "slow_fusion"}


@pytest.mark.parametrize(
    ("name", "options", "mode"),
    [
        ("convlstm_tiny", {"size": 32}, StateName.endless),
        pytest.param("feature_rnn_tiny", RNN, StateName.renewed, marks=pytest.mark.slow),
        pytest.param("convlstm_tiny", {"size": 32}, StateName.renewed, marks=pytest.mark.slow),
        pytest.param("feature_rnn_tiny", RNN, StateName.endless, marks=pytest.mark.slow),
    ],
)
def test_a_video_played_to_it(
    trained: Path,
    video: Path,
    name: str,
    options: dict[str, Any],
    mode: StateName,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
) -> None:
    torch.manual_seed(0)
    model = randomised(vidtrain.create_model(name, num_classes=8, **options))
    lines, clf = said(trained, model, video, mode, monkeypatch, capsys)
    assert [round(25 * line["end"]) for line in lines] == list(range(15, 60, 4))  # the first when a clip has been seen
    for line in lines:
        first, last = round(25 * line["start"]), round(25 * line["end"]) - 1
        assert last + 2 - first >= 16
        assert first == 0 if mode is StateName.endless else last + 2 - first <= 32
        expected = probabilities(clf, video, first, last)
        found = dict(map(tuple, line["top"]))
        assert np.abs([found[n] for n in clf.class_names] - expected).max() <= 1e-5


def test_one_without_a_state_slides_and_says_so(trained: Path, caplog: pytest.LogCaptureFixture) -> None:
    slider = Slider(vidtrain.load(trained), SegmentsConfig(), asked="a stream")
    assert type(asked_of(slider, StateName.endless, 32)) is type(asked_of(slider, StateName.windows, 32)) is _Sliding
    assert type(asked_of(slider, None, 32)) is _Sliding
    (line,) = caplog.messages
    slider.network.model = SteppedNetwork(1, "model.onnx")  # of an exported file
    assert type(asked_of(slider, None, 32)) is _Carrying
    assert type(asked_of(slider, StateName.windows, 32)) is _Sliding
    assert line.startswith("live.state=endless: windows slide, as this network cannot take frame by frame: ")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "given"),
    [("convlstm_tiny", {"size": 32}), ("convlstm_hierarchical_tiny", {"size": 32}), ("feature_rnn_tiny", RNN)],
)
def test_an_exported_file_is_asked_frame_by_frame(
    trained: Path,
    video: Path,
    name: str,
    given: dict[str, Any],
    call: Call,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """vidtrain and the script beside it answer with the file as vidtrain does with the network."""
    torch.manual_seed(0)
    model = randomised(vidtrain.create_model(name, num_classes=8, **given))
    content = torch.load(trained / "best.pt", weights_only=True)
    content["model"] = model.state_dict()
    content["config"]["model"] = {**section_as_written(name), **given}
    content["config"]["sampler"]["stride"], content["config"]["eval"]["hop"] = 2, 4
    content["calibration"] = {"temperature": 2.0, "threshold": None, "protocol": "none", "videos": 8}
    torch.save(content, "best.pt")
    options = ["stream=true", f"input={video}", "clips=3", "bench=true", "seconds=0.1"]
    said_of = call("export", "checkpoint=best.pt", "output=out", *options).stdout
    report = json.loads(Path("out/export.json").read_text())
    parity = report["files"]["onnx"]["parity"]
    print(f"\n{name}: {parity['relative']:.1e} of the deviation of {parity['clips']} answers")
    assert parity["relative"] <= 1e-5
    step = getattr(model, "clip", 1) * getattr(model, "period", 1)
    assert parity["clips"] == 3 * 8 // step
    assert f"of {parity['clips']} answers" in said_of
    assert f"ms: {step} frame" in said_of
    lines = []
    for checkpoint, state in (("best.pt", "renewed"), ("out/model.onnx", "null"), ("out/model.onnx", "endless")):
        with video.open("rb") as stdin:
            monkeypatch.setattr("sys.stdin", stdin)
            done = call("predict", f"checkpoint={checkpoint}", "input=-", f"live.state={state}", "top=8")
        lines.append([json.loads(line) for line in done.stdout.splitlines()])
    ends = [line["end"] for line in lines[1]]
    ours, theirs, endless = ({line["end"]: dict(map(tuple, line["top"])) for line in part} for part in lines)
    assert len(ends) >= 6
    for end in ends:
        assert max(abs(theirs[end][c] - p) for c, p in ours[end].items()) <= 1e-5
    assert max(abs(theirs[ends[-1]][c] - p) for c, p in endless[ends[-1]].items()) > 1e-3
    with av.open(str(video)) as source:
        session = onnxruntime.InferenceSession("out/model.onnx")
        about = json.loads(session.get_modelmeta().custom_metadata_map["vidtrain"])
        alone = {round(end, 3): probs for end, probs in run_stream.answers(source, session, about)}
    for end in ends:
        assert max(abs(alone[end] - [theirs[end][c] for c in about["class_names"]])) <= 1e-5
    assert sorted(file.name for file in Path("out").iterdir()) == ["export.json", "model.onnx", "run_stream.py"]
    found = [call("predict", f"checkpoint={file}", f"input={video}").stdout for file in ("best.pt", "out/model.onnx")]
    assert found[0] == found[1]  # a file, by clips of the trained length

"""predict of a stream with live.state: each answer is that of the frames which it says it is for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import vidtrain
from tests.models.recurrent import randomised
from tests.videos import scene, write_video
from vidtrain.commands.live import watch
from vidtrain.commands.live_answers import _Sliding, asked_of
from vidtrain.commands.predict import PredictConfig
from vidtrain.commands.predictor import Predictor
from vidtrain.commands.timeline import Slider
from vidtrain.data.clips.transforms import EvalCrops
from vidtrain.data.readers.pyav.reader import PyAVReader
from vidtrain.live.settings import LiveConfig, StateName
from vidtrain.live.sources import live_source
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
    (line,) = caplog.messages
    assert line.startswith("live.state=endless: windows slide, as this network cannot take frame by frame: ")

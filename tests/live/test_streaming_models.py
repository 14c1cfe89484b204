"""Networks that carry a state: an answer is that of the frames which it is for, at once."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

import vidtrain
from tests.models.recurrent import built, clip
from vidtrain.live.settings import StateName
from vidtrain.live.streaming_models import CarriedState, samples_at_once, why_no_state
from vidtrain.models.layers.recurrent import state_at_start

CARRY: list[tuple[str, dict[str, Any]]] = [
    *((f"{name}_tiny", {"size": 32}) for name in ("cnn_lstm", "rcn", "convlstm")),
    ("movinet_tiny_stream", {}),
    ("feature_rnn_tiny", {"size": 32, "clip": 2, "network": "slow_fusion"}),
]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *CARRY,
        *(
            pytest.param(f"{name}_tiny", {"size": 32}, marks=pytest.mark.slow)
            for name in ("convlstm_attention", "convlstm_hierarchical", "convlstm_deformable", "st_lstm")
        ),
    ],
)
def test_an_answer_is_that_of_the_frames_it_is_for(name: str, options: dict[str, Any]) -> None:
    model, frames = built(name, **options), clip(24, batch=1)
    step = samples_at_once(model)
    assert step == options.get("clip", 1)
    endless, renewed = CarriedState(model, StateName.endless, 6), CarriedState(model, StateName.renewed, 6)
    with torch.no_grad():
        for end in range(step, 25, step):
            piece = frames[:, :, end - step : end]
            for carried, first in ((endless, 0), (renewed, 0 if end <= 12 else 6 if end <= 18 else 12)):
                carried.now = float(end - step)
                logits = carried(piece)
                assert carried.start == first
                assert carried.seen == end - first
                assert carried.answers == (end - first >= 6)
                if end in (8, 12, 14, 20, 24):
                    torch.testing.assert_close(logits, model(frames[:, :, first:end]), rtol=0, atol=1e-5)
        _, state = model.stream(frames[:, :, : step * getattr(model, "period", 1)])
        fresh, as_none = model.stream(frames, state_at_start(state))[0], model.stream(frames)[0]
        torch.testing.assert_close(fresh, as_none, rtol=0, atol=0)  # what an exported file begins with
        renewed.restart()
        torch.testing.assert_close(renewed(frames[:, :, :step]), model(frames[:, :, :step]), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("slow_fusion", {"num_frames": 8, "size": 32}, r"SlowFusion has no state|\w+ has no state"),
        ("cnn_lstm_tiny", {"size": 32, "bidirectional": True}, r"model\.bidirectional: got true"),
        ("movinet_tiny", {}, r"model\.causal: got false"),
    ],
)
def test_those_that_cannot_say_why(name: str, options: dict[str, Any], reason: str) -> None:
    model = vidtrain.create_model(name, num_classes=3, **options).eval()
    why = why_no_state(model, 32)
    assert why is not None
    assert re.match(reason, why)
    assert why_no_state(built("rcn_tiny", num_frames=7, size=32), 32) is None

"""A recurrent model in pieces: its state, and what is read from the states over time."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from tests.models.recurrent import TINY, built, clip
from vidtrain.errors import ConfigError
from vidtrain.models.layers.recurrent import TimePool

STREAMS: list[tuple[str, dict[str, Any]]] = [
    *TINY,
    *(("cnn_lstm_tiny", {"size": 32, "head": head}) for head in ("last", "max", "attention")),
    *(("rcn_tiny", {"cell": cell, "head": head}) for cell, head in (("rnn", "last"), ("lstm", "attention"))),
    ("rcn_tiny", {"cell": "gru_reset_before"}),
    ("movinet_tiny_stream", {}),
    ("movinet_tiny", {"causal": True}),
    ("cnn_lstm_tiny", {"size": 32, "cell": "gru", "layers": 2, "fusion": "concat"}),
    ("cnn_lstm_tiny", {"size": 32, "cell": "rnn", "fusion": "weights"}),
    ("convlstm_tiny", {"size": 32, "peephole": True, "head": "max"}),
    *((f"convlstm_{kind}_tiny", {"size": 32, "peephole": True}) for kind in ("deformable", "dilated", "hierarchical")),
    ("convlstm_attention_tiny", {"head": "max"}),
    ("convlstm_hierarchical_tiny", {"time_scale": 3, "head": "attention"}),
    ("convlstm_hierarchical_tiny", {"time_scale": 1, "head": "last"}),
    ("st_lstm_tiny", {"size": 32, "inputs": "avg", "layers": 2, "head": "attention"}),
]


@pytest.mark.parametrize("pieces", [pytest.param((1,) * 7, marks=pytest.mark.slow), (3, 1, 2, 1)], ids=str)
@pytest.mark.parametrize(("name", "options"), STREAMS)
def test_a_video_in_pieces_is_the_video_at_once(name: str, options: dict[str, Any], pieces: tuple[int, ...]) -> None:
    model, x = built(name, **options), clip()
    with torch.no_grad():
        whole, state = model(x), None
        logits = []
        for piece in x.split(pieces, 2):
            last, state = model.stream(piece, state)
            logits.append(last)
        torch.testing.assert_close(last, whole, rtol=0, atol=1e-5)
        assert (whole - logits[0]).abs().max() > 1e-3  # the later pieces do count
        # and the first logits are those of the first piece alone: no model looks ahead
        torch.testing.assert_close(logits[0], model(x[:, :, : pieces[0]]), rtol=0, atol=1e-5)


def test_a_stream_keeps_its_gradient() -> None:
    model = built("rcn_tiny")
    x = clip(4).requires_grad_()
    _, state = model.stream(x[:, :, :2])
    model.stream(x[:, :, 2:], state)[0].sum().backward()
    assert x.grad is not None
    assert (x.grad[:, :, 0] != 0).any()


def test_a_model_that_reads_backwards_refuses_to_stream() -> None:
    model = built("cnn_lstm_tiny", size=32, bidirectional=True)
    assert model(clip()).shape == (2, 5)
    with pytest.raises(ConfigError, match=r"model\.bidirectional: got true.*set it to false") as caught:
        model.stream(clip())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["cnn_lstm_tiny", "convlstm_tiny", "convlstm_hierarchical_tiny", "st_lstm_tiny", "movinet_tiny_stream"]
)
def test_a_state_of_other_videos_is_refused(name: str) -> None:
    model = built(name, size=32)
    _, state = model.stream(clip(2))
    with pytest.raises(ConfigError, match=r"^state: ") as caught:
        model.stream(clip(2, batch=3), state)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("mode", ["last", "mean", "max", "attention"])
def test_pooling_over_time(mode: str) -> None:
    pool = TimePool(4, mode)
    steps = torch.randn(3, 6, 4, generator=torch.Generator().manual_seed(0))
    expected = {
        "last": steps[:, -1],
        "mean": steps.mean(1),
        "max": steps.max(1).values,
        "attention": steps.mean(1),  # equal weights, as w starts at zero
    }[mode]
    torch.testing.assert_close(pool(steps)[0], expected)
    if mode == "attention":
        nn.init.normal_(pool.score.weight)
        weights = (steps @ pool.score.weight[0]).softmax(1)
        expected = (weights[..., None] * steps).sum(1)
        torch.testing.assert_close(pool(steps)[0], expected)
    _, state = pool(steps[:, :4])
    _, state = pool(steps[:, 4:4], state)  # no step at all
    torch.testing.assert_close(pool(steps[:, 4:], state)[0], expected)


def test_large_scores_do_not_overflow() -> None:
    pool = TimePool(1, "attention")
    nn.init.constant_(pool.score.weight, 1.0)
    steps = torch.tensor([[[-300.0], [300.0], [200.0]]])
    torch.testing.assert_close(pool(steps)[0], torch.tensor([[300.0]]))
    torch.testing.assert_close(pool(steps[:, 1:], pool(steps[:, :1])[1])[0], torch.tensor([[300.0]]))

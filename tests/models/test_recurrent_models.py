"""The recurrent models against their definitions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from tests.models.recurrent import built, clip, randomised
from vidtrain.errors import ConfigError
from vidtrain.models.cnn_lstm import cnn_lstm
from vidtrain.models.convlstm import convlstm
from vidtrain.models.convlstm_attention import convlstm_attention
from vidtrain.models.convlstm_deformable import convlstm_deformable
from vidtrain.models.convlstm_dilated import convlstm_dilated
from vidtrain.models.convlstm_hierarchical import convlstm_hierarchical
from vidtrain.models.layers.recurrent import SequenceEncoder
from vidtrain.models.rcn import rcn

# ---------------------------------------------------------------- cnn_lstm


def test_cnn_lstm_is_torchvisions_features_and_pytorchs_lstm() -> None:
    model = randomised(cnn_lstm(num_classes=5, size=64))
    net = torchvision.models.resnet18()
    state = {k.removeprefix("backbone.net."): v for k, v in model.state_dict().items() if k.startswith("backbone.")}
    assert not net.load_state_dict(state, strict=False).unexpected_keys
    net.fc = nn.Identity()
    lstm = nn.LSTM(512, 256, 2, batch_first=True)
    lstm.load_state_dict({k.removeprefix("encoder.rnn."): v for k, v in model.state_dict().items() if "rnn" in k})
    x = clip(3, 64)
    with torch.no_grad():
        features = torch.stack([net.eval()(frame) for frame in x.unbind(2)], 1)  # 004's loop over the frames
        expected = model.head(lstm(features)[0][:, -1])
        torch.testing.assert_close(model(x), expected, rtol=1e-5, atol=1e-5)


def test_the_frames_go_through_the_cnn_as_one_batch() -> None:
    model = built("cnn_lstm_tiny", size=32)
    sizes: list[tuple[int, ...]] = []
    model.backbone.register_forward_hook(lambda module, given, out: sizes.append(tuple(given[0].shape)))
    model(clip(7, batch=3))
    assert sizes == [(21, 3, 32, 32)]


def test_a_frozen_cnn_has_no_gradient_and_keeps_its_statistics() -> None:
    model = cnn_lstm(num_classes=5, size=32, backbone="tiny", frozen=True, hidden=8).train()
    before = {key: value.clone() for key, value in model.backbone.state_dict().items()}
    model(clip()).sum().backward()
    assert model.training
    assert not model.backbone.training
    assert all(p.grad is None and not p.requires_grad for p in model.backbone.parameters())
    assert all(p.grad is not None for p in model.encoder.parameters())
    for key, value in model.backbone.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_a_frozen_cnn_keeps_no_activations() -> None:
    def maps_kept(frozen: bool) -> int:
        model = cnn_lstm(num_classes=5, size=32, backbone="tiny", frozen=frozen, hidden=8).train()
        shapes: list[torch.Size] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: shapes.append(t.shape) or t, lambda t: t):
            model(clip(7))
        return sum(len(shape) == 4 and shape[0] == 14 for shape in shapes)

    assert maps_kept(True) == 0
    assert maps_kept(False) >= 12  # four times convolution, BatchNorm and ReLU


def test_bidirectional_last_step() -> None:
    encoder = SequenceEncoder(3, cell="lstm", hidden=4, layers=1, bidirectional=True)
    x = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    steps = encoder.rnn(x)[0]
    torch.testing.assert_close(encoder(x)[0], torch.cat([steps[:, 4, :4], steps[:, 0, 4:]], 1))


def test_fusion_of_spatial_and_temporal_features() -> None:
    options: dict[str, Any] = {"num_classes": 5, "size": 32, "backbone": "tiny", "hidden": 8, "layers": 1}
    x = clip()
    with torch.no_grad():
        none, concat, weights = (
            randomised(cnn_lstm(fusion=fusion, **options)) for fusion in ("none", "concat", "weights")
        )
        for model in (concat, weights):
            shared = {key: value for key, value in none.state_dict().items() if not key.startswith("head")}
            model.load_state_dict({**model.state_dict(), **shared})
        temporal, spatial = none.forward_features(x), none.frame_features(x).mean(1)
        torch.testing.assert_close(concat.forward_features(x), torch.cat([spatial, temporal], 1))
        first, second = weights.fusion.weights.softmax(0)
        expected = first * weights.fusion.projection(spatial) + second * temporal
        torch.testing.assert_close(weights.forward_features(x), expected)


# ---------------------------------------------------------------- rcn and the ConvLSTMs


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_rcn_of_1x1_kernels_on_1x1_frames_is_a_stack_of_pytorchs_cells(cell: str) -> None:
    widths = (4, 6, 5)
    model = randomised(rcn(num_classes=5, channels=widths, cell=cell, kernel=1, stride=1, norm=False))
    x = clip(6, 1)
    steps = x.flatten(2).transpose(1, 2)
    layer = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}[cell]
    with torch.no_grad():
        for wide, out, mine in zip((3, 4, 6), widths, model.layers, strict=True):
            theirs = layer(wide, out, batch_first=True)
            theirs.weight_ih_l0.copy_(mine.conv_x.weight.flatten(1))
            theirs.weight_hh_l0.copy_(mine.conv_h.weight.flatten(1))
            theirs.bias_ih_l0.copy_(mine.conv_x.bias)
            theirs.bias_hh_l0.copy_(0 * mine.conv_x.bias if mine.conv_h.bias is None else mine.conv_h.bias)
            steps = theirs(steps)[0]
        torch.testing.assert_close(model.forward_features(x), steps.mean(1), rtol=0, atol=1e-6)


def test_variants_that_are_convlstm_at_a_point() -> None:
    options: dict[str, Any] = {"num_classes": 5, "stem": (8,), "hidden": (6, 4)}
    plain = randomised(convlstm(size=32, **options))
    x = clip()
    with torch.no_grad():
        dilated = convlstm_dilated(dilation=1, **options).eval()
        dilated.load_state_dict(plain.state_dict())
        assert torch.equal(dilated(x), plain(x))
        further = convlstm_dilated(dilation=2, **options).eval()
        further.load_state_dict(plain.state_dict())
        assert (further(x) - plain(x)).abs().max() > 1e-3
        # as they start: zero offsets, uniform weights
        for variant in (convlstm_deformable(**options), convlstm_attention(**options)):
            fresh = {key: value for key, value in variant.state_dict().items() if "offset" in key or "score" in key}
            assert len(fresh) > 0
            variant.load_state_dict({**fresh, **plain.state_dict()})
            torch.testing.assert_close(variant.eval()(x), plain(x), rtol=0, atol=1e-5)
            randomised(variant).load_state_dict({**variant.state_dict(), **plain.state_dict()})
            assert (variant(x) - plain(x)).abs().max() > 1e-3
        single = randomised(convlstm(size=32, **{**options, "hidden": (6,)}))
        hierarchical = convlstm_hierarchical(**{**options, "hidden": (6,)}).eval()
        hierarchical.load_state_dict({k.replace("readout.", "readouts.0."): v for k, v in single.state_dict().items()})
        torch.testing.assert_close(hierarchical(x), single(x), rtol=0, atol=1e-6)


def test_attention_weights_all_positions_of_all_frames() -> None:
    model = randomised(convlstm_attention(num_classes=5, stem=(8,), hidden=(6,)))
    nn.init.normal_(model.pool.score.weight, std=3.0)
    x = clip()
    with torch.no_grad():
        states = model.states(x, None)[0].unflatten(0, (7, 2)).transpose(0, 1)  # (B, T, D, H, W)
        scores = (states * model.pool.score.weight[0].view(-1, 1, 1)).sum(2)
        weights = scores.flatten(1).softmax(1).view_as(scores)
        expected = (weights.unsqueeze(2) * states).sum((1, 3, 4))
        torch.testing.assert_close(model.forward_features(x), expected, rtol=1e-4, atol=1e-5)
        strongest = convlstm_attention(num_classes=5, stem=(8,), hidden=(6,), head="max").eval()
        strongest.load_state_dict({k: v for k, v in model.state_dict().items() if "score" not in k})
        torch.testing.assert_close(strongest.forward_features(x), states.amax((1, 3, 4)), rtol=1e-4, atol=1e-5)


def test_levels_run_at_their_own_time_scales() -> None:
    model = built("convlstm_hierarchical_tiny", hidden=[4, 4, 4], time_scale=3)
    steps: list[int] = []
    for layer in model.layers:
        layer.register_forward_hook(lambda module, given, out: steps.append(given[1]))
    model(clip(8))
    assert steps == [8, 3, 1]  # frames 0 to 7; 0, 3, 6; 0
    steps.clear()
    state = None
    for frame in clip(8).split(1, 2):
        _, state = model.stream(frame, state)
    assert steps == [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]  # 8 + 3 + 1 calls


def test_a_peephole_model_fits_one_size() -> None:
    model = built("convlstm_tiny", size=30, peephole=True)
    assert model(clip(size=30)).shape == (2, 5)
    assert [tuple(cell.peephole.shape[2:]) for cell in model.layers] == [(8, 8), (4, 4), (2, 2)]
    with pytest.raises(ConfigError, match=r"built for 30 x 30: set transform\.size=30"):
        model(clip(size=32))


# ---------------------------------------------------------------- st_lstm


def test_st_lstm_looks_where_its_state_says() -> None:
    model = built("st_lstm_tiny", size=48, head="mean")
    nn.init.normal_(model.attention.weight, std=3.0)
    x = clip(4, 48)
    with torch.no_grad():
        v, weights, _ = model.attend(x)
        assert weights.shape == (2, 4, 9)
        torch.testing.assert_close(weights.sum(2), torch.ones(2, 4))
        assert weights.std() > 1e-2
        maps = model.frame_maps(x)  # (B, T, C, 3, 3)
        h, _ = model.encoder.rnn(maps.flatten(2))
        torch.testing.assert_close(weights, model.attention(h).softmax(2))
        looked_at = (maps * weights.view(2, 4, 1, 3, 3)).sum((3, 4))
        torch.testing.assert_close(v, torch.cat([looked_at, h], 2))
        torch.testing.assert_close(model.forward_features(x), v.mean(1))

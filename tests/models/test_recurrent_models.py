"""The recurrent family: what each model's definition says, streaming, sizes, and what the options do."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from vidtrain.build import create_model
from vidtrain.errors import ConfigError
from vidtrain.models.cnn_lstm import cnn_lstm
from vidtrain.models.convlstm import convlstm
from vidtrain.models.convlstm_attention import convlstm_attention
from vidtrain.models.convlstm_deformable import convlstm_deformable
from vidtrain.models.convlstm_dilated import convlstm_dilated
from vidtrain.models.convlstm_hierarchical import convlstm_hierarchical
from vidtrain.models.layers.checkpointing import checkpoint_activations
from vidtrain.models.layers.recurrent import RecurrentClassifier, SequenceEncoder, TimePool
from vidtrain.models.rcn import rcn
from vidtrain.models.st_lstm import st_lstm

CONF = Path(__file__).parents[2] / "conf" / "model"
NAMES = (
    *("cnn_lstm", "rcn", "convlstm", "convlstm_deformable", "convlstm_attention", "convlstm_dilated"),
    *("convlstm_hierarchical", "st_lstm"),
)
FULL: list[tuple[str, dict[str, Any]]] = [(name, {}) for name in NAMES]
TINY = [(f"{name}_tiny", {"num_frames": 7, "size": 32}) for name in NAMES]
STREAMS: list[tuple[str, dict[str, Any]]] = [
    *TINY,
    *(("cnn_lstm_tiny", {"size": 32, "head": head}) for head in ("last", "max", "attention")),
    *(("rcn_tiny", {"cell": cell, "head": head}) for cell, head in (("rnn", "last"), ("lstm", "attention"))),
    ("cnn_lstm_tiny", {"size": 32, "cell": "gru", "layers": 2, "fusion": "concat"}),
    ("cnn_lstm_tiny", {"size": 32, "cell": "rnn", "fusion": "weights"}),
    ("convlstm_tiny", {"size": 32, "peephole": True, "head": "max"}),
    ("convlstm_hierarchical_tiny", {"time_scale": 3, "head": "attention"}),
    ("convlstm_hierarchical_tiny", {"time_scale": 1, "head": "last"}),
    ("st_lstm_tiny", {"size": 32, "inputs": "avg", "layers": 2, "head": "attention"}),
]


def randomised(model: nn.Module) -> Any:
    """Zero-initialised parts and running statistics get values, and the logits a size."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for key, tensor in model.state_dict().items():
            if tensor.is_floating_point() and not key.endswith("running_var"):
                tensor.add_(0.05 * torch.randn(tensor.shape, generator=generator))
        head = model.get_submodule(str(model.head_name))
        head.weight.mul_(50)
    return model.eval()


def built(name: str, **options: Any) -> Any:
    torch.manual_seed(0)
    return randomised(create_model(name, num_classes=5, **options))


def clip(frames: int = 7, size: int = 32, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 3, frames, size, size, generator=torch.Generator().manual_seed(1))


# ---------------------------------------------------------------- streaming


@pytest.mark.parametrize("pieces", [(1, 1, 1, 1, 1, 1, 1), (3, 1, 2, 1)], ids=str)
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


@pytest.mark.parametrize("name", ["cnn_lstm_tiny", "convlstm_tiny", "convlstm_hierarchical_tiny", "st_lstm_tiny"])
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
        hierarchical.load_state_dict(single.state_dict())
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
    assert [tuple(cell.peephole.shape[2:]) for cell in model.layers] == [(8, 8), (4, 4)]
    with pytest.raises(ConfigError, match=r"built for 30 x 30: set transform\.size=30"):
        model(clip(size=32))


# ---------------------------------------------------------------- st_lstm


def test_st_lstm_looks_where_its_state_says() -> None:
    model = built("st_lstm_tiny", size=48)
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


# ---------------------------------------------------------------- all of them


@pytest.mark.parametrize("name", [name for name, _ in FULL + TINY])
def test_the_header_of_the_yaml_tells_the_cost(name: str) -> None:
    text = " ".join((CONF / f"{name}.yaml").read_text(encoding="utf-8").replace("\n# ", " ").split())
    found = re.search(r"([\d.]+)M parameters, ([\d.]+) GMAC at 16 x (\d+) x \3", text)
    assert found is not None
    size = int(found[3])
    assert size == (64 if name.endswith("_tiny") else 112)
    with torch.device("meta"):
        model = create_model(name, num_classes=8 if size == 64 else 400, size=size).eval()
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        assert isinstance(model, RecurrentClassifier)
        model(torch.empty(1, 3, 16, size, size, device="meta"))
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(float(found[1]), abs=0.0051)
    assert counter.get_total_flops() / 2e9 == pytest.approx(float(found[2]), abs=0.0051)


def test_parameters_of_convlstm_by_hand() -> None:
    stem = 9 * 3 * 32 + 2 * 32 + 9 * 32 * 64 + 2 * 64
    first = 9 * (64 + 64) * 4 * 64 + 2 * 4 * 64
    second = 9 * (64 + 128) * 4 * 128 + 2 * 4 * 128
    with torch.device("meta"):
        model = convlstm(num_classes=400, size=112)
    assert sum(p.numel() for p in model.parameters()) == stem + first + second + 128 * 400 + 400


@pytest.mark.parametrize(("name", "options"), TINY)
def test_export(name: str, options: dict[str, Any]) -> None:
    model, x = built(name, **options), clip(3)
    exported = torch.export.export(model, (x,)).module()
    with torch.no_grad():
        torch.testing.assert_close(exported(x), model(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("name", "options"), TINY)
def test_memory_order_does_not_matter(name: str, options: dict[str, Any]) -> None:
    model, x = built(name, **options), clip()
    with torch.no_grad():
        last = model(x.contiguous(memory_format=torch.channels_last_3d))
        torch.testing.assert_close(last, model(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["rcn_tiny", "convlstm_tiny", "convlstm_deformable_tiny"])
def test_activation_checkpointing_gives_the_same_gradient(name: str) -> None:
    gradients = []
    for checkpointed in (False, True):
        model = built(name, size=32).train()
        if checkpointed:
            assert checkpoint_activations(model) == len(model.layers)
        model(clip(3)).square().sum().backward()
        gradients.append([p.grad for p in model.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    ("build", "options", "message"),
    [
        (cnn_lstm, {"size": 32, "cell": "lstn"}, r"model\.cell: got 'lstn' \(did you mean lstm\?\), expected lstm"),
        (cnn_lstm, {"size": 32, "head": "mena"}, r"model\.head: got 'mena' \(did you mean mean\?\), expected last"),
        (cnn_lstm, {"size": 32, "fusion": "sum"}, r"model\.fusion: got 'sum', expected none, concat, weights"),
        (cnn_lstm, {"size": 32, "pooling": "max"}, r"model\.pooling: got 'max', expected avg, flatten"),
        (cnn_lstm, {"size": 32, "projection": 0}, r"model\.projection: got 0, expected 1 or more"),
        (cnn_lstm, {"size": 32, "hidden": 0}, r"model\.hidden: got 0, expected 1 or more"),
        (cnn_lstm, {"size": 32, "layers": 0}, r"model\.layers: got 0, expected 1 or more"),
        (st_lstm, {"size": 0}, r"model\.size: got 0, expected 1 or more"),
        (st_lstm, {"size": 32, "inputs": "mean"}, r"model\.inputs: got 'mean', expected flatten, avg"),
        (rcn, {"cell": "tanh"}, r"model\.cell: got 'tanh', expected rnn, gru, lstm"),
        (rcn, {"channels": []}, r"model\.channels: got \[\], expected a list of whole numbers of 1 or more"),
        (rcn, {"channels": 32}, r"model\.channels: got 32, expected a list"),
        (rcn, {"kernel": 2}, r"model\.kernel: got 2, expected an odd number"),
        (convlstm, {"size": 32, "stem": [8, 0]}, r"model\.stem: got \[8, 0\], expected a list"),
        (convlstm, {"size": 32, "stride": 0}, r"model\.stride: got 0, expected 1 or more"),
        (convlstm_dilated, {"dilation": 0}, r"model\.dilation: got 0, expected 1 or more"),
        (convlstm_hierarchical, {"time_scale": 0}, r"model\.time_scale: got 0, expected 1 or more"),
        (convlstm_deformable, {"groups": 3}, r"model\.groups: got 3, which does not divide the 64 channels of stem"),
    ],
)  # fmt: skip
def test_errors_say_what_is_allowed(build: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        build(num_classes=5, **options)
    assert "\n" not in str(caught.value)


def test_no_stem() -> None:
    assert convlstm(num_classes=5, size=16, stem=[], hidden=[4])(clip(3, 16)).shape == (2, 5)

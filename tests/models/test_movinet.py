"""MoViNet, base and stream: size and cost, third-party logits, published files, padding, what a frame may see.

That a video in pieces is the video at once is tested with the recurrent models (test_recurrent_streaming.py)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import vidtrain
from tests.models.parity import drawn_weights, error_of, key_layout
from tests.sampled import sampled
from vidtrain.errors import CheckpointError, ConfigError
from vidtrain.models.layers.same_padding import SameAvgPool, SameConv3d
from vidtrain.models.movinet import MoViNet
from vidtrain.models.weights.load import describe_weights, load_weights

# model, size, parameters at 400 and at 600 classes, GMAC at 50 frames
PUBLISHED = [
    ("movinet_a0", 172, 2_701_999, 3_111_799, 2.6303),
    ("movinet_a1", 172, 4_280_496, 4_690_296, 5.8652),
    ("movinet_a2", 224, 4_839_762, 5_249_562, 11.5577),
    ("movinet_a0_stream", 172, 3_338_231, 3_748_031, 2.4260),
    ("movinet_a1_stream", 172, 6_037_552, 6_447_352, 5.5399),
    ("movinet_a2_stream", 224, 6_917_162, 7_326_962, 10.7000),
]


@pytest.mark.parametrize(("name", "size", "params", "more", "gmac"), sampled(PUBLISHED, ["movinet_a0"]))
def test_parameters_and_multiply_adds(name: str, size: int, params: int, more: int, gmac: float) -> None:
    with torch.device("meta"):
        model = vidtrain.create_model(name, num_classes=400).eval()
        other = vidtrain.create_model(name, num_classes=600)
    assert sum(p.numel() for p in model.parameters()) == params
    assert sum(p.numel() for p in other.parameters()) == more
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model(torch.empty(1, 3, 50, size, size, device="meta"))
    assert counter.get_total_flops() / 2e9 == pytest.approx(gmac, rel=1e-3)


@pytest.mark.parametrize("kind", ["", "_stream"])
def test_logits_are_those_of_the_published_code(kind: str) -> None:
    """alpha is drawn at 0.05, so that a block counts little: hence the small tolerance."""
    assert error_of(f"movinet_a1_{kind.strip('_') or 'base'}", f"movinet_a1{kind}") <= 2e-5


@pytest.mark.parametrize("name", sampled(["a0_base", "a1_base", "a0_stream", "a1_stream"], ["a0_stream"]))
def test_published_layouts(name: str) -> None:
    state = key_layout(f"movinet_{name}")
    model = f"movinet_{name}".removesuffix("_base")
    info = describe_weights(state)
    assert (info.layout, info.model, info.options, info.num_classes) == ("MoViNet-pytorch", model, {}, 101)
    with torch.device("meta"):
        net = vidtrain.create_model(model, num_classes=101)
        fewer = vidtrain.create_model(model, num_classes=7)
    report = load_weights(net, state)
    assert (report.head, report.left_out, report.loaded) == (None, (), len(net.state_dict()))
    assert any("tf_like=True" in note for note in report.notes)
    assert load_weights(fewer, state).head == "checkpoint has 101 classes, model has 7"
    with pytest.raises(CheckpointError, match="1 missing"):
        load_weights(net, {key: tensor for key, tensor in state.items() if key != "blocks.b1_l0.alpha"})
    with pytest.raises(CheckpointError, match=rf"they fit create_model\('{model}', num_classes=101\)"):
        load_weights(vidtrain.create_model("movinet_tiny", num_classes=5), state)


def theirs(net: MoViNet, split: bool) -> dict[str, torch.Tensor]:
    """The weights of ours as MoViNet-pytorch's files have them."""
    conv, out = "conv2d" if split else "conv3d", {}
    for ours, tensor in drawn_weights(net).items():
        key = ours
        for new, old in (
            ("stem.", "conv1."),
            ("top.", "conv7."),
            ("fc1.", "classifier.0."),
            ("head.", "classifier.3."),
        ):
            key = old + key.removeprefix(new) if key.startswith(new) else key
        if key.startswith("blocks."):
            pooled = net.get_submodule(".".join(key.split(".")[:2])).pool
            key = key.replace("shortcut.", "res.0." if isinstance(pooled, nn.Identity) else "res.1.")
        for new, old in ((".time_conv.", f".conv_2.{conv}."), (".time_norm.", ".conv_2.norm.")):
            key = key.replace(new, old)
        if ".conv_2" not in key:
            key = key.replace(".conv.", f".conv_1.{conv}.").replace(".norm.", ".conv_1.norm.")
        for part in ("fc1", "fc2", "classifier.0", "classifier.3"):
            key = key.replace(f"{part}.weight", f"{part}.conv_1.{conv}.weight")
            key = key.replace(f"{part}.bias", f"{part}.conv_1.{conv}.bias")
        if tensor.ndim == 2:
            tensor = tensor[:, :, None, None, None]
        if split and tensor.ndim == 5:
            tensor = tensor.squeeze(-1) if "conv_2" in key else tensor.squeeze(2)
        out[key] = tensor.squeeze() if key.endswith("alpha") else tensor
    return out


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("conv", ["3d", "2plus1d"])
def test_every_kind_of_file(causal: bool, conv: str) -> None:
    split = conv == "2plus1d"
    options = {"causal": causal, "conv": conv, "num_classes": 5}
    net, other = (vidtrain.create_model("movinet_tiny", **options).eval() for _ in range(2))
    file = theirs(net, split)
    info = describe_weights(file)
    if causal == split:
        assert (info.model, info.options) == ("movinet_tiny_stream" if split else "movinet_tiny", {})
    else:
        assert (info.model, info.options) == ("movinet_tiny", {"conv": conv} if split else {"causal": True})
    report = load_weights(other, {"state_dict": file})
    assert (report.layout, report.head, report.left_out) == ("MoViNet-pytorch", None, ())
    for key, tensor in net.state_dict().items():
        assert key.endswith("num_batches_tracked") or torch.equal(tensor, other.state_dict()[key]), key


def test_a_net_of_another_size_is_of_no_catalogue() -> None:
    file = theirs(vidtrain.create_model("movinet_tiny", num_classes=5), split=False)
    wide = {**file, "conv7.conv_1.conv3d.weight": torch.zeros(100, 32, 1, 1, 1)}
    assert (describe_weights(wide).layout, describe_weights(wide).model) == ("MoViNet-pytorch", None)


# ---------------------------------------------------------------- padding


@pytest.mark.parametrize("shape", [(6, 6), (7, 7), (6, 7), (5, 2), (1, 1)])
def test_the_average_is_over_the_pixels_that_are_there(shape: tuple[int, int]) -> None:
    x = torch.randn(1, 1, 2, *shape)
    total = [max((-(-n // 2) - 1) * 2 + 3 - n, 0) for n in shape]
    pads = [total[1] // 2, total[1] - total[1] // 2, total[0] // 2, total[0] - total[0] // 2]
    kernel = torch.ones(1, 1, 1, 3, 3)
    sums, counts = (F.conv3d(F.pad(part, pads), kernel, stride=(1, 2, 2)) for part in (x, torch.ones_like(x)))
    torch.testing.assert_close(SameAvgPool()(x), sums / counts)


def test_a_convolution_that_leaves_time_to_its_caller() -> None:
    x = torch.randn(2, 4, 5, 6, 6)
    for stride in ((1, 1, 1), (1, 2, 2)):
        conv = SameConv3d(4, 4, (3, 3, 3), stride, groups=4, pad_time=False)
        assert conv.weight.shape == (4, 1, 3, 3, 3)
        whole = SameConv3d(4, 4, (3, 3, 3), stride, groups=4)
        whole.load_state_dict(conv.state_dict())
        padded = conv(F.pad(x, (0, 0, 0, 0, 1, 1)))
        torch.testing.assert_close(padded, whole(x))
        assert padded.shape[3:] == (6 // stride[1],) * 2


# ---------------------------------------------------------------- what a frame may see


def drawn(**options: Any) -> MoViNet:
    model = vidtrain.create_model("movinet_tiny", num_classes=5, **options).eval()
    drawn_weights(model)
    assert isinstance(model, MoViNet)
    return model


@pytest.mark.parametrize("conv", ["3d", "2plus1d"])
@pytest.mark.parametrize("causal", [False, True])
def test_only_a_causal_net_is_blind_to_what_comes_later(causal: bool, conv: str) -> None:
    model, maps = drawn(causal=causal, conv=conv), []
    model.blocks[-1].register_forward_hook(lambda module, given, out: maps.append(out[0]))
    x = torch.randn(1, 3, 8, 32, 32)
    changed = torch.cat([x[:, :, :5], torch.randn(1, 3, 3, 32, 32)], 2)
    with torch.no_grad():
        model(x), model(changed)
    moved = (maps[0] - maps[1]).abs().amax((0, 1, 3, 4)) > 1e-6
    assert moved[5:].all()
    assert moved[:5].any() == (not causal)


def test_a_state_is_short() -> None:
    """Four frames before a kernel of five, two before one of three, and none of the clip that they were the end of."""
    model = drawn(causal=True)
    with torch.no_grad():
        _, (_, seen, blocks, _) = model.stream(torch.randn(2, 3, 16, 32, 32))
    assert seen == 16
    assert [None if frames is None else frames.shape[2] for frames, _ in blocks] == [None, 2, 2, 4, 2]
    for frames, total in blocks:
        assert total.shape[2:] == (1, 1, 1)
        assert frames is None or frames.untyped_storage().nbytes() == frames.numel() * 4


def test_a_base_net_does_not_stream() -> None:
    with pytest.raises(ConfigError, match=r"model\.causal: got false, .*set it to true") as caught:
        vidtrain.create_model("movinet_a0", num_classes=5).stream(torch.zeros(1, 3, 2, 32, 32))
    assert "\n" not in str(caught.value)


def test_a_block_begins_as_its_shortcut() -> None:
    model = vidtrain.create_model("movinet_tiny", num_classes=5).eval()
    block, x = model.blocks.b1_l1, torch.randn(1, 16, 4, 8, 8)
    assert torch.equal(block(x, 0, (None, None))[0], x)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "a9"}, r"model\.variant: got 'a9'.*expected a0, a1, a2, tiny"),
        ({"conv": "2d"}, r"model\.conv: got '2d'.*expected 3d, 2plus1d"),
    ],
)
def test_errors_say_what_is_allowed(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        vidtrain.create_model("movinet_a0", num_classes=5, **options)

"""I3D, S3D and S3D-G: size, cost, padding, the window of the head, gates, flow, non-local blocks."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from tests.models.parity import drawn_weights
from vidtrain import create_model
from vidtrain.errors import ConfigError
from vidtrain.models.i3d import i3d
from vidtrain.models.inspect.summary import cost
from vidtrain.models.layers.same_padding import SameConv3d, SameMaxPool3d, pad_same
from vidtrain.models.s3d import SelfGate, s3d

S3DG = functools.partial(create_model, "s3dg")

# Parameters to the unit (of S3D-G: S3D's plus a matrix and a bias for each of its 20 temporal convolutions) and GMAC.
PUBLISHED = [
    (i3d, 400, 12_697_264, (64, 224), 111.15),
    pytest.param(i3d, 101, 12_390_789, (64, 224), None, marks=pytest.mark.slow),
    pytest.param(s3d, 400, 8_320_048, (16, 224), 17.98, marks=pytest.mark.slow),
    pytest.param(s3d, 101, 8_013_573, (16, 224), None, marks=pytest.mark.slow),
    (S3DG, 400, 8_320_048 + 765_696, (16, 224), 17.98),
]


@pytest.mark.parametrize(("factory", "classes", "params", "clip", "gmac"), PUBLISHED)
def test_parameters_and_multiply_adds(
    factory: Callable[..., nn.Module], classes: int, params: int, clip: tuple[int, int], gmac: float | None
) -> None:
    with torch.device("meta"):
        model = factory(num_classes=classes)
    counted, macs = cost(model, *clip) if gmac else (sum(p.numel() for p in model.parameters()), 0)
    assert counted == params
    if gmac:
        assert macs / 1e9 == pytest.approx(gmac, rel=5e-3)


def test_flow_has_two_channels() -> None:
    model = i3d(num_classes=3, width=8, in_channels=2).eval()
    assert model(torch.zeros(1, 2, 8, 32, 32)).shape == (1, 3)
    with pytest.raises(ConfigError, match=r"expected \(batch, 2, frames, height, width\)"):
        model(torch.zeros(1, 3, 8, 32, 32))


# ---------------------------------------------------------------- TensorFlow's padding


@pytest.mark.parametrize(
    ("length", "kernel", "stride", "before", "after"),
    [
        (8, 7, 2, 2, 3),
        (9, 7, 2, 3, 3),
        (8, 3, 2, 0, 1),
        (7, 3, 2, 1, 1),
        (8, 3, 1, 1, 1),
        (7, 2, 2, 0, 1),
        (8, 2, 2, 0, 0),
    ],
)
def test_same_padding_puts_the_odd_zero_last(length: int, kernel: int, stride: int, before: int, after: int) -> None:
    x = torch.ones(1, 1, length, 1, 1)
    padded = pad_same(x, (kernel, 1, 1), (stride, 1, 1))[0, 0, :, 0, 0]
    assert padded.tolist() == [0.0] * before + [1.0] * length + [0.0] * after


@pytest.mark.parametrize("size", [5, 6])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [1, 2, 3, 7])
def test_same_layers_give_ceil_of_the_size_over_the_stride(size: int, stride: int, kernel: int) -> None:
    x = torch.rand(1, 2, size, size, size)
    conv = SameConv3d(2, 3, (kernel,) * 3, (stride,) * 3)
    pool = SameMaxPool3d((kernel,) * 3, (stride,) * 3)
    out = -(-size // stride)
    assert conv(x).shape == (1, 3, out, out, out)
    assert pool(x).shape == (1, 2, out, out, out)
    padded = pad_same(x, (kernel,) * 3, (stride,) * 3)
    torch.testing.assert_close(conv(x), F.conv3d(padded, conv.weight, stride=stride))


# ---------------------------------------------------------------- the head


def test_i3d_averages_windows_of_two_steps_as_published() -> None:
    model = i3d(num_classes=4, width=8).eval()
    maps: list[torch.Tensor] = []
    model.Mixed_5c.register_forward_hook(lambda _, __, output: maps.append(output))
    with torch.no_grad():
        features = model.forward_features(torch.randn(2, 3, 32, 32, 32))
    assert maps[0].shape[2:] == (4, 1, 1)
    torch.testing.assert_close(features, F.avg_pool3d(maps[0], (2, 1, 1), 1).mean((2, 3, 4)))
    ends, middle = maps[0][:, :, [0, 3]].sum((2, 3, 4)), maps[0][:, :, 1:3].sum((2, 3, 4))
    torch.testing.assert_close(features, (ends + 2 * middle) / 6)


@pytest.mark.parametrize("shape", [pytest.param((16, 112, 112), marks=pytest.mark.slow), (9, 33, 47), (1, 16, 16)])
@pytest.mark.parametrize("factory", [i3d, s3d, S3DG])
def test_any_clip(factory: Callable[..., nn.Module], shape: tuple[int, int, int]) -> None:
    with torch.device("meta"):
        assert factory(num_classes=3, width=8).eval()(torch.empty(2, 3, *shape)).shape == (2, 3)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(14, 224, 224), (16, 232, 260), (40, 224, 224)])
def test_s3d_is_torchvisions(shape: tuple[int, int, int]) -> None:
    """Also where its window of 2 x 7 x 7 is less than the last map."""
    theirs, ours = torchvision.models.video.s3d(num_classes=5).eval(), s3d(num_classes=5).eval()
    state = drawn_weights(theirs, 1.0)
    head = {"classifier.weight": state.pop("classifier.1.weight").flatten(1),
            "classifier.bias": state.pop("classifier.1.bias")}  # fmt: skip
    assert not ours.load_state_dict({**state, **head}, strict=False).unexpected_keys
    x = torch.randn(1, 3, *shape)
    with torch.no_grad():
        reference = theirs(x)
        torch.testing.assert_close(ours(x), reference, rtol=0, atol=1e-5 * reference.std().item())


# ---------------------------------------------------------------- gates


def test_a_gate_weighs_each_channel_by_the_whole_clip() -> None:
    gate = SelfGate(3)
    x = torch.randn(2, 3, 4, 5, 6)
    by_hand = torch.sigmoid(x.mean((2, 3, 4)) @ gate.fc.weight.T + gate.fc.bias)
    torch.testing.assert_close(gate(x), x * by_hand[:, :, None, None, None])


def test_s3dg_has_a_gate_after_each_temporal_convolution_and_nowhere_else() -> None:
    with torch.device("meta"):
        model = S3DG(num_classes=2)
    order = [m for m in model.modules() if isinstance(m, (nn.Conv3d, SelfGate))]
    for layer, after in zip(order, [*order[1:], None], strict=True):
        temporal = isinstance(layer, nn.Conv3d) and layer.kernel_size[0] > 1
        assert temporal == isinstance(after, SelfGate), layer
    assert sum(isinstance(m, SelfGate) for m in order) == 20
    assert not any(isinstance(m, SelfGate) for m in s3d(num_classes=2, width=8).modules())


# ---------------------------------------------------------------- non-local blocks


def test_i3d_with_nonlocal_blocks_starts_as_i3d_without() -> None:
    plain = i3d(num_classes=4, width=8).eval()
    other = i3d(num_classes=4, width=8, nonlocal_blocks=5).eval()
    missing, unexpected = other.load_state_dict(plain.state_dict(), strict=False)
    assert not unexpected
    assert {key.split(".")[0] for key in missing} == {f"NonLocal_4{letter}" for letter in "bcdef"}
    x = torch.randn(1, 3, 8, 64, 64)
    with torch.no_grad():
        assert torch.equal(plain(x), other(x))
        nn.init.ones_(other.NonLocal_4d.bn.weight)
        assert not torch.allclose(plain(x), other(x), rtol=1e-3)


def test_i3ds_places_for_nonlocal_blocks_are_named() -> None:
    assert hasattr(i3d(num_classes=2, width=8, nonlocal_blocks=["Mixed_3c"]), "NonLocal_3c")
    with pytest.raises(ConfigError, match=r"model\.nonlocal_blocks: there is no Mixed_3d"):
        i3d(num_classes=2, width=8, nonlocal_blocks=["Mixed_3d"])
    with pytest.raises(ConfigError, match=r"model\.nonlocal_blocks: got 3"):
        i3d(num_classes=2, width=8, nonlocal_blocks=3)

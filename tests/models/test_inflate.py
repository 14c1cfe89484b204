"""What inflation has to keep: the 2D weights in sum, still clips exactly, and whatever 2D net it is given."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

from tests.models.parity import drawn_weights
from vidtrain.errors import ConfigError
from vidtrain.models.inflated import inflated
from vidtrain.models.layers.inflated_layers import InflatedConv, inflate_weight, repeat_ends
from vidtrain.models.layers.inflation import inflate

NETS = (
    *["resnet18", "vgg11_bn", "alexnet", "squeezenet1_1", "densenet121", "mobilenet_v3_small", "efficientnet_b0"],
    *["mnasnet0_5", "shufflenet_v2_x0_5", "regnet_y_400mf", "convnext_tiny", "googlenet", "inception_v3"],
)
"""One of each family; heads, shuffles, attention over channels and pools of every kind among them."""
_QUICK = ("resnet18", "mobilenet_v3_small", "shufflenet_v2_x0_5", "squeezenet1_1")


def image_net(name: str) -> nn.Module:
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    net = torchvision.models.get_model(name, **options).eval()
    drawn_weights(net, 1.0)
    return net


def still(image: torch.Tensor, frames: int) -> torch.Tensor:
    """(N, C, H, W) -> (N, C, T, H, W)."""
    return image.unsqueeze(2).expand(-1, -1, frames, -1, -1).contiguous()


@pytest.mark.parametrize("time_kernel", [1, 3, 5])
@pytest.mark.parametrize("taps", ["mean", "centre"])
def test_the_weights_sum_to_the_2d_weights(taps: str, time_kernel: int) -> None:
    weight = torch.randn(4, 2, 3, 3)
    wide = inflate_weight(weight, time_kernel, taps)
    assert wide.shape == (4, 2, time_kernel, 3, 3)
    torch.testing.assert_close(wide.sum(2), weight, rtol=1e-6, atol=1e-7)
    if taps == "centre":
        assert torch.equal(wide[:, :, time_kernel // 2], weight)
    else:
        assert torch.equal(wide[:, :, 0], wide[:, :, -1])


@pytest.mark.parametrize("options", [{"stride": 2, "padding": 1}, {"groups": 2, "dilation": 2}, {"padding": "same"},
                                     {"padding": 1, "padding_mode": "reflect"}])  # fmt: skip
@pytest.mark.parametrize("time_kernel", [3, 5])
def test_one_convolution_on_a_still_clip(time_kernel: int, options: dict[str, object]) -> None:
    """With zeros as padding it is the 2D convolution except in the time_kernel // 2 frames at each end."""
    conv = nn.Conv2d(4, 6, 3, **options)  # type: ignore[arg-type]
    x = torch.randn(2, 4, 9, 8)
    expected = still(conv(x), 8)
    exact = inflate(conv, time_kernel=time_kernel, padding="replicate")(still(x, 8))
    torch.testing.assert_close(exact, expected, rtol=1e-5, atol=1e-5)
    zeros = inflate(conv, time_kernel=time_kernel, padding="zeros")(still(x, 8))
    edge = time_kernel // 2
    torch.testing.assert_close(zeros[:, :, edge:-edge], expected[:, :, edge:-edge], rtol=1e-5, atol=1e-5)
    for frame in [*range(edge), *range(8 - edge, 8)]:
        assert not torch.allclose(zeros[:, :, frame], expected[:, :, frame], rtol=1e-2), frame


@pytest.mark.parametrize("padding", ["zeros", "replicate"])
def test_a_convolution_is_the_3d_convolution(padding: str) -> None:
    """On clips that move, against nn.Conv3d with the same weights."""
    layer = inflate(nn.Conv2d(3, 5, 3, stride=2, padding=1), padding=padding)
    (conv,) = (m for m in layer.modules() if isinstance(m, InflatedConv))
    x = torch.randn(2, 3, 6, 8, 8)
    clips = repeat_ends(x, 1) if padding == "replicate" else x
    plain = nn.Conv3d(3, 5, 3, (1, 2, 2), (1 if padding == "zeros" else 0, 1, 1))
    plain.load_state_dict(conv.state_dict())
    torch.testing.assert_close(layer(x), plain(clips))


@pytest.mark.parametrize("pool", [nn.MaxPool2d(3, 2, 1), nn.MaxPool2d((2, 3), dilation=(2, 1), ceil_mode=True),
                                  nn.AvgPool2d(3, 2, 1), nn.AvgPool2d(2, count_include_pad=False),
                                  nn.AvgPool2d(3, 2, 1, ceil_mode=True, divisor_override=5)])  # fmt: skip
def test_pools_span_time_too(pool: nn.Module) -> None:
    layer = inflate(nn.Sequential(nn.Conv2d(3, 3, 3), pool), time_kernel=3, taps="centre")
    x = torch.randn(1, 3, 4, 9, 9)
    per_frame = torch.stack([pool(layer.net[0](frame)) for frame in _frames_as_clips(layer, x)], 2)
    neighbours = torch.stack([per_frame[:, :, [max(t - 1, 0), t, min(t + 1, 3)]] for t in range(4)], 2)
    expected = neighbours.amax(3) if isinstance(pool, nn.MaxPool2d) else neighbours.mean(3)
    torch.testing.assert_close(layer(x), expected)


def _frames_as_clips(layer: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    layer.clock.frames = 1  # type: ignore[union-attr]
    return list(x.unbind(2))


@pytest.mark.parametrize(
    "name", [name if name in _QUICK else pytest.param(name, marks=pytest.mark.slow) for name in NETS]
)
def test_a_whole_net_on_a_still_clip(name: str) -> None:
    """Replicate padding: the 2D net's logits in every frame."""
    net = image_net(name)
    deep = inflate(net, time_kernel=3, padding="replicate")
    x = torch.randn(1, 3, 80, 80)
    with torch.no_grad():
        expected, got = net(x), deep(still(x, 3))
    assert got.shape == (1, 1000, 3)
    torch.testing.assert_close(got, still_logits(expected, 3), rtol=0, atol=2e-5 * expected.std().item())
    kernels = [m for m in deep.modules() if isinstance(m, nn.Conv2d)]
    assert all(max(m.kernel_size) == 1 for m in kernels), "a kernel above 1 stayed 2D"


def still_logits(logits: torch.Tensor, frames: int) -> torch.Tensor:
    return logits.unsqueeze(2).expand(-1, -1, frames)


def test_with_zero_padding_the_centre_frames_are_exact() -> None:
    """resnet18 has 17 convolutions and a pool of 3 frames in a row: 18 frames at each end know of the border."""
    net = image_net("resnet18")
    deep = inflate(net, time_kernel=3, padding="zeros")
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        expected, got = net(x), deep(still(x, 40))
    centre = got[:, :, 18:22]
    torch.testing.assert_close(centre, still_logits(expected, 4), rtol=0, atol=1e-4 * expected.std().item())
    assert (got[:, :, 0] - expected).abs().max() > 0.01 * expected.std()


def test_it_is_a_3d_net() -> None:
    """It sees the order of frames, and the 2D net stays as it was."""
    net = image_net("resnet18")
    before = {key: value.clone() for key, value in net.state_dict().items()}
    deep = inflate(net)
    nn.init.normal_(next(m for m in deep.modules() if isinstance(m, InflatedConv)).weight, std=0.1)
    x = torch.randn(1, 3, 4, 32, 32)
    with torch.no_grad():
        assert not torch.allclose(deep(x).mean(2), deep(x.flip(2)).mean(2), rtol=1e-2)
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    assert not any(isinstance(m, InflatedConv) for m in net.modules())


def test_a_layer_used_twice_is_inflated_once() -> None:
    conv = nn.Conv2d(3, 3, 3, padding=1)
    deep = inflate(nn.Sequential(conv, nn.ReLU(), conv))
    assert deep.net[0] is deep.net[2]
    assert isinstance(deep.net[0], InflatedConv)


def test_the_classifier_averages_the_2d_features_of_a_still_clip() -> None:
    model = inflated(num_classes=3, backbone="resnet18").eval()
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        one, many = model.forward_features(still(x, 1)), model.forward_features(still(x, 7))
    torch.testing.assert_close(one, many, rtol=1e-4, atol=1e-5)


def test_timm_nets() -> None:
    timm = pytest.importorskip("timm")
    for name in ("resnet10t", "tf_efficientnet_b0", "mobilenetv4_conv_small"):
        net = timm.create_model(name).eval()
        x = torch.randn(1, 3, 64, 64)
        with torch.no_grad():
            expected, got = net(x), inflate(net)(still(x, 3))
        torch.testing.assert_close(got, still_logits(expected, 3), rtol=0, atol=1e-5 * expected.std().item())
    with pytest.raises(ConfigError, match=r"its convolutions are of a class of their own: .*ScaledStdConv2d"):
        inflate(timm.create_model("nf_resnet26"))


class _Own(nn.Conv2d):
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return self._conv_forward(input, self.weight - self.weight.mean(), self.bias)


def test_convolutions_of_their_own_class_are_named(caplog: pytest.LogCaptureFixture) -> None:
    net = nn.Sequential(nn.Conv2d(3, 3, 3), _Own(3, 3, 3))
    deep = inflate(net)
    assert "1 convolutions of their own class stay 2D: 1 (_Own)" in caplog.text
    x = torch.randn(1, 3, 8, 8)
    torch.testing.assert_close(deep(still(x, 2)), still(net(x), 2), rtol=1e-5, atol=1e-6)


def test_errors() -> None:
    for options, message in (
        ({"time_kernel": 2}, r"model\.time_kernel: got 2, expected an odd number"),
        ({"taps": "center"}, r"model\.taps: got 'center' \(did you mean centre\?\), expected mean, centre"),
        ({"padding": "same"}, r"model\.padding: got 'same', expected replicate, zeros"),
    ):
        with pytest.raises(ConfigError, match=message):
            inflated(num_classes=2, backbone="tiny", **options)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="it is no 2D CNN"):
        inflate(nn.Sequential(nn.Linear(3, 3)))
    with pytest.raises(ConfigError, match=r"\(batch, channels, frames, height, width\), got \(1, 3, 8, 8\)"):
        inflate(nn.Conv2d(3, 3, 3))(torch.zeros(1, 3, 8, 8))

"""Where a model's first weights come from: published ones, files for the backbone, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

import vidtrain
from vidtrain.errors import CheckpointError, ConfigError
from vidtrain.models.layers.backbone2d import ImageBackbone, image_backbone
from vidtrain.models.weights.expected_clips import IMAGENET
from vidtrain.models.weights.from_2d import fit_input
from vidtrain.models.weights.initial_weights import _PUBLISHED, torchvision_clips

CLIP = {"num_frames": 6, "size": 32}
WITH_BACKBONE = [
    *["single_frame", "late_fusion", "early_fusion", "inflated", "cnn_lstm", "st_lstm", "tsn_r50", "tsm_r50"],
    *["two_stream_tiny"],
]


def file_of(net: nn.Module, path: Path) -> Path:
    torch.manual_seed(7)
    for tensor in net.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.1, 0.9)
    torch.save(net.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def tiny_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return file_of(image_backbone("tiny").net, tmp_path_factory.mktemp("weights") / "tiny.pt")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """torch.hub takes a file that lies in its cache: random weights in the place of published ones need no network."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    return tmp_path / "hub" / "checkpoints"


# ---------------------------------------------------------------- a file for the backbone


@pytest.mark.parametrize("name", [name for name in WITH_BACKBONE if "r50" not in name])
def test_every_2d_backbone_starts_from_a_file(name: str, tiny_file: Path) -> None:
    state = torch.load(tiny_file, weights_only=True)
    model = vidtrain.create_model(
        name, num_classes=4, **{**CLIP, "backbone": "tiny"}, backbone_weights=str(tiny_file)
    )  # fmt: skip
    backbones = [module for module in model.modules() if isinstance(module, ImageBackbone)]
    assert backbones
    for backbone in backbones:
        ours = backbone.net.state_dict()
        assert ours.keys() == state.keys()
        for key, tensor in state.items():
            got = ours[key]
            if got.ndim == 5:
                got = got.sum(2)  # inflated: the weights over time sum to the 2D ones
            if got.ndim == 4 and got.shape[1] != tensor.shape[1]:
                tensor = fit_input(tensor, got.shape[1], backbone.stacked)
            torch.testing.assert_close(got, tensor, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["tsn_r50", "tsm_r50"])
def test_frame_resnets_start_from_a_file(name: str, tmp_path: Path) -> None:
    file = file_of(torchvision.models.resnet18(), tmp_path / "resnet18.pth")
    model = vidtrain.create_model(name, num_classes=4, backbone="resnet18", backbone_weights=str(file))
    state = torch.load(file, weights_only=True)
    ours = model.base_model.state_dict()
    assert all(torch.equal(ours[key], tensor) for key, tensor in state.items() if not key.startswith("fc."))
    flow = vidtrain.create_model(
        name, num_classes=4, backbone="resnet18", in_channels=10, backbone_weights=str(file)
    )  # fmt: skip
    for channel in range(10):
        torch.testing.assert_close(flow.base_model.conv1.weight[:, channel], state["conv1.weight"].mean(1))


def test_a_file_of_another_backbone_changes_nothing(tiny_file: Path, tmp_path: Path) -> None:
    other = file_of(torchvision.models.squeezenet1_1(), tmp_path / "squeezenet.pth")
    with pytest.raises(CheckpointError, match=r"model\.backbone_weights=.*squeezenet\.pth: it is not the 2D net"):
        vidtrain.create_model("late_fusion", num_classes=4, backbone="tiny", backbone_weights=str(other))
    with pytest.raises(ConfigError, match=r"model\.backbone_weights=.*tiny\.pt: I3D has no 2D backbone"):
        vidtrain.create_model("i3d_tiny", num_classes=4, backbone_weights=str(tiny_file))


def test_the_first_convolution_for_more_channels() -> None:
    conv, x = nn.Conv2d(3, 4, 3), torch.randn(2, 3, 9, 9)
    with torch.no_grad():
        frames = nn.functional.conv2d(x.repeat(1, 5, 1, 1), fit_input(conv.weight, 15, "frames"), conv.bias)
        torch.testing.assert_close(frames, conv(x))
        grey = x[:, :1]  # equal channels: the sum over 10 of the mean is 10 / 3 of the sum over 3
        flow = nn.functional.conv2d(0.3 * grey.expand(-1, 10, -1, -1), fit_input(conv.weight, 10, "flow"), conv.bias)
        torch.testing.assert_close(flow, conv(grey.expand(-1, 3, -1, -1)))
    assert fit_input(conv.weight, 3, "frames") is conv.weight
    with pytest.raises(CheckpointError, match="3 T input channels, this model has 10"):
        fit_input(conv.weight, 10, "frames")


# ---------------------------------------------------------------- published weights


def test_imagenet_weights_from_the_cache(cache: Path) -> None:
    whole = torchvision.models.squeezenet1_1()
    torch.save(whole.state_dict(), cache / Path(torchvision.models.SqueezeNet1_1_Weights.DEFAULT.url).name)
    x = torch.randn(2, 3, 64, 64)
    still = x.unsqueeze(2).expand(-1, -1, 6, -1, -1)
    options: dict[str, Any] = {"num_classes": 4, "backbone": "squeezenet1_1", "pretrained": "imagenet"}
    with torch.no_grad():
        expected = whole.eval().features(x)
        torch.testing.assert_close(vidtrain.create_model("single_frame", **options).eval().backbone(x), expected)
        early = vidtrain.create_model("early_fusion", num_frames=6, **options).eval()
        torch.testing.assert_close(early.forward_features(still), expected.mean((2, 3)), rtol=1e-4, atol=1e-5)
        both = vidtrain.create_model("two_stream", num_frames=6, **options).eval()
        torch.testing.assert_close(both.rgb(x), expected)
        inflated = vidtrain.create_model("inflated", **options).eval()
        torch.testing.assert_close(inflated.forward_features(still), expected.mean((2, 3)), rtol=1e-4, atol=1e-5)
    first, wide = (next(m for m in net.modules() if isinstance(m, nn.Conv2d)) for net in (both.rgb, both.flow))
    for channel in range(10):
        torch.testing.assert_close(wide.weight[:, channel], first.weight.mean(1))


def test_kinetics_weights_from_the_cache(cache: Path) -> None:
    torch.manual_seed(4)
    published = torchvision.models.video.mc3_18()
    torch.save(published.state_dict(), cache / Path(torchvision.models.video.MC3_18_Weights.DEFAULT.url).name)
    x = torch.randn(1, 3, 4, 32, 32)
    with torch.no_grad():
        expected = published.eval()(x)
        same = vidtrain.create_model("mc3_18", num_classes=400, pretrained="kinetics400").eval()
        assert torch.equal(same(x), expected)
        other = vidtrain.create_model("mc3_18", num_classes=7, pretrained="kinetics400").eval()
        assert other(x).shape == (1, 7)
        assert torch.equal(published.fc(other.forward_features(x)), expected)
        reader = vidtrain.create_model("feature_rnn", num_classes=3, network="mc3_18", clip=4, size=32,
                                       pretrained="kinetics400").eval()  # fmt: skip
        torch.testing.assert_close(reader.vectors(x)[:, 0], other.forward_features(x))


@pytest.mark.parametrize(
    ("name", "options"),
    [("single_frame", {"backbone": "resnet18", "pretrained": "imagenet"}), ("mc3_18", {"pretrained": "kinetics400"})],
)
def test_no_network(name: str, options: dict[str, Any], cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(key, "http://127.0.0.1:9")  # nobody listens there
    for key in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(key, raising=False)
    with pytest.raises(ConfigError, match=r"model\.pretrained: .*https://.*hub/checkpoints, or set") as caught:
        vidtrain.create_model(name, num_classes=5, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("late_fusion", {"pretrained": "k400"}, r"model\.pretrained: got 'k400', expected null or imagenet"),
        ("r3d_18", {"pretrained": "imagenet"}, r"model\.pretrained: got 'imagenet', expected null or kinetics400"),
        ("swin3d_t", {"pretrained": "imagenet"}, r"got 'imagenet', expected null or kinetics400"),
        ("two_stream_tiny", {"pretrained": "kinetics"}, r"model\.pretrained: got 'kinetics'"),
        ("tsm_tiny", {"pretrained": "imagenet"}, "no published weights for backbone tiny"),
        ("i3d_tiny", {"pretrained": "imagenet"}, r"model\.pretrained: I3D has no 2D backbone"),
        ("i3d_tiny", {"network_weights": "x.pt"}, r"model\.network_weights=x\.pt: I3D has no frozen network"),
        ("feature_rnn", {"network_weights": "x", "pretrained": "y"}, "starts from one of them"),
        ("i3d", {"weights": "x", "inflate_from": "y"}, r"model\.weights=x and model\.inflate_from=y: a model starts"),
    ],
)
def test_starts_that_cannot_be(name: str, options: dict[str, Any], message: str) -> None:
    with torch.device("meta"), pytest.raises(ConfigError, match=message):
        vidtrain.create_model(name, num_classes=5, **CLIP, **options)


def test_every_published_name_is_one_of_torchvision() -> None:
    for name, published in _PUBLISHED.items():
        assert all(torchvision.models.get_weight(weights).url for weights in published.values()), name


@pytest.mark.parametrize("name", _PUBLISHED)
def test_the_clips_of_torchvisions_weights(name: str) -> None:
    found = torchvision_clips(name, "kinetics400")
    assert found is not None
    assert found.protocol == "torchvision"
    assert found.num_frames == (32 if name.startswith("swin3d") else 16)
    assert torchvision_clips(name, "kinetics600") is None


def test_weights_that_say_the_colours_alone_or_nothing() -> None:
    assert torchvision_clips("single_frame", "imagenet") == IMAGENET
    assert torchvision_clips("slow_r50", "kinetics400") is torchvision_clips(None, None) is None
    assert torchvision_clips("r3d_18", ["kinetics400"]) is None

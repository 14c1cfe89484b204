"""2D backbones: cut out of torchvision exactly, widened exactly, pretrained from a cache, refused with a reason."""

from __future__ import annotations

import copy
import importlib.util
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from vidtrain.errors import ConfigError
from vidtrain.models.early_fusion import early_fusion
from vidtrain.models.layers.backbone2d import image_backbone, repeat_first_conv
from vidtrain.models.single_frame import single_frame
from vidtrain.models.torchvision_video import mc3_18


def head_input(net: nn.Module, name: str, x: torch.Tensor) -> torch.Tensor:
    """What torchvision's own forward hands to the child `name`."""
    seen: list[torch.Tensor] = []
    net.get_submodule(name).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    net(x)
    return seen[0]


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("resnet18", "fc"),
        ("mobilenet_v3_small", "classifier"),
        pytest.param("efficientnet_b0", "classifier", marks=pytest.mark.slow),
        ("shufflenet_v2_x0_5", "fc"),  # pools by a mean in its forward
        ("squeezenet1_1", "classifier"),  # its head is a convolution
        pytest.param("mnasnet0_5", "classifier", marks=pytest.mark.slow),
        pytest.param("densenet121", "classifier", marks=pytest.mark.slow),  # a ReLU between features and pool
        pytest.param("googlenet", "fc", marks=pytest.mark.slow),  # auxiliary heads in the middle
        pytest.param("inception_v3", "fc", marks=pytest.mark.slow),
        pytest.param("convnext_tiny", "classifier", marks=pytest.mark.slow),
        pytest.param("regnet_y_400mf", "fc", marks=pytest.mark.slow),
        pytest.param("swin_t", "head", marks=pytest.mark.slow),
    ],
)
def test_features_are_what_torchvision_gives_its_head(name: str, head: str) -> None:
    torch.manual_seed(0)
    backbone = image_backbone(name).eval()
    extra = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    whole = torchvision.models.get_model(name, **extra).eval()
    state = {key: value for key, value in whole.state_dict().items() if key in backbone.net.state_dict()}
    backbone.net.load_state_dict(state)  # strict: torchvision's own names
    x = torch.randn(1, 3, 96, 96)
    with torch.no_grad():
        features, expected = backbone(x), head_input(whole, head, x)
    assert features.shape[:2] == (1, backbone.out_channels)
    if features.shape != expected.shape:
        features = features.mean((2, 3)).view_as(expected)
    torch.testing.assert_close(features, expected)


def test_train_and_eval_reach_the_cut_net() -> None:
    backbone = image_backbone("efficientnet_b0")
    x = torch.randn(4, 3, 32, 32)
    assert all(module.training for module in backbone.modules())
    assert not torch.equal(backbone(x), backbone(x))  # stochastic depth
    backbone.eval()
    assert torch.equal(backbone(x), backbone(x))


def test_backbones_are_copied_and_compared_whole() -> None:
    backbone = image_backbone("resnet18").eval()
    twin = copy.deepcopy(backbone)
    x = torch.randn(1, 3, 64, 64)
    assert twin.out_channels == 512
    assert torch.equal(twin(x), backbone(x))


def test_tiny_and_lecture() -> None:
    tiny = image_backbone("tiny")
    assert sum(p.numel() for p in tiny.parameters()) < 300_000
    assert tiny(torch.zeros(2, 3, 112, 112)).shape == (2, 128, 7, 7)
    lecture = image_backbone("lecture")
    assert lecture(torch.zeros(2, 3, 64, 64)).shape == (2, 24, 16, 16)
    assert lecture.map_size(112) == (28, 28)


def test_other_input_channels() -> None:
    backbone = image_backbone("resnet18", in_channels=10)
    assert backbone(torch.zeros(1, 10, 64, 64)).shape == (1, 512, 2, 2)
    with pytest.raises(ConfigError, match=r"expected \(N, 10, H, W\)"):
        backbone(torch.zeros(1, 3, 64, 64))


def test_repeated_first_conv() -> None:
    conv = nn.Conv2d(3, 4, 3, stride=2, padding=1)
    wide = repeat_first_conv(conv, 15)
    assert wide.weight.shape == (4, 15, 3, 3)
    x = torch.randn(2, 3, 9, 9)
    torch.testing.assert_close(wide(x.repeat(1, 5, 1, 1)), conv(x))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet81", r"model\.backbone: got 'resnet81' \(did you mean resnet18\?\), expected lecture, tiny, a torch"),
        ("tinny", r"did you mean tiny\?"),
        ("vit_b_16", r"model\.backbone: vit_b_16 .*choose a CNN"),
    ],
)
def test_unknown_names(name: str, message: str) -> None:
    with torch.device("meta"), pytest.raises(ConfigError, match=message):
        image_backbone(name)


def test_pretrained_needs_published_weights_and_colours() -> None:
    with pytest.raises(ConfigError, match="no published weights for backbone tiny"):
        image_backbone("tiny", pretrained=True)
    with pytest.raises(ConfigError, match="fit 3 T input channels, got 10"):
        image_backbone("resnet18", in_channels=10, pretrained=True)


def test_pretrained_weights_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.hub takes a file that lies in its cache: random weights in the place of ImageNet's need no network."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    torch.manual_seed(4)
    whole = torchvision.models.squeezenet1_1()
    weights = torchvision.models.SqueezeNet1_1_Weights.DEFAULT
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(whole.state_dict(), folder / Path(weights.url).name)

    x = torch.randn(2, 3, 64, 64)
    still = x.unsqueeze(2).expand(-1, -1, 6, -1, -1)
    options = {"num_classes": 4, "backbone": "squeezenet1_1", "pretrained": "imagenet"}
    with torch.no_grad():
        expected = whole.eval().features(x)
        torch.testing.assert_close(single_frame(**options).eval().backbone(x), expected)
        early = early_fusion(num_frames=6, **options).eval()
        torch.testing.assert_close(early.forward_features(still), expected.mean((2, 3)), rtol=1e-4, atol=1e-5)


def test_kinetics_weights_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    weights = torchvision.models.video.MC3_18_Weights.DEFAULT
    torch.manual_seed(4)
    published = torchvision.models.video.mc3_18()
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(published.state_dict(), folder / Path(weights.url).name)
    x = torch.randn(1, 3, 4, 32, 32)
    with torch.no_grad():
        expected = published.eval()(x)
        assert torch.equal(mc3_18(num_classes=400, pretrained="kinetics400").eval()(x), expected)
        other = mc3_18(num_classes=7, pretrained="kinetics400").eval()
        assert other(x).shape == (1, 7)
        assert torch.equal(published.fc(other.forward_features(x)), expected)


@pytest.mark.parametrize("build", [lambda: image_backbone("resnet18", pretrained=True),
                                   lambda: mc3_18(num_classes=5, pretrained="kinetics400")])  # fmt: skip
def test_no_network(build: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with pytest.raises(ConfigError, match=r"model\.pretrained: .*https://.*hub/checkpoints, or set") as caught:
        build()  # type: ignore[operator]
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(importlib.util.find_spec("timm") is not None, reason="timm is installed")
def test_timm_absent() -> None:
    with pytest.raises(ConfigError, match=r"timm:resnet10t needs the package timm: pip install 'vidtrain\[timm\]'"):
        image_backbone("timm:resnet10t")


def test_timm_present() -> None:
    pytest.importorskip("timm")
    backbone = image_backbone("timm:resnet10t", in_channels=6).eval()
    assert backbone(torch.zeros(1, 6, 64, 64)).shape == (1, backbone.out_channels, 2, 2)
    with pytest.raises(ConfigError, match="did you mean resnet10t"):
        image_backbone("timm:resnet10tt")
    with pytest.raises(ConfigError, match="choose a CNN"):
        image_backbone("timm:vit_tiny_patch16_224")

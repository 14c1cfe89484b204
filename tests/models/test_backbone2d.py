"""2D backbones: cut out of torchvision exactly, widened exactly, pretrained from a cache, refused with a reason."""

from __future__ import annotations

import copy
import importlib.util

import pytest
import torch
import torchvision
from torch import nn

from vidtrain.errors import ConfigError
from vidtrain.models.layers.backbone2d import image_backbone


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
        pytest.param("mobilenet_v3_small", "classifier", marks=pytest.mark.slow),
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
    patches = image_backbone("timm:test_vit").eval()
    x = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        maps = patches(x)
        assert maps.shape == (2, patches.out_channels, 4, 6)
        torch.testing.assert_close(maps.flatten(2).transpose(1, 2), patches.net.forward_features(x)[:, 1:])
    with pytest.raises(ConfigError, match=r"timm:mixer_s32_224 does not run on .* transform\.size=224"):
        image_backbone("timm:mixer_s32_224")

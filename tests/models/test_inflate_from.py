"""Starting our 3D nets from 2D weights: what is filled, with what, and what is refused as a whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

import vidtrain
from tests.models.parity import drawn_weights
from vidtrain.errors import CheckpointError, ConfigError
from vidtrain.models.i3d import i3d
from vidtrain.models.s3d import s3d
from vidtrain.models.weights.inflate_from import _HALF, _for_usual_colours, inflate_from


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2D weights under torchvision's names; resnet26 is a ResNet-50 with two blocks a stage, and thin."""
    folder = tmp_path_factory.mktemp("weights")
    for name, net in (("resnet26", thin_resnet()), ("resnet18", torchvision.models.resnet18())):
        drawn_weights(net)
        torch.save(net.state_dict(), folder / f"{name}.pth")
    googlenet = torchvision.models.googlenet(init_weights=False, aux_logits=True)
    drawn_weights(googlenet)
    torch.save({"state_dict": {f"module.{k}": v for k, v in googlenet.state_dict().items()}}, folder / "googlenet.pth")
    return folder


def thin_resnet() -> torchvision.models.ResNet:
    """torchvision's bottleneck ResNet with 4 channels instead of 64."""
    block = torchvision.models.resnet.Bottleneck
    net = torchvision.models.ResNet(block, [2, 2, 2, 2], num_classes=3)
    net.inplanes = 4
    net.conv1, net.bn1 = nn.Conv2d(3, 4, 7, 2, 3, bias=False), nn.BatchNorm2d(4)
    net.layer1 = net._make_layer(block, 4, 2)
    for number, planes in ((2, 8), (3, 16), (4, 32)):
        setattr(net, f"layer{number}", net._make_layer(block, planes, 2, stride=2))
    net.fc = nn.Linear(128, 3)
    return net


def load(file: Path) -> dict[str, torch.Tensor]:
    state = torch.load(file, weights_only=True)
    state = state.get("state_dict", state)
    return {key.removeprefix("module."): value for key, value in state.items()}


@pytest.mark.parametrize("name", ["i3d_r50", "c2d_r50", "slow_r50"])
def test_3d_resnets_start_from_a_2d_one(name: str, files: Path) -> None:
    model = vidtrain.create_model(name, num_classes=5, depth=26, width=4).eval()
    head = model.fc.weight.clone()
    report = inflate_from(model, files / "resnet26.pth")
    theirs, ours = load(files / "resnet26.pth"), model.state_dict()
    assert report.loaded == len(theirs) - 2
    assert {key for key, _ in report.left_out} == {"fc.weight", "fc.bias"}
    assert torch.equal(model.fc.weight, head)
    for key, tensor in theirs.items():
        if key.startswith("fc."):
            continue
        wide = ours[key]
        torch.testing.assert_close(wide.sum(2) if wide.ndim == 5 else wide, tensor, rtol=1e-5, atol=1e-6)
        if wide.ndim == 5:
            assert torch.equal(wide[:, :, 0], wide[:, :, -1])  # the same weight on each tap


def test_a_net_without_kernels_in_time_computes_what_the_2d_net_does(files: Path) -> None:
    image = thin_resnet()
    image.load_state_dict(load(files / "resnet26.pth"))
    image.fc = nn.Identity()  # type: ignore[assignment]
    model = vidtrain.create_model("c2d_r50", num_classes=5, depth=26, width=4)
    inflate_from(model, str(files / "resnet26.pth"))
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected, got = image.eval()(x), model.eval().forward_features(x.unsqueeze(2).expand(-1, -1, 8, -1, -1))
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5 * expected.std().item())


@pytest.mark.parametrize(
    ("name", "options", "prefix"),
    [
        ("tsn_r50", {"backbone": "resnet18"}, "base_model."),
        ("tsm_r50", {"backbone": "resnet18", "nonlocal_blocks": ["layer3.0"]}, "base_model."),
        ("late_fusion", {"backbone": "resnet18"}, "backbone.net."),
        ("inflated", {"backbone": "resnet18", "time_kernel": 3, "taps": "centre"}, "backbone.net."),
    ],
)
def test_nets_with_a_2d_part_start_by_their_prefix(
    name: str, options: dict[str, Any], prefix: str, files: Path
) -> None:
    model = vidtrain.create_model(name, num_classes=5, **options)
    report = inflate_from(model, files / "resnet18.pth")
    theirs, ours = load(files / "resnet18.pth"), model.state_dict()
    assert report.loaded == len(theirs) - 2
    for key, tensor in theirs.items():
        if not key.startswith("fc."):
            wide = ours[prefix + key]
            torch.testing.assert_close(wide.sum(2) if wide.ndim == 5 else wide, tensor)
            if wide.ndim == 5:  # model.taps=centre holds here too
                assert torch.equal(wide[:, :, 1], tensor)


def test_flow_gets_the_mean_over_the_colours(files: Path) -> None:
    model = vidtrain.create_model("tsn_r50", num_classes=5, backbone="resnet18", in_channels=10)
    inflate_from(model, files / "resnet18.pth")
    mean = load(files / "resnet18.pth")["conv1.weight"].mean(1)
    for channel in range(10):
        torch.testing.assert_close(model.base_model.conv1.weight[:, channel], mean)


# ---------------------------------------------------------------- Inception


def test_i3d_starts_from_googlenet(files: Path) -> None:
    model = i3d(num_classes=5)
    report = inflate_from(model, files / "googlenet.pth")
    theirs = load(files / "googlenet.pth")
    body = {key for key in theirs if not key.startswith(("fc.", "aux"))}
    assert report.loaded == len(body)
    assert {key for key, _ in report.left_out} == set(theirs) - body
    for old, new in (
        ("conv1", "Conv3d_1a_7x7"),
        ("conv3", "Conv3d_2c_3x3"),
        ("inception3b.branch2.1", "Mixed_3c.b1b"),
        ("inception4e.branch3.0", "Mixed_4f.b2a"),
        ("inception5b.branch4.1", "Mixed_5c.b3b"),
    ):
        unit = model.get_submodule(new)
        torch.testing.assert_close(unit.conv3d.weight.sum(2), theirs[f"{old}.conv.weight"], rtol=1e-4, atol=1e-6)
        assert torch.equal(unit.bn.running_var, theirs[f"{old}.bn.running_var"])
    assert "inflate_from=googlenet" in report.to_text()


def test_i3d_computes_googlenets_blocks_on_a_still_clip(files: Path) -> None:
    """Behind the stem, whose padding differs by a pixel, a block is the 2D block: here Mixed_4c, away from the ends."""
    model = i3d(num_classes=5).eval()
    inflate_from(model, files / "googlenet.pth")
    image = torchvision.models.googlenet(init_weights=False, aux_logits=True).eval()
    image.load_state_dict(load(files / "googlenet.pth"))
    x = torch.rand(1, 512, 6, 6)
    with torch.no_grad():
        expected = image.inception4b(x)
        got = model.Mixed_4c(x.unsqueeze(2).expand(-1, -1, 5, -1, -1))
    torch.testing.assert_close(got[:, :, 2], expected, rtol=1e-4, atol=1e-4 * expected.std().item())


@pytest.mark.parametrize("gating", [pytest.param(False, marks=pytest.mark.slow), True])
def test_s3ds_convolutions_in_time_start_as_the_identity_on_still_clips(gating: bool, files: Path) -> None:
    model = s3d(num_classes=5, gating=gating).eval()
    inflate_from(model, files / "googlenet.pth")
    image = torchvision.models.googlenet(init_weights=False, aux_logits=True).eval()
    image.load_state_dict(load(files / "googlenet.pth"))
    x = torch.rand(1, 64, 8, 8)
    space, time = model.features[3][0], model.features[3][1]
    with torch.no_grad():
        expected = image.conv3(x)
        got = time(space(x.unsqueeze(2).expand(-1, -1, 5, -1, -1)))
    torch.testing.assert_close(got[:, :, 2], expected, rtol=1e-4, atol=1e-4 * expected.std().item())
    block = model.features[9]  # of inception4b
    torch.testing.assert_close(block.branch1[1][0][0].weight.sum(2), image.inception4b.branch2[1].conv.weight)


def test_colours_are_converted_by_the_first_layer(files: Path) -> None:
    """torchvision's googlenet turns its input into colours of mean and deviation 0.5 itself."""
    net = torchvision.models.GoogLeNet(init_weights=False, transform_input=True).eval()
    net.load_state_dict(load(files / "googlenet.pth"))
    plain = torchvision.models.GoogLeNet(init_weights=False).eval()
    state = dict(net.state_dict())
    plain.load_state_dict(_for_usual_colours(state, torch.tensor(_HALF.mean), torch.tensor(_HALF.std)))
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        expected, got = net.conv1(net._transform_input(x)), plain.conv1(x)
    inner = (..., slice(2, -2), slice(2, -2))  # the padding is another colour
    torch.testing.assert_close(got[inner], expected[inner], rtol=1e-4, atol=1e-5)


# ---------------------------------------------------------------- refused as a whole


@pytest.mark.parametrize(
    ("name", "options", "source", "message"),
    [
        ("r3d_18", {}, "resnet18", "r3d_18 has no max pooling after its stem.*nothing is loaded.*model=inflated"),
        pytest.param(
            *("r2plus1d_18", {}, "resnet18", "r2plus1d_18 has no max pooling after its stem"), marks=pytest.mark.slow
        ),
        ("r2plus1d_r50", {"depth": 26, "width": 4}, "resnet26", "has no max pooling after its stem"),
        ("slow_r50", {"depth": 14, "width": 4}, "resnet26", r"too many tensors: layer1\.1\.conv1\.weight"),
        ("slow_r50", {"depth": 50, "width": 4}, "resnet26", r"has nothing for: layer1\.2\.conv1\.weight"),
        ("csn_r101", {"depth": 26, "width": 4}, "resnet26", r"another shape for: layer1\.0\.conv2\.weight"),
        ("i3d_tiny", {}, "resnet26", r"has nothing for: Conv3d_1a_7x7\.conv3d\.weight"),
        ("i3d_tiny", {}, "googlenet", r"another shape for: Conv3d_1a_7x7\.conv3d\.weight: \(64, 3, 7, 7, 7\)"),
        ("slow_fusion", {}, "resnet18", "has nothing for: net"),
    ],
)
def test_nothing_is_loaded_by_halves(
    name: str, options: dict[str, Any], source: str, message: str, files: Path
) -> None:
    model = vidtrain.create_model(name, num_classes=5, **options)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=message) as caught:
        inflate_from(model, files / f"{source}.pth")
    assert "\n" not in str(caught.value)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_a_source_that_is_not_there() -> None:
    model = vidtrain.create_model("tsn_tiny", num_classes=2)
    with pytest.raises(ConfigError, match=r"resnt50 is neither a file nor a 2D CNN .*did you mean resnet50"):
        inflate_from(model, "resnt50")


def test_it_is_an_option_of_every_model(files: Path) -> None:
    model = vidtrain.create_model(
        "tsn_r50", num_classes=5, backbone="resnet18", inflate_from=str(files / "resnet18.pth")
    )
    assert torch.equal(model.base_model.conv1.weight, load(files / "resnet18.pth")["conv1.weight"])

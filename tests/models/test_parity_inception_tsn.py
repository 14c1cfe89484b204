"""I3D, S3D, C3D, TSN and TSM from published layouts: third-party logits, and every key layout of their families."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

import vidtrain
from tests.models import parity
from tests.sampled import sampled
from vidtrain.errors import CheckpointError
from vidtrain.models.weights.load import describe_weights, load_weights

TOLERANCE = 1e-4  # ten times stricter than what counts as the same; measured 1.5e-6 at most


@pytest.mark.slow
@pytest.mark.parametrize(("target", "model"), [("i3d_piergiaj", "i3d"), ("tv_s3d", "s3d")])
def test_third_party_logits(target: str, model: str) -> None:
    assert parity.error_of(target, model) <= TOLERANCE


def test_third_party_logits_of_tsn() -> None:
    assert parity.error_of("tsn_resnet18", "tsn_r50", backbone="resnet18") <= TOLERANCE


LAYOUTS: dict[str, tuple[str, dict[str, Any]]] = {
    "c3d_davidea": ("c3d", {"num_frames": 16, "size": 112}),
    "i3d_piergiaj": ("i3d", {}),
    "i3d_piergiaj_flow": ("i3d", {"in_channels": 2}),
    "i3d_hassony2": ("i3d", {}),
    "tv_s3d": ("s3d", {}),
    "tsn_resnet18": ("tsn_r50", {"backbone": "resnet18"}),
    "tsn_resnet18_flow": ("tsn_r50", {"backbone": "resnet18", "in_channels": 10}),
    "tsn_resnet50": ("tsn_r50", {}),
    "tsm_resnet18": ("tsm_r50", {"backbone": "resnet18"}),
    "tsm_resnet50": ("tsm_r50", {}),
    "tsm_resnet50_block": ("tsm_r50", {"place": "block"}),
    "tsm_resnet50_nl": ("tsm_r50", {"nonlocal_blocks": 5}),
}


@pytest.mark.filterwarnings("ignore:.*which is a no-op")  # nothing is copied on the meta device
@pytest.mark.parametrize(
    "name",
    sampled(LAYOUTS, ["c3d_davidea", "i3d_piergiaj_flow", "i3d_hassony2", "tsn_resnet18_flow", "tsm_resnet18"]),
)
def test_a_published_layout_says_what_it_is_and_fits(name: str) -> None:
    state = parity.key_layout(name)
    info = describe_weights(state)
    assert (info.model, info.options) == LAYOUTS[name]
    assert info.num_classes == 101
    assert info.model is not None
    with torch.device("meta"):
        model = vidtrain.create_model(info.model, num_classes=101, **info.options)
        other = vidtrain.create_model(info.model, num_classes=5, **info.options)
    report = load_weights(model, state)
    assert (report.loaded, report.head, report.left_out) == (len(state), None, ())
    report = load_weights(other, {f"module.{key}": value for key, value in state.items()})
    assert report.head == "checkpoint has 101 classes, model has 5"
    assert report.loaded == len(state) - 2


# ---------------------------------------------------------------- nets of the families that have no target


def test_hassony2_and_piergiaj_i3d_are_one_network() -> None:
    ours = vidtrain.create_model("i3d", num_classes=7, width=8).eval()
    parity.drawn_weights(ours, 1.0)
    theirs = {_hassony2(key): tensor for key, tensor in ours.state_dict().items()}
    head = theirs.pop("conv3d_0c_1x1.conv3d.weight")
    theirs["conv3d_0c_1x1.conv3d.weight"] = head[:, :, None, None, None]
    info = describe_weights(theirs)
    assert (info.layout, info.model, info.options, info.num_classes) == ("hassony2 I3D", "i3d", {"width": 8}, 7)
    copy = vidtrain.create_model("i3d", num_classes=7, width=8).eval()
    load_weights(copy, theirs)
    x = torch.randn(1, 3, 16, 32, 32)
    with torch.no_grad():
        assert torch.equal(copy(x), ours(x))


def _hassony2(key: str) -> str:
    """Our name of a tensor -> hassony2's."""
    branches = {"b0": "branch_0", "b1a": "branch_1.0", "b1b": "branch_1.1", "b2a": "branch_2.0",
                "b2b": "branch_2.1", "b3b": "branch_3.1"}  # fmt: skip
    parts = key.replace("logits.", "conv3d_0c_1x1.conv3d.").replace(".bn.", ".batch3d.").split(".")
    parts[0] = parts[0][0].lower() + parts[0][1:]
    return ".".join([parts[0], *(branches.get(part, part) for part in parts[1:])])


class _Shifted(nn.Module):
    """The temporal shift as published: a wrapper around the layer it moves the input of; eight segments."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        clips = x.unflatten(0, (-1, 8))
        fold = x.shape[1] // 8
        out = torch.zeros_like(clips)
        out[:, :-1, :fold] = clips[:, 1:, :fold]
        out[:, 1:, fold : 2 * fold] = clips[:, :-1, fold : 2 * fold]
        out[:, :, 2 * fold :] = clips[:, :, 2 * fold :]
        return self.net(out.flatten(0, 1))


class _Attentive(nn.Module):
    """A block and a non-local block after it, as published with TSM: pooled after phi and g, no scale."""

    def __init__(self, block: nn.Module, channels: int) -> None:
        super().__init__()
        inner, pool = channels // 2, nn.MaxPool3d((1, 2, 2))
        self.block, self.nl = block, nn.Module()
        self.nl.g = nn.Sequential(nn.Conv3d(channels, inner, 1), pool)
        self.nl.W = nn.Sequential(nn.Conv3d(inner, channels, 1), nn.BatchNorm3d(channels))
        self.nl.theta = nn.Conv3d(channels, inner, 1)
        self.nl.phi = nn.Sequential(nn.Conv3d(channels, inner, 1), pool)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.block(x).unflatten(0, (-1, 8)).transpose(1, 2)
        theta, phi, g = (part(x).flatten(2) for part in (self.nl.theta, self.nl.phi, self.nl.g))
        y = F.softmax(theta.transpose(1, 2) @ phi, -1) @ g.transpose(1, 2)
        return (self.nl.W(y.transpose(1, 2).unflatten(2, x.shape[2:])) + x).transpose(1, 2).flatten(0, 1)


class _Published(nn.Module):
    """A TSN or TSM with the names that mit-han-lab's checkpoints have, around torchvision's own ResNet."""

    def __init__(self, name: str, shift: str | None, *, nonlocal_: bool, in_channels: int, dropout: bool) -> None:
        super().__init__()
        net = torchvision.models.get_model(name)
        every = 2 if len(net.layer3) >= 23 else 1
        for stage in (net.layer1, net.layer2, net.layer3, net.layer4):
            for number, block in enumerate(stage):
                if shift == "block":
                    stage[number] = _Shifted(block)
                elif shift == "residual" and number % every == 0:
                    block.conv1 = _Shifted(block.conv1)
        for stage, numbers in ((net.layer2, (0, 2)), (net.layer3, (0, 2, 4))) if nonlocal_ else ():
            for number in numbers:
                stage[number] = _Attentive(stage[number], stage[number].bn3.num_features)
        if in_channels != 3:
            net.conv1 = nn.Conv2d(in_channels, 64, 7, 2, 3, bias=False)
        features = net.fc.in_features
        net.fc = nn.Identity() if dropout else nn.Linear(features, 7)
        self.base_model = net
        self.new_fc = nn.Linear(features, 7) if dropout else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.new_fc(self.base_model(x.transpose(1, 2).flatten(0, 1))).unflatten(0, (-1, 8)).mean(1)


@pytest.mark.parametrize(
    ("backbone", "shift", "extra"),
    [
        ("resnet18", "residual", {}),
        ("resnet18", "residual", {"dropout": False}),
        ("resnet18", "block", {}),
        ("resnet18", None, {"in_channels": 10}),
        pytest.param("resnet50", "residual", {"nonlocal_": True}, marks=pytest.mark.slow),
        pytest.param("resnet50", None, {"nonlocal_": True}, marks=pytest.mark.slow),
        pytest.param("resnet101", "residual", {}, marks=pytest.mark.slow),  # shifts before every second block only
        pytest.param("resnext50_32x4d", "block", {}, marks=pytest.mark.slow),
        pytest.param("wide_resnet50_2", "residual", {}, marks=pytest.mark.slow),
    ],
)
def test_tsn_and_tsm_of_any_resnet(backbone: str, shift: str | None, extra: dict[str, Any]) -> None:
    theirs = _Published(backbone, shift, **{"nonlocal_": False, "in_channels": 3, "dropout": True, **extra}).eval()
    state = parity.drawn_weights(theirs)
    info = describe_weights({"state_dict": {f"module.{key}": value for key, value in state.items()}})
    assert info.num_classes == 7
    assert info.model is not None
    ours = vidtrain.create_model(info.model, num_classes=7, **info.options).eval()
    assert load_weights(ours, state).loaded == len(state)
    x = torch.randn(1, extra.get("in_channels", 3), 8, 48, 48, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        reference = theirs(x)
        torch.testing.assert_close(ours(x), reference, rtol=0, atol=1e-5 * reference.std().item())


@pytest.mark.parametrize(
    ("layout", "model", "options", "message"),
    [
        ("tsm_resnet18", "tsn_r50", {"backbone": "resnet18"}, "of a net with temporal shift, .* model=tsm_r50"),
        ("tsm_resnet50_block", "tsm_r50", {}, r"set model\.place=block"),
        ("tsm_resnet50", "tsm_r50", {"place": "block"}, r"set model\.place=residual"),
        ("tsm_resnet50_nl", "tsm_r50", {}, r"unexpected .*model\.nonlocal_blocks=5"),
        ("tsm_resnet50_nl", "tsm_r50", {"nonlocal_blocks": 5, "nonlocal_pool": "before"}, r"nonlocal_pool=after"),
        ("tsn_resnet50", "tsn_r50", {"backbone": "resnet18"}, r"create_model\('tsn_r50', num_classes=101\)"),
        ("i3d_piergiaj_flow", "i3d", {}, r"of another shape .*model\.in_channels=2"),
        ("i3d_hassony2", "s3d", {}, r"they fit create_model\('i3d', num_classes=101\)"),
        ("c3d_davidea", "c3d", {"num_frames": 16, "size": 64}, r"fc6\.weight .*model\.num_frames=16 model\.size=112"),
    ],
)
def test_weights_of_another_network_are_refused(layout: str, model: str, options: dict[str, Any], message: str) -> None:
    state = parity.key_layout(layout)
    with torch.device("meta"):
        net = vidtrain.create_model(model, num_classes=101, **options)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_weights(net, state)
    assert "\n" not in str(caught.value)


def test_tsn_weights_in_a_tsm_are_loaded_with_a_word() -> None:
    theirs = {key: torch.zeros(value.shape) for key, value in parity.key_layout("tsn_resnet18").items()}
    theirs |= {key.replace("new_fc", "base_model.fc"): theirs.pop(key) for key in ("new_fc.weight", "new_fc.bias")}
    net = vidtrain.create_model("tsm_r50", num_classes=101, backbone="resnet18")
    assert "no temporal shift" in load_weights(net, theirs).to_text()


def test_a_backbone_that_is_not_here_is_named() -> None:
    state = {"base_model.conv1_7x7_s2.weight": torch.zeros(1)}
    assert describe_weights(state).model is None
    assert "BN-Inception" in str(describe_weights(state).layout)
    with pytest.raises(CheckpointError, match="no such model here"):
        load_weights(vidtrain.create_model("tsm_tiny", num_classes=2), state)

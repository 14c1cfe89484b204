"""TSM on MobileNetV2 against torchvision's blocks in the two published structures, with a shift written here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.models import MobileNetV2, mobilenet_v2

import vidtrain
from tests.models import parity
from vidtrain.errors import CheckpointError, ConfigError
from vidtrain.models.inspect.summary import cost
from vidtrain.models.weights.load import describe_weights, load_weights

FRAMES = 4
STAGES = (1, 2, 3, 4, 3, 3, 1)


class _Shifted(nn.Module):
    """An eighth of the channels from the next frame, an eighth from the one before; zeros beyond the clip's ends."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        clips, eighth = x.unflatten(0, (-1, FRAMES)), x.shape[1] // 8
        later, earlier = clips.roll(-1, 1), clips.roll(1, 1)
        later[:, -1], earlier[:, 0] = 0, 0
        parts = [later[:, :, :eighth], earlier[:, :, eighth : 2 * eighth], clips[:, :, 2 * eighth :]]
        return self.net(torch.cat(parts, 2).flatten(0, 1))


class _ConvModule(nn.Module):
    """mmcv's."""

    def __init__(self, conv: nn.Module, bn: nn.Module, activate: nn.Module) -> None:
        super().__init__()
        self.conv, self.bn, self.activate = conv, bn, activate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.activate(self.bn(self.conv(x)))


def _empty() -> nn.Module:
    """torchvision's, without the time that it takes to draw weights."""
    with torch.device("meta"):
        return mobilenet_v2().to_empty(device="cpu")


def _flat(shifted: bool) -> nn.Module:
    """mit-han-lab's: a block is one list of its layers, of which the first is wrapped where it is shifted."""
    net = _empty()
    for block in net.features[1:-1]:
        block.conv = nn.Sequential(
            *(m for part in block.conv for m in (part if isinstance(part, nn.Sequential) else [part]))
        )
        if shifted and block.use_res_connect:
            block.conv[0] = _Shifted(block.conv[0])
    return _Recogniser(net.features, "base_model.features", "new_fc")


def _staged(shifted: bool) -> nn.Module:
    """MMAction2's: seven stages, and each convolution in one module with its norm."""
    net, features = nn.Module(), _empty().features
    net.conv1, net.conv2 = _ConvModule(*features[0]), _ConvModule(*features[-1])
    blocks = iter(features[1:-1])
    for stage, number in enumerate(STAGES, 1):
        layers = [next(blocks) for _ in range(number)]
        for block in layers:
            *wider, conv, bn = block.conv
            block.conv = nn.Sequential(*(_ConvModule(*part) for part in wider), _ConvModule(conv, bn, nn.Identity()))
            if shifted and block.use_res_connect:
                block.conv[0] = _Shifted(block.conv[0])
        setattr(net, f"layer{stage}", nn.Sequential(*layers))
    order = [net.conv1, *(getattr(net, f"layer{stage}") for stage in range(1, 8)), net.conv2]
    return _Recogniser(nn.Sequential(*order), "backbone", "cls_head.fc_cls", named=net)


class _Recogniser(nn.Module):
    """The mean over the frames of what a linear layer makes of their features; names are those of its zoo."""

    def __init__(self, layers: nn.Module, path: str, head: str, named: nn.Module | None = None) -> None:
        super().__init__()
        self.run, self.fc = (layers,), nn.Linear(1280, 5)  # a tuple: `layers` has its names from `named`
        for name, part in ((path, layers if named is None else named), (head, self.fc)):
            *parents, last = name.split(".")
            owner: nn.Module = self
            for parent in parents:
                if not hasattr(owner, parent):
                    setattr(owner, parent, nn.Module())
                owner = getattr(owner, parent)
            setattr(owner, last, part)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps = self.run[0](x.transpose(1, 2).flatten(0, 1))
        return self.fc(maps.mean((2, 3))).unflatten(0, (-1, FRAMES)).mean(1)

    def published(self) -> dict[str, torch.Tensor]:
        return {key: tensor for key, tensor in self.state_dict().items() if not key.startswith("fc.")}


@pytest.mark.parametrize(
    ("zoo", "build", "shifted"),
    [("mit-han-lab", _flat, True), ("MMAction2", _staged, True), ("MMAction2", _staged, False)],
)
def test_the_published_network(zoo: str, build: Callable[[bool], _Recogniser], shifted: bool) -> None:
    theirs = build(shifted).eval()
    parity.drawn_weights(theirs, 1.0)
    state = theirs.published()
    info = describe_weights(state)
    name, options = ("tsm_mobilenet_v2", {}) if shifted else ("tsn_r50", {"backbone": "mobilenet_v2"})
    assert (info.layout, info.model, info.options) == (f"{zoo} TSN/TSM on MobileNetV2", name, options)
    ours = vidtrain.create_model(name, num_classes=5, **options).eval()
    report = load_weights(ours, state)
    assert (report.loaded, report.head, report.left_out, report.notes) == (len(state), None, (), ())
    x = torch.randn(1, 3, FRAMES, 32, 32)
    with torch.no_grad():
        want, got = theirs(x), ours(x)
        reversed_ = ours(x.flip(2))
    assert (got - want).abs().max() <= 1e-5 * want.std()
    changed = (reversed_ - got).abs().max() / got.std()
    assert changed > 1e-2 if shifted else changed < 1e-4


def test_names_are_torchvisions_and_its_cost_the_published_one() -> None:
    with torch.device("meta"):
        theirs = mobilenet_v2().state_dict()
        ours = vidtrain.create_model("tsm_mobilenet_v2", num_classes=400)
        params, macs = cost(ours, 8, 224)
    shapes = {key: value.shape for key, value in theirs.items() if not key.startswith("classifier.")}
    assert {key: value.shape for key, value in ours.base_model.state_dict().items()} == shapes
    assert params == 2_736_272  # MMAction2's README: 2.736M
    assert macs / 1e9 == pytest.approx(8 * 0.301, rel=0.02)  # torchvision: 0.301 per frame, its classifier included


def test_ten_blocks_are_shifted_by_an_eighth() -> None:
    with torch.device("meta"):
        net = vidtrain.create_model("tsm_mobilenet_v2", num_classes=2)
    folds = [block.fold for block in net.base_model.features[1:-1]]
    assert folds == [0, 0, 3, 0, 4, 4, 0, 8, 8, 8, 0, 12, 12, 0, 20, 20, 0]


def test_it_starts_from_torchvisions_weights(tmp_path: Path) -> None:
    theirs, path = parity.drawn_weights(_empty()), str(tmp_path / "mobilenet_v2.pth")
    torch.save(theirs, path)
    ours = vidtrain.create_model("tsm_mobilenet_v2", num_classes=2, backbone_weights=path).base_model.state_dict()
    features = {key: value for key, value in theirs.items() if not key.startswith("classifier.")}
    assert all(torch.equal(ours[key], value) for key, value in features.items())
    flow = vidtrain.create_model("tsm_mobilenet_v2", num_classes=2, in_channels=10, backbone_weights=path)
    stem = flow.base_model.state_dict()["features.0.0.weight"]
    torch.testing.assert_close(stem[:, 7], features["features.0.0.weight"].mean(1))


@pytest.mark.filterwarnings("ignore:.*which is a no-op")  # nothing is copied on the meta device
def test_errors() -> None:
    state = _flat(True).published()
    with torch.device("meta"):
        still = vidtrain.create_model("tsn_r50", num_classes=5, backbone="mobilenet_v2")
        moving = vidtrain.create_model("tsm_mobilenet_v2", num_classes=5)
    with pytest.raises(CheckpointError, match=r"of a net with temporal shift, .* model=tsm_r50"):
        load_weights(still, state)
    with pytest.raises(CheckpointError, match=r"they fit create_model\('tsm_mobilenet_v2', num_classes=5\)"):
        load_weights(vidtrain.create_model("tsm_tiny", num_classes=5), state)
    assert "no temporal shift" in load_weights(moving, _staged(False).published()).notes[0]
    with pytest.raises(ConfigError, match=r"model\.place=block: mobilenet_v2 is shifted in its residual branches"):
        vidtrain.create_model("tsm_mobilenet_v2", num_classes=2, place="block")
    with pytest.raises(ConfigError, match=r"model\.nonlocal_blocks: got 5, but mobilenet_v2 takes none"):
        vidtrain.create_model("tsm_mobilenet_v2", num_classes=2, nonlocal_blocks=5)


def test_another_width_is_none_of_ours() -> None:
    with torch.device("meta"):
        net = MobileNetV2(width_mult=1.4)
    wide = {f"base_model.{key}": value for key, value in net.state_dict().items()}
    assert describe_weights(wide).model is None

"""TSN, TSM and the alternating net: the shift's own numbers, order of frames, backbones, cost."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import nn

from tests.models.parity import cell, drawn_weights
from tests.sampled import sampled
from vidtrain import create_model
from vidtrain.errors import ConfigError
from vidtrain.models.alternating3d import alternating3d
from vidtrain.models.inspect.summary import cost
from vidtrain.models.layers.frame_resnet import RESNETS, temporal_shift
from vidtrain.models.layers.nonlocal_block import NonLocalBlock
from vidtrain.models.tsm import tsm_r50
from vidtrain.models.tsn import tsn_r50


@pytest.mark.parametrize("factory", [tsn_r50, tsm_r50])
def test_parameters_and_multiply_adds(factory: Callable[..., nn.Module]) -> None:
    with torch.device("meta"):
        params, macs = cost(factory(num_classes=400), 8, 224)
    assert params == 24_327_632
    assert macs / 1e9 == pytest.approx(32.70, rel=5e-3)


# ---------------------------------------------------------------- the shift


@pytest.mark.parametrize("n_div", [8, 4, 3])
def test_the_shift_is_the_published_one(n_div: int) -> None:
    content = cell("tsm_shift")
    x = torch.tensor(content["inputs"]["x"], dtype=torch.float64)
    expected = torch.tensor(content["outputs"][f"y_div{n_div}"], dtype=torch.float64)
    got = temporal_shift(x.flatten(0, 1), x.shape[1], x.shape[2] // n_div)
    assert torch.equal(got.unflatten(0, x.shape[:2]), expected)


def test_the_shift_moves_within_each_clip_only() -> None:
    x = torch.arange(2 * 3 * 4, dtype=torch.float32).view(6, 4, 1, 1)  # two clips of three frames
    got = temporal_shift(x, 3, 1)[:, :, 0, 0]
    assert got[:, 0].tolist() == [4, 8, 0, 16, 20, 0]
    assert got[:, 1].tolist() == [0, 1, 5, 0, 13, 17]
    assert torch.equal(got[:, 2:], x[:, 2:, 0, 0])
    assert torch.equal(temporal_shift(x[:1], 1, 1)[0, :2, 0, 0], torch.zeros(2))


def test_the_shift_keeps_the_memory_format() -> None:
    x = torch.randn(6, 16, 5, 5).contiguous(memory_format=torch.channels_last)
    assert temporal_shift(x, 3, 2).is_contiguous(memory_format=torch.channels_last)


def test_tsm_that_moves_nothing_is_tsn() -> None:
    plain, still = (
        create_model("tsn_tiny", num_classes=4).eval(),
        create_model("tsm_tiny", num_classes=4, n_div=None).eval(),
    )
    still.load_state_dict(plain.state_dict())
    x = torch.randn(2, 3, 6, 32, 32)
    with torch.no_grad():
        assert torch.equal(plain(x), still(x))


def test_tsn_is_blind_to_the_order_of_frames_and_tsm_is_not() -> None:
    plain, moving = create_model("tsn_tiny", num_classes=4).eval(), create_model("tsm_tiny", num_classes=4).eval()
    drawn_weights(plain)
    moving.load_state_dict(plain.state_dict())
    x = torch.randn(1, 3, 6, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(plain(x), plain(x.flip(2)), rtol=1e-4, atol=1e-6)
        assert (moving(x) - moving(x.flip(2))).abs().max() > 1e-2 * moving(x).std()


def test_logits_are_the_average_over_the_frames() -> None:
    model = create_model("tsn_tiny", num_classes=4).eval()
    drawn_weights(model)
    x = torch.randn(2, 3, 5, 32, 32)
    with torch.no_grad():
        frames = torch.stack([model(x[:, :, t : t + 1]) for t in range(5)])
        torch.testing.assert_close(model(x), frames.mean(0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("backbone", "place", "shifted"),
    [
        ("resnet50", "residual", 16),
        ("resnet101", "residual", 18),
        ("resnet101", "block", 33),
        ("resnet152", "residual", 26),
    ],
)
def test_deep_backbones_shift_before_every_second_block(backbone: str, place: str, shifted: int) -> None:
    with torch.device("meta"):
        model = tsm_r50(num_classes=2, backbone=backbone, place=place)
    blocks = [m for m in model.modules() if hasattr(m, "fold")]
    assert sum(block.fold > 0 for block in blocks) == shifted
    assert all(block.fold in (0, block.conv1.in_channels // 8) for block in blocks)


# ---------------------------------------------------------------- backbones


@pytest.mark.parametrize("name", sampled([name for name in RESNETS if name != "tiny"], ["resnet18", "resnet50"]))
def test_every_backbone_has_torchvisions_tensors(name: str) -> None:
    with torch.device("meta"):
        theirs = torchvision.models.get_model(name).state_dict()
        ours = tsn_r50(num_classes=2, backbone=name).base_model.state_dict()
    shapes = {key: value.shape for key, value in theirs.items() if not key.startswith("fc.")}
    assert {key: value.shape for key, value in ours.items()} == shapes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backbone": "resnet5"}, r"model\.backbone: got 'resnet5' \(did you mean resnet50\?\)"),
        ({"n_div": 1}, r"model\.n_div: got 1, expected a whole number of 2 or more, or null"),
        ({"n_div": 2.5}, r"model\.n_div: got 2\.5"),
        ({"place": "inplace"}, r"model\.place: got 'inplace'"),
        ({"in_channels": 0}, r"model\.in_channels: got 0"),
        ({"nonlocal_blocks": 5}, r"model\.nonlocal_blocks: there is no layer2\.2"),
    ],
)
def test_errors(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        create_model("tsm_tiny", num_classes=2, **options)  # type: ignore[arg-type]


def test_nonlocal_blocks_see_the_whole_clip() -> None:
    model = create_model("tsm_tiny", num_classes=3, n_div=None, nonlocal_blocks=["layer2.0"]).eval()
    drawn_weights(model)
    assert isinstance(model.base_model.layer2.nonlocal0, NonLocalBlock)
    x = torch.randn(1, 3, 4, 32, 32)
    other = x.clone()
    other[:, :, 3] += 1
    seen: list[torch.Tensor] = []
    model.base_model.layer2.register_forward_hook(lambda _, __, output: seen.append(output))
    with torch.no_grad():
        model(x), model(other)
    assert not torch.allclose(seen[0][0], seen[1][0])  # the first frame's map heard of the last frame


# ---------------------------------------------------------------- document 001, section 3.2.3


def test_alternating3d_has_the_documents_kernels() -> None:
    model = alternating3d(num_classes=3, width=4, pairs=2)
    kernels = [m.kernel_size for m in model.modules() if isinstance(m, nn.Conv3d)]
    assert kernels == [(3, 3, 3), (1, 3, 3), (3, 1, 1), (1, 3, 3), (3, 1, 1)]
    with pytest.raises(ConfigError, match=r"model\.pairs: got 0"):
        alternating3d(num_classes=3, pairs=0)

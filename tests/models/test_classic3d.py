"""C3D and torchvision's video ResNets: size, cost, published names, and the logits of third-party code."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tests.sampled import sampled
from vidtrain.models.c3d import c3d
from vidtrain.models.torchvision_video import mc3_18, r2plus1d_18, r3d_18

# Parameters to the unit and GMAC at 16 x 112 x 112, both at 400 classes: torchvision's published table, and for C3D
# the sum of its layers.
PUBLISHED: dict[str, tuple[Callable[..., nn.Module], int, float]] = {
    "c3d": (lambda **kw: c3d(num_frames=16, size=112, **kw), 79_634_576, 38.549),
    "r3d_18": (r3d_18, 33_371_472, 40.697),
    "mc3_18": (mc3_18, 11_695_440, 43.343),
    "r2plus1d_18": (r2plus1d_18, 31_505_325, 40.519),
}


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_and_multiply_adds(name: str) -> None:
    build, params, gmac = PUBLISHED[name]
    with torch.device("meta"):
        model = build(num_classes=400).eval()
    assert count(model) == params
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model(torch.empty(1, 3, 16, 112, 112, device="meta"))
    assert counter.get_total_flops() / 2e9 == pytest.approx(gmac, rel=5e-3)


def test_c3d_has_the_published_layers() -> None:
    with torch.device("meta"):
        model = c3d(num_classes=101, num_frames=16, size=112)
    assert count(model) == 78_409_573
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    assert shapes["fc6.weight"] == (4096, 8192)
    assert shapes["fc8.weight"] == (101, 4096)
    widths = {"conv1": 64, "conv2": 128, "conv3a": 256, "conv3b": 256,
              "conv4a": 512, "conv4b": 512, "conv5a": 512, "conv5b": 512}  # fmt: skip
    assert {k.split(".")[0]: s[0] for k, s in shapes.items() if k.startswith("conv") and len(s) == 5} == widths
    assert len(shapes) == 2 * (8 + 3)


def test_c3d_embeds_by_fc6() -> None:
    model = c3d(num_classes=5, num_frames=16, size=32, width=2, hidden=16).eval()
    x = torch.randn(2, 3, 16, 32, 32)
    seen: list[torch.Tensor] = []
    model.fc6.register_forward_hook(lambda _, __, output: seen.append(output.clone()))
    with torch.no_grad():
        embedding = model.embed(x)
        assert embedding.shape == (2, 16)
        assert torch.equal(embedding, torch.relu(seen[0]))
        logits = model.fc8(torch.relu(model.fc7(embedding)))
        assert torch.equal(model(x), logits)


def test_c3d_drops_out_twice_in_training_only() -> None:
    model = c3d(num_classes=5, num_frames=16, size=16, width=2, hidden=64)
    x = torch.randn(2, 3, 16, 16, 16)
    dropped: list[int] = []
    model.dropout.register_forward_hook(lambda _, inputs, out: dropped.append(int((out != inputs[0]).sum())))
    model(x)
    assert len(dropped) == 2
    assert min(dropped) > 0
    model.eval()(x)
    assert dropped[2:] == [0, 0]


@pytest.mark.parametrize(("frames", "size"), [(16, 112), (16, 128), (24, 100), (33, 16), (16, 31)])
def test_c3d_is_built_for_any_clip(frames: int, size: int) -> None:
    with torch.device("meta"):
        model = c3d(num_classes=5, num_frames=frames, size=size, width=2, hidden=8).eval()
        assert model(torch.empty(1, 3, frames, size, size)).shape == (1, 5)


@pytest.mark.parametrize("name", sampled(["r3d_18", "mc3_18", "r2plus1d_18"], ["mc3_18"]))
def test_video_resnets_are_torchvisions(name: str) -> None:
    theirs = torchvision.models.get_model(name, num_classes=7).eval()
    ours = PUBLISHED[name][0](num_classes=7).eval()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(1, 3, 4, 24, 24)
    with torch.no_grad():
        assert torch.equal(ours(x), theirs(x))


@pytest.fixture(scope="module")
def parity() -> tuple[Path, Any]:
    """The folder of numeric targets and its weights.py."""
    folder = Path(os.environ.get("VIDTRAIN_PARITY", Path(__file__).parents[3] / "shared" / "parity"))
    if not (folder / "weights.py").is_file():
        pytest.skip(f"no parity targets in {folder}; set VIDTRAIN_PARITY")
    spec = importlib.util.spec_from_file_location("parity_weights", folder / "weights.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return folder, module


@pytest.mark.slow
@pytest.mark.parametrize("name", ["r3d_18", "mc3_18", "r2plus1d_18"])
def test_parity_with_third_party_logits(name: str, parity: tuple[Path, Any]) -> None:
    folder, weights = parity
    target = weights.load(folder / f"tv_{name}.json")
    model = PUBLISHED[name][0](num_classes=target["num_classes"]).eval()
    missing, unexpected = model.load_state_dict(weights.make_state_dict(target), strict=False)
    assert set(missing) <= set(target["kept"])  # batch norm counts its batches by itself
    assert not unexpected
    with torch.no_grad():
        verdict = weights.compare(model(weights.make_input(target)), target, tol=1e-4)
    assert verdict["ok"], verdict

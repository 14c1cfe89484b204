"""Faithful on the built-in motion, family by family: of a network that distinguishes two directions, deleting what a
map marks costs more probability than deleting as much elsewhere. With -s it prints the table of benchmarks/explain.md.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.explain.made import FRAMES, SIZE, directions, score_of
from vidtrain import create_model
from vidtrain.errors import ConfigError
from vidtrain.explain.methods import MapOptions, Method, evidence_map

WINDOW = (4, 8)
"""Of occlusion: 147 boxes."""
_VIT: dict[str, Any] = {"patch": 8, "width": 48, "depth": 2}
_SWIN: dict[str, Any] = {"width": 24, "depths": [1, 1], "heads": [1, 2], "window": [4, 4, 4]}
_CAM, _ROLLOUT, _OCCLUSION = (Method.gradcam, Method.occlusion), (Method.rollout, Method.occlusion), (Method.occlusion,)
FAMILIES: dict[str, tuple[int, float, dict[str, Any], tuple[Method, ...]]] = {
    "early_fusion": (80, 3e-3, {}, _CAM),
    "slow_fusion": (80, 3e-3, {}, _CAM),
    "alternating3d": (80, 3e-3, {"width": 8}, _CAM),
    "csn_tiny": (80, 3e-3, {}, _CAM),
    "tsm_tiny": (80, 3e-3, {}, _CAM),
    "convlstm_tiny": (80, 5e-3, {}, _CAM),
    "convlstm_hierarchical_tiny": (80, 5e-3, {}, _OCCLUSION),
    "timesformer_tiny": (120, 2e-3, _VIT, _ROLLOUT),
    "vivit_tiny": (120, 2e-3, {**_VIT, "tubelet": 2}, _ROLLOUT),
    "videomae_tiny": (120, 2e-3, {**_VIT, "tubelet": 2}, _ROLLOUT),
    "vjepa2_tiny": (120, 2e-3, {}, _ROLLOUT),
    "uniformerv2_tiny": (120, 2e-3, _VIT, _ROLLOUT),
    "swin3d_t": (120, 2e-3, _SWIN, _CAM),
    "mvit_v2_s": (120, 2e-3, {"width": 16, "depths": [1, 1, 1, 1], "heads": 1}, _CAM),
    "hiera_tiny": (120, 2e-3, {"stages": [1, 1], "pools": 1, "window_stages": 1}, _CAM),
}
"""Steps, learning rate, options of the network, the methods that must be faithful on average; others are printed."""
_QUICK = ("early_fusion",)


@pytest.fixture(scope="module")
def motion() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return *directions(0, 96), *directions(1, 12)


@pytest.mark.parametrize(
    "name", [name if name in _QUICK else pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES]
)
def test_deleting_what_the_map_marks(name: str, motion: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    clips, classes, held_out, truth = motion
    model = _trained(name, clips, classes)
    with torch.no_grad():
        right = (model(held_out).argmax(1) == truth).nonzero()[:, 0].tolist()
    assert len(right) >= 0.75 * len(truth), f"{len(right)}/{len(truth)}: it has not learned what the test is about"
    shown = right[:: max(1, len(right) // 8)][:8]
    unfaithful = []
    for method in (Method.rollout, Method.gradcam, Method.occlusion):
        options = MapOptions(method, window=WINDOW, batch_size=64)
        try:
            maps = [evidence_map(score_of(model, int(truth[n])), {"rgb": held_out[n : n + 1]}, options) for n in shown]
        except ConfigError:
            assert method not in FAMILIES[name][3]
            continue
        found = [one.deletion for one in maps]
        whole, marked, elsewhere = (
            sum(getattr(one, key) for one in found) / len(found)
            for key in ("whole", "without_marked", "without_random")
        )
        faithful = sum(one.faithful for one in found)
        numbers = f"{whole:.3f} | {marked:.3f} | {elsewhere:.3f} | {faithful}/{len(found)}"
        print(f"| {name} | {len(right)}/{len(truth)} | {method} | {numbers} |", flush=True)
        if method in FAMILIES[name][3] and not (marked < elsewhere - 0.01 and faithful >= len(found) / 2):
            unfaithful.append(f"{method}: {numbers}")
    assert not unfaithful, unfaithful


def _trained(name: str, clips: Tensor, classes: Tensor) -> nn.Module:
    steps, lr, options, _ = FAMILIES[name]
    torch.manual_seed(0)
    model = create_model(name, num_classes=2, num_frames=FRAMES, size=SIZE, **options)
    optimizer = torch.optim.AdamW(model.parameters(), lr, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps)
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        rows = torch.randint(0, len(clips), (16,), generator=generator)
        optimizer.zero_grad()
        F.cross_entropy(model(clips[rows]), classes[rows], label_smoothing=0.1).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return model.eval()

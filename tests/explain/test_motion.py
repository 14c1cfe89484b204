"""Faithful on the built-in motion: of a network that distinguishes two directions, deleting what the map
marks costs more probability than deleting as much elsewhere. Slow; its quick sibling is test_known_evidence.py.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from av.video.frame import VideoFrame
from torch import Tensor, nn

from tests.explain.made import score_of
from vidtrain import create_model
from vidtrain.data.motion.scene import scene_clips
from vidtrain.explain.methods import MapOptions, evidence_map

FRAMES, SIZE = 8, 32
# steps and learning rate
FAMILIES: dict[str, tuple[int, float, dict[str, Any]]] = {
    "slow_fusion": (80, 3e-3, {}),
}


def _scenes(split: int, count: int) -> tuple[Tensor, Tensor]:
    """Clips (2 count, 3, T, H, W) of scenes that move right, and the same backwards, and their classes 0 and 1."""
    clips = []
    for scene in range(count):
        planes = next(scene_clips((0, split, scene), SIZE, 2 * FRAMES))[::2]  # moves right first
        clips.append([VideoFrame.from_ndarray(plane, format="yuv420p").to_ndarray(format="rgb24") for plane in planes])
    right = torch.tensor([[frame.tolist() for frame in clip] for clip in clips]).permute(0, 4, 1, 2, 3)
    right = (right.float() / 255 - 0.45) / 0.225
    return torch.cat([right, right.flip(2)]), torch.arange(2).repeat_interleave(count)


@pytest.fixture(scope="module")
def motion() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return *_scenes(0, 64), *_scenes(1, 12)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_deleting_what_the_map_marks(name: str, motion: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    clips, classes, held_out, truth = motion
    model = _trained(name, clips, classes)
    with torch.no_grad():
        right = (model(held_out).argmax(1) == truth).nonzero()[:, 0].tolist()
    assert len(right) > 0.75 * len(truth), "it has not learned what the test is about"
    shown = right[:: max(1, len(right) // 8)][:8]
    found = [
        evidence_map(score_of(model, int(truth[n])), {"rgb": held_out[n : n + 1]}, MapOptions(batch_size=64)).deletion
        for n in shown
    ]
    whole, marked, elsewhere = (
        sum(getattr(one, key) for one in found) / len(found) for key in ("whole", "without_marked", "without_random")
    )
    print(f"{name}: {len(right)}/{len(truth)} right, whole {whole:.3f} marked {marked:.3f} elsewhere {elsewhere:.3f}")
    assert marked < elsewhere - 0.05, (
        f"{whole:.3f} without marked {marked:.3f}, without as much elsewhere {elsewhere:.3f}"
    )
    assert sum(one.faithful for one in found) > len(found) / 2


def _trained(name: str, clips: Tensor, classes: Tensor) -> nn.Module:
    steps, lr, options = FAMILIES[name]
    torch.manual_seed(0)
    model = create_model(name, num_classes=2, num_frames=FRAMES, size=SIZE, **options)
    optimizer, generator = (
        torch.optim.AdamW(model.parameters(), lr, weight_decay=0.02),
        torch.Generator().manual_seed(1),
    )
    for _ in range(steps):
        rows = torch.randint(0, len(clips), (16,), generator=generator)
        optimizer.zero_grad()
        F.cross_entropy(model(clips[rows]), classes[rows]).backward()
        optimizer.step()
    return model.eval()

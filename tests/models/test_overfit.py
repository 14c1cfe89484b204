"""Every small network overfits eight clips of motion, one per class; nets that are blind to the order of
frames cannot tell a clip from its reverse, and stay at one of two."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import vidtrain
from tests.models.recurrent import NAMES as RECURRENT
from tests.models.test_every_model import THIN
from vidtrain.data.motion.scene import scene_clips

STEPS = 120
# torchvision's three 18-layer nets have no thin version and are skipped
SEEING = (
    *["slow_fusion", "c3d", "i3d_resnet_tiny", "slow_tiny", "r2plus1d_tiny"],
    *["slowfast_tiny", "x3d_tiny", "csn_tiny", "alternating3d", "inflated", "tsm_tiny", "s3d_tiny", "s3dg", "i3d_tiny"],
)
WIDER = {"c3d": {"width": 8, "hidden": 64, "dropout": 0.0}}
"""Without batch norm and with dropout twice, c3d cannot do it as thin as in the other tests."""
PLAIN = (
    *(f"{name}_tiny" for name in RECURRENT),
    *(f"{name}_tiny" for name in ("timesformer", "vivit", "videomae", "uniformerv2", "hiera", "movinet")),
    "movinet_tiny_stream",
)
"""As their configurations have them; thinner ones take longer than they save."""
BLIND = ("late_fusion", "tsn_tiny")


@pytest.fixture(scope="module")
def clips() -> tuple[torch.Tensor, torch.Tensor]:
    """(8, 3, 16, 32, 32) and the eight classes: four motions, each forward and backward."""
    forward = [torch.from_numpy(planes[:, :32].astype(np.float32)) for planes in scene_clips((0, 0), 32, 16)]  # Y alone
    x = torch.stack([clip for one in forward for clip in (one, one.flip(0))]).unsqueeze(1).repeat(1, 3, 1, 1, 1)
    return (x - x.mean()) / x.std(), torch.arange(8)


def accuracy_after_training(name: str, x: torch.Tensor, y: torch.Tensor) -> float:
    """Of the training clips themselves, in eval mode."""
    torch.manual_seed(0)
    options = {} if name in PLAIN else {**THIN[name], **WIDER.get(name, {})}
    if options.get("num_frames", 8) == 8:
        x = x[:, :, 4:12]  # the middle, so that a clip and its reverse still have the same frames
    clip = {"num_frames": x.shape[2], "size": x.shape[3]}
    model = vidtrain.create_model(name, **{**options, **clip, "num_classes": 8})
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=STEPS)
    for _ in range(STEPS):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        return float((model.eval()(x).argmax(1) == y).float().mean())


@pytest.mark.slow
@pytest.mark.parametrize("name", [*SEEING, *PLAIN])
def test_it_learns_eight_clips_by_heart(name: str, clips: tuple[torch.Tensor, torch.Tensor]) -> None:
    assert accuracy_after_training(name, *clips) == 1.0


@pytest.mark.slow
@pytest.mark.parametrize("name", BLIND)
def test_without_the_order_half_is_the_most(name: str, clips: tuple[torch.Tensor, torch.Tensor]) -> None:
    assert accuracy_after_training(name, *clips) <= 0.5

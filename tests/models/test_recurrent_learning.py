"""Each small recurrent network learns eight clips of motion by heart, one a class: four motions, each forward and
backward, whose frames are the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import vidtrain
from tests.models.recurrent import NAMES
from vidtrain.data.motion_scene import scene_clips

STEPS = 80


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_it_tells_a_clip_from_its_reverse(name: str) -> None:
    forward = [torch.from_numpy(planes[:, :32].astype(np.float32)) for planes in scene_clips((0, 0), 32, 16)]  # Y alone
    pairs = [clip for one in forward for clip in (one[::2], one[::2].flip(0))]
    x = torch.stack(pairs).unsqueeze(1).repeat(1, 3, 1, 1, 1)
    x, y = (x - x.mean()) / x.std(), torch.arange(8)
    torch.manual_seed(0)
    model = vidtrain.create_model(f"{name}_tiny", num_classes=8, num_frames=8, size=32)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=STEPS)
    for _ in range(STEPS):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        assert torch.equal(model.eval()(x).argmax(1), y)

"""Clips whose evidence is known: noise, in which a red square makes class 1 and a green one class 2; and nets that have
learned this in seconds."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from av.video.frame import VideoFrame
from torch import Tensor, nn

from vidtrain import create_model
from vidtrain.data.flow.codes import LIMIT
from vidtrain.data.flow.methods import OpenCVFlow
from vidtrain.data.motion.scene import scene_clips
from vidtrain.engine.preprocess import model_inputs
from vidtrain.explain.score import ClassScore

FRAMES, SIZE = 8, 32
MEAN, STD = 0.45, 0.225
LENGTH, SIDE = 4, 8
"""Frames and pixels of a square."""
Box = tuple[slice, slice, slice]
RED: Box = (slice(0, 4), slice(4, 12), slice(4, 12))
GREEN: Box = (slice(4, 8), slice(20, 28), slice(20, 28))


def noise(count: int, generator: torch.Generator) -> Tensor:
    return 0.3 * torch.randn(count, 3, FRAMES, SIZE, SIZE, generator=generator)


def clips(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(N, 3, T, H, W) and the classes (N,): none, red or green, anywhere."""
    x, classes = noise(count, generator), torch.randint(0, 3, (count,), generator=generator)
    for clip, number in zip(x, classes.tolist(), strict=True):
        t, y, z = (
            int(torch.randint(0, n, (), generator=generator))
            for n in (FRAMES - LENGTH + 1, SIZE - SIDE + 1, SIZE - SIDE + 1)
        )
        if number:
            clip[number - 1, t : t + LENGTH, y : y + SIDE, z : z + SIDE] = 2.5
    return x, classes


def both_squares() -> Tensor:
    """One clip (1, 3, T, H, W) with a red square in RED and a green one in GREEN."""
    x = noise(1, torch.Generator().manual_seed(7))
    x[0, 0][RED] = 2.5
    x[0, 1][GREEN] = 2.5
    return x


def directions(split: int, count: int, num_frames: int = FRAMES) -> tuple[Tensor, Tensor]:
    """Of the built-in motion: clips (2 count, 3, T, H, W) of scenes that move right, and the same backwards, and their
    classes 0 and 1."""
    clips = []
    for scene in range(count):
        planes = next(scene_clips((0, split, scene), SIZE, 2 * num_frames))[::2]  # moves right first
        frames = [VideoFrame.from_ndarray(plane, format="yuv420p").to_ndarray(format="rgb24") for plane in planes]
        clips.append(np.stack(frames))
    right = torch.from_numpy(np.stack(clips)).permute(0, 4, 1, 2, 3)
    right = (right.float() / 255 - MEAN) / STD
    return torch.cat([right, right.flip(2)]), torch.arange(2).repeat_interleave(count)


def flow_of(clips: Tensor) -> Tensor:
    """Of the clips of `directions`, DIS flow from frame to frame, as a network reads it: (N, 2, T - 1, H, W)."""
    frames = ((clips * STD + MEAN) * 255).round().byte().permute(0, 2, 3, 4, 1).numpy()
    pairs = frames[:, :-1].reshape(-1, SIZE, SIZE, 3), frames[:, 1:].reshape(-1, SIZE, SIZE, 3)
    fields = torch.from_numpy(OpenCVFlow("dis")(*pairs)).unflatten(0, (len(clips), -1))
    return fields.permute(0, 4, 1, 2, 3).clamp(-LIMIT, LIMIT) / LIMIT


def trained(name: str, *, lr: float, steps: int, **options: object) -> nn.Module:
    """A network of the catalogue that knows the three classes, in eval mode."""
    torch.manual_seed(0)
    model = create_model(name, num_classes=3, num_frames=FRAMES, size=SIZE, **options)
    optimizer, generator = torch.optim.AdamW(model.parameters(), lr), torch.Generator().manual_seed(1)
    for _ in range(steps):
        x, classes = clips(16, generator)
        optimizer.zero_grad()
        F.cross_entropy(model(x), classes).backward()
        optimizer.step()
    model.eval()
    x, classes = clips(32, generator)
    with torch.no_grad():
        assert (model(x).argmax(1) == classes).float().mean() > 0.9, "it has not learned what the test is about"
    return model


def called(model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    """Logits (N, K): a network that reads several inputs gets a dict of them."""
    names = model_inputs(model)
    logits: Tensor = model(inputs["rgb"] if names == ("rgb",) else {name: inputs[name] for name in names})
    return logits


def score_of(model: nn.Module, target: int) -> ClassScore:
    return ClassScore(model, lambda inputs: called(model, inputs), target)

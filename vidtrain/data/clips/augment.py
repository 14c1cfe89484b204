"""What changes the pixels of a training clip after it is cut: torchvision's transforms, one draw for all its frames."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from vidtrain.data.clips.transforms import check_chance
from vidtrain.errors import ConfigError
from vidtrain.types import Frames

Policy = Literal["none", "rand_augment", "trivial_augment"]
_ERASED = 115
"""Grey level of what random erasing removes: the usual mean, so that the model sees about 0 there."""


@dataclass(frozen=True)
class Colours:
    """Random brightness, contrast, saturation and hue, and now and then no colour at all.

    strength: the factors are drawn from 1 - strength to 1 + strength. hue: the hue is turned by -hue to hue of a full
    turn, 0 to 0.5. grayscale: chance of a grey clip.
    """

    strength: float = 0.0
    grayscale: float = 0.0
    hue: float = 0.0

    def __post_init__(self) -> None:
        check_chance("colour", self.strength)
        check_chance("grayscale", self.grayscale)
        check_chance("hue", self.hue, most=0.5)

    def apply(self, images: Tensor, rng: np.random.Generator) -> Tensor:
        """uint8 (T, 3, H, W) -> the same, all frames changed alike; draws nothing when all options are 0."""
        if not (self.strength or self.grayscale or self.hue):
            return images
        brightness, contrast, saturation = (1 + self.strength * rng.uniform(-1, 1, size=3)).tolist()
        if rng.random() < self.grayscale:
            saturation = 0.0
        images = F.adjust_brightness(images, brightness)
        images = F.adjust_contrast(images, contrast)
        images = F.adjust_saturation(images, saturation)
        if self.hue:
            images = F.adjust_hue(images, float(rng.uniform(-self.hue, self.hue)))
        return images


@dataclass(frozen=True)
class Augment:
    """Colours, then a policy of random operations, then a rectangle erased through all frames.

    policy: none, rand_augment (Cubuk et al. 2020: `num_ops` operations of strength `magnitude`, 0 to 30) or
        trivial_augment (Müller and Hutter 2021: one of random strength).
    erasing: chance that a rectangle of 2 to 33 % of the area is made grey (Zhong et al. 2020).
    """

    colours: Colours = field(default_factory=Colours)
    policy: Policy = "none"
    magnitude: int = 9
    num_ops: int = 2
    erasing: float = 0.0

    def __post_init__(self) -> None:
        check_chance("erasing", self.erasing)
        if self.policy not in ("none", "rand_augment", "trivial_augment"):
            raise ConfigError(f"transform.policy={self.policy}: allowed are none, rand_augment and trivial_augment")
        if not 0 <= self.magnitude <= 30:
            raise ConfigError(f"transform.magnitude={self.magnitude}: must lie in 0 to 30")
        if self.num_ops < 1:
            raise ConfigError(f"transform.num_ops={self.num_ops}: must be at least 1")

    def apply(self, clip: Frames, rng: np.random.Generator) -> Frames:
        """uint8 (T, H, W, 3) -> the same; draws nothing for what is switched off."""
        steps = self._steps()
        images = torch.from_numpy(clip).permute(0, 3, 1, 2)
        changed = self.colours.apply(images, rng)
        if steps:
            with seeded(rng):
                for step in steps:
                    changed = step(tv_tensors.Video(changed))
            changed = changed.as_subclass(Tensor)
        if changed is images:
            return clip
        return np.ascontiguousarray(changed.permute(0, 2, 3, 1).numpy())

    def _steps(self) -> list[v2.Transform]:
        steps: list[v2.Transform] = []
        bilinear = v2.InterpolationMode.BILINEAR
        if self.policy == "rand_augment":
            steps.append(v2.RandAugment(self.num_ops, self.magnitude, interpolation=bilinear, fill=_ERASED))
        elif self.policy == "trivial_augment":
            steps.append(v2.TrivialAugmentWide(interpolation=bilinear, fill=_ERASED))
        if self.erasing:
            steps.append(v2.RandomErasing(self.erasing, value=_ERASED))
        return steps


@contextmanager
def seeded(rng: np.random.Generator) -> Iterator[None]:
    """torchvision draws from torch's generator of the CPU: lend it a seed, and put it back as it was."""
    state = torch.get_rng_state()
    torch.default_generator.manual_seed(int(rng.integers(2**63)))
    try:
        yield
    finally:
        torch.set_rng_state(state)

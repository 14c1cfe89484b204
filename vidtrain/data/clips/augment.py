"""What changes the pixels of a training clip after it is cut: torchvision's transforms, one draw for all its frames."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from vidtrain.data.settings import PolicyName, TransformConfig
from vidtrain.types import Frames

if TYPE_CHECKING:  # torchvision takes as long to import as torch does
    from torchvision.transforms import v2

_ERASED = 115
"""Grey level of what random erasing removes: the usual mean, so that the model sees about 0 there."""


@dataclass(frozen=True)
class Augment:
    """Colours, then a policy of random operations, then a rectangle erased through all frames.

    policy: none, rand_augment (Cubuk et al. 2020: `num_ops` operations of strength `magnitude`, 0 to 30) or
        trivial_augment (Müller and Hutter 2021: one of random strength).
    erasing: chance that a rectangle of 2 to 33 % of the area is made grey (Zhong et al. 2020).
    """

    transform: TransformConfig

    def __post_init__(self) -> None:
        options = self.transform
        if options.colour or options.grayscale or options.hue or self._draws:
            import torchvision  # noqa: F401 - before the loader starts its processes: each would import it for itself

    @property
    def _draws(self) -> bool:
        return bool(self.transform.erasing) or self.transform.policy != PolicyName.none

    def apply(self, clip: Frames, rng: np.random.Generator) -> Frames:
        """uint8 (T, H, W, 3) -> the same; draws nothing for what is switched off."""
        images = torch.from_numpy(clip).permute(0, 3, 1, 2)
        changed = mix_colours(images, self.transform, rng)
        if self._draws:
            from torchvision import tv_tensors

            with seeded(rng):
                for step in self._steps():
                    changed = step(tv_tensors.Video(changed))
            changed = changed.as_subclass(Tensor)
        if changed is images:
            return clip
        return np.ascontiguousarray(changed.permute(0, 2, 3, 1).numpy())

    def _steps(self) -> list[v2.Transform]:
        from torchvision.transforms import v2

        options, steps = self.transform, list[v2.Transform]()
        bilinear = v2.InterpolationMode.BILINEAR
        if options.policy == PolicyName.rand_augment:
            steps.append(v2.RandAugment(options.num_ops, options.magnitude, interpolation=bilinear, fill=_ERASED))
        elif options.policy == PolicyName.trivial_augment:
            steps.append(v2.TrivialAugmentWide(interpolation=bilinear, fill=_ERASED))
        if options.erasing:
            steps.append(v2.RandomErasing(options.erasing, value=_ERASED))
        return steps


def mix_colours(images: Tensor, options: TransformConfig, rng: np.random.Generator) -> Tensor:
    """Random brightness, contrast, saturation and hue, and now and then no colour at all.

    colour: the factors are drawn from 1 - colour to 1 + colour. hue: the hue is turned by -hue to hue of a full turn.
    grayscale: chance of a grey clip.

    uint8 (T, 3, H, W) -> the same, all frames changed alike; draws nothing when all three are 0.
    """
    if not (options.colour or options.grayscale or options.hue):
        return images
    from torchvision.transforms.v2 import functional as F

    brightness, contrast, saturation = (1 + options.colour * rng.uniform(-1, 1, size=3)).tolist()
    if rng.random() < options.grayscale:
        saturation = 0.0
    images = F.adjust_brightness(images, brightness)
    images = F.adjust_contrast(images, contrast)
    images = F.adjust_saturation(images, saturation)
    if options.hue:
        images = F.adjust_hue(images, float(rng.uniform(-options.hue, options.hue)))
    return images


@contextmanager
def seeded(rng: np.random.Generator) -> Iterator[None]:
    """torchvision draws from torch's generator of the CPU: lend it a seed, and put it back as it was."""
    state = torch.get_rng_state()
    torch.default_generator.manual_seed(int(rng.integers(2**63)))
    try:
        yield
    finally:
        torch.set_rng_state(state)

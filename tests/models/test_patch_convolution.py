"""Patches by a matrix product are what the convolution gives, and learn what it learns."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vidtrain.models.layers.transformer import PatchConv3d


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(
    ("kernel", "shape"),
    [
        ((2, 4, 4), (2, 3, 4, 8, 12)),
        ((1, 2, 3), (1, 3, 3, 5, 8)),
        ((2, 4, 4), (1, 3, 5, 11, 9)),
        ((1, 1, 1), (1, 3, 2, 3, 4)),
    ],
)
def test_patches_are_the_convolution(
    kernel: tuple[int, int, int], shape: tuple[int, ...], *, channels_last: bool
) -> None:
    torch.manual_seed(0)
    patches, conv = PatchConv3d(3, 10, kernel), nn.Conv3d(3, 10, kernel, stride=kernel)
    conv.load_state_dict(patches.state_dict())
    clip = torch.randn(shape)
    if channels_last:
        clip = clip.contiguous(memory_format=torch.channels_last_3d)
    results = []
    for layer in (patches, conv):
        x = clip.clone().requires_grad_()
        y = layer(x)
        y.square().sum().backward()
        results.append((y.detach(), x.grad, layer.weight.grad, layer.bias.grad))
    for ours, theirs in zip(*results, strict=True):
        assert ours is not None
        assert theirs is not None
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_a_clip_smaller_than_a_patch_is_an_error_as_before() -> None:
    with pytest.raises(RuntimeError, match=r"[Kk]ernel size"):
        PatchConv3d(3, 4, (2, 4, 4))(torch.zeros(1, 3, 1, 8, 8))

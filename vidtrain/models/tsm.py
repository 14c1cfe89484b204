"""TSM: TSN whose residual branches see an eighth of their channels one frame later and an eighth one frame earlier
(Lin et al. 2019, "TSM: Temporal Shift Module for Efficient Video Understanding"). Parameters and cost are TSN's."""

from __future__ import annotations

from typing import Any

from vidtrain.errors import ConfigError
from vidtrain.models.catalogue import Entry, Family
from vidtrain.models.layers.classifier import check_choice
from vidtrain.models.layers.frame_resnet import MOBILENET, Shift, block_names, find_resnet
from vidtrain.models.layers.nonlocal_block import NonLocalOptions
from vidtrain.models.tsn import TSN
from vidtrain.ranges import takes

ENTRIES = {
    "tsm_r50": Entry(Family.FRAMES, "Lin et al. 2019", (8, 224), 74.1, "8x8, 10x3, mit-han-lab"),
    "tsm_mobilenet_v2": Entry(Family.FRAMES, "Lin et al. 2019", (8, 224), 69.5, "8x8, 10 clips, mit-han-lab"),
    "tsm_tiny": Entry(Family.FRAMES, "Lin et al. 2019", (16, 64)),
}

_PLACES = ("residual", "block")
NONLOCAL_5 = ("layer2.0", "layer2.2", "layer3.0", "layer3.2", "layer3.4")
"""The blocks of ResNet-50 that are followed by a non-local block in the published TSM."""
_DEEP = 23  # blocks in layer3 from which on the published nets shift before every second block only


def shift_of(backbone: str, n_div: float | None, place: str) -> Shift | None:
    """The shift that the published nets have with this backbone; None where n_div says that nothing moves."""
    check_choice("place", place, _PLACES)
    depths = None if backbone == MOBILENET else find_resnet(backbone).depths
    if depths is None and place != "residual":
        raise ConfigError(f"model.place={place}: {backbone} is shifted in its residual branches: set residual")
    if n_div is None:
        return None
    if n_div < 2 or n_div != int(n_div):
        raise ConfigError(f"model.n_div: got {n_div}, expected a whole number of 2 or more, or null")
    every = 2 if place == "residual" and depths is not None and depths[2] >= _DEEP else 1
    return Shift(int(n_div), whole_block=place == "block", every=every)


@takes(NonLocalOptions, nonlocal_pool="after", nonlocal_scale=False)
def tsm_r50(
    *,
    num_classes: int,
    backbone: str = "resnet50",
    n_div: float | None = 8,
    place: str = "residual",
    in_channels: int = 3,
    dropout: float = 0.5,
    **options: Any,
) -> TSN:
    """TSM on ResNet-50.

    n_div: 1 / n_div of the channels move each way; None moves nothing, which is TSN.
    place: "residual" (the input of the residual branch; from ResNet-101 on of every second block, as published) or
        "block" (the input of the whole block).
    nonlocal_blocks: None, 5 (after every second block of layer2 and layer3, as published on ResNet-50), or names; of a
        ResNet.
    Other options as for tsn_r50.
    """
    shift, nonlocals = shift_of(backbone, n_div, place), NonLocalOptions(**options)
    if backbone == MOBILENET and nonlocals.nonlocal_blocks is not None:
        raise ConfigError(
            f"model.nonlocal_blocks: got {nonlocals.nonlocal_blocks}, but {backbone} takes none: set null, or choose "
            "a ResNet"
        )
    parts = [] if backbone == MOBILENET else block_names(find_resnet(backbone))
    return TSN(
        "tsm",
        num_classes=num_classes,
        backbone=backbone,
        in_channels=in_channels,
        dropout=dropout,
        shift=shift,
        nonlocals=nonlocals.nonlocals(parts, {5: NONLOCAL_5}),
    )

"""Our own 3D ResNets: a state dict saved without the configuration around it."""

from __future__ import annotations

from vidtrain.models.weights.layout import Layout, Shapes
from vidtrain.models.weights.resnet_fits import fit_resnet

_STEMS = ("conv1.weight", "slow.conv1.weight", "conv1_s.weight")


def _matches(shapes: Shapes) -> bool:
    blocks = ("layer1.0.conv3.weight", "slow.layer1.0.conv3.weight")
    return any(key in shapes for key in blocks) and any(len(shapes.get(stem, ())) == 5 for stem in _STEMS)


LAYOUTS: tuple[Layout, ...] = (
    Layout(
        name="vidtrain 3D ResNet",
        matches=_matches,
        model=fit_resnet,
        translate=lambda state, model: state,
    ),
)

"""torchvision's 18-layer video ResNets, whose names are ours. (S3D: torchvision_s3d.py.)"""

from __future__ import annotations

from torch import nn

from vidtrain.errors import CheckpointError
from vidtrain.models.weights.expected_clips import KINETICS, Expects
from vidtrain.models.weights.layout import Fit, Layout, Shapes, State, classes, count

_STEM = "stem.0.weight"
_BLOCK = "layer2.0.conv1.0.weight"
_SPLIT = "layer2.0.conv1.0.0.weight"
_IMAGE_STEM = "conv1.weight"


def _model(shapes: Shapes) -> Fit | None:
    blocks = [count(shapes, rf"layer{n}\.(\d+)\.conv1\.0\.") for n in (1, 2, 3, 4)]
    if blocks != [2, 2, 2, 2]:
        return None
    if _SPLIT in shapes:
        return "r2plus1d_18", classes(shapes, "fc.weight")
    return "r3d_18" if shapes[_BLOCK][2] == 3 else "mc3_18", classes(shapes, "fc.weight")


def _refuse_image(state: State, model: nn.Module) -> State:
    raise CheckpointError("they are of a network for images; model.inflate_from starts a video network from them")


LAYOUTS: tuple[Layout, ...] = (
    Layout(
        name="torchvision video ResNet",
        matches=lambda shapes: len(shapes.get(_STEM, ())) == 5 and (_BLOCK in shapes or _SPLIT in shapes),
        model=_model,
        translate=lambda state, model: state,
        expects=lambda name, options: (
            KINETICS | Expects(num_frames=16, fps=15.0, size=112, resize="128x171", protocol="torchvision")
        ),
    ),
    Layout(
        name="torchvision image ResNet",
        matches=lambda shapes: len(shapes.get(_IMAGE_STEM, ())) == 4 and "layer1.0.conv1.weight" in shapes,
        model=lambda shapes: None,
        translate=_refuse_image,
    ),
)

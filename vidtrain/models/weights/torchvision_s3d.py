"""torchvision's S3D. Our layers have its names; only the head is a convolution there."""

from __future__ import annotations

from vidtrain.models.layers.inception import FULL_WIDTH
from vidtrain.models.weights.expected_clips import KINETICS, Expects
from vidtrain.models.weights.layout import Fit, Layout, Shapes, classes, rename
from vidtrain.models.weights.piergiaj_i3d import linear_head

_STEM = "features.0.0.0.weight"
_BLOCK = "features.5.branch1.1.0.0.weight"
_GATE = "features.0.2.fc.weight"


def _model(shapes: Shapes) -> Fit:
    width = shapes[_STEM][0]
    options: dict[str, int] = classes(shapes, "classifier.1.weight")
    if width != FULL_WIDTH:
        options["width"] = width
    return "s3dg" if _GATE in shapes else "s3d", options


LAYOUTS: tuple[Layout, ...] = (
    Layout(
        name="torchvision S3D",
        matches=lambda shapes: _BLOCK in shapes and len(shapes.get(_STEM, ())) == 5,
        model=_model,
        translate=lambda state, model: linear_head(rename(state, [(r"^classifier\.1\.", "classifier.")]), "classifier"),
        expects=lambda name, options: (
            KINETICS | Expects(num_frames=128, fps=15.0, size=224, resize="256x256", protocol="torchvision")
        ),
    ),
)

"""C3D as DavideA/c3d-pytorch keeps it (the Sports-1M weights): our names are its names."""

from __future__ import annotations

from vidtrain.models.weights.expected_clips import Expects
from vidtrain.models.weights.layout import Fit, Layout, Shapes, classes

_KEYS = {"conv1.weight", "conv3a.weight", "conv5b.weight", "fc6.weight"}
_PUBLISHED = {"width": 64, "hidden": 4096}
_CELLS = 512 * 16  # fc6 reads them from 16 x 112 x 112


def _model(shapes: Shapes) -> Fit | None:
    hidden, cells = shapes["fc6.weight"]
    found = {"width": shapes["conv1.weight"][0], "hidden": hidden}
    if cells * _PUBLISHED["width"] != _CELLS * found["width"]:
        return None  # of clips of another length or size, which the weights do not distinguish
    options = {key: value for key, value in found.items() if value != _PUBLISHED[key]}
    return "c3d", {**options, "num_frames": 16, "size": 112, **classes(shapes, "fc8.weight")}


_EXPECTS = Expects(mean=(0.0, 0.0, 0.0), std=(1 / 255,) * 3, num_frames=16, stride=1, size=112, resize="112x200")
"""Bytes as they are, of clips that the example cuts out by itself."""

LAYOUTS: tuple[Layout, ...] = (
    Layout(
        name="DavideA C3D",
        matches=lambda shapes: set(shapes) >= _KEYS and len(shapes["conv1.weight"]) == 5,
        model=_model,
        translate=lambda state, model: state,
        expects=lambda name, options: _EXPECTS,
    ),
)

"""Inception I3D as hassony2/kinetics_i3d_pytorch keeps it."""

from __future__ import annotations

from vidtrain.models.weights.layout import Layout, any_key, rename
from vidtrain.models.weights.piergiaj_i3d import i3d_expects, i3d_fit, linear_head

_STEM = "conv3d_1a_7x7.conv3d.weight"
_RULES = (
    (r"^conv3d_0c_1x1\.conv3d\.", "logits."),
    (r"^conv3d_", "Conv3d_"),
    (r"^mixed_", "Mixed_"),
    (r"\.branch_0\.", ".b0."),
    (r"\.branch_([12])\.0\.", r".b\1a."),
    (r"\.branch_([12])\.1\.", r".b\1b."),
    (r"\.branch_3\.1\.", ".b3b."),
    (r"\.batch3d\.", ".bn."),
)

LAYOUTS: tuple[Layout, ...] = (
    Layout(
        name="hassony2 I3D",
        matches=lambda shapes: _STEM in shapes and any_key(shapes, r"mixed_\w\w\.branch_1\.0\.conv3d\."),
        model=lambda shapes: i3d_fit(shapes, _STEM, "conv3d_0c_1x1.conv3d.weight"),
        translate=lambda state, model: linear_head(rename(state, _RULES), "logits"),
        expects=i3d_expects,
    ),
)

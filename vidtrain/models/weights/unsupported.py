"""Published layouts that no model of the catalogue takes: recognised, so that the error can say what the file is."""

from __future__ import annotations

from vidtrain.models.weights.layout import Layout, any_key, not_here

_LAYOUTS = (
    ("Hiera", "a Hiera for video", (r"pos_embed_spatial$", r"pos_embed_temporal$")),
    ("MoViNet", "a MoViNet", (r"conv1\.conv_1\.conv[23]d\.weight$", r"blocks\.b0_l0\.")),
)
"""(name, what the message calls it, patterns of which each has to match a key)."""


def _layout(name: str, what: str, patterns: tuple[str, ...]) -> Layout:
    return Layout(
        name=name,
        matches=lambda shapes: all(any_key(shapes, pattern) for pattern in patterns),
        model=lambda shapes: None,
        translate=not_here(what),
    )


LAYOUTS = tuple(_layout(*row) for row in _LAYOUTS)

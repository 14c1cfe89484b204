"""V-JEPA 2 as Hugging Face keeps it: recognised, so that the error can say what the file is."""

from __future__ import annotations

from vidtrain.models.weights.layout import Layout, any_key, not_here

LAYOUTS: tuple[Layout, ...] = (
    Layout(
        name="Hugging Face V-JEPA 2",
        matches=lambda shapes: any_key(shapes, r"(vjepa2\.)?encoder\.embeddings\.patch_embeddings\.proj\."),
        model=lambda shapes: None,
        translate=not_here("a V-JEPA 2 (rotary positions, an attentive pooler)"),
    ),
)

"""The model family: one architecture a file, each a factory function (B, 3, T, H, W) -> (B, K) logits."""

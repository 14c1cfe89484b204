"""Published weights: recognised by their keys, translated into ours; and every other start of a model."""

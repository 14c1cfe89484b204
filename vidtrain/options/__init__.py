"""What a user may say: schemas, presets, paths, other names; and the one call of what a YAML names."""

"""From annotation files to batches. Imports runs, errors, types; never models, engine or Hydra."""

"""From a file and frame indices to frames: one file per decoder. Imports errors and types."""

"""From a file and frame indices to frames, and when they are shown: one file per decoder. Imports jobs and manifest."""

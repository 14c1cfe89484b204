"""The list of videos: files, rows, splits, groups and the index on disk. Imports jobs."""

"""What happens when: segments with a label, from windows that slide over a video or from points in time."""

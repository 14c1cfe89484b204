"""What happens when: from windows that slide over a video to segments with a label. Imports ranges and errors only."""

"""What is wrong with a list of videos, and its statistics. Imports clips, jobs, manifest and readers."""

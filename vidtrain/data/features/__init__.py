"""Folders of extracted features. Imports clips, manifest and prepare."""

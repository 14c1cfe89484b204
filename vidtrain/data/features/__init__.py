"""Folders of extracted features. Imports clips, jobs, manifest and readers."""

"""Copies of videos that load faster. Imports jobs, manifest and readers."""

"""Optical flow: methods, 8-bit codes, the cache on disk. Imports prepare, jobs, manifest and readers."""

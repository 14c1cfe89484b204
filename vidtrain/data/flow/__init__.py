"""Optical flow: methods, 8-bit codes, the cache on disk. Imports jobs, manifest and readers."""

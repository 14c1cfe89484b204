"""Run folders and their locks. Imports errors only."""

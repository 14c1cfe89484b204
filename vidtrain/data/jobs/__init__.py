"""Work over many files: a pool that survives crashes and hangs, and its progress bar. Imports errors only."""

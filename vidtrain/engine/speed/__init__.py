"""Measuring and compiling: timing, bench, torch.compile."""

"""The step and the loop: plain PyTorch, no configuration library."""

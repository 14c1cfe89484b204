"""The options of what a run writes. `vidtrain train --help` prints the text under each field."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class LoggerConfig:
    tensorboard: bool = True
    """Write TensorBoard event files into the run folder."""
    images: bool = True
    """Also a grid of training clips and the confusion matrix."""

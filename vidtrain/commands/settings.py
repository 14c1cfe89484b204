"""The options of the commands that look at data. `vidtrain data --help` prints the text under each field."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class ShowConfig:
    clips: int = 8
    """show: clips on the sheet, a row each."""
    frames: int = 8
    """show: frames of each clip, spread evenly over it."""
    seed: int = 0
    """show: which videos, and every draw of training."""


@dataclass
class DoctorConfig:
    videos: int = 64
    """doctor: training videos that are measured, drawn at random."""
    seconds: float = 4.0
    """doctor: time of each measurement."""
    batch_size: int = 16
    """doctor: clips per step."""
    device: str = "auto"
    """doctor: where the model runs: auto, cpu, cuda, mps."""
    copies: bool = True
    """doctor: also measure copies of these videos as `vidtrain data prepare` makes them."""

"""The options of single commands. `vidtrain COMMAND --help` prints the text under each field."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from vidtrain.data.settings import SamplerConfig, TransformConfig
from vidtrain.engine.settings import PrecisionName
from vidtrain.errors import ConfigError, one_of
from vidtrain.ranges import LARGEST_SEED, LONGEST, number
from vidtrain.types import FilePath


@dataclass
class BenchConfig:
    model: Any = None
    """The model to measure."""
    data: Any = None
    """A data set, whose clips are decoded as in training; null: random clips, no decoding."""
    decoder: Any = MISSING
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    transform: TransformConfig = field(default_factory=TransformConfig)
    optimizer: Any = MISSING
    batch_size: list[int] = number([16], least=1)
    """Clips per step, one row each: [16,32]."""
    precision: list[str] = field(default_factory=lambda: ["fp32", "bf16"])
    """fp32, bf16, fp16: one row each; what the device has not is said in its row."""
    compile: list[bool] | None = None
    """[false,true]: without and with torch.compile, one row each; null: both on a GPU, without on a CPU."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    seconds: float = number(5.0, above=0, most=LONGEST)
    """Time of each measurement; at least three steps are timed."""
    num_classes: int = number(400, least=1)
    """Classes of the head, where no data set is given."""
    num_workers: int | None = number(None, least=0)
    """Processes that decode, when a data set is given; null chooses from the machine."""
    output: FilePath | None = None
    """Also write everything to this JSON file."""


@dataclass
class ShowConfig:
    clips: int = number(8, least=1)
    """show: clips on the sheet, a row each."""
    frames: int = number(8, least=1)
    """show: frames of each clip, spread evenly over it."""
    seed: int = number(0, least=0, most=LARGEST_SEED)
    """show: which videos, and every draw of training."""


@dataclass
class DoctorConfig:
    videos: int = number(64, least=1)
    """doctor: training videos that are measured, drawn at random."""
    seconds: float = number(4.0, above=0, most=LONGEST)
    """doctor: time of each measurement."""
    batch_size: int = number(16, least=1)
    """doctor: clips per step."""
    device: str = "auto"
    """doctor: where the model runs: auto, cpu, cuda, mps."""
    copies: bool = True
    """doctor: also measure copies of these videos as `vidtrain data prepare` makes them."""


def check_bench(cfg: Any) -> None:
    """Raise ConfigError for what `vidtrain bench` cannot measure."""
    if cfg.model is None:
        raise ConfigError("bench measures a model: give model=...; vidtrain inspect lists them")
    if empty := [key for key in ("batch_size", "precision", "compile") if cfg[key] is not None and not cfg[key]]:
        raise ConfigError(f"{empty[0]}=[]: name at least one")
    names = [name.value for name in PrecisionName if name is not PrecisionName.auto]
    if wrong := [name for name in cfg.precision if name not in names]:
        raise ConfigError(f"precision={list(cfg.precision)}: no precision '{wrong[0]}'; allowed: {one_of(names)}")

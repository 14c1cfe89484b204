"""The typed options of every command. `vidtrain COMMAND --help` prints the text under each field.

What one part of the program reads is defined beside that part, in its settings.py, and composed here.
A group that names a class by `_target_` (model, data, decoder, optimizer, logger, hook) is typed by what it calls.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from omegaconf import MISSING, OmegaConf

from vidtrain.data.settings import (
    CheckConfig,
    EvalConfig,
    FlowCacheConfig,
    FlowConfig,
    FlowMethodName,
    PrepareConfig,
    SamplerConfig,
    StatsConfig,
    TransformConfig,
)
from vidtrain.engine.settings import ScheduleConfig, TrainerConfig
from vidtrain.errors import ConfigError
from vidtrain.options.commands import COMMANDS
from vidtrain.options.settings import BenchConfig as BenchConfig
from vidtrain.options.settings import DoctorConfig, ShowConfig
from vidtrain.ranges import check_ranges, number
from vidtrain.types import FilePath


class SplitName(Enum):
    train = "train"
    val = "val"
    test = "test"


class FeatureType(Enum):
    float16 = "float16"
    float32 = "float32"


@dataclass
class TrainConfig:
    task: Any = MISSING
    model: Any = MISSING
    data: Any = MISSING
    decoder: Any = MISSING
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    transform: TransformConfig = field(default_factory=TransformConfig)
    flow: FlowConfig = field(default_factory=FlowConfig)
    optimizer: Any = MISSING
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    logger: Any = field(default_factory=dict)
    hook: Any = field(default_factory=dict)
    run_dir: FilePath | None = None
    """Folder of this run; null makes runs/DATA/MODEL/DATE_TIME. For data=folder, DATA is the folder's name."""
    resume: FilePath | None = None
    """auto continues the newest unfinished run of this very configuration, or starts one; or a run folder."""
    resume_changed: bool = False
    """Continue a run whose configuration was another one, with the new values."""


@dataclass
class CheckpointSections:
    """Sections that a checkpoint brings; what the user gives changes them (options/stored.py)."""

    model: Any = None
    """The checkpoint's; extract without a checkpoint: model=CHOICE."""
    data: Any = None
    """The checkpoint's data set; data.KEY=VALUE changes one of its options, data=CHOICE takes another one."""
    decoder: Any = None
    """The checkpoint's; decoder=CHOICE reads videos in another way."""
    sampler: Any = None
    """The checkpoint's; sampler.KEY=VALUE changes one of the options that `vidtrain train --help` lists."""
    transform: Any = None
    """The checkpoint's, as sampler."""
    flow: Any = None
    """The checkpoint's, as sampler."""
    trainer: Any = None
    """The checkpoint's; of it are used trainer.device, trainer.precision, trainer.num_workers."""
    eval: Any = None
    """The checkpoint's, as sampler: eval.clips, eval.crops, eval.hop, eval.batch_size; or eval=CHOICE."""


@dataclass
class EvalCommandConfig(CheckpointSections):
    checkpoint: FilePath = MISSING
    """The .pt file to test. Data, clips and preprocessing come from it; overrides change them."""
    split: SplitName = SplitName.test
    """Which split to score: train, val or test."""
    stream: str | None = None
    """Of a two-stream network: test rgb or flow alone, by that stream's own classifier."""
    output: FilePath | None = None
    """Folder for the results; null: eval/ beside the checkpoint, or runs/eval/ where that cannot be written."""
    trust: list[str] = field(default_factory=list)
    """Modules outside vidtrain that the checkpoint's configuration may call: trust=[mypackage]."""


@dataclass
class PredictConfig(CheckpointSections):
    checkpoint: FilePath = MISSING
    """The .pt file to predict with."""
    input: FilePath = MISSING
    """A video, a folder of videos, or a glob in quotes: input='clips/*.mp4'."""
    top: int = number(5, least=1)
    """Classes to print per video."""
    output: FilePath | None = None
    """Also write the predictions to this .csv file."""
    trust: list[str] = field(default_factory=list)
    """Modules outside vidtrain that the checkpoint's configuration may call."""


@dataclass
class ExtractCommandConfig(CheckpointSections):
    checkpoint: FilePath | None = None
    """The .pt file whose model is run. Data, clips and preprocessing come from it; null: model and model.weights."""
    output: FilePath = MISSING
    """Folder for the features; a folder that an earlier run began is completed."""
    layer: str = "features"
    """What is kept: features (what the head classifies), embed (c3d's fc6), or the name of a module, such as layer3."""
    hop: int | float | str | None = None
    """From one clip to the next: source frames (16) or seconds (0.5s); null: clips neither overlap nor leave gaps."""
    dtype: FeatureType = FeatureType.float16
    """Of the numbers on disk: float16 or float32."""
    trust: list[str] = field(default_factory=list)
    """Modules outside vidtrain that the checkpoint's configuration may call."""


@dataclass
class InspectConfig:
    model: Any = None
    """The model to look at; null lists all."""
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    transform: TransformConfig = field(default_factory=TransformConfig)
    num_classes: int = number(400, least=1)
    """Classes of the head."""
    weights: FilePath | None = None
    """A file of published weights, instead of a model: say what it is and which model takes it."""
    output: FilePath | None = None
    """Also write this file: what is printed, the list of all models as Markdown."""


@dataclass
class DataCommandConfig:
    action: str = MISSING
    """info, make, check, prepare, flow, stats, show, doctor; the first word after `vidtrain data`."""
    data: Any = MISSING
    decoder: Any = MISSING
    model: Any = MISSING
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    transform: TransformConfig = field(default_factory=TransformConfig)
    split: SplitName | None = None
    """Only this split: train, val or test; null: all."""
    output: FilePath | None = None
    """Folder for what the action writes; null: a folder named after the action, below the working directory."""
    num_workers: int | None = number(None, least=0)
    """Processes that work at once; null: one a processor."""
    method: FlowMethodName = FlowMethodName.dis
    """flow: dis, farneback, tvl1 (OpenCV), or raft (torchvision, for a GPU)."""
    check: CheckConfig = field(default_factory=CheckConfig)
    prepare: PrepareConfig = field(default_factory=PrepareConfig)
    flow: FlowCacheConfig = field(default_factory=FlowCacheConfig)
    show: ShowConfig = field(default_factory=ShowConfig)
    stats: StatsConfig = field(default_factory=StatsConfig)
    doctor: DoctorConfig = field(default_factory=DoctorConfig)


def check_numbers(cfg: Any) -> None:
    """Raise ConfigError for a number that its key cannot have; keys that are not there or null are left alone."""
    check_ranges(cfg)
    for key in ("eval.hop", "hop"):
        if (hop := OmegaConf.select(cfg, key)) is not None:
            _check_hop(key, hop)


def _check_hop(key: str, hop: float | str) -> None:
    from vidtrain.data.readers.timeline import hop_seconds

    try:
        hop_seconds(hop)
    except ConfigError as error:
        raise ConfigError(f"{key.removesuffix('hop')}{error}") from None


SCHEMAS: dict[str, type] = {name: globals()[row.schema] for name, row in COMMANDS.items()}


def register() -> None:
    """Make each schema known to Hydra as the config `schema/COMMAND`."""
    from hydra.core.config_store import ConfigStore

    for command, schema in SCHEMAS.items():
        ConfigStore.instance().store(group="schema", name=command, node=schema, package="_global_")

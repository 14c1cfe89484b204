"""The typed options that several commands share. `vidtrain COMMAND --help` prints the text under each field.

What one part of the program reads is defined beside that part, in its settings.py, and composed here; what one command
reads, in its own module.
A group that names a class by `_target_` (model, data, decoder, optimizer, logger, hook) is typed by what it calls.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, TypeVar

from omegaconf import MISSING, DictConfig, ListConfig, OmegaConf

from vidtrain.data.settings import (
    EvalConfig,
    FlowConfig,
    FlowMethodName,
    JobsConfig,
    ProbeConfig,
    SamplerConfig,
    TransformConfig,
)
from vidtrain.engine.settings import ScheduleConfig, TrainerConfig
from vidtrain.errors import ConfigError
from vidtrain.models.settings import TuneConfig
from vidtrain.options.commands import ACTIONS, COMMANDS
from vidtrain.ranges import Choice, Range, check_number, number
from vidtrain.types import FilePath

Section = TypeVar("Section")


class SplitName(Choice):
    train = "train"
    val = "val"
    test = "test"


class SweepSampler(Choice):
    tpe = "tpe"
    random = "random"
    grid = "grid"
    cmaes = "cmaes"


class SweepPruner(Choice):
    none = "none"
    median = "median"
    halving = "halving"
    hyperband = "hyperband"


class SweepDirection(Choice):
    maximize = "maximize"
    minimize = "minimize"


@dataclass
class SweepConfig:
    jobs: int | None = number(None, least=1)
    """-m: runs at once, each a process of its own, spread over the GPUs; null: one after the other in this process,
    with hydra/sweeper=optuna one per GPU."""
    resume: FilePath | None = None
    """-m: auto continues the newest unfinished sweep of this very command, or starts one; or the folder of a sweep."""
    retries: int = number(0, least=0)
    """-m: times that a run which has failed is tried again; not one whose options cannot be used."""
    space: dict[str, Any] = field(default_factory=dict)
    """Of a YAML: option -> what it is varied over, in Hydra's grammar, 'tag(log, interval(1e-4, 1e-1))', or a list."""
    trials: int | None = number(None, least=1, most=100_000)
    """optuna: runs in all; null: 20, of sampler=grid all."""
    sampler: SweepSampler = SweepSampler.tpe
    """optuna: tpe, random, grid or cmaes."""
    startup_trials: int = number(8, least=0)
    """optuna: runs drawn at random before tpe learns from the others, and before any is pruned."""
    seed: int = number(0, least=0, most=2**32 - 1)
    """optuna: of what is drawn; the trainer's is trainer.seed."""
    objectives: list[str] = field(default_factory=list)
    """What is best: [], the validation metric that chooses best.pt; or names of one or several: top1, loss ... of that
    epoch's validation, test.top1 ..., gmac, params, minutes, clips_per_second."""
    directions: list[SweepDirection] = field(default_factory=list)
    """maximize or minimize, one per objective; []: losses and costs are minimized."""
    pruner: SweepPruner = SweepPruner.none
    """optuna: ends runs whose validations are worse than the others': median, halving or hyperband."""
    prune_after: int = number(1, least=0)
    """optuna: epochs for which no run is pruned."""
    trial: int | None = number(None, least=0)
    """Set by the sweep: the number of this run in it."""


@dataclass
class TrainConfig:
    task: Any = MISSING
    model: Any = MISSING
    data: Any = MISSING
    decoder: Any = MISSING
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    transform: TransformConfig = field(default_factory=TransformConfig)
    flow: FlowConfig = field(default_factory=FlowConfig)
    tune: TuneConfig = field(default_factory=TuneConfig)
    optimizer: Any = MISSING
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    sweep: SweepConfig = field(default_factory=SweepConfig)
    logger: Any = field(default_factory=dict)
    hook: Any = field(default_factory=dict)
    run_dir: FilePath | None = None
    """Folder of this run; null makes runs/DATA/MODEL/DATE_TIME. For data=folder, DATA is the folder's name."""
    class_names: FilePath | None = None
    """trainer.epochs=0 with model.weights: what its outputs are called, kinetics400 or a file with a name per line."""
    report: bool = True
    """Write report.html after the test: the run as one page, as `vidtrain report` writes it again."""
    resume: FilePath | None = None
    """auto continues the newest unfinished run of this very configuration, or starts one; or a run folder."""
    resume_changed: bool = False
    """Continue a run whose configuration was another one, with the new values."""


@dataclass
class CheckpointSections:
    """Sections that a checkpoint brings; what the user gives changes them (options/checkpoint_config.py)."""

    model: Any = None
    """The checkpoint's; without a checkpoint model=CHOICE, and model.weights=FILE for a published file."""
    decoder: Any = None
    """The checkpoint's; decoder=CHOICE reads videos in another way."""
    sampler: Any = None
    """The checkpoint's; sampler.KEY=VALUE changes one of the options that `vidtrain train --help` lists."""
    transform: Any = None
    """The checkpoint's, as sampler."""
    trainer: Any = None
    """The checkpoint's; of it are used trainer.device, trainer.precision, trainer.num_workers."""
    eval: Any = None
    """The checkpoint's, as sampler: eval.clips, eval.crops, eval.hop, eval.batch_size; or eval=CHOICE."""


@dataclass
class NetworkOptions(CheckpointSections):
    """Of commands that test or ask a network."""

    checkpoint: FilePath | None = None
    """The .pt file, the folder of its run, or a published folder. Clips and preprocessing come from it, overrides
    change them; null: model.weights."""
    class_names: FilePath | None = None
    """model.weights: names of its outputs, kinetics400 or a file with a name per line; null: as the file says."""
    trust: list[str] = field(default_factory=list)
    """Modules outside vidtrain that the checkpoint's configuration may call: trust=[mypackage]."""


@dataclass
class DataSection:
    """Of commands that read the dataset."""

    data: Any = None
    """The checkpoint's dataset; data.KEY=VALUE changes one of its options, data=CHOICE takes another one."""


@dataclass
class FlowSection:
    """Of commands that compute optical flow where the network reads it."""

    flow: Any = None
    """The checkpoint's, as sampler."""


@dataclass
class DataCommandConfig:
    """What all actions share. Each has a section of its own besides, see `schema_of`."""

    action: str = MISSING
    """What to do: the first word after `vidtrain data`."""
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
    jobs: JobsConfig = field(default_factory=JobsConfig)
    method: FlowMethodName = FlowMethodName.dis
    """flow: dis, farneback, tvl1 (OpenCV), or raft (torchvision, for a GPU)."""

    def of(self, kind: type[Section]) -> Section:
        """The section of an action that is made from this dataclass."""
        return next(value for value in vars(self).values() if isinstance(value, kind))


def check_numbers(cfg: DictConfig, prefix: str = "") -> None:
    """Raise ConfigError for a number that its key cannot have; keys that are not there or null are left alone."""
    schema = OmegaConf.get_type(cfg)
    for part in dataclasses.fields(schema) if dataclasses.is_dataclass(schema) else ():
        # a section that may hold anything is not looked into: nothing in it is to be resolved here
        if part.name not in cfg or part.type == "Any" or OmegaConf.is_missing(cfg, part.name):
            continue
        key, value = prefix + part.name, cfg[part.name]
        if isinstance(value, DictConfig):
            check_numbers(value, f"{key}.")
        elif part.name == "hop" and value is not None:
            _check_hop(key, value)
        elif value is not None:
            plain = list(value) if isinstance(value, ListConfig) else value
            check_number(key, plain, part.metadata.get("range", Range()))


def _check_hop(key: str, hop: float | str) -> None:
    from vidtrain.data.readers.timeline import hop_seconds

    try:
        hop_seconds(hop)
    except ConfigError as error:
        raise ConfigError(f"{key.removesuffix('hop')}{error}") from None


def schema_of(command: str) -> type:
    """The dataclass of a command's options; of `data` with the sections of all actions."""
    schema = _located(COMMANDS[command].schema)
    if command != "data":
        return schema
    own = {name: _located(row.schema) for name, row in ACTIONS.items() if row.schema}
    sections = [(name, kind, field(default_factory=kind)) for name, kind in own.items()]
    return dataclasses.make_dataclass(schema.__name__, sections, bases=(schema,))


def _located(name: str) -> type:
    module, _, kind = name.rpartition(".")
    found: type = getattr(import_module(module), kind)
    return found


def register(*commands: str) -> None:
    """Make the schema of each command (of all, where none is named) known to Hydra as the config `schema/COMMAND`."""
    from hydra.core.config_store import ConfigStore

    store = ConfigStore.instance()
    for command in commands or COMMANDS:
        if f"{command}.yaml" not in store.repo.get("schema", {}):
            store.store(group="schema", name=command, node=schema_of(command), package="_global_")

"""The commands, a row each: what --help, completion, the schemas and the shell know of them.

A new command is a row here, its schema in options/schema.py, its YAML in conf/ and its module in commands/.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Command:
    """One verb. Its module is vidtrain.commands.NAME."""

    about: str
    example: str
    schema: str
    """Name of its class in options/schema.py."""
    groups: str
    """Config groups that the user may choose from, in the order of --help."""
    from_checkpoint: bool = False
    """The rest of the configuration comes from a checkpoint, and the user changes what he names."""


COMMANDS: Final = {
    "train": Command(
        "train a model, then test it",
        "vidtrain train model=c3d data=folder data.root=my_videos",
        schema="TrainConfig",
        groups="model data task decoder sampler transform flow optimizer schedule trainer eval logger hook "
        "experiment debug",
    ),
    "eval": Command(
        "test a checkpoint, averaging over clips",
        "vidtrain eval checkpoint=runs/motion/slow_fusion/.../best.pt eval.clips=10",
        schema="EvalCommandConfig",
        groups="data decoder sampler transform flow eval",
        from_checkpoint=True,
    ),
    "predict": Command(
        "classify a file, a folder or a glob",
        "vidtrain predict checkpoint=best.pt input=clip.mp4",
        schema="PredictConfig",
        groups="decoder sampler transform flow eval",
        from_checkpoint=True,
    ),
    "inspect": Command(
        "list all models; print one's layers, sizes, receptive fields and cost; tell what a file of weights is",
        "vidtrain inspect model=c3d num_classes=101",
        schema="InspectConfig",
        groups="model sampler transform",
    ),
    "data": Command(
        "info, make, check, prepare, flow, stats, show, doctor: know a data set and put it in order",
        "vidtrain data info data=ucf101 data.root=/data/ucf101",
        schema="DataCommandConfig",
        groups="data decoder sampler transform model",
    ),
    "extract": Command(
        "write a frozen model's features of every clip of long videos, to train model=feature_rnn on",
        "vidtrain extract checkpoint=best.pt data=folder data.root=my_videos output=my_features",
        schema="ExtractCommandConfig",
        groups="model data decoder sampler transform",
        from_checkpoint=True,
    ),
    "bench": Command(
        "measure a model: clips/s of training and testing, memory, FLOP utilisation; by precision, with torch.compile",
        "vidtrain bench model=r3d_18 batch_size=[16,32] precision=[bf16] output=bench.json",
        schema="BenchConfig",
        groups="model data decoder sampler transform optimizer",
    ),
}
FROM_CHECKPOINT: Final = tuple(name for name, row in COMMANDS.items() if row.from_checkpoint)

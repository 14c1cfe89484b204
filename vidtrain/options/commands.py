"""The commands, a row each: what --help, completion, the schemas and the shell know of them.

A new command is its module in commands/ with `run` and the dataclass of its options, a row here and a YAML in conf/. An
action of `vidtrain data` is its module in commands/data/ and a row below.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from vidtrain.errors import ConfigError, did_you_mean


@dataclass(frozen=True)
class Command:
    """One verb. Its module is vidtrain.commands.NAME."""

    about: str
    example: str
    schema: str
    """The dataclass of its options, MODULE.CLASS; imported when the command runs, its text read by --help."""
    groups: str
    """Config groups that the user may choose from, in the order of --help."""
    from_checkpoint: bool = False
    """The rest of the configuration comes from a checkpoint, and the user changes what he names."""
    positional: str = ""
    """The option of paths that words without a key give: of a list all such words, else one."""


@dataclass(frozen=True)
class Action:
    """One of `vidtrain data`. Its module is vidtrain.commands.data.NAME."""

    about: str
    schema: str = ""
    """The dataclass of its own options, MODULE.CLASS, which become those of the section with its name."""
    also: str = ""
    """Sections of other actions whose options it reads."""
    jobs: bool = False
    """Works through all files, which may be done in parts and on clusters (JobsConfig)."""


ACTIONS: Final = {
    "info": Action("videos per class and split"),
    "make": Action("make a built-in dataset: motion, motion_long"),
    "check": Action(
        "look into every file, write lists that open at once", "vidtrain.data.settings.CheckConfig", jobs=True
    ),
    "prepare": Action("small copies that training reads faster", "vidtrain.data.settings.PrepareConfig", jobs=True),
    "shard": Action(
        "tar shards (WebDataset) with an index of members", "vidtrain.data.settings.ShardConfig", jobs=True
    ),
    "flow": Action("optical flow of all videos, kept in a folder", "vidtrain.data.settings.FlowCacheConfig", jobs=True),
    "stats": Action("classes, durations, rates, sizes, codecs", "vidtrain.data.settings.StatsConfig", also="check"),
    "show": Action("a contact sheet of what the model will see", "vidtrain.commands.data.show.ShowConfig"),
    "doctor": Action("what limits a training, and what to change", "vidtrain.commands.data.doctor.DoctorConfig"),
}

COMMANDS: Final = {
    "init": Command(
        "look at your videos and this machine, and write a first experiment that says why",
        "vidtrain init my_videos",
        schema="vidtrain.commands.init.InitConfig",
        groups="",
        positional="input",
    ),
    "train": Command(
        "train a model, then test it",
        "vidtrain train model=c3d data=folder data.root=my_videos",
        schema="vidtrain.options.schema.TrainConfig",
        groups="model data task decoder sampler transform flow tune optimizer schedule trainer eval logger hook "
        "experiment debug",
    ),
    "eval": Command(
        "test a checkpoint, averaging over clips",
        "vidtrain eval checkpoint=runs/motion/slow_fusion eval.clips=10",
        schema="vidtrain.commands.eval.EvalCommandConfig",
        groups="model data decoder sampler transform flow eval",
        from_checkpoint=True,
    ),
    "predict": Command(
        "classify a file, a folder or a glob",
        "vidtrain predict checkpoint=best.pt input=clip.mp4",
        schema="vidtrain.commands.predict.PredictConfig",
        groups="model decoder sampler transform flow eval",
        from_checkpoint=True,
    ),
    "explain": Command(
        "show what in a video speaks for a class: a map over its frames, as PNG and MP4, and what the map is worth",
        "vidtrain explain checkpoint=best.pt input=clip.mp4 output=explained",
        schema="vidtrain.commands.explain.ExplainConfig",
        groups="model decoder sampler transform flow eval",
        from_checkpoint=True,
    ),
    "inspect": Command(
        "list all models; print one's layers, sizes, receptive fields and cost; tell what a file of weights is",
        "vidtrain inspect model=c3d num_classes=101",
        schema="vidtrain.commands.inspect.InspectConfig",
        groups="model tune sampler transform",
    ),
    "data": Command(
        f"{', '.join(ACTIONS)}: know a dataset and prepare it",
        "vidtrain data info data=ucf101 data.root=/data/ucf101",
        schema="vidtrain.options.schema.DataCommandConfig",
        groups="data decoder sampler transform model jobs experiment",
    ),
    "extract": Command(
        "write a frozen model's features of every clip of every video, to train model=probe or feature_rnn on",
        "vidtrain extract checkpoint=best.pt data=folder data.root=my_videos output=my_features",
        schema="vidtrain.commands.extract.ExtractCommandConfig",
        groups="model data decoder sampler transform jobs",
        from_checkpoint=True,
    ),
    "search": Command(
        "find the videos of extracted features that are most like a video; recall of a split by its labels",
        "vidtrain search query=clip.mp4 index=my_features top=10",
        schema="vidtrain.commands.search.SearchConfig",
        groups="model decoder sampler transform",
        from_checkpoint=True,
    ),
    "compare": Command(
        "put tested runs, or a sweep's, side by side: intervals, tests of the differences, videos that they differ on",
        "vidtrain compare runs/motion/c3d runs/motion/slow_fusion output=compare.html",
        schema="vidtrain.commands.compare.CompareConfig",
        groups="",
        positional="runs",
    ),
    "label_errors": Command(
        "list the videos whose label is most likely wrong, by runs that were not trained on them, such as folds",
        "vidtrain label_errors runs/sweeps/2026-11-30_19-00-00",
        schema="vidtrain.commands.label_errors.LabelErrorsConfig",
        groups="decoder",
        positional="runs",
    ),
    "report": Command(
        "write a run, or a test, as one HTML page: numbers, curves, confusion, wrong answers as clips",
        "vidtrain report runs/motion/slow_fusion",
        schema="vidtrain.commands.report.ReportConfig",
        groups="",
        positional="run",
    ),
    "board": Command(
        "look at runs in TensorBoard, on this machine",
        "vidtrain board runs",
        schema="vidtrain.commands.board.BoardConfig",
        groups="",
        positional="runs",
    ),
    "doctor": Command(
        "look at this machine and installation: versions, GPU, decoders, limits, what to change; for bug reports",
        "vidtrain doctor output=doctor.txt",
        schema="vidtrain.commands.doctor.DoctorCommandConfig",
        groups="",
    ),
    "convert": Command(
        "write a configuration of PySlowFast or MMAction2 as an experiment, and say what could not be taken over",
        "vidtrain convert config=SLOWFAST_8x8_R50.yaml",
        schema="vidtrain.commands.convert.ConvertConfig",
        groups="",
    ),
    "publish": Command(
        "write a checkpoint as a folder for the Hugging Face hub, with a model card",
        "vidtrain publish checkpoint=best.pt output=my_model license=apache-2.0",
        schema="vidtrain.commands.publish.PublishConfig",
        groups="",
    ),
    "export": Command(
        "write a checkpoint as a file that runs without PyTorch: ONNX (int8, too), OpenVINO, ExecuTorch; timed",
        "vidtrain export checkpoint=best.pt output=exported int8=true bench=true",
        schema="vidtrain.commands.export.ExportConfig",
        groups="model data decoder sampler transform flow eval",
        from_checkpoint=True,
    ),
    "bench": Command(
        "measure a model: clips/s of training and testing, memory, FLOP utilisation; by precision, with torch.compile",
        "vidtrain bench model=r3d_18 batch_size=[16,32] precision=[bf16] output=bench.json",
        schema="vidtrain.commands.bench.BenchConfig",
        groups="model data decoder sampler transform tune optimizer",
    ),
}
FROM_CHECKPOINT: Final = tuple(name for name, row in COMMANDS.items() if row.from_checkpoint)


def check_action(action: str) -> None:
    """Raise ConfigError for what is no action of `vidtrain data`."""
    if action not in ACTIONS:
        hint = did_you_mean(action, ACTIONS)
        raise ConfigError(f"vidtrain data {action}: no such action{hint}; allowed: {', '.join(ACTIONS)}")

"""What `vidtrain init` chooses for a dataset and a machine, each choice with its reason, and the YAML made of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import yaml  # type: ignore[import-untyped]

from vidtrain.data.checks.stats import Stats
from vidtrain.options.path_options import literal
from vidtrain.reports.table import counted
from vidtrain.terminal import printable

_FRAMES: Final = 16
_SLOWEST: Final = 5.0  # frames per second of a clip: what people do is faster than half of that
_FEW: Final = 5000  # training videos up to which a small network is the better one from scratch
_UPDATES: Final = 600  # twice what three classes of UCF101 took to reach 0.89
_LEAST_EPOCHS, _MOST_EPOCHS = 10, 100
_FEW_EACH: Final = 100  # training videos per class below which not all of a published network is trained
_MIXED: Final = 1.25  # the 95 % frame rate over the 5 % one from which strides mean different times
_WIDE: Final = 1.2  # longer side over shorter one from which a square crop loses what happens at the edges


@dataclass(frozen=True)
class Chosen:
    """A key of the experiment, "/GROUP" for the choice of a group; its value; the reason, in a line."""

    key: str
    value: Any
    why: str


@dataclass(frozen=True)
class Machine:
    """cores: processors that may be used. memory: GB, of the GPU where there is one. gpu: its name, "" without."""

    cores: int
    memory: float
    gpu: str = ""

    def __str__(self) -> str:
        return f"{self.gpu or 'no GPU'}, {self.memory:.0f} GB, {self.cores} processor cores"


@dataclass(frozen=True)
class GivenWeights:
    """A file of weights to start from. model: the choice of the catalogue; options: where they are not the preset's."""

    file: str
    layout: str
    model: str
    options: Mapping[str, Any]


@dataclass(frozen=True)
class TrainingVideos:
    """Of the training split. videos: how many. counts: int64 (K,) of each class. lonely: classes that a mirror turns
    into none of the dataset. validated: whether there is a split for validation."""

    videos: int
    counts: Sequence[int]
    multi_label: bool
    lonely: Sequence[str]
    validated: bool = True


def choose(stats: Stats, training: TrainingVideos, machine: Machine, start: GivenWeights | None = None) -> list[Chosen]:
    """All but the choice of the videos."""
    if start is not None:
        return [
            *_started(start, training, machine),
            *_augmentation(training),
            *_balance(training, stats.class_names),
            *_length(training, most=_published_batch(machine), updates=_UPDATES // 2),
        ]
    frames, clip = _clip(stats)
    return [
        *_network(training, machine),
        *frames,
        *_sight(stats, training, machine),
        *_balance(training, stats.class_names),
        *_length(training, most=_own_batch(machine), updates=_UPDATES),
        _test(stats, clip),
    ]


def _clip(stats: Stats) -> tuple[list[Chosen], float]:
    """How frames are sampled, and the seconds of a clip."""
    quarter, median = float(np.quantile(stats.frames, 0.25)), float(np.median(stats.seconds))
    fps = float(np.median(stats.fps))
    low, high = np.quantile(stats.fps, [0.05, 0.95])
    count = _FRAMES if quarter >= _FRAMES else 8
    why = f"a quarter of the videos has no more than {quarter:.0f} frames" if count < _FRAMES else "the usual length"
    chosen = [Chosen("sampler.num_frames", count, why)]
    if high >= _MIXED * low:
        rate = min(fps, max(_SLOWEST, math.ceil(2 * count / np.quantile(stats.seconds, 0.25)) / 2))
        span = count / rate
        rates = f"90 % of the files have {low:.3g} to {high:.3g} frames per second"
        why = f"{rates}: a rate makes clips of {span:.1f} s of all of them"
        chosen.append(Chosen("sampler.fps", round(rate, 3), why))
    else:
        fits, fast = int((quarter - 1) // (count - 1)), int(fps // _SLOWEST)
        stride = max(1, min(fits, fast))
        span = ((count - 1) * stride + 1) / fps
        bound = "fits into three quarters of the videos" if stride == fits else f"{fps / stride:.3g} frames per second"
        why = f"a clip spans {span:.1f} s, the median video {median:.1f} s; {bound}"
        chosen.append(Chosen("sampler.stride", stride, why))
    return chosen, span


def _network(training: TrainingVideos, machine: Machine) -> list[Chosen]:
    large = bool(machine.gpu) and training.videos > _FEW
    name, million = ("r3d_18", "33") if large else ("slow_fusion", "0.3")
    why = f"{million} M parameters, from scratch on {counted(training.videos, 'training video')}"
    if not large and training.videos <= _FEW:
        why += ": a larger one would overfit; published weights carry one (vidtrain init ... weights=FILE)"
    elif not large:
        why += ": a larger one takes days without a GPU"
    return [Chosen("/model", name, why)]


def _started(start: GivenWeights, training: TrainingVideos, machine: Machine) -> list[Chosen]:
    """The network of a file, and what of it is trained. Its clips are those that the file expects: training asks it."""
    each = training.videos / len(training.counts)
    if not machine.gpu:
        tune, why = "head", "no GPU: the gradient of the whole network would take too long"
    elif each < _FEW_EACH:
        tune, why = "last", f"{each:.0f} training videos per class are few for all of the network"
    else:
        tune, why = "full", f"{each:.0f} training videos per class carry all of it"
    chosen = [
        Chosen("/model", start.model, f"the file's ({start.layout})"),
        Chosen("/tune", tune, why),
        Chosen("/optimizer", "adamw", "usual for networks that have been trained"),
        Chosen("model.weights", start.file, "the file that was given; it says how clips are cut"),
        *(Chosen(f"model.{key}", value, "as the file's tensors say") for key, value in start.options.items()),
    ]
    rate = 1e-3 if tune == "head" else 1e-4
    return [
        *chosen,
        Chosen("optimizer.lr", rate, "a new head" if tune == "head" else "what is trained should stay near"),
    ]


def _sight(stats: Stats, training: TrainingVideos, machine: Machine) -> list[Chosen]:
    """Size, crop and colours."""
    side = float(np.median(stats.short_sides))
    aspect = float(np.median(np.maximum(stats.heights, stats.widths) / stats.short_sides))
    name, size = ("crop", 112) if machine.gpu else ("small", 64)
    where = "for a GPU" if machine.gpu else "as there is no GPU"
    chosen = [Chosen("/transform", name, f"crops of {size} pixels, {where}; short sides are {side:.0f} (median)")]
    if aspect >= _WIDE:
        lost = f"{1 - 1 / aspect:.0%}"
        why = f"frames are resized to squares: a square crop would lose {lost} of the median one"
        chosen.append(Chosen("transform.squash", True, why))
    return [*chosen, *_augmentation(training)]


def _augmentation(training: TrainingVideos) -> list[Chosen]:
    chosen = [
        Chosen("transform.colour", 0.5, "random colours: rooms and clothes must not give the class away"),
        Chosen("transform.grayscale", 0.2, "a fifth of the clips without colour, for the same reason"),
    ]
    if training.lonely:
        shown = printable(", ".join(training.lonely[:3]))
        chosen.append(Chosen("transform.flip", 0.0, f"{shown}: a mirrored clip would have no class"))
    if not training.multi_label:
        chosen.append(Chosen("task.label_smoothing", 0.1, "keeps the network from probabilities near 0 and 1"))
    return chosen


def _balance(training: TrainingVideos, class_names: Sequence[str]) -> list[Chosen]:
    there = {name: int(n) for name, n in zip(class_names, training.counts, strict=True) if n > 0}
    most, least = max(there, key=lambda name: there[name]), min(there, key=lambda name: there[name])
    ratio = there[most] / there[least]
    why = printable(f"{there[most]} training videos of {most}, {there[least]} of {least}")
    if training.multi_label:
        return [Chosen("task.class_weights", "sqrt", f"most videos lack most classes; {why}")]
    if ratio < 1.5:
        return []
    if ratio < 3:
        return [Chosen("task.class_weights", "balanced", f"{why}: each class has the same part in the loss")]
    if ratio < 10:
        return [Chosen("sampler.class_balance", 1.0, f"{why}: every class is drawn equally often")]
    return [
        Chosen("sampler.class_balance", 0.5, f"{why}: rare classes are drawn more often, not {ratio:.0f} times"),
        Chosen("task.logit_adjust", 1.0, "what drawing leaves of it is corrected in the loss"),
    ]


def _own_batch(machine: Machine) -> int:
    """Clips for one of the small networks."""
    return min(64, 2 ** int(math.log2(max(4, machine.memory)))) if machine.gpu else 16


def _published_batch(machine: Machine) -> int:
    """Clips for a network of the size that is published: 1 to 2 GB each."""
    return min(32, max(4, 2 ** int(math.log2(max(1, machine.memory / 2)))))


def _length(training: TrainingVideos, *, most: int, updates: int) -> list[Chosen]:
    """Batch and epochs. most: clips that memory holds; updates: that are wanted."""
    batch = most
    while batch > 4 and batch * 8 > training.videos:
        batch //= 2
    each = max(1, training.videos // batch)
    epochs = min(_MOST_EPOCHS, max(_LEAST_EPOCHS, math.ceil(updates / each)))
    limit = "as many as this machine is good for" if batch == most else "few, so that an epoch has several updates"
    chosen = [Chosen("trainer.batch_size", batch, f"clips per update: {limit}")]
    if batch != 16:
        chosen.append(Chosen("trainer.base_batch", 16, f"optimizer.lr is that of 16 clips, and scaled to {batch}"))
    why = f"{counted(each, 'update')} per epoch, {epochs * each} in all"
    if epochs in (_LEAST_EPOCHS, _MOST_EPOCHS):
        why += f" ({updates} are aimed at, in {_LEAST_EPOCHS} to {_MOST_EPOCHS} epochs)"
    if training.validated:
        why += "; trainer.patience=10, which is not set, would end it after 10 epochs without a better validation"
    return [*chosen, Chosen("trainer.epochs", epochs, why)]


def _test(stats: Stats, clip: float) -> Chosen:
    median = float(np.median(stats.seconds))
    clips = min(10, max(2, math.ceil(2 * median / clip)))
    why = f"test clips per video, together {clips * clip / median:.2g} times as long as the median one"
    if median > 20 * clip:
        why = f"test clips of {clip:.1f} s in a median video of {median:.0f} s: lists with start and end serve better"
    return Chosen("eval.clips", clips, why)


# ---------------------------------------------------------------- the file


def to_yaml(choices: Sequence[Chosen], head: Sequence[str]) -> str:
    """An experiment: the groups, then the keys by section, each below its reason. head: comments at the top."""
    lines = ["# @package _global_", *(f"# {printable(line)}" for line in head), "defaults:"]
    for choice in choices:
        if choice.key.startswith("/"):
            lines += [f"  # {choice.why}", f"  - override {choice.key}: {choice.value}"]
    sections = dict.fromkeys(choice.key.partition(".")[0] for choice in choices if not choice.key.startswith("/"))
    for section in sections:
        lines += ["", f"{section}:"]
        for choice in choices:
            if choice.key.startswith(f"{section}."):
                lines += [f"  # {choice.why}", f"  {choice.key.partition('.')[2]}: {_written(choice.value)}"]
    return "\n".join(lines) + "\n"


def _written(value: Any) -> str:
    if not isinstance(value, str):
        return str(yaml.safe_dump(value, default_flow_style=True, width=10_000)).split("\n", 1)[0]
    style = None if value.isidentifier() else '"'
    return str(yaml.safe_dump(literal(value), default_style=style, allow_unicode=True, width=math.inf)).split("\n")[0]


def to_text(choices: Sequence[Chosen]) -> str:
    """The same for the terminal, a line each."""
    rows = [(f"{choice.key.lstrip('/')}={_written(choice.value)}", choice.why) for choice in choices]
    width = min(40, max(len(key) for key, _ in rows))
    return printable("\n".join(f"  {key:<{width}}  {why}" for key, why in rows), lines=True)

"""vidtrain inspect: the catalogue of models; one model layer by layer; or what a file of published weights is."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from warnings import catch_warnings, simplefilter

from vidtrain import build
from vidtrain.data.settings import SamplerConfig, TransformConfig
from vidtrain.engine.checkpoints.content_checks import on_meta
from vidtrain.errors import ConfigError, VidtrainError
from vidtrain.models.catalogue import catalogue
from vidtrain.models.inspect.summary import cost, summarise, times
from vidtrain.models.layers.example_inputs import input_shapes
from vidtrain.models.settings import TuneConfig
from vidtrain.models.tuning import tune, with_probe
from vidtrain.models.weights.load import describe_weights, load_weights
from vidtrain.models.weights.read import Weights, read_weights
from vidtrain.options.invocation import Invocation
from vidtrain.options.presets import list_models, nearest_preset
from vidtrain.ranges import number
from vidtrain.reports.catalogue import CatalogueRow, to_markdown, to_text
from vidtrain.runs.atomic import make_folder, opener
from vidtrain.terminal import said_when_slow
from vidtrain.types import FilePath


@dataclass
class InspectConfig:
    model: Any = None
    """The model to look at; null lists all."""
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    transform: TransformConfig = field(default_factory=TransformConfig)
    tune: TuneConfig = field(default_factory=TuneConfig)
    num_classes: int = number(400, least=1)
    """Classes of the head."""
    weights: FilePath | None = None
    """A file of published weights, instead of a model: say what it is and which model takes it."""
    output: FilePath | None = None
    """Also write this file: what is printed, the list of all models as Markdown."""


def run(call: Invocation[InspectConfig]) -> None:
    """Print the table that was asked for; with `output` also write it."""
    options = call.options
    if options.weights is not None and options.model is not None:
        raise ConfigError("inspect shows a model or a file of weights: leave out model=... or weights=...")
    if options.weights is not None:
        text = written = _weights_text(options.weights)
    elif options.model is not None:
        text = written = _one_model(options, str(call.choices["model"]))
    else:
        with said_when_slow("counting the parameters and operations of every model: half a minute"):
            rows = catalogue_rows(options.num_classes)
        text, written = to_text(rows), to_markdown(rows)
    print(text)
    if options.output is not None:
        file = Path(options.output)
        make_folder(file.parent)
        with open(file, "w", encoding="utf-8", opener=opener) as out:
            out.write(written.rstrip("\n") + "\n")


def _weights_text(file: str) -> str:
    weights = read_weights(file)
    info = describe_weights(weights)
    if info.model in list_models():
        name, options = nearest_preset(info.model, info.options)
        clip = {key: value for key, value in info.expects.known().items() if key in ("num_frames", "size")}
        net = {"num_classes": info.num_classes or 1, **clip, **info.options}
        # a checkpoint's own configuration builds nothing here
        notes = () if weights.config is not None else _notes(weights, info.model, net)
        info = replace(info, model=name, options=options, notes=notes)
    return info.to_text()


def _notes(weights: Weights, name: str, options: dict[str, Any]) -> tuple[str, ...]:
    """What loading the file into its model would say: a model without values, so that none have to be made."""
    try:
        with on_meta(), catch_warnings():
            simplefilter("ignore")  # torch's, that nothing is copied
            model = build.create_model(name, **options)
            return load_weights(model, weights).notes
    except VidtrainError as error:
        return (f"it does not load: {error}",)


def catalogue_rows(num_classes: int) -> list[CatalogueRow]:
    """Every model of the catalogue, counted on the meta device: no weights are made."""
    rows = []
    for name, entry in catalogue().items():
        frames, size = entry.clip
        with on_meta():
            model = build.create_model(name, num_classes=num_classes, num_frames=frames, size=size)
        rows.append(CatalogueRow(name, entry, *cost(model, frames, size)))
    return rows


def _one_model(options: InspectConfig, name: str) -> str:
    model = build.build_model(options.model, options.num_classes)
    frames, size = options.sampler.num_frames, options.transform.size
    shapes = input_shapes(model, frames, size)
    inputs = ", ".join((f"{name} " if len(shapes) > 1 else "") + times(shape) for name, shape in shapes.items())
    head = f"{name}: {options.num_classes} classes, input {inputs} (C x T x H x W)"
    model = with_probe(model, options.tune, num_classes=options.num_classes, clip=(frames, size))
    trained = tune(model, options.tune)
    return f"{head}\n{summarise(model, frames, size).to_text()}\ntune={options.tune.name}: {trained}"

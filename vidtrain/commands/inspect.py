"""vidtrain inspect: the catalogue of models; one model layer by layer; or what a file of published weights is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from vidtrain import build
from vidtrain.errors import ConfigError
from vidtrain.models.catalogue import catalogue
from vidtrain.models.inspect.summary import cost, summarise, times
from vidtrain.models.layers.example import input_shapes
from vidtrain.models.weights.load import describe_weights
from vidtrain.options.presets import list_models, nearest_preset
from vidtrain.reports.catalogue import CatalogueRow, to_markdown, to_text
from vidtrain.runs.atomic import opener


def run(cfg: DictConfig) -> None:
    """Print the table that was asked for; with `output` also write it."""
    if cfg.weights is not None and cfg.model is not None:
        raise ConfigError("inspect shows a model or a file of weights: leave out model=... or weights=...")
    if cfg.weights is not None:
        text = written = _weights_text(cfg.weights)
    elif cfg.model is not None:
        text = written = _one_model(cfg)
    else:
        rows = catalogue_rows(cfg.num_classes)
        text, written = to_text(rows), to_markdown(rows)
    print(text)
    if cfg.output is not None:
        file = Path(cfg.output)
        file.parent.mkdir(parents=True, exist_ok=True)
        with open(file, "w", encoding="utf-8", opener=opener) as out:
            out.write(written.rstrip("\n") + "\n")


def _weights_text(file: str) -> str:
    info = describe_weights(file)
    if info.model in list_models():
        name, options = nearest_preset(info.model, info.options)
        info = replace(info, model=name, options=options)
    return info.to_text()


def catalogue_rows(num_classes: int) -> list[CatalogueRow]:
    """Every model of the catalogue, counted on the meta device: no weights are made."""
    rows = []
    for name, entry in catalogue().items():
        frames, size = entry.clip
        with torch.device("meta"):
            model = build.create_model(name, num_classes=num_classes, num_frames=frames, size=size)
        rows.append(CatalogueRow(name, entry, *cost(model, frames, size)))
    return rows


def _one_model(cfg: DictConfig) -> str:
    model = build.build_model(cfg.model, cfg.num_classes)
    frames, size = cfg.sampler.num_frames, cfg.transform.size
    shapes = input_shapes(model, frames, size)
    inputs = ", ".join((f"{name} " if len(shapes) > 1 else "") + times(shape) for name, shape in shapes.items())
    name = HydraConfig.get().runtime.choices["model"]
    head = f"{name}: {cfg.num_classes} classes, input {inputs} (C x T x H x W)"
    return f"{head}\n{summarise(model, frames, size).to_text()}"

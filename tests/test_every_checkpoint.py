"""A checkpoint of everything that vidtrain ships is read: no check of strangers' files refuses what trainings write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from tests.sampled import sampled
from vidtrain import build
from vidtrain.engine.checkpoints.content_checks import check_content, check_size
from vidtrain.errors import DataError
from vidtrain.models.catalogue import catalogue
from vidtrain.options.checkpoint_config import checkpoint_config
from vidtrain.options.instantiate import from_file, may_call
from vidtrain.options.option_texts import conf_dir
from vidtrain.options.presets import list_models, model_section

OTHERS = {
    "data": {"_target_": "vidtrain.data.formats.folder.folder", "root": "/videos"},
    "task": {"_target_": "vidtrain.tasks.classification.task.Classification"},
    "decoder": {"_target_": "vidtrain.data.readers.pyav.reader.PyAVReader"},
}


def nodes(section: str) -> dict[str, dict[str, Any]]:
    """The section as each of its YAML files writes it, alone."""
    return {
        file.stem: OmegaConf.to_container(OmegaConf.load(file), resolve=True)  # type: ignore[misc]
        for file in sorted((conf_dir() / section).glob("*.yaml"))
    }


def written(name: str) -> tuple[dict[str, Any], Any]:
    """The options of a model as a training writes them, and the configuration that is read from its checkpoint."""
    frames, size = entries[name].clip if name in (entries := catalogue()) else (16, 112)
    clip = {"sampler": {"num_frames": frames}, "transform": {"size": size}}
    root = OmegaConf.create({"model": model_section(name), **clip})
    if root.model.get("in_features", 0) is None:
        root.model.in_features = 64
    model: Any = OmegaConf.to_container(root.model, resolve=True)
    content: dict[str, Any] = {"format": 3, "class_names": list("abcde"), "model": {}}
    content["config"] = json.loads(json.dumps({"model": model, **OTHERS}))
    check_content(content)
    config = checkpoint_config(content, OmegaConf.create(), {}, file="x.pt")
    return model, config


@pytest.mark.parametrize("name", list_models())
def test_models(name: str) -> None:
    _, config = written(name)
    assert may_call(config.model, "model")


@pytest.mark.parametrize(
    "name", sampled(list_models(), ["slow_fusion", "tsm_tiny", "hiera_tiny", "movinet_tiny", "two_stream_tiny"])
)
def test_the_size_of_the_model_is_that_of_its_weights(name: str) -> None:
    model, config = written(name)
    with torch.device("meta"):
        net = build.bare_model(model, 5)
    # never touched, so they cost no memory
    weights = {key: torch.empty(value.shape, dtype=value.dtype) for key, value in net.state_dict().items()}
    check_size(lambda: build.bare_model(config.model, 5), weights, "x.pt")


@pytest.mark.parametrize("name", nodes("data"))
def test_data(name: str, tmp_path: Path) -> None:
    node = nodes("data")[name]
    node = {key: "somewhere" if value == "???" else value for key, value in node.items()}
    node["root"] = str(tmp_path / "none")
    content = {"config": {"model": {"_target_": "vidtrain.models.c3d.c3d"}, **OTHERS, "data": node}}
    config = checkpoint_config(content, OmegaConf.create(), {}, file="x.pt")
    assert may_call(config.data, "data")
    with pytest.raises(DataError, match="none"):  # the folder is missing, and nothing else
        build.build_data(config.data)


@pytest.mark.parametrize("name", nodes("decoder"))
def test_decoders(name: str) -> None:
    content = {"config": {"model": {"_target_": "x.y"}, **OTHERS, "decoder": nodes("decoder")[name]}}
    config = checkpoint_config(content, OmegaConf.create(), {}, file="x.pt")
    assert may_call(config.decoder, "decoder")
    assert build.build_reader(config.decoder)


@pytest.mark.parametrize("name", nodes("optimizer"))
def test_optimizers(name: str) -> None:
    node = from_file(nodes("optimizer")[name], "x.pt")
    assert may_call(node, "optimizer")
    assert isinstance(build.build_optimizer(node, nn.Linear(2, 2)), torch.optim.Optimizer)

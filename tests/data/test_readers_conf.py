"""The YAMLs of the decoders against the readers they build."""

from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path

import pytest
from omegaconf import OmegaConf

CONF = Path(__file__).parents[2] / "conf" / "decoder"


@pytest.mark.parametrize("name", ["pyav", "decord", "torchcodec"])
def test_each_option_is_there_with_its_default_and_a_comment(name: str) -> None:
    path = CONF / f"{name}.yaml"
    config = OmegaConf.load(path)
    module, _, reader = str(config.pop("_target_")).rpartition(".")
    fields = dataclasses.fields(getattr(importlib.import_module(module), reader))
    assert OmegaConf.to_container(config) == {field.name: field.default for field in fields}
    header, *lines = path.read_text().splitlines()
    assert header.startswith("# ")
    assert not [line for line in lines if " # " not in line and not line.startswith("_target_")]

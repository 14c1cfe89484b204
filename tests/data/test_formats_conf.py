"""The YAMLs of the datasets against the functions they call."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

import pytest
from omegaconf import OmegaConf

CONF = Path(__file__).parents[2] / "conf" / "data"
OURS = sorted(file.stem for file in CONF.glob("*.yaml"))


@pytest.mark.parametrize("name", OURS)
def test_each_option_is_there_with_its_default(name: str) -> None:
    config = OmegaConf.load(CONF / f"{name}.yaml")
    target, options = str(config.pop("_target_")), OmegaConf.to_container(config)
    assert options.pop("max_bad_fraction") == 0.1
    module, _, function = target.rpartition(".")
    parameters = inspect.signature(getattr(importlib.import_module(module), function)).parameters
    assert options.keys() == parameters.keys()
    for key, parameter in parameters.items():
        if parameter.default is inspect.Parameter.empty:
            assert key == "root" or options[key] == "???"
        else:
            assert parameter.kind is inspect.Parameter.KEYWORD_ONLY
            default = parameter.default
            assert options[key] == (list(default) if isinstance(default, tuple) else default), key


@pytest.mark.parametrize("name", OURS)
def test_the_header_says_how_to_use_it(name: str) -> None:
    header = (CONF / f"{name}.yaml").read_text().split("\n\n")[0].splitlines()
    assert all(line.startswith("# ") for line in header)
    assert any(line.startswith("# On disk: ") for line in header)
    assert header[-1].startswith("# Example: vidtrain train ")
    assert f"data={name}" in header[-1]


@pytest.mark.parametrize("name", OURS)
def test_each_option_has_a_comment(name: str) -> None:
    lines = (CONF / f"{name}.yaml").read_text().split("\n\n", 1)[1].splitlines()
    bare = [line for line in lines if line and " # " not in line and not line.startswith("_target_")]
    assert not bare

"""Numeric targets of third-party networks (VIDTRAIN_PARITY, or shared/parity beside the project) and what checks them.

Their weights are drawn from the upstream names of the tensors by the folder's own weights.py, so a target shows that an
importer reads a whole layout and that the network is the published one.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import vidtrain
from vidtrain.models.weights.load import load_weights

FOLDER = Path(os.environ.get("VIDTRAIN_PARITY", Path(__file__).parents[3] / "shared" / "parity"))


@functools.cache
def rules() -> Any:
    """The module weights.py of the folder; skips the test where there is none."""
    if not (FOLDER / "weights.py").is_file():
        pytest.skip(f"no parity targets in {FOLDER}; set VIDTRAIN_PARITY")
    spec = importlib.util.spec_from_file_location("parity_weights", FOLDER / "weights.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def error_of(target_name: str, model: str, **options: Any) -> float:
    """max|y - ref| / std(ref) of a model of the catalogue after loading the target's weights under upstream names."""
    weights = rules()
    target = weights.load(FOLDER / f"{target_name}.json")
    net = vidtrain.create_model(model, num_classes=target["num_classes"], **options).eval()
    report = load_weights(net, weights.make_state_dict(target))
    assert report.head is None
    assert not report.left_out
    x = weights.make_input(target)
    with torch.no_grad():
        verdict = weights.compare(net(x[-1] if isinstance(x, list) else x), target)
    assert "max_err_over_std" in verdict, verdict
    return float(verdict["max_err_over_std"])


def key_layout(name: str) -> dict[str, torch.Tensor]:
    """A state dict with the names and shapes of a published family, on the meta device."""
    rules()
    state = {}
    for line in (FOLDER / "key_layouts" / f"{name}.txt").read_text(encoding="utf-8").splitlines():
        key, shape = line.split("\t")
        state[key] = torch.empty(ast.literal_eval(shape), device="meta")
    return state


def drawn_weights(net: nn.Module, gain: float = 0.6) -> dict[str, torch.Tensor]:
    """Weights that make every tensor count, drawn at random, put into the network and returned under its own names."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for key, value in net.state_dict().items():
        if key.endswith("num_batches_tracked"):
            continue
        drawn = torch.randn(value.shape, generator=generator)
        if value.ndim > 1:
            drawn *= gain * (2 / value[0].numel()) ** 0.5
        elif key.endswith(("running_var", "weight")):
            drawn = 1 + 0.4 * drawn.tanh()
        else:
            drawn *= 0.1
        with torch.no_grad():
            value.copy_(drawn)
        state[key] = drawn
    return state


def cell(name: str) -> dict[str, Any]:
    """A file of cells/."""
    rules()
    content: dict[str, Any] = json.loads((FOLDER / "cells" / f"{name}.json").read_text(encoding="utf-8"))
    return content

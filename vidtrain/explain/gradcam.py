"""Grad-CAM: a layer's maps, weighted by the gradient of the class's logit (Selvaraju et al. 2017, "Grad-CAM: Visual
Explanations from Deep Networks via Gradient-based Localization")."""

from __future__ import annotations

import torch
from torch import Tensor

from vidtrain.errors import ConfigError
from vidtrain.explain.score import ClassScore, Inputs, resized
from vidtrain.explain.traced import LayerOutput, TracedPass

LAYERS = 8
"""Of a network with attention so many are tried."""


def gradcams(score: ClassScore, inputs: Inputs, layer: str | None = None) -> list[tuple[Tensor, str]]:
    """One clip -> (float32 (T, H, W) >= 0, the layers that it is of): one map, or of a network with attention several.

    Attention moves what a position has seen to others, so that the last layer's maps need not lie over what they are
    made of (a Video Swin's lay elsewhere): then LAYERS layers from the first to the last have a map each, and their
    deletion says which is right.

    Each channel is weighted by the mean of its gradient over all positions. The gradient at each position itself
    (Draelos and Carin 2020, "Use HiResCAM instead of Grad-CAM") was tried: it is the same where the head reads a mean,
    and marked less of the evidence where layers come between (tests/explain/made.py: 0.34 of a square's mean in a
    ConvLSTM, against 0.73).

    Args:
        layer: the name of a module; None: the last one with maps of four positions a side, see TracedPass.last_maps;
            of a network of towers side by side, one of each, whose maps are added.

    Raises:
        ConfigError: no such layer; no layer with positions has a gradient.
    """
    outputs = TracedPass(score, inputs)
    towers = tuple(getattr(score.model, "towers", ())) or ("",)
    if layer is not None:
        chosen = [[outputs.named(layer, score.model)]]
    elif towers == ("",) and outputs.has_attention():
        chosen = [[one] for one in _spread(list(outputs.maps_of_all()))]
    else:
        chosen = [[found for tower in towers if (found := _preferred(outputs, tower)) is not None]]
    maps = [cam for layers in chosen if (cam := _together(outputs, layers)) is not None]
    if not maps:
        where = f"layer={layer}" if layer is not None else type(score.model).__name__
        raise ConfigError(
            f"{where}: no gradient of the class reaches a layer with positions, as in frozen networks: "
            "method=occlusion needs none"
        )
    return maps


def _spread(layers: list[LayerOutput]) -> list[LayerOutput]:
    """LAYERS of them, the first and the last among them, evenly."""
    count = min(LAYERS, len(layers))
    return [layers[round(n * (len(layers) - 1) / max(1, count - 1))] for n in range(count)]


def _together(outputs: TracedPass, layers: list[LayerOutput]) -> tuple[Tensor, str] | None:
    maps = [cam for one in layers if (cam := _cam(outputs, one)) is not None]
    if not maps:
        return None
    whole = torch.stack([resized(map_, outputs.clip) for map_ in maps]).sum(0)
    return whole.clamp_min(0), ", ".join(one.name for one in layers)


def _preferred(outputs: TracedPass, tower: str) -> LayerOutput | None:
    return next((one for one in outputs.last_maps(tower) if _cam(outputs, one) is not None), None)


def _cam(outputs: TracedPass, layer: LayerOutput) -> Tensor | None:
    """(T', H', W'), as many as the layer has; None where the logit does not depend on it."""
    gradient = outputs.gradient(layer)
    if gradient is None:
        return None
    slopes = layer.as_map(gradient, outputs.clip, outputs.patches)
    maps = layer.as_map([call.detach() for call in layer.calls], outputs.clip, outputs.patches)
    if slopes is None or maps is None or not slopes.any():
        return None
    return (slopes.mean((1, 2, 3), keepdim=True) * maps).sum(0)

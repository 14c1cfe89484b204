"""The methods by name, and which of them suits a network."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from vidtrain.errors import ConfigError
from vidtrain.explain.gradcam import gradcam
from vidtrain.explain.occlusion import occlusion
from vidtrain.explain.rollout import rollout
from vidtrain.explain.score import ClassScore, Fill, Inputs, clip_shape, to_unit_range
from vidtrain.ranges import Choice

log = logging.getLogger("vidtrain")


class Method(Choice):
    auto = "auto"
    gradcam = "gradcam"
    rollout = "rollout"
    occlusion = "occlusion"


@dataclass(frozen=True)
class MapOptions:
    """method: auto takes rollout where it is defined, else Grad-CAM, and occlusion where no gradient passes. layer: of
    Grad-CAM; None: chosen, see `gradcam`. window, fill: of occlusion, which see. batch_size: clips per forward pass."""

    method: Method = Method.auto
    layer: str | None = None
    window: tuple[int, int] | None = None
    fill: Fill = Fill.mean
    batch_size: int = 8


@dataclass(frozen=True)
class EvidenceMap:
    """values: float32 (T, H, W) in [0, 1], the largest 1; all 0 where nothing in the clip speaks for the class.
    method: that it was made by. layer: of Grad-CAM, its layers."""

    values: Tensor
    method: Method
    layer: str | None = None


def evidence_map(
    score: ClassScore, inputs: Inputs, options: MapOptions, each: Callable[[int], None] | None = None
) -> EvidenceMap:
    """Which parts of a clip speak for a class.

    Args:
        each: called after every box of occlusion with their number.

    Raises:
        ConfigError: the method or the layer does not fit the network, or the window the clip.
    """
    if options.layer is not None and options.method not in (Method.auto, Method.gradcam):
        raise ConfigError(f"layer={options.layer} goes with method=gradcam, not with method={options.method}")
    frames, *sides = clip_shape(inputs)
    if options.window is not None and not (1 <= options.window[0] <= frames and 1 <= options.window[1] <= min(sides)):
        raise ConfigError(
            f"window={list(options.window)}: expected frames and pixels within the clip of {frames} frames, "
            f"{sides[0]} x {sides[1]} pixels"
        )
    if options.method == Method.auto:
        return _suitable(score, inputs, options, each)
    if options.method == Method.gradcam:
        values, layer = gradcam(score, inputs, options.layer)
        return EvidenceMap(to_unit_range(values), Method.gradcam, layer)
    if options.method == Method.rollout:
        return EvidenceMap(to_unit_range(rollout(score, inputs)), Method.rollout)
    values = occlusion(
        score, inputs, window=options.window, fill=options.fill, batch_size=options.batch_size, each=each
    )
    return EvidenceMap(to_unit_range(values), Method.occlusion)


def _suitable(
    score: ClassScore, inputs: Inputs, options: MapOptions, each: Callable[[int], None] | None
) -> EvidenceMap:
    """The first of the methods that is defined for the network and finds something."""
    wanted = [Method.gradcam] if options.layer is not None else [Method.rollout, Method.gradcam, Method.occlusion]
    found = None
    for method in wanted:
        one = MapOptions(method, options.layer, options.window, options.fill, options.batch_size)
        try:
            found = evidence_map(score, inputs, one, each)
        except ConfigError as error:
            if method == wanted[-1]:
                raise
            log.debug("%s", error)
            continue
        if torch.any(found.values):
            break
    assert found is not None
    return found

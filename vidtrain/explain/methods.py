"""The methods by name, and which of them suits a network."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from vidtrain.errors import ConfigError
from vidtrain.explain.deletion import Deletion, deletion
from vidtrain.explain.gradcam import gradcams
from vidtrain.explain.occlusion import occlusion
from vidtrain.explain.rollout import rollout
from vidtrain.explain.score import ClassScore, Fill, Inputs, clip_shape, to_unit_range
from vidtrain.ranges import Choice

log = logging.getLogger("vidtrain")


class Method(Choice):
    auto = "auto"
    rollout = "rollout"
    gradcam = "gradcam"
    occlusion = "occlusion"


@dataclass(frozen=True)
class MapOptions:
    """method: auto takes the first of rollout, Grad-CAM and occlusion that is defined for the network and, on this
    clip, marks what the class depends on more than on as much elsewhere.
    layer: of Grad-CAM; None: chosen, see `gradcam`. window: of occlusion, which see. fill: of occlusion and deletion.
    batch_size: clips per forward pass.
    """

    method: Method = Method.auto
    layer: str | None = None
    window: tuple[int, int] | None = None
    fill: Fill = Fill.mean
    batch_size: int = 8


@dataclass(frozen=True)
class EvidenceMap:
    """values: float32 (T, H, W) in [0, 1], the largest 1; all 0 where nothing in the clip speaks for the class.
    method: that it was made by. layer: of Grad-CAM, its layers. deletion: what deleting the marked part costs."""

    values: Tensor
    method: Method
    layer: str | None
    deletion: Deletion


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
    wanted = [options.method]
    if options.method == Method.auto:
        wanted = [Method.gradcam] if options.layer is not None else [m for m in Method if m != Method.auto]
    for method in wanted:
        try:
            maps = _maps(score, inputs, method, options, each)
        except ConfigError as error:
            if method == wanted[-1]:
                raise
            log.debug("%s", error)
            continue
        tested = []
        for values, layer in maps:
            unit = to_unit_range(values)
            without = deletion(score, inputs, unit, fill=options.fill, batch_size=options.batch_size)
            tested.append(EvidenceMap(unit, method, layer, without))
        found = max(tested, key=lambda one: (bool(one.values.any()), one.deletion.gain))
        if found.deletion.faithful and found.values.any():
            break
    return found


def _maps(
    score: ClassScore, inputs: Inputs, method: Method, options: MapOptions, each: Callable[[int], None] | None
) -> Sequence[tuple[Tensor, str | None]]:
    """(the map, the layer that it is of), one or several, of which deletion chooses."""
    if method == Method.gradcam:
        return gradcams(score, inputs, options.layer)
    if method == Method.rollout:
        return [(rollout(score, inputs), None)]
    window, fill, size = options.window, options.fill, options.batch_size
    return [(occlusion(score, inputs, window=window, fill=fill, batch_size=size, each=each), None)]

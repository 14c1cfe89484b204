"""Maps lie where the evidence is known to lie, by networks that have learned it in seconds."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from tests.explain.made import GREEN, RED, both_squares, score_of, trained
from vidtrain.explain.deletion import deletion
from vidtrain.explain.methods import MapOptions, Method, evidence_map
from vidtrain.explain.occlusion import boxes_of

_SMALL_VIT: dict[str, Any] = {"patch": 8, "width": 48, "depth": 2}
NETS: dict[str, tuple[float, int, dict[str, Any], tuple[Method, ...]]] = {
    "slow_fusion": (3e-3, 50, {}, (Method.gradcam, Method.occlusion)),
    "vivit_tiny": (2e-3, 60, {**_SMALL_VIT, "tubelet": 2}, (Method.rollout, Method.gradcam, Method.occlusion)),
    "timesformer_tiny": (2e-3, 80, _SMALL_VIT, (Method.rollout, Method.gradcam, Method.occlusion)),
    "videomae_tiny": (2e-3, 80, {**_SMALL_VIT, "tubelet": 2}, (Method.rollout, Method.gradcam)),
    "uniformerv2_tiny": (2e-3, 80, _SMALL_VIT, (Method.rollout,)),
    "convlstm_tiny": (5e-3, 60, {}, (Method.gradcam, Method.occlusion)),
    "tsm_tiny": (3e-3, 60, {}, (Method.gradcam, Method.occlusion)),
    "swin3d_t": (
        2e-3,
        60,
        {"width": 24, "depths": [1, 1], "heads": [1, 2], "window": [4, 4, 4]},
        (Method.gradcam, Method.occlusion),
    ),
    "hiera_tiny": (2e-3, 80, {"stages": [1, 1], "pools": 1, "window_stages": 1}, (Method.gradcam, Method.occlusion)),
}
_QUICK = ("slow_fusion", "vivit_tiny")


@pytest.fixture(
    scope="module", params=[name if name in _QUICK else pytest.param(name, marks=pytest.mark.slow) for name in NETS]
)
def net(request: pytest.FixtureRequest) -> tuple[str, nn.Module]:
    lr, steps, options, _ = NETS[request.param]
    return request.param, trained(request.param, lr=lr, steps=steps, **options)


def test_each_class_has_its_own_square(net: tuple[str, nn.Module]) -> None:
    """Both are in the clip; the map of each class lies on its own, in space and in time, and not on the other."""
    name, model = net
    inputs = {"rgb": both_squares()}
    for method in NETS[name][3]:
        for target, own, other in ((1, RED, GREEN), (2, GREEN, RED)):
            found = evidence_map(score_of(model, target), inputs, MapOptions(method, batch_size=32))
            values = found.values
            assert values.shape == inputs["rgb"].shape[2:]
            assert values.min() == 0
            assert values.max() == 1
            inside, away, whole = values[own].mean(), values[other].mean(), values.mean()
            # a window of occlusion reaches beyond the square that it covers a part of
            assert inside > (1.5 if method is Method.occlusion else 2) * whole, f"{method} of {found.layer}, {target}"
            assert inside > 2.5 * away, f"{method} of {found.layer}, class {target}"


def test_deleting_what_is_marked_costs_more(net: tuple[str, nn.Module]) -> None:
    name, model = net
    inputs = {"rgb": both_squares()}
    score = score_of(model, 1 if score_of(model, 1).log_prob(inputs) > score_of(model, 2).log_prob(inputs) else 2)
    for method in NETS[name][3]:
        values = evidence_map(score, inputs, MapOptions(method, batch_size=32)).values
        found, upside_down = (deletion(score, inputs, map_, share=0.1) for map_ in (values, 1 - values))
        assert found.faithful, f"{method}: {found}"
        assert found.without_marked < upside_down.without_marked, f"{method}: {found}"


def test_auto_takes_what_proves_true(net: tuple[str, nn.Module]) -> None:
    name, model = net
    inputs = {"rgb": both_squares()}
    score = score_of(model, 1 if score_of(model, 1).log_prob(inputs) > score_of(model, 2).log_prob(inputs) else 2)
    found = evidence_map(score, inputs, MapOptions(batch_size=32))
    assert found.deletion.faithful
    if name in _QUICK:
        assert found.method == NETS[name][3][0]
    anti = {1: 2, 2: 1}[score.target]  # the other square's map does not hold for this class
    values = evidence_map(score_of(model, anti), inputs, MapOptions(batch_size=32)).values
    assert deletion(score, inputs, values, share=0.05).without_marked > found.deletion.without_marked


@pytest.mark.parametrize("shape", [(8, 32, 32), (5, 7, 9), (1, 4, 4)])
@pytest.mark.parametrize("window", [(2, 8), (3, 5), (8, 40)])
def test_boxes_cover_the_clip(shape: tuple[int, int, int], window: tuple[int, int]) -> None:
    covered = torch.zeros(shape)
    sizes = set()
    for box in boxes_of(shape, window):
        covered[box] += 1
        sizes.add(tuple(covered[box].shape))
    assert covered.min() >= 1
    assert sizes == {tuple(min(side, n) for side, n in zip((window[0], window[1], window[1]), shape, strict=True))}


def test_boxes_overlap_by_half() -> None:
    times = {(box[0].start, box[0].stop) for box in boxes_of((8, 4, 4), (4, 4))}
    assert times == {(0, 4), (2, 6), (4, 8)}

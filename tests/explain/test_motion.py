"""Faithful on the built-in motion, family by family: of a network that distinguishes two directions, deleting what a
map marks costs more probability than deleting as much elsewhere. With -s it prints the table of benchmarks/explain.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.explain.made import FRAMES, SIZE, called, directions, flow_of, score_of
from vidtrain import create_model
from vidtrain.errors import ConfigError
from vidtrain.explain.deletion import Deletion, deletion
from vidtrain.explain.methods import EvidenceMap, MapOptions, Method, evidence_map

WINDOW = (4, 8)
"""Of occlusion: 147 boxes of a clip of 8 frames."""
_VIT: dict[str, Any] = {"patch": 8, "width": 48, "depth": 2}
_SWIN: dict[str, Any] = {"width": 24, "depths": [1, 1], "heads": [1, 2], "window": [4, 4, 4]}
_CAM, _ROLLOUT, _OCCLUSION = (Method.gradcam, Method.occlusion), (Method.rollout, Method.occlusion), (Method.occlusion,)


@dataclass(frozen=True)
class Case:
    """How a network learns the two directions.

    faithful: methods that must be, on average; the others are printed. scenes: of training, two clips each. frames: of
    a clip.
    """

    faithful: tuple[Method, ...]
    steps: int = 80
    lr: float = 3e-3
    options: Mapping[str, Any] = field(default_factory=dict)
    scenes: int = 96
    frames: int = FRAMES


FAMILIES: dict[str, Case] = {
    "early_fusion": Case(_CAM),
    "slow_fusion": Case(_CAM),
    "alternating3d": Case(_CAM, options={"width": 8}),
    "c3d": Case(_OCCLUSION, options={"width": 8, "hidden": 64, "dropout": 0.0}, frames=16),
    "i3d_tiny": Case(_OCCLUSION),
    "i3d_resnet_tiny": Case(_CAM),
    "slow_tiny": Case(_OCCLUSION, steps=200),
    "slowfast_tiny": Case(_CAM),
    "s3d_tiny": Case(_OCCLUSION, steps=200),
    "r2plus1d_tiny": Case(_CAM, steps=200),
    "csn_tiny": Case(_CAM),
    "x3d_tiny": Case(_CAM, steps=200),
    "movinet_tiny": Case(_OCCLUSION, 300, 1e-2),
    "movinet_tiny_stream": Case(_CAM, 300, 1e-2),
    "inflated": Case(_CAM, 120, options={"backbone": "tiny"}),
    "tsm_tiny": Case(_CAM),
    "two_stream_tiny": Case(_CAM),
    "cnn_lstm_tiny": Case(_CAM, steps=400, scenes=256),
    "st_lstm_tiny": Case(_CAM, steps=400, scenes=256),
    "rcn_tiny": Case(_OCCLUSION, lr=5e-3),
    "convlstm_tiny": Case(_CAM, lr=5e-3),
    "convlstm_attention_tiny": Case(_OCCLUSION, lr=5e-3),
    "convlstm_deformable_tiny": Case(_OCCLUSION, lr=5e-3),
    "convlstm_dilated_tiny": Case(_CAM, 200, 5e-3),
    "convlstm_hierarchical_tiny": Case(_OCCLUSION, lr=5e-3),
    "timesformer_tiny": Case(_ROLLOUT, 120, 2e-3, _VIT),
    "vivit_tiny": Case(_ROLLOUT, 120, 2e-3, {**_VIT, "tubelet": 2}),
    "vivit_fe": Case(_ROLLOUT, 120, 2e-3, {**_VIT, "tubelet": 2, "temporal_depth": 1, "heads": 3}),
    "videomae_tiny": Case(_ROLLOUT, 120, 2e-3, {**_VIT, "tubelet": 2}),
    "vjepa2_tiny": Case(_ROLLOUT, 120, 2e-3),
    "uniformerv2_tiny": Case(_ROLLOUT, 120, 2e-3, _VIT),
    "swin3d_t": Case(_CAM, 120, 2e-3, _SWIN),
    "mvit_v2_s": Case(_CAM, 120, 2e-3, {"width": 16, "depths": [1, 1, 1, 1], "heads": 1}),
    "hiera_tiny": Case(_CAM, 120, 2e-3, {"stages": [1, 1], "pools": 1, "window_stages": 1}),
}
_OTHER_SHARE = 0.1
"""Of the clip: auto chooses by the deletion of a fifth, so the table has another one of what it chose, too."""

Inputs = dict[str, Tensor]


@cache
def _motion(scenes: int, frames: int, flow: bool, *, held_out: bool) -> tuple[Inputs, Tensor]:
    """Inputs of clips and their classes."""
    clips, classes = directions(int(held_out), scenes, frames)
    return {"rgb": clips, **({"flow": flow_of(clips)} if flow else {})}, classes


@pytest.mark.slow  # what the others do in seconds is in test_known_evidence.py
@pytest.mark.parametrize("name", FAMILIES)
def test_deleting_what_the_map_marks(name: str) -> None:
    case, flow = FAMILIES[name], name.startswith("two_stream")
    model = _trained(name, *_motion(case.scenes, case.frames, flow, held_out=False))
    held_out, truth = _motion(12, case.frames, flow, held_out=True)
    with torch.no_grad():
        right = (called(model, held_out).argmax(1) == truth).nonzero()[:, 0].tolist()
    assert len(right) >= 0.75 * len(truth), f"{len(right)}/{len(truth)}: it has not learned what the test is about"
    shown = [(n, _rows(held_out, [n])) for n in right[:: max(1, len(right) // 8)][:8]]
    unfaithful = []
    for method in (Method.rollout, Method.gradcam, Method.occlusion, Method.auto):
        options = MapOptions(method, window=WINDOW, batch_size=64)
        try:
            maps = [evidence_map(score_of(model, int(truth[n])), clip, options) for n, clip in shown]
        except ConfigError:
            assert method not in case.faithful
            continue
        numbers, holds = _numbers([one.deletion for one in maps])
        print(f"| {name} | {len(right)}/{len(truth)} | {_label(method, maps)} | {numbers} |", flush=True)
        if method in (*case.faithful, Method.auto) and not holds:
            unfaithful.append(f"{method}: {numbers}")
    # of what auto chose, which is what is left in `maps`
    pairs = zip(shown, maps, strict=True)
    other = [deletion(score_of(model, int(truth[n])), clip, m.values, share=_OTHER_SHARE) for (n, clip), m in pairs]
    print(f"| {name} | {len(right)}/{len(truth)} | auto, {_OTHER_SHARE:.0%} | {_numbers(other)[0]} |", flush=True)
    assert not unfaithful, unfaithful


def _label(method: Method, maps: list[EvidenceMap]) -> str:
    """auto (gradcam 6, occlusion 2)"""
    if method != Method.auto:
        return str(method)
    taken = [one.method for one in maps]
    return f"auto ({', '.join(f'{each} {taken.count(each)}' for each in Method if each in taken)})"


def _numbers(found: list[Deletion]) -> tuple[str, bool]:
    """Means over clips as the cells of a table, and whether what is marked costs more than what is not."""
    keys = ("whole", "without_marked", "without_random")
    whole, marked, elsewhere = (sum(getattr(one, key) for one in found) / len(found) for key in keys)
    faithful = sum(one.faithful for one in found)
    text = f"{whole:.3f} | {marked:.3f} | {elsewhere:.3f} | {faithful}/{len(found)}"
    return text, marked < elsewhere - 0.01 and faithful >= len(found) / 2


def _rows(inputs: Inputs, rows: list[int] | Tensor) -> Inputs:
    return {name: value[rows] for name, value in inputs.items()}


def _trained(name: str, inputs: Inputs, classes: Tensor) -> nn.Module:
    case = FAMILIES[name]
    torch.manual_seed(0)
    model = create_model(name, num_classes=2, num_frames=case.frames, size=SIZE, **case.options)
    optimizer = torch.optim.AdamW(model.parameters(), case.lr, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, case.lr, total_steps=case.steps)
    generator = torch.Generator().manual_seed(1)
    for _ in range(case.steps):
        rows = torch.randint(0, len(classes), (16,), generator=generator)
        optimizer.zero_grad()
        F.cross_entropy(called(model, _rows(inputs, rows)), classes[rows], label_smoothing=0.1).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return model.eval()

"""TSN and TSM on MobileNetV2, as mit-han-lab/temporal-shift-module and MMAction2 keep them.

Ours has torchvision's names, in which a convolution, its BatchNorm and ReLU6 are one part of a block; mit-han-lab's
blocks are flat lists, MMAction2's stand in stages. Where a block is shifted, both have one `.net` more. A network of
another width is none of ours.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from itertools import accumulate
from typing import Any

from torch import nn

from vidtrain.models.layers.frame_mobilenet import BLOCKS
from vidtrain.models.layers.frame_resnet import MOBILENET
from vidtrain.models.weights import mit_tsm
from vidtrain.models.weights.expected_clips import IMAGENET, Expects
from vidtrain.models.weights.layout import Fit, Layout, Rule, Shapes, State, any_key, classes, rename

_LAST = {"base_model.features.17.conv.2.weight": (320, 960, 1, 1), "base_model.features.18.0.weight": (1280, 320, 1, 1)}
"""Tensors of the published width, under our names."""
_OWN = "base_model.features.1.conv.0.0.weight"
_BLOCK = r"^(base_model\.features\.\d+\.conv\.)"
_FIRST = r"^(base_model\.features\.1\.conv\.)"
_MIT: tuple[Rule, ...] = (
    (r"^base_model\.classifier\.", "new_fc."),  # with dropout 0
    (rf"{_BLOCK}0\.net\.", r"\g<1>0."),
    # the first block has no convolution that widens
    (rf"{_FIRST}3\.", r"\g<1>1x."),
    (rf"{_FIRST}4\.", r"\g<1>2."),
    (rf"{_BLOCK}1\.", r"\g<1>0.1."),
    (rf"{_BLOCK}0\.(?=\D)", r"\g<1>0.0."),
    (rf"{_BLOCK}3\.", r"\g<1>1.0."),
    (rf"{_BLOCK}4\.", r"\g<1>1.1."),
    (rf"{_BLOCK}6\.", r"\g<1>2."),
    (rf"{_BLOCK}7\.", r"\g<1>3."),
    (rf"{_FIRST}1x\.", r"\g<1>1."),
)


def _stages() -> Iterable[Rule]:
    """MMAction2's stages, numbered through; the stem is features.0."""
    for stage, (blocks, before) in enumerate(zip(BLOCKS, accumulate(BLOCKS, initial=1), strict=False), 1):
        for block in range(blocks):
            yield rf"^layer{stage}\.{block}\.", f"features.{before + block}."


_MMACTION2: tuple[Rule, ...] = (
    (r"^(backbone|cls_head)\.", ""),
    (r"^fc_cls\.", "new_fc."),
    (r"^conv1\.", "features.0."),
    (r"^conv2\.", f"features.{sum(BLOCKS) + 1}."),
    *_stages(),
    (r"\.conv\.0\.net\.", ".conv.0."),
    (r"^features\.", "base_model.features."),
    (rf"{_FIRST}1\.conv\.", r"\g<1>1."),
    (rf"{_FIRST}1\.bn\.", r"\g<1>2."),
    (rf"{_BLOCK}2\.conv\.", r"\g<1>2."),
    (rf"{_BLOCK}2\.bn\.", r"\g<1>3."),
    (r"^(base_model\.features\.\d+\.(?:conv\.[01]\.)?)conv\.(?=\D)", r"\g<1>0."),
    (r"^(base_model\.features\.\d+\.(?:conv\.[01]\.)?)bn\.", r"\g<1>1."),
)


def _mit(keys: Container[str]) -> Sequence[Rule]:
    return () if _OWN in keys else _MIT


def _fit(shapes: Shapes, rules: Iterable[Rule]) -> Fit | None:
    names = {new: shapes[old] for old, new in mit_tsm.new_names(shapes, rules).items()}
    stem = names.get("base_model.features.0.0.weight", ())
    if len(stem) != 4 or any(tuple(names.get(key, ())) != shape for key, shape in _LAST.items()):
        return None
    options: dict[str, Any] = classes(names, "new_fc.weight")
    if stem[1] != 3:
        options["in_channels"] = stem[1]
    return ("tsm_mobilenet_v2", options) if _shifted(shapes) else ("tsn_r50", {"backbone": MOBILENET, **options})


def _shifted(keys: Iterable[str]) -> bool:
    return any(".conv.0.net." in key for key in keys)


def _translate(state: State, model: nn.Module, rules: Iterable[Rule]) -> State:
    if _shifted(state):
        mit_tsm.check_shift(model, "residual")
    return rename(state, rules)


LAYOUTS: tuple[Layout, ...] = (
    Layout(
        name="mit-han-lab TSN/TSM on MobileNetV2",
        matches=lambda shapes: any_key(shapes, r"base_model\.features\.1\.conv\."),
        model=lambda shapes: _fit(shapes, _mit(shapes)),
        translate=lambda state, model: _translate(state, model, _mit(state)),
        notes=lambda state, model: mit_tsm.shift_notes(_shifted(state), model),
        expects=mit_tsm.expects,
    ),
    Layout(
        name="MMAction2 TSN/TSM on MobileNetV2",
        matches=lambda shapes: any_key(shapes, r"(backbone\.)?layer1\.0\.conv\.0\.conv\."),
        model=lambda shapes: _fit(shapes, _MMACTION2),
        translate=lambda state, model: _translate(state, model, _MMACTION2),
        notes=lambda state, model: mit_tsm.shift_notes(_shifted(state), model),
        expects=lambda name, options: (
            IMAGENET | Expects(mode="segments", num_frames=8, size=224, resize=256, protocol="mmaction2")
        ),
    ),
)

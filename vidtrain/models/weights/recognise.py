"""Which layout a file of weights has, by its keys.

Each file of a family ends in its own LAYOUTS; they are tried in the order of the tuple below.
"""

from __future__ import annotations

from torch import nn

from vidtrain.errors import CheckpointError, one_of
from vidtrain.models.weights import (
    davidea_c3d,
    frame_mobilenet,
    hassony2_i3d,
    hiera,
    mit_tsm,
    mmaction2,
    movinet,
    mvit,
    piergiaj_i3d,
    pyslowfast,
    pytorchvideo,
    swin3d,
    timesformer,
    torchvision_s3d,
    torchvision_video,
    uniformerv2,
    videomae,
    vidtrain_resnet,
    vivit,
    vjepa2,
)
from vidtrain.models.weights.layout import Layout, State, shapes_of
from vidtrain.models.weights.read import Weights, without_prefix

COUNTER = "num_batches_tracked"
"""Counts training batches; only a BatchNorm without momentum looks at it, and no net here is one."""

LAYOUTS: tuple[Layout, ...] = (
    *pytorchvideo.LAYOUTS,
    *pyslowfast.LAYOUTS,
    *frame_mobilenet.LAYOUTS,  # before the others of its two zoos
    *mmaction2.LAYOUTS,
    *torchvision_video.LAYOUTS,
    *torchvision_s3d.LAYOUTS,
    *piergiaj_i3d.LAYOUTS,
    *hassony2_i3d.LAYOUTS,
    *davidea_c3d.LAYOUTS,
    *mit_tsm.LAYOUTS,
    *vidtrain_resnet.LAYOUTS,
    *timesformer.LAYOUTS,
    *vivit.LAYOUTS,
    *videomae.LAYOUTS,
    *mvit.LAYOUTS,
    *swin3d.LAYOUTS,
    *vjepa2.LAYOUTS,
    *uniformerv2.LAYOUTS,
    *hiera.LAYOUTS,
    *movinet.LAYOUTS,
)


def recognise(weights: Weights, model: nn.Module | None) -> tuple[State, Layout | None, bool]:
    """The state without its wrappers' prefixes, its layout, and whether its names are the model's own already.

    The layout is None where none fits: then the names are the model's own, or there is no model to compare with.
    """
    state = weights.state
    while True:
        shapes = shapes_of(state)
        layout = next((layout for layout in LAYOUTS if layout.matches(shapes)), None)
        own_names = model is not None and _is_own(state, model)
        if own_names or layout is not None:
            return state, layout, own_names
        shorter = without_prefix(state)
        if shorter.keys() == state.keys():
            break
        state = shorter
    if model is None:
        return state, None, False
    own = [key for key in model.state_dict() if not key.endswith(COUNTER)]
    raise CheckpointError(
        f"{weights.source}: keys of no layout known here: {one_of(state, 3)}; {type(model).__name__}'s own are "
        f"{one_of(own, 3)}; known layouts: {one_of(layout.name for layout in LAYOUTS)}"
    )


def _is_own(state: State, model: nn.Module) -> bool:
    """Whether the names are the model's own, but for the head that may be missing."""
    own = {key for key in model.state_dict() if not key.endswith(COUNTER)}
    head = {key for key in own if key.startswith(f"{model.head_name}.")}
    names = {key for key in state if not key.endswith(COUNTER)}
    return names <= own and own - head <= names

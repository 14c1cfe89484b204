"""The recurrent family's small versions, with weights that leave nothing at its starting value."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from vidtrain.build import create_model

NAMES = (
    *("cnn_lstm", "rcn", "convlstm", "convlstm_deformable", "convlstm_attention", "convlstm_dilated"),
    *("convlstm_hierarchical", "st_lstm"),
)
FULL: list[tuple[str, dict[str, Any]]] = [(name, {}) for name in NAMES]
TINY = [(f"{name}_tiny", {"num_frames": 7, "size": 32}) for name in NAMES]


def randomised(model: nn.Module) -> Any:
    """Zero-initialised parts and running statistics get values, and the logits a size."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for key, tensor in model.state_dict().items():
            if tensor.is_floating_point() and not key.endswith("running_var"):
                tensor.add_(0.05 * torch.randn(tensor.shape, generator=generator))
        head = model.get_submodule(str(model.head_name))
        head.weight.mul_(50)
    return model.eval()


def built(name: str, **options: Any) -> Any:
    torch.manual_seed(0)
    return randomised(create_model(name, num_classes=5, **options))


def clip(frames: int = 7, size: int = 32, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 3, frames, size, size, generator=torch.Generator().manual_seed(1))

"""vidtrain: train, test, understand and ship video classifiers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the names below are imported on first use: torch takes seconds, `vidtrain --help` must not
    from vidtrain.build import create_model, list_models, load_model

__version__ = "0.1.0"
__all__ = ["__version__", "create_model", "list_models", "load_model"]


def __getattr__(name: str) -> Any:
    if name in ("create_model", "list_models", "load_model"):
        import torch

        with torch.device("cpu"):  # under "meta", torch 2.6 cannot be imported to its end
            from vidtrain import build

        return getattr(build, name)
    raise AttributeError(f"module 'vidtrain' has no attribute {name!r}")

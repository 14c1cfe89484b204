"""vidtrain: train, test, understand and ship video classifiers.

clf = vidtrain.load("best.pt")    # docs/python.md
clf.predict("clip.mp4").label
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the names below are imported on first use: torch takes seconds, `vidtrain --help` must not
    from vidtrain.build import create_model, list_models, load_model
    from vidtrain.commands.predictor import load
    from vidtrain.errors import VidtrainError
    from vidtrain.models.weights.load import describe_weights, load_weights

__version__ = "0.1.0"
__all__ = [
    "VidtrainError",
    "__version__",
    "create_model",
    "describe_weights",
    "list_models",
    "load",
    "load_model",
    "load_weights",
]

_HOMES = {
    "VidtrainError": "errors",
    "create_model": "build",
    "describe_weights": "models.weights.load",
    "list_models": "options.presets",
    "load": "commands.predictor",
    "load_model": "build",
    "load_weights": "models.weights.load",
}
_WITHOUT_TORCH = ("errors", "options.presets")


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'vidtrain' has no attribute {name!r}")
    home = f"vidtrain.{_HOMES[name]}"
    if _HOMES[name] in _WITHOUT_TORCH:
        return getattr(import_module(home), name)
    import torch

    with torch.device("cpu"):  # under "meta", torch 2.6 cannot be imported to its end
        return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})

"""vidtrain inspect: layers, sizes C x T x H x W, receptive fields T x H x W, parameters and GMAC of a model."""

from __future__ import annotations

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from vidtrain import build
from vidtrain.models.summary import summarise


def run(cfg: DictConfig) -> None:
    """Print the table of one model at one clip size."""
    model = build.build_model(cfg.model, cfg.num_classes)
    frames, size = cfg.sampler.num_frames, cfg.transform.size
    name = HydraConfig.get().runtime.choices["model"]
    print(f"{name}: {cfg.num_classes} classes, input 3 x {frames} x {size} x {size} (C x T x H x W)")
    print(summarise(model, frames, size).to_text())

"""vidtrain data stats: classes, durations, frame rates, sizes and codecs, as text and as a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from vidtrain import build
from vidtrain.commands.data.check import default_folder, gather, probe_settings
from vidtrain.commands.videos import data_root, load, num_workers
from vidtrain.data.checks.probe import Depth
from vidtrain.data.checks.probes import FILE, Probes
from vidtrain.data.checks.stats import advice, collect, needed
from vidtrain.data.clips.crop import exact_size
from vidtrain.errors import ConfigError
from vidtrain.reports.figures import quiet_fonts
from vidtrain.reports.stats import stats_figure, stats_text
from vidtrain.terminal import noted, say


def run(cfg: DictConfig) -> None:
    """Print the numbers of `cfg.data` and write stats.png; files that `data check` has not seen are opened now."""
    data, name = load(cfg), str(HydraConfig.get().runtime.choices["data"])
    spec = build.build_spec(cfg.sampler)
    settings = probe_settings(cfg, Depth.OPENED)
    probes, _ = gather(data, Probes(_probes_folder(cfg)), settings, num_workers(cfg), "opening")
    stats = collect(data, probes)
    print(stats_text(name, stats))
    said = advice(stats, spec, short_side=min(exact_size(cfg.transform.resize)))
    print("\n".join(["", *(f"- {sentence}" for sentence in said), *noted(data.notes)]))
    clip = None if spec.mode == "segments" else float(np.median(needed(stats, spec) / stats.fps))
    folder = Path(cfg.output) if cfg.output is not None else default_folder(cfg, "stats")
    folder.mkdir(parents=True, exist_ok=True)
    with quiet_fonts():
        stats_figure(name, stats, clip_seconds=clip).savefig(folder / "stats.png")
    say(f"plots: {folder / 'stats.png'}")


def _probes_folder(cfg: DictConfig) -> Path:
    """Where the probes of this data set are kept: where it is told, beside an index, or where `data check` writes."""
    if cfg.stats.probes is not None:
        folder = Path(cfg.stats.probes)
        if not (folder / FILE).is_file():
            raise ConfigError(f"stats.probes={folder}: holds no {FILE}; `vidtrain data check` writes one")
        return folder
    root = data_root(cfg)
    return Path(root) if root is not None and (Path(root) / FILE).is_file() else default_folder(cfg, "check")

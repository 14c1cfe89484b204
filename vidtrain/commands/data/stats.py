"""vidtrain data stats: classes, durations, frame rates, sizes and codecs, as text and as a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vidtrain import published
from vidtrain.commands.data.check import default_folder, gather, probe_settings
from vidtrain.commands.dataset_videos import data_root, load, num_workers
from vidtrain.data.checks.probe_files import FILE, Probes
from vidtrain.data.checks.probe_video import Depth
from vidtrain.data.checks.segments import coverage_lines
from vidtrain.data.checks.stats import advice, collect, needed
from vidtrain.data.clips.crop import exact_size
from vidtrain.data.settings import SampleMode, StatsConfig
from vidtrain.errors import ConfigError
from vidtrain.options.invocation import Invocation
from vidtrain.options.schema import DataCommandConfig
from vidtrain.reports.figures import write_png
from vidtrain.reports.stats import stats_figure, stats_text
from vidtrain.terminal import note_lines, print_line


def run(call: Invocation[DataCommandConfig]) -> None:
    """Print the numbers of the dataset and write stats.png; files that `data check` has not seen are opened now."""
    call = published.with_its_clips(call)
    options, name = call.options, str(call.choices["data"])
    data, spec, settings = load(options), options.sampler, probe_settings(options, Depth.OPENED)
    probes, _ = gather(data, Probes(_probes_folder(call)), settings, num_workers(options), "opening")
    stats = collect(data, probes)
    print(stats_text(name, stats))
    said = coverage_lines(data, probes) + advice(stats, spec, short_side=min(exact_size(options.transform.resize)))
    print("\n".join(["", *(f"- {sentence}" for sentence in said), *note_lines(data.notes)]))
    clip = None if spec.mode is SampleMode.segments else float(np.median(needed(stats, spec) / stats.fps))
    folder = Path(options.output) if options.output is not None else default_folder(call, "stats")
    folder.mkdir(parents=True, exist_ok=True)
    write_png(stats_figure(name, stats, clip_seconds=clip), folder / "stats.png")
    print_line(f"plots: {folder / 'stats.png'}")


def _probes_folder(call: Invocation[DataCommandConfig]) -> Path:
    """Where the probes of this dataset are kept: where it is given, beside an index, or where `data check` writes."""
    probes = call.options.of(StatsConfig).probes
    if probes is not None:
        folder = Path(probes)
        if not (folder / FILE).is_file():
            raise ConfigError(f"stats.probes={folder}: holds no {FILE}; `vidtrain data check` writes one")
        return folder
    root = data_root(call.options)
    return Path(root) if root is not None and (Path(root) / FILE).is_file() else default_folder(call, "check")

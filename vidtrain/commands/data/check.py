"""vidtrain data check: look into every file, report what is wrong, write lists that open at once."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from vidtrain import build
from vidtrain.commands.dataset_videos import data_root, load, override
from vidtrain.commands.jobs import part_of, part_summary, workers_of
from vidtrain.commands.run_dir import folder_name
from vidtrain.data.checks.check import Problem, find_group_leaks, find_problems, report_problems, without_unusable
from vidtrain.data.checks.probe_files import Probes, Settings
from vidtrain.data.checks.probe_video import Depth, Probe
from vidtrain.data.checks.segments import coverage_lines
from vidtrain.data.jobs.journal import REPORT
from vidtrain.data.jobs.parts import Part, PartMade, writer
from vidtrain.data.jobs.pool import Executor
from vidtrain.data.manifest.index import write_index
from vidtrain.data.manifest.manifest import VideoData
from vidtrain.data.settings import CheckConfig
from vidtrain.errors import DataError
from vidtrain.options.invocation import Invocation
from vidtrain.options.schema import DataCommandConfig
from vidtrain.reports.check import problems_text, summary_line
from vidtrain.runs.atomic import make_folder
from vidtrain.terminal import note_lines, print_line
from vidtrain.types import BadVideo


def run(call: Invocation[DataCommandConfig]) -> None:
    """Check the dataset."""
    options, part = call.options, part_of(call.options.jobs)
    settings = probe_settings(options, Depth.FULL if options.of(CheckConfig).full else Depth.SAMPLED)
    data, folder = load(options), Path(options.output) if options.output is not None else default_folder(call, "check")
    leaks = _group_leaks(options, data)  # before the long part: it may find a mistake of the user's
    make_folder(folder)
    with writer(folder, "output", part):
        if part is None:
            _check(options, data, folder, settings, leaks)
        else:
            probes, new = gather(data, Probes(folder, part), settings, workers_of(options), "checking", part)
            unreadable = [BadVideo(path, one.error) for path, one in probes.items() if one.error is not None]
            print(part_summary(part, PartMade(new, len(probes) - new, tuple(unreadable)), folder))


def _check(
    options: DataCommandConfig, data: VideoData, folder: Path, settings: Settings, leaks: Sequence[Problem]
) -> None:
    store = Probes(folder)
    store.take_in_parts()
    began = time.monotonic()
    probes, new = gather(data, store, settings, workers_of(options), "checking")
    rows = sum(len(manifest) for manifest in data.splits.values())
    seconds = max(1e-3, time.monotonic() - began)
    known = f", {len(probes) - new} were known from {store.file}" if new < len(probes) else ""
    rate = f" in {seconds:.1f} s ({new / seconds:.0f} files/s)" if new else ""
    print_line(f"{rows} rows, {len(probes)} files: {new} probed{rate}{known}")

    notes = note_lines([*data.notes, *coverage_lines(data, probes)])
    for line in notes:
        print(line)
    problems = find_problems(data, probes, options.sampler, leaks)
    if problems:
        print(problems_text(data, problems, data_root(options)))
    print(summary_line(data, problems, len(notes)))
    report_problems(folder, data, probes, problems)
    print_line(f"report: {folder / REPORT}")
    _finish(options, data, problems, folder)


def _group_leaks(options: DataCommandConfig, data: VideoData) -> list[Problem]:
    own = options.of(CheckConfig).group_by
    group_by = own if own is not None else options.data.get("group_by")
    return [] if group_by is None else find_group_leaks(data, data_root(options), str(group_by))


def _finish(options: DataCommandConfig, data: VideoData, problems: Sequence[Problem], folder: Path) -> None:
    """Write the index and say how to use it; with check.strict end in an error when something is wrong."""
    if options.split is not None:
        print(f"no index is written: split={options.split} is not the whole dataset")
    else:
        checked = without_unusable(data, problems)
        write_index(folder, checked)
        for line in note_lines(checked.notes[len(data.notes) :]):
            print(line)
    serious = sum(problem.serious for problem in problems)
    if options.of(CheckConfig).strict and serious:
        raise DataError(f"check.strict=true: {serious} serious problems, see {folder / REPORT}")
    if options.split is None and "train" in data.splits:
        print_line(f"train from it with: vidtrain train data=index {override('data.root', folder)}")


# ---------------------------------------------------------------- also for `vidtrain data stats`


def default_folder(call: Invocation[DataCommandConfig], action: str) -> Path:
    """ACTION/DATA_ROOT, below the working directory: one folder for each dataset, also of the same format."""
    name, root = str(call.choices["data"]), data_root(call.options)
    last = "" if root is None else folder_name(root)
    return Path(action) / (name if last in ("", name) else f"{name}_{last}")


def probe_settings(options: DataCommandConfig, depth: Depth) -> Settings:
    name = json.dumps(options.decoder, sort_keys=True)
    return Settings(build.build_reader(options.decoder), name, depth, options.of(CheckConfig).timeout)


def gather(
    data: VideoData, store: Probes, settings: Settings, workers: int | Executor, what: str, part: Part | None = None
) -> tuple[dict[str, Probe], int]:
    """The probe of every file (or those of a part), by absolute path, and how many of them were made now."""
    paths = data.files()
    probes: dict[str, Probe] = {}
    new = 0
    try:
        own = paths if part is None else part.share(paths)
        with closing(store.complete(own, settings, workers=workers, what=what)) as found:
            for one in found:
                probes[one.path] = one.probe
                new += not one.known
    except KeyboardInterrupt:
        print(f"{new} new probes are kept in {store.file}; the same command goes on from there", file=sys.stderr)
        raise
    return probes, new

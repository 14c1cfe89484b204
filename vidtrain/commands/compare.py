"""vidtrain compare: tested runs beside each other, which of them are better, and on which videos they differ."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from omegaconf import MISSING

from vidtrain.commands.answers import TITLES, AnsweredTest, Key, Setting, settings_of
from vidtrain.commands.comparing import compared
from vidtrain.commands.tested_runs import tested_runs
from vidtrain.errors import ConfigError, did_you_mean, one_of
from vidtrain.options.invocation import Invocation
from vidtrain.options.paths import expand_home
from vidtrain.ranges import Choice
from vidtrain.reports import comparison_files
from vidtrain.reports.comparison import Comparison, to_text
from vidtrain.runs.atomic import whole_file, write_csv
from vidtrain.terminal import print_line
from vidtrain.types import FilePath


class ComparisonFormat(Choice):
    text = "text"
    csv = "csv"
    markdown = "markdown"
    html = "html"


_SUFFIXES: Final = {
    ".txt": ComparisonFormat.text,
    ".csv": ComparisonFormat.csv,
    ".md": ComparisonFormat.markdown,
    ".html": ComparisonFormat.html,
}
_WIDTH: Final = 160  # of a file, or where no terminal says how wide it is


@dataclass
class CompareConfig:
    runs: list[FilePath] = MISSING
    """Run folders, output folders of eval, sweeps, or folders that hold these: the words after compare."""
    metric: str | None = None
    """What they are compared by: top1, top5, mean_class or map; null: map where videos may have several labels, else
    top1."""
    reference: FilePath | None = None
    """The run that all others are tested against; null: the best one."""
    common: bool = False
    """Runs that were tested on different videos: compare them on those that all were tested on."""
    anyway: bool = False
    """Show runs that were tested on different videos in tables of their own, and compare different protocols."""
    format: ComparisonFormat | None = None
    """text, csv, markdown or html; null: by the name of output, else text."""
    output: FilePath | None = None
    """Write the tables to this file, .txt, .csv, .md or .html; a CSV file has a second one with the pairs beside it."""
    disagreements: FilePath | None = None
    """Write the videos that one of a pair has right and the other wrong to this CSV file."""


def run(call: Invocation[CompareConfig]) -> None:
    """Print the comparison, write the files that were asked for."""
    options = call.options
    kind = _format(options)
    runs, untested = tested_runs(options.runs)
    if not runs:
        raise ConfigError(f"none of these runs has been tested: {one_of(untested, 5)}")
    tests = [AnsweredTest(one) for one in runs]
    metric = _metric(options.metric, tests)
    settings = settings_of(tests)
    reference = None if options.reference is None else _chosen(options.reference, settings)
    notes = [*_check_protocols(settings, anyway=options.anyway), *untested]
    comparisons = [
        compared(part, keys, metric, reference if reference in part else None)
        for part, keys in _parts(settings, common=options.common, anyway=options.anyway)
    ]
    comparisons[0] = replace(comparisons[0], notes=[*comparisons[0].notes, *notes])
    _write(options, kind, comparisons)


# ---------------------------------------------------------------- what is compared


def _metric(asked: str | None, tests: Sequence[AnsweredTest]) -> str:
    several = {test.run.test.multi_label for test in tests}
    if len(several) > 1:
        raise ConfigError(
            "some of these runs were tested with one label per video, others with several: not comparable"
        )
    metric = asked if asked is not None else "map" if several == {True} else "top1"
    known = [key for key in TITLES if all(key in test.run.test.numbers for test in tests)]
    if metric not in known:
        raise ConfigError(f"metric={metric}: these tests have {one_of(known)}{did_you_mean(metric, known)}")
    return metric


def _chosen(path: str, settings: Sequence[Setting]) -> Setting:
    wanted = Path(expand_home(path)).resolve()
    for setting in settings:
        homes = {folder.resolve() for test in setting.tests for folder in (test.run.folder, test.run.test.folder)}
        if wanted in homes or setting.name == path:
            return setting
    raise ConfigError(
        f"reference={path}: is none of the runs that are compared: {one_of((s.name for s in settings), 5)}"
    )


def _check_protocols(settings: Sequence[Setting], *, anyway: bool) -> list[str]:
    """Refuse tests by different protocols, or, anyway, return a line about each."""
    found: dict[str, list[str]] = {}
    for setting in settings:
        for test in setting.tests:
            content = test.run.test.content
            names = found.setdefault(f"{content['split']}: {content['protocol']}", [])
            names += [] if setting.name in names else [setting.name]
    if len(found) == 1:
        return []
    said = [f"{one_of(names, 3)}: tested on {protocol}" for protocol, names in found.items()]
    if not anyway:
        raise ConfigError(
            f"these runs were tested by different protocols: {'; '.join(said)}. `vidtrain eval` tests each by the "
            "same; anyway=true compares them as they are"
        )
    return ["tested by different protocols, which may be all that the difference is:", *said]


def _parts(settings: Sequence[Setting], *, common: bool, anyway: bool) -> list[tuple[Sequence[Setting], Sequence[Key]]]:
    """Settings that were tested on the same videos, and these."""
    groups: dict[frozenset[Key], list[Setting]] = {}
    for setting in settings:
        groups.setdefault(frozenset(setting.keys), []).append(setting)
    if len(groups) == 1:
        return [(settings, settings[0].keys)]
    shared = frozenset.intersection(*groups)
    if common and shared:
        return [(settings, [key for key in settings[0].keys if key in shared])]
    if anyway:
        return [(part, part[0].keys) for part in groups.values()]
    sizes = [f"{one_of((setting.name for setting in part), 3)}: {len(keys)}" for keys, part in groups.items()]
    allowed = f"common=true compares on the {len(shared)} that all have; " if shared else ""
    raise ConfigError(
        f"these runs were tested on different videos, or with different labels, {len(shared)} in common: "
        f"{one_of(sizes, 6)}. {allowed}anyway=true shows them in tables of their own"
    )


# ---------------------------------------------------------------- what is written


def _format(options: CompareConfig) -> ComparisonFormat:
    if options.disagreements is not None and Path(options.disagreements).suffix.lower() != ".csv":
        raise ConfigError(f"disagreements={options.disagreements}: expected a name that ends in .csv")
    if options.output is None:
        return options.format or ComparisonFormat.text
    by_name = _SUFFIXES.get(Path(options.output).suffix.lower())
    if options.format is None and by_name is None:
        raise ConfigError(f"output={options.output}: expected a name that ends in {one_of(_SUFFIXES)}, or format=...")
    return options.format or by_name or ComparisonFormat.text


def _write(options: CompareConfig, kind: ComparisonFormat, comparisons: Sequence[Comparison]) -> None:
    width = shutil.get_terminal_size((_WIDTH, 0)).columns if sys.stdout.isatty() else _WIDTH
    shown = ComparisonFormat.text if options.output is not None else kind
    print(_text(shown, comparisons, width))
    if options.output is not None:
        file = Path(options.output)
        file.parent.mkdir(parents=True, exist_ok=True)
        if kind is ComparisonFormat.csv:
            beside = file.with_name(f"{file.stem}_pairs{file.suffix}")
            _write_table(file, comparison_files.csv_rows(comparisons))
            _write_table(beside, comparison_files.csv_pairs(comparisons))
            print_line(f"\nalso in {file} and {beside}".lstrip("\n"))
        else:
            with whole_file(file, "w", encoding="utf-8", errors="backslashreplace") as out:
                out.write(_text(kind, comparisons, _WIDTH).rstrip("\n") + "\n")
            print_line(f"also in {file}")
    if options.disagreements is not None:
        file = Path(options.disagreements)
        file.parent.mkdir(parents=True, exist_ok=True)
        header, rows = comparison_files.csv_disagreements(comparisons)
        write_csv(file, header, rows)
        print_line(f"{len(rows)} videos that one of a pair has right and the other wrong: {file}")


def _write_table(file: Path, content: tuple[list[str], list[list[Any]]]) -> None:
    write_csv(file, *content)


def _text(kind: ComparisonFormat, comparisons: Sequence[Comparison], width: int) -> str:
    if kind is ComparisonFormat.csv:
        return comparison_files.csv_text(*comparison_files.csv_rows(comparisons)).rstrip("\n")
    if kind is ComparisonFormat.markdown:
        return comparison_files.to_markdown(comparisons)
    if kind is ComparisonFormat.html:
        return comparison_files.to_html(
            comparisons, f"{sum(len(one.rows) for one in comparisons)} settings by {comparisons[0].metric}"
        )
    return to_text(comparisons, width=width)

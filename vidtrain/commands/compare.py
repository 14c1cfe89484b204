"""vidtrain compare: tested runs beside each other, which of them are better, and on which videos they differ."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from omegaconf import MISSING

from vidtrain.commands.classification_comparison import compared
from vidtrain.commands.matched_predictions import TITLES, AnsweredTest, Key, NamedTests, Setting, settings_of
from vidtrain.commands.segments_comparison import PRIMARY, SegmentsTest, compared_segments
from vidtrain.commands.tested_runs import TestedRun, by_task, tested_runs
from vidtrain.errors import ConfigError, did_you_mean, one_of
from vidtrain.options.invocation import Invocation
from vidtrain.options.path_options import expand_home
from vidtrain.ranges import Choice
from vidtrain.reports import comparison_files
from vidtrain.reports.comparison import Comparison, to_text
from vidtrain.reports.page.comparison_page import comparison_page
from vidtrain.runs.atomic import make_folder, write_csv, write_text
from vidtrain.tasks.segments.scores import TITLES as SEGMENT_TITLES
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


_S = TypeVar("_S", bound=NamedTests[Any])


@dataclass
class CompareConfig:
    runs: list[FilePath] = MISSING
    """Run folders, output folders of eval, sweeps, or folders that hold these: the words after compare."""
    metric: str | None = None
    """What they are compared by: top1, top5, mean_class or map; with task=segments map_50, map_mean, frame_accuracy,
    f1_50 ...; null: map where videos may have several labels, map_50 of segments, else top1."""
    reference: FilePath | None = None
    """The run that all others are tested against; null: the best one."""
    common: bool = False
    """Runs that were tested on different videos: compare them on those that all were tested on; false: in tables of
    their own."""
    anyway: bool = False
    """Compare runs that were tested by different protocols; false: in tables of their own."""
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
    comparisons, apart = _tables(options, runs)
    comparisons[0] = replace(comparisons[0], notes=[*comparisons[0].notes, *apart, *untested])
    _write(options, kind, comparisons)


# ---------------------------------------------------------------- what is compared


_Tables = tuple[list[Comparison], list[str]]
"""Comparisons, and lines about what keeps settings apart."""


@dataclass(frozen=True)
class _Kind:
    """Settings that are measured alike.

    titles: of all that they can be compared by. usual: what they are compared by where nothing is asked for. compare:
    makes the tables, of a metric and the reference.
    """

    settings: Sequence[NamedTests[Any]]
    titles: Mapping[str, str]
    usual: str
    compare: Callable[[str, Any], _Tables]

    @property
    def known(self) -> list[str]:
        numbers = [test.run.test.numbers for setting in self.settings for test in setting.tests]
        return [key for key in self.titles if key != "loss" and all(key in own for own in numbers)]


def _tables(options: CompareConfig, runs: Sequence[TestedRun[Any]]) -> _Tables:
    kinds = _kinds(options, runs)
    every = [setting for kind in kinds for setting in kind.settings]
    reference = None if options.reference is None else _chosen(options.reference, every)
    metrics = _metrics(options.metric, kinds)
    comparisons, notes = [], []
    if len(kinds) > 1:
        named = (f"{kind.titles[metric]}: {_named(kind.settings)}" for kind, metric in zip(kinds, metrics, strict=True))
        notes.append(f"in tables of their own, as measured by different metrics: {'; '.join(named)}")
    for kind, metric in zip(kinds, metrics, strict=True):
        made, apart = kind.compare(metric, reference)
        comparisons += made
        notes += apart
    return comparisons, notes


def _kinds(options: CompareConfig, runs: Sequence[TestedRun[Any]]) -> list[_Kind]:
    """Of runs with a label per video, with several, with segments; those that there are, as they are first named."""
    classified, segmented = by_task(runs)
    answered = settings_of([AnsweredTest(run) for run in classified])
    found = []
    for several, members in _grouped(answered, lambda one: one.tests[0].run.test.multi_label).items():
        settings = [Setting(one.name, one.tests) for one in members]
        usual = "map" if several else "top1"
        found.append(_Kind(settings, TITLES, usual, partial(_of_classes, options, settings)))
    if segmented:
        others = settings_of([SegmentsTest(run) for run in segmented])
        found.append(_Kind(others, SEGMENT_TITLES, PRIMARY, partial(_of_segments, options, others)))
    return found


def _of_classes(options: CompareConfig, settings: Sequence[Setting], metric: str, reference: Setting | None) -> _Tables:
    parts, apart = _parts(settings, common=options.common, anyway=options.anyway)
    return [compared(part, keys, metric, reference if reference in part else None) for part, keys in parts], apart


def _of_segments(
    options: CompareConfig,
    settings: Sequence[NamedTests[SegmentsTest]],
    metric: str,
    reference: NamedTests[SegmentsTest] | None,
) -> _Tables:
    groups = _grouped(
        settings,
        lambda one: (() if options.anyway else _protocols(one), frozenset(test.videos for test in one.tests)),
    )
    notes = _about_protocols(settings, anyway=options.anyway)
    if len({videos for _, videos in groups}) > 1:
        named = "; ".join(map(_named, groups.values()))
        notes.append(f"in tables of their own, as tested on different videos, or with different labels: {named}")
    return [
        compared_segments(part, metric, reference if reference in part else None) for part in groups.values()
    ], notes


def _metrics(asked: str | None, kinds: Sequence[_Kind]) -> list[str]:
    """Of each kind what was asked for, where its tests have it, else the usual one."""
    known = list(dict.fromkeys(key for kind in kinds for key in kind.known))
    if asked is not None and asked not in known:
        raise ConfigError(f"metric={asked}: these tests have {one_of(known)}{did_you_mean(asked, known)}")
    return [kind.usual if asked not in kind.known else asked for kind in kinds]


def _chosen(path: str, settings: Sequence[NamedTests[Any]]) -> NamedTests[Any]:
    wanted = Path(expand_home(path)).resolve()
    for setting in settings:
        homes = {folder.resolve() for test in setting.tests for folder in (test.run.folder, test.run.test.folder)}
        if wanted in homes or setting.name == path:
            return setting
    raise ConfigError(
        f"reference={path}: is none of the runs that are compared: {one_of((s.name for s in settings), 5)}"
    )


def _parts(
    settings: Sequence[Setting], *, common: bool, anyway: bool
) -> tuple[list[tuple[Sequence[Setting], Sequence[Key]]], list[str]]:
    """Settings that were tested on the same videos by the same protocol, with these videos; and lines about what keeps
    them apart.

    common: videos that all settings of one protocol have will do. anyway: so will other protocols.
    """
    parts: list[tuple[Sequence[Setting], Sequence[Key]]] = []
    protocols = _grouped(settings, lambda setting: () if anyway else _protocols(setting))
    notes = _about_protocols(settings, anyway=anyway)
    for alike in protocols.values():
        groups = _grouped(alike, lambda setting: frozenset(setting.keys))
        shared = frozenset.intersection(*groups)
        if len(groups) == 1 or (common and shared):
            parts.append((alike, [key for key in alike[0].keys if key in shared]))
            continue
        parts += [(group, group[0].keys) for group in groups.values()]
        sizes = [f"{_named(group)}: {len(keys)}" for keys, group in groups.items()]
        way = f"; common=true compares on the {len(shared)} that all have" if shared else ""
        notes.append(
            "in tables of their own, as tested on different videos, or with different labels, "
            f"{len(shared)} in common: {one_of(sizes, 6)}{way}"
        )
    return parts, notes


def _grouped(settings: Sequence[_S], by: Callable[[_S], Hashable]) -> dict[Any, list[_S]]:
    groups: dict[Any, list[_S]] = {}
    for setting in settings:
        groups.setdefault(by(setting), []).append(setting)
    return groups


def _protocols(setting: NamedTests[Any]) -> tuple[str, ...]:
    """What a setting was tested on, and by which protocol."""
    contents = [test.run.test.content for test in setting.tests]
    return tuple(sorted({f"{content['split']}: {content['protocol']}" for content in contents}))


def _about_protocols(settings: Sequence[NamedTests[Any]], *, anyway: bool) -> list[str]:
    """Nothing where there is one protocol."""
    groups = _grouped(settings, _protocols)
    if len(groups) == 1:
        return []
    first = (
        "tested by different protocols, which may be all that the difference is:"
        if anyway
        else "in tables of their own, as tested by different protocols; `vidtrain eval` tests each by the same, "
        "anyway=true compares them as they are:"
    )
    return [first, *(f"{_named(group)}: tested on {' and '.join(own)}" for own, group in groups.items())]


def _named(settings: Sequence[NamedTests[Any]]) -> str:
    return one_of((setting.name for setting in settings), 3)


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
        make_folder(file.parent)
        if kind is ComparisonFormat.csv:
            beside = file.with_name(f"{file.stem}_pairs{file.suffix}")
            write_csv(file, *comparison_files.csv_rows(comparisons))
            write_csv(beside, *comparison_files.csv_pairs(comparisons))
            print_line(f"\nalso in {file} and {beside}".lstrip("\n"))
        else:
            write_text(file, _text(kind, comparisons, _WIDTH).rstrip("\n") + "\n", errors="backslashreplace")
            print_line(f"also in {file}")
    if options.disagreements is not None:
        file = Path(options.disagreements)
        make_folder(file.parent)
        header, rows = comparison_files.csv_disagreements(comparisons)
        write_csv(file, header, rows)
        print_line(f"{len(rows)} videos that one of a pair has right and the other wrong: {file}")


def _text(kind: ComparisonFormat, comparisons: Sequence[Comparison], width: int) -> str:
    if kind is ComparisonFormat.csv:
        return comparison_files.csv_text(*comparison_files.csv_rows(comparisons)).rstrip("\n")
    if kind is ComparisonFormat.markdown:
        return comparison_files.to_markdown(comparisons)
    if kind is ComparisonFormat.html:
        return comparison_page(
            comparisons,
            f"{sum(len(one.rows) for one in comparisons)} settings by "
            f"{', '.join(dict.fromkeys(one.metric for one in comparisons))}",
        )
    return to_text(comparisons, width=width)

"""vidtrain report: a run, or a test, as one HTML page that can be sent to somebody."""

from __future__ import annotations

import csv
import logging
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

from omegaconf import MISSING

from vidtrain.commands.thumbnails import Thumbnails
from vidtrain.errors import ConfigError, VidtrainError
from vidtrain.options.invocation import Invocation
from vidtrain.options.non_default import unusual
from vidtrain.options.path_options import unquoted
from vidtrain.ranges import number
from vidtrain.reports.confusion import confused_pairs
from vidtrain.reports.curves import Curves
from vidtrain.reports.page.content import CsvRows, OptionRow, PairClips, ReportContent, confident_errors, examples
from vidtrain.reports.page.page import write_page
from vidtrain.reports.results import ScoredVideo, TestResult
from vidtrain.reports.segment_results import SegmentsResult, read_test
from vidtrain.runs.atomic import make_folder
from vidtrain.runs.names import CONFIG, METRICS_LOG, NOT_SCORED, PREDICTIONS, RESULT, SUSPECTS, newest_run
from vidtrain.tasks.classification.metrics import METRICS
from vidtrain.tasks.segments.scores import TITLES
from vidtrain.tasks.segments.task import Segments
from vidtrain.terminal import EXACT_NAMES, print_line, rate_text, said_when_slow
from vidtrain.types import FilePath
from vidtrain.untrusted_data import check_regular, is_number, read_json, read_mapping, read_small_yaml, read_texts

log = logging.getLogger("vidtrain")

NAME: Final = "report.html"
_PATIENCE = 120.0  # seconds for thumbnails, when a person waits for the page
_BRIEFLY = 4.0  # at the end of a training, nobody has asked for it
_PER_PAIR = 3
_PROBED = 100  # videos whose durations are looked at
_MOST_ROWS = 100  # of a table that a CSV file holds
_MOST_RUNS = 1000  # of a folder that are looked at to name the newest
_MOST_COLUMNS, _LONGEST_CELL = 12, 400
_LARGEST_CSV = 1 << 26  # bytes
_OF_THIS_RUN: Final = ("run_dir=", "resume=auto", "sweep.trial=")  # overrides that another run does not take over
_OF_A_RUN: Final = (CONFIG, METRICS_LOG, RESULT)


@dataclass
class ReportConfig:
    run: FilePath = MISSING
    """Folder of a run, or of one test (RUN/test, RUN/eval/...): the word after report. Of runs/DATA/MODEL the newest
    run."""
    output: FilePath | None = None
    """The HTML file to write; null: report.html in that folder."""
    thumbnails: int = number(12, least=0, most=48)
    """So many of the most confident errors as moving images, and as many of the most confused pairs; 0: none."""


def run(call: Invocation[ReportConfig]) -> None:
    """Write the page and say where."""
    options = call.options
    folder = _named(Path(options.run))
    file = folder / NAME if options.output is None else Path(options.output)
    _folders(folder)  # a mistake in the name makes no folder
    make_folder(file.parent)
    size = write_report(folder, file, options.thumbnails, _PATIENCE)
    print_line(f"report: {file} ({size / 1e6:.2f} MB)")


def after_training(folder: Path) -> Path | None:
    """The page of a run that has just ended. None where it cannot be written, which is logged: the run is whole."""
    file = folder / NAME
    try:
        with said_when_slow(f"writing {NAME}"):
            write_report(folder, file, ReportConfig.thumbnails, _BRIEFLY)
    except Exception as error:  # of whatever kind: weights and numbers are there
        reason = error if isinstance(error, VidtrainError) else f"{type(error).__name__}: {error}"
        log.warning("%s: this page is not written (%s)", file, reason)
        return None
    return file


def write_report(folder: Path, file: Path, thumbnails: int, seconds: float) -> int:
    """Write the page of what is in `folder`; returns its bytes.

    seconds: for the decoding of videos; those that are not reached by then are named without one.

    Raises:
        DataError: neither a run nor a test; a result.json that is damaged or older than these pages.
    """
    more = f"vidtrain report takes {_PATIENCE:g} s" if seconds < _PATIENCE else "thumbnails=6 leaves more for each"
    return write_page(file, _content(folder, thumbnails, Thumbnails(seconds, more)))


def _content(folder: Path, thumbnails: int, decoded: Thumbnails) -> ReportContent:
    home, tested = _folders(folder)
    found = None if tested is None else read_test(tested)
    test, segments = (found, None) if isinstance(found, TestResult) else (None, found)
    result = _plain(home, RESULT)
    config = _plain(home, CONFIG)
    parts: dict[str, Any] = {} if test is None else _of_test(test, thumbnails, decoded)
    if found is not None and (not_scored := _csv(found.folder / NOT_SCORED)) is not None:
        parts["not_scored"] = not_scored
    choices = _mapping(result, "choices")
    return ReportContent(
        title=_title(folder, home),
        test=test,
        segments=segments,
        **_judged_by(test, segments, result),
        curves=Curves() if home is None else Curves.read(home / METRICS_LOG),
        numbers=_numbers(result),
        validation=_validation(result),
        **_suspects(tested, home, test, -(-thumbnails // 2), decoded),
        splits={k: v for k, v in _mapping(result, "videos").items() if type(v) is int},
        choices={k: v for k, v in choices.items() if type(v) is str},
        options=[OptionRow(*row) for row in unusual(config, choices)],
        config=_yaml(config),
        environment={k: str(v) for k, v in _mapping(result, "environment").items()},
        commands=_commands(folder, home),
        **parts,
    )


def _named(path: Path) -> Path:
    """The folder of a run or a test that a path names: its own, that of a file in it, that of the newest run in it."""
    folder = path.parent if path.is_file() else path
    if folder.is_dir() and not any((folder / name).is_file() for name in _OF_A_RUN):
        return newest_run(folder, CONFIG) or folder
    return folder


def _judged_by(test: TestResult | None, segments: SegmentsResult | None, result: Mapping[str, Any]) -> dict[str, Any]:
    """The titles of a test's numbers and the key of the first of them; of a run without one by its own result."""
    if segments is not None or (test is None and result.get("primary") == Segments.primary):
        return {"titles": TITLES, "primary": Segments.primary}
    titles = {metric.key: metric.title for metric in METRICS}
    return {"titles": titles, "primary": "map" if test is not None and test.multi_label else "top1"}


def _folders(folder: Path) -> tuple[Path | None, Path | None]:
    """(the run's, the test's) that a page of `folder` is about."""
    if not folder.is_dir():
        raise ConfigError(f"run={folder}: no such folder")
    if (folder / PREDICTIONS).is_file() and (folder / RESULT).is_file():
        above = folder.parent.parent if folder.parent.name == "eval" else folder.parent
        return (above if (above / CONFIG).is_file() else None), folder
    if not any((folder / name).is_file() for name in (CONFIG, METRICS_LOG)):
        if (newest := _newest_below(folder)) is not None:
            raise ConfigError(
                f"run={folder}: a report is of one run, and this folder holds runs: vidtrain report "
                f"{shlex.quote(str(newest))}; of all of them: vidtrain compare {shlex.quote(str(folder))} "
                f"output=page.html"
            )
        raise ConfigError(
            f"run={folder}: neither a run (config.json, metrics.jsonl) nor a test (result.json, predictions.csv)"
        )
    return folder, folder / "test" if (folder / "test" / RESULT).is_file() else None


def _newest_below(folder: Path) -> Path | None:
    """Of the runs in a folder of a sweep, of a model or of a dataset the one that began last; None: it holds none."""
    found = [file for pattern in ("*", "*/*") for file in islice(folder.glob(f"{pattern}/{CONFIG}"), _MOST_RUNS)]
    return max(found, key=lambda file: file.stat().st_mtime).parent if found else None


def _of_test(test: TestResult, thumbnails: int, decoded: Thumbnails) -> dict[str, Any]:
    """What a page shows of the videos of a test."""
    videos = test.predictions()
    found: dict[str, Any] = {"errors": [decoded.of(v) for v in confident_errors(videos, thumbnails)]}
    confusion = test.confusion
    pairs = [] if confusion is None else confused_pairs(confusion, -(-thumbnails // _PER_PAIR))
    pairs = [pair for pair in pairs if pair.count > 1] or pairs  # once is no habit, where others are
    chosen = [(pair, examples(videos, pair, test.class_names, _PER_PAIR)) for pair in pairs]
    found["pairs"] = [PairClips(pair, [decoded.of(video) for video in some]) for pair, some in chosen if some]
    if thumbnails and videos:
        found["seconds"] = decoded.probe(videos, _PROBED)
    return found


def _suspects(
    tested: Path | None, home: Path | None, test: TestResult | None, most: int, decoded: Thumbnails
) -> dict[str, Any]:
    """What `vidtrain label_errors` has written beside the test, into the run or into its sweep: the rows of this
    test's videos whose label is probably wrong, and the clips of the first `most`."""
    found = next((rows for f in (tested, home) if f is not None and (rows := _csv(f / SUSPECTS)) is not None), None)
    of_sweep = found is None
    if found is None and home is not None:
        found = _csv(home.absolute().parent / SUSPECTS)
    if found is None:
        return {}
    named = [dict(zip(found.header, row, strict=False)) for row in found.rows]
    issues = [row for row in named if row.get("issue", "yes") == "yes"]
    if of_sweep:
        own = set() if test is None else {video.path for video in test.predictions()}
        issues = [row for row in issues if row.get("path") in own]
    columns = [name for name in found.header if name not in ("file", "issue")]
    table = [[row.get(name, "") for name in columns] for row in issues]
    clips = [decoded.of(_suspect(row)) for row in issues[:most] if row.get("file")]
    return {"suspects": CsvRows(columns, table, len(table)), "suspect_clips": clips}


def _suspect(row: Mapping[str, str]) -> ScoredVideo:
    start, end, probability = (_number(row.get(name)) for name in ("start", "end", "prob_suggested"))
    top = ((row.get("suggested", ""), probability or 0.0),)
    return ScoredVideo(row.get("path", ""), row["file"], (row.get("label", ""),), top, start, end)


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None


def _title(folder: Path, home: Path | None) -> str:
    """'motion/c3d/2026-11-30_12-00-00', and the test's own folder below it."""
    named = folder.absolute() if home is None else home.absolute()
    parts = named.parts[-3:] if "runs" in named.parts[:-3] else named.parts[-1:]
    own = folder.absolute().relative_to(named).parts if home is not None else ()
    return "/".join([*parts, *own])


def _numbers(result: Mapping[str, Any]) -> dict[str, str]:
    """Of a run's result.json: title -> text."""
    forms = {
        "params": ("parameters", lambda v: f"{v / 1e6:.3g} M"),
        "clips_per_second": ("clips/s in training", rate_text),
        "minutes": ("minutes", lambda v: f"{v:.1f}"),
        "best_epoch": ("best epoch", lambda v: f"{v:.0f}"),
    }
    return {title: form(result[name]) for name, (title, form) in forms.items() if is_number(result.get(name))}


def _validation(result: Mapping[str, Any]) -> str:
    """What is said of a run without a test."""
    scores = _mapping(result, "val")
    numbers = [f"{key} {value:.3f}" for key, value in scores.items() if type(value) is float]
    return f"Not tested; best on the validation split: {', '.join(numbers)}" if numbers else "Not tested."


def _commands(folder: Path, home: Path | None) -> dict[str, str]:
    """What it does -> command line, quoted for a shell."""
    found = {}
    if home is not None:
        with suppress(OSError, ValueError):
            overrides = [o for o in read_texts(home / ".hydra" / "overrides.yaml") if not o.startswith(_OF_THIS_RUN)]
            given = [override.partition("=") for override in overrides]
            words = [f"{key}{equals}{unquoted(value)}" for key, equals, value in given]
            found["train it again:"] = shlex.join(["vidtrain", "train", *_own_configs(home), *words])
        if (home / "best.pt").is_file():
            found["test it again:"] = shlex.join(["vidtrain", "eval", f"checkpoint={home / 'best.pt'}"])
    found["write this page again:"] = shlex.join(["vidtrain", "report", str(folder)])
    return found


# ---------------------------------------------------------------- a stranger's files


def _own_configs(home: Path) -> list[str]:
    """The flag for the folder of the user's own configs, as Hydra keeps it with a run; [] where there was none."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        for source in read_small_yaml(home / ".hydra" / "hydra.yaml")["hydra"]["runtime"]["config_sources"]:
            if source["provider"] == "command-line" and isinstance(source["path"], str):
                folder = Path(source["path"])
                here = Path.cwd()
                return ["--config-dir", str(folder.relative_to(here) if folder.is_relative_to(here) else folder)]
    return []


def _plain(home: Path | None, name: str) -> dict[str, Any]:
    """A JSON file of a run as a mapping of plain values; {} where there is none that can be used."""
    if home is None:
        return {}
    with suppress(OSError, ValueError):
        if name != RESULT:
            return read_mapping(home / name)
        content = read_json(home / name)  # larger, since it holds the test's confusion matrix
        return content if isinstance(content, dict) else {}
    return {}


def _mapping(content: Mapping[str, Any], key: str) -> dict[str, Any]:
    found = content.get(key)
    return found if isinstance(found, dict) else {}


def _csv(file: Path) -> CsvRows | None:
    """A CSV file with a header: its first rows, and how many it has; None where there is none that can be read."""
    try:
        check_regular(file)
        if file.stat().st_size > _LARGEST_CSV:
            return None
        with file.open(newline="", encoding="utf-8", errors=EXACT_NAMES) as lines:
            rows = csv.reader(lines)
            header = _cells(next(rows, []))
            first = [_cells(row) for row in islice(rows, _MOST_ROWS)]
            return CsvRows(header, first, len(first) + sum(1 for _ in rows))
    except (OSError, csv.Error):
        return None


def _cells(row: Sequence[str]) -> list[str]:
    return [cell[:_LONGEST_CELL] for cell in row[:_MOST_COLUMNS]]


def _yaml(config: Mapping[str, Any]) -> str:
    import yaml  # type: ignore[import-untyped]

    return yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True) if config else ""

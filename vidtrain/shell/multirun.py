"""What -m, a sweep, asks of a command line before Hydra reads it."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path

from vidtrain.errors import ConfigError
from vidtrain.options.option_texts import conf_dir
from vidtrain.terminal import PrintableFormatter

_OF_A_RUN = ("sweep.trial", "resume")  # what a sweep gives a run besides what is varied


class HydraFormatter(PrintableFormatter):
    """Hydra's list of the runs of a sweep, with what is varied in each."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return re.sub(r" resume=auto sweep\.trial=\d+", "", text) if record.name.startswith("hydra.") else text


def prepared(command: str, overrides: list[str], folder: Path | None) -> list[str]:
    """The overrides, with what names and counts the runs; makes the sweepers of `train` known to Hydra.

    folder: of the user's own configs.

    Raises:
        ConfigError: an experiment of the sweep names a launcher.
    """
    _refuse_ignored_launchers(overrides, folder)
    ended = ["++hydra.callbacks.sweep._target_=vidtrain.commands.sweep.SweepEnd"]
    if command == "train":
        ended.append("++hydra.callbacks.sweep.with_table=true")
    sweeper = _sweeper(overrides, folder) if command == "train" else []
    return [*overrides, *sweeper, *_name_jobs(overrides), *ended]


def _sweeper(overrides: list[str], folder: Path | None) -> list[str]:
    """vidtrain's grid takes the place of Hydra's own sweeper, where neither the user nor an experiment names one.

    A sweeper that train.yaml named would win over that of an experiment.
    """
    from vidtrain.shell import sweeper

    sweeper.register()
    named = any(o.startswith("hydra/sweeper=") for o in overrides)
    chosen = [name for names in _experiments(overrides) for name in names.strip("[]").split(",")]
    named |= any(True for name in chosen for _ in _overridden(name, "sweeper", folder))
    return [] if named else ["hydra/sweeper=grid"]


def _experiments(overrides: list[str]) -> list[str]:
    """The values of experiment= as they were given."""
    return [o.split("=", 1)[1] for o in overrides if o.startswith("experiment=")]


def _overridden(experiment: str, group: str, folder: Path | None) -> Iterator[tuple[Path, str]]:
    """(file, choice) of a group of Hydra's that an experiment overrides."""
    for parent in (conf_dir(), *([folder] if folder else [])):
        file = parent / "experiment" / f"{experiment}.yaml"
        text = file.read_text(encoding="utf-8") if file.is_file() else ""
        if found := re.search(rf"^\s*-\s*override\s+/?hydra/{group}:\s*(\S+)", text, re.MULTILINE):
            yield file, found.group(1)


def _refuse_ignored_launchers(overrides: list[str], folder: Path | None) -> None:
    """Hydra chooses the launcher and the sweeper before it reads the experiments of a sweep, and ignores theirs."""
    for name in (n for names in _experiments(overrides) for n in names.split(",") if "," in names):
        for group in ("launcher", "sweeper"):
            for file, choice in _overridden(name, group, folder):
                raise ConfigError(
                    f"{file} names a {group}, which a sweep over experiments ignores: "
                    f"give hydra/{group}={choice} on the command line"
                )


def _name_jobs(overrides: list[str]) -> list[str]:
    """Name a sweep's folders by what varies (run_dir.sweep_folder): Hydra would use all overrides."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import OverrideParseException

    try:
        parsed = OverridesParser.create().parse_overrides(overrides)
    except OverrideParseException:  # reported when Hydra reads them
        return []
    fixed = [o.get_key_element().lstrip("+~") for o in parsed if not o.is_sweep_override()]
    return [f"hydra.job.config.override_dirname.exclude_keys=[{','.join(dict.fromkeys([*fixed, *_OF_A_RUN]))}]"]

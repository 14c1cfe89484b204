"""What -m, a sweep, asks of a command line before Hydra reads it."""

from __future__ import annotations

import re
from pathlib import Path

from vidtrain.errors import ConfigError

_OF_A_RUN = ("sweep.trial", "resume")  # what a sweep gives a run besides what is varied


def prepared(command: str, overrides: list[str], folder: Path | None) -> list[str]:
    """The overrides, with what names and counts the runs; makes the sweepers of `train` known to Hydra.

    folder: of the user's own configs.

    Raises:
        ConfigError: an experiment of the sweep names a launcher.
    """
    if command == "train":
        from vidtrain.shell import sweeper

        sweeper.register()
    _refuse_ignored_launchers(overrides, folder)
    counted = "++hydra.callbacks.failures._target_=vidtrain.commands.sweep.SweepFailures"
    return [*overrides, *_name_jobs(overrides), counted]


def _refuse_ignored_launchers(overrides: list[str], folder: Path | None) -> None:
    """Hydra chooses the launcher before it reads the experiments of a sweep, and ignores the one they name."""
    from vidtrain.options.described import conf_dir

    swept = [o.split("=", 1)[1] for o in overrides if o.startswith("experiment=")]
    for name in (n for names in swept for n in names.split(",") if "," in names):
        for parent in (conf_dir(), *([folder] if folder else [])):
            file = parent / "experiment" / f"{name}.yaml"
            text = file.read_text(encoding="utf-8") if file.is_file() else ""
            if found := re.search(r"^\s*-\s*override\s+/?hydra/launcher:\s*(\S+)", text, re.MULTILINE):
                raise ConfigError(
                    f"{file} names a launcher, which a sweep over experiments ignores: "
                    f"give hydra/launcher={found.group(1)} on the command line"
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

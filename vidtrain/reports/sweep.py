"""The table at the end of a sweep, read from what each run wrote, and the record of those that failed."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from vidtrain.reports.table import table

log = logging.getLogger("vidtrain")

failed: list[str] = []
"""One line for each run of this process's sweep that failed; decides the exit code."""


def record_failure(cfg: DictConfig, error: Exception, with_traceback: bool = False) -> None:
    """Say and write down that this run of the sweep failed; the others go on."""
    from hydra.core.hydra_config import HydraConfig

    name = HydraConfig.get().job.override_dirname
    log.error("run %s failed: %s", name, error, exc_info=error if with_traceback else None)
    failed.append(f"{name}: {error}")
    folder = Path(HydraConfig.get().runtime.output_dir)
    (folder / "error.json").write_text(json.dumps({"error": str(error)}), encoding="utf-8")


class SweepTable(Callback):
    """Hydra calls this when the last run of a sweep has ended, wherever the runs were executed."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        folder = Path(str(config.hydra.sweep.dir))
        text = sweep_table(folder)
        if text:
            (folder / "table.txt").write_text(text + "\n", encoding="utf-8")
            print(text)
            print(f"\nalso in {folder / 'table.txt'}")


def sweep_table(folder: Path) -> str:
    """A row per run below `folder`: what was varied, then the results. '' when there is none."""
    rows = []
    for run in sorted(folder.iterdir(), key=_job_number):
        overrides = run / ".hydra" / "overrides.yaml"
        if not overrides.is_file():
            continue
        varied = dict(str(o).lstrip("+").split("=", 1) for o in OmegaConf.load(overrides))
        rows.append((varied, _result(run)))
    if not rows:
        return ""
    keys = list(dict.fromkeys(k for varied, _ in rows for k in varied))
    keys = [k for k in keys if len({varied.get(k) for varied, _ in rows}) > 1] or keys[:1]
    seen = {name for _, result in rows for name in result}
    columns = [name for name in ["test mAP", "val mAP"] if name in seen]
    columns += ["test top-1", "test clip top-1", "test scored", "val top-1", "params", "clips/s", "minutes"]
    header = [*keys, *columns]
    body = [[varied.get(k, "") for k in keys] + [result.get(c, "") for c in columns] for varied, result in rows]
    return table(header, body)


def _result(run: Path) -> dict[str, str]:
    for name in ("result.json", "error.json"):
        file = run / name
        if file.is_file():
            content = json.loads(file.read_text(encoding="utf-8"))
            return {"test top-1": "failed"} if "error" in content else content["summary"]
    return {"test top-1": "unfinished"}


def _job_number(run: Path) -> tuple[int, str]:
    number = run.name.split("_", 1)[0]
    return (int(number) if number.isdigit() else 0, run.name)

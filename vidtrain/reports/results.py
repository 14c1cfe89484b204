"""The result of a training run: the table on the terminal, result.json on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vidtrain.reports.table import table
from vidtrain.runs.atomic import whole_file


def summary_cells(result: dict[str, Any]) -> dict[str, str]:
    """The cells of the table by column, of the numbers that the run has."""
    test, val, rate = result["test"], result["val"], result["clips_per_second"]
    shown = [(key, title) for key, title in result["titles"].items() if key != "loss"]
    return {
        **{f"test {title}": f"{test[key]:.3f}" for key, title in shown if test and key in test},
        **({"test scored": f"{test['scored']}/{test['listed']}"} if test else {}),
        **{f"val {title}": f"{val[key]:.3f}" for key, title in shown if val and key in val},
        "params": f"{result['params'] / 1e6:.3f} M",
        "clips/s": f"{rate:.0f}" if rate else "",
        "minutes": f"{result['minutes']:.1f}",
    }


def primary(result: dict[str, Any]) -> float | None:
    """The number of a run that a sweeper may optimise, of its test, else of its validation; None without either."""
    scores = result["test"] or result["val"]
    return None if not scores else float(scores[result["primary"]])


def scored_line(test: dict[str, Any]) -> str:
    """'scored 65 of 104 (39 not on disk); 16x2 clips at 112 px ...'."""
    why = [f"{test['missing']} not on disk"] if test["missing"] else []
    why += [f"{test['unreadable']} unreadable"] if test["unreadable"] else []
    why += [f"{len(test['not_finite'])} without a finite output"] if test.get("not_finite") else []
    reasons = f" ({', '.join(why)})" if why else ""
    return f"scored {test['scored']} of {test['listed']}{reasons}; {test['protocol']}"


def print_result(result: dict[str, Any]) -> None:
    """The table of one run."""
    cells = result["summary"]
    print(table(list(cells), [list(cells.values())]))
    if result["test"]:
        print(scored_line(result["test"]))
    print(f"checkpoint: {result['checkpoint']}")


def write_json(file: Path, content: Any) -> None:
    """Write a JSON file that is whole or absent; what UTF-8 has not becomes an escape, which reads back as it was."""
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    with whole_file(file, "w", encoding="utf-8", errors="backslashreplace") as out:
        out.write(text)

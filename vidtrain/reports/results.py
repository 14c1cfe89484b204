"""The result of a training run: the table on the terminal, result.json on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vidtrain.reports.table import table
from vidtrain.runs.atomic import whole_file


def summary_cells(result: dict[str, Any]) -> dict[str, str]:
    """The cells of the table by column, '' where a run has no such number."""
    test, val, rate = result["test"], result["val"], result["clips_per_second"]
    several = {
        "test mAP": f"{test['map']:.3f}" if test and "map" in test else "",
        "val mAP": f"{val['map']:.3f}" if val and "map" in val else "",
    }
    return {
        **{name: cell for name, cell in several.items() if cell},
        "test top-1": f"{test['top1']:.3f}" if test else "",
        "test top-5": f"{test['top5']:.3f}" if test and "top5" in test else "",
        "test clip top-1": f"{test['clip_top1']:.3f}" if test else "",
        "test scored": f"{test['scored']}/{test['listed']}" if test else "",
        "val top-1": f"{val['top1']:.3f}" if val and "top1" in val else "",
        "params": f"{result['params'] / 1e6:.3f} M",
        "clips/s": f"{rate:.0f}" if rate else "",
        "minutes": f"{result['minutes']:.1f}",
    }


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

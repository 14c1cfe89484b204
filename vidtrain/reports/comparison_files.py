"""A comparison of runs as Markdown, CSV and one HTML page. Names are a stranger's: none of them becomes markup."""

from __future__ import annotations

import csv
import html
import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from vidtrain.reports.comparison import FEW, ComparedSetting, Comparison, what_differs
from vidtrain.reports.table import markdown_table, markdown_text
from vidtrain.terminal import EXACT_NAMES, printable

_MORE: Final = 200  # videos on the page


def to_markdown(comparisons: Sequence[Comparison]) -> str:
    parts = []
    for comparison in comparisons:
        parts += [markdown_text(comparison.heading), markdown_table(*_run_second(*comparison.cells()))]
        parts += [markdown_text(note) for note in comparison.notes]
        if comparison.pairs:
            parts += [markdown_text(comparison.pairs_line()), markdown_table(*comparison.pair_cells())]
            head, rows = comparison.disagreement_cells(FEW)
            parts += [markdown_text(what_differs(comparison, len(rows))), markdown_table(head, rows)] if rows else []
    return "\n\n".join(parts)


def _run_second(header: list[str], rows: list[list[str]]) -> tuple[list[str], list[list[str]]]:
    """The name beside the rank: what is wider than a page is cut on its right."""
    return [header[0], header[-1], *header[1:-1]], [[row[0], row[-1], *row[1:-1]] for row in rows]


_COLUMNS: Final[Mapping[str, Callable[[ComparedSetting], Any]]] = {
    "run": lambda row: row.name,
    "value": lambda row: row.value,
    "low": lambda row: row.low,
    "high": lambda row: row.high,
    "std": lambda row: row.deviation,
    "runs": lambda row: row.runs,
    "params": lambda row: row.params,
    "gmac": lambda row: row.gmac,
    "clips_per_second": lambda row: row.rate,
    "minutes": lambda row: row.minutes,
    "views": lambda row: row.views,
    "scored": lambda row: row.scored,
    "listed": lambda row: row.listed,
}


def csv_rows(comparisons: Sequence[Comparison]) -> tuple[list[str], list[list[Any]]]:
    """Every setting with its exact numbers; "" where there is none. table: which of the comparisons it is in."""
    rows = [
        [number, rank, comparison.metric, *(_exact(column(row)) for column in _COLUMNS.values())]
        for number, comparison in enumerate(comparisons, 1)
        for rank, row in enumerate(comparison.rows, 1)
    ]
    return ["table", "rank", "metric", *_COLUMNS], rows


def csv_pairs(comparisons: Sequence[Comparison]) -> tuple[list[str], list[list[Any]]]:
    """Every pair with its exact numbers."""
    plain = ["difference", "low", "high", "only_first", "only_second", "test", "p", "adjusted"]
    others = list(dict.fromkeys(name for c in comparisons for pair in c.pairs for name in pair.others))
    rows = [
        [
            number,
            *(comparison.rows[position - 1].name for position in (pair.first, pair.second)),
            *(_exact(getattr(pair, name)) for name in plain),
            *(_exact(pair.others.get(name)) for name in others),
        ]
        for number, comparison in enumerate(comparisons, 1)
        for pair in comparison.pairs
    ]
    return ["table", "first", "second", *plain[:-1], "p_holm", *others], rows


def csv_disagreements(comparisons: Sequence[Comparison]) -> tuple[list[str], list[list[Any]]]:
    """Every video that one of a pair has right and the other wrong."""
    header = ["table", "first", "second", "path", "start", "end", "label", "right", "answer_first", "prob_first"]
    rows = [
        [
            number,
            *(comparison.rows[position - 1].name for position in one.pair),
            *(one.path, *map(_exact, one.seconds), one.label, "first" if one.right == one.pair[0] else "second"),
            *(cell for a, p in zip(one.answers, one.probs, strict=True) for cell in (a, f"{p:.6f}")),
            one.file,
        ]
        for number, comparison in enumerate(comparisons, 1)
        for one in comparison.disagreements
    ]
    return [*header, "answer_second", "prob_second", "file"], rows


def csv_text(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(header)
    lines.writerows(rows)
    return text.getvalue().encode("utf-8", EXACT_NAMES).decode("utf-8", "backslashreplace")


_STYLE: Final = """
:root{color-scheme:light dark;--line:#8884;--mark:#2a78b8}
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:76rem;padding:0 1rem}
h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:2.5rem}.wide{overflow-x:auto}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{padding:.3rem .7rem;border-bottom:1px solid var(--line);text-align:left;white-space:nowrap}
td.n,th.n{text-align:right}td.t{white-space:normal;overflow-wrap:anywhere;min-width:12rem}
svg{display:block;max-width:100%}svg text{fill:currentColor;font:12px system-ui,sans-serif}
"""


def to_html(comparisons: Sequence[Comparison], title: str) -> str:
    """One page that needs nothing else: no script, no network."""
    parts = []
    for comparison in comparisons:
        parts += [f"<h2>{_escaped(comparison.heading)}</h2>", _dots(comparison.rows)]
        parts.append(_html_table(*_run_second(*comparison.cells()), texts={"run"}))
        parts += [f"<p>{_escaped(note)}</p>" for note in comparison.notes]
        if comparison.pairs:
            parts.append(f"<p>{_escaped(comparison.pairs_line())}</p>")
            parts.append(_html_table(*comparison.pair_cells(), texts={"test"}))
            head, rows = comparison.disagreement_cells(_MORE)
            if rows:
                texts = {"video", "label", "other's answer"}
                parts += [
                    f"<p>{_escaped(what_differs(comparison, len(rows)))}</p>",
                    _html_table(head, rows, texts=texts),
                ]
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{_escaped(title)}</title>\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<style>{_STYLE}</style></head>\n'
        f"<body><h1>{_escaped(title)}</h1>\n" + "\n".join(parts) + "\n</body></html>\n"
    )


def _html_table(header: Sequence[str], rows: Sequence[Sequence[str]], *, texts: set[str]) -> str:
    kept = [c for c in range(len(header)) if any(row[c] for row in rows)]
    kinds = ["t" if header[c] in texts else "n" for c in kept]
    head = "".join(f'<th class="{k}">{_escaped(header[c])}</th>' for c, k in zip(kept, kinds, strict=True))
    body = "\n".join(
        "<tr>" + "".join(f'<td class="{k}">{_escaped(row[c])}</td>' for c, k in zip(kept, kinds, strict=True)) + "</tr>"
        for row in rows
    )
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table></div>'


def _dots(rows: Sequence[ComparedSetting]) -> str:
    """The values with their intervals, a line per setting, as an SVG."""
    ends = [end for row in rows for end in (row.low, row.value, row.high) if math.isfinite(end)]
    if not ends:
        return ""
    low, high = min(ends), max(ends)
    margin = max(high - low, 0.02) * 0.08
    low, high = max(0.0, low - margin), high + margin
    left, width, step = 40, 680, 22

    def across(value: float) -> float:
        return left + width * (value - low) / (high - low)

    lines = []
    for number, row in enumerate(rows):
        y = 14 + step * number
        lines.append(f'<text x="4" y="{y + 4}">{number + 1}</text>')
        if math.isfinite(row.low):
            ends_at = f'x1="{across(row.low):.1f}" x2="{across(row.high):.1f}" y1="{y}" y2="{y}"'
            lines.append(f'<line {ends_at} stroke="var(--mark)" stroke-width="2"/>')
        lines.append(f'<circle cx="{across(row.value):.1f}" cy="{y}" r="4.5" fill="var(--mark)"/>')
    bottom = 14 + step * len(rows)
    for part in range(5):
        value = low + (high - low) * part / 4
        lines.append(f'<text x="{across(value):.1f}" y="{bottom + 6}" text-anchor="middle">{value:.3f}</text>')
    height = bottom + 14
    return (
        f'<svg viewBox="0 0 {left + width + 40} {height}" width="{left + width + 40}" role="img">{"".join(lines)}</svg>'
    )


def _escaped(text: str) -> str:
    return html.escape(printable(text))


def _exact(value: Any) -> Any:
    return "" if value is None or (isinstance(value, float) and not math.isfinite(value)) else value

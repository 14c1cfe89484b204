"""A comparison of runs as one HTML page that needs nothing else: no script, no network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from vidtrain.reports.comparison import ComparedSetting, Comparison, what_differs
from vidtrain.reports.comparison_files import run_second
from vidtrain.reports.page.markup import Html, document, element

_MOST_VIDEOS: Final = 200
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"
_STYLE: Final = """
:root{color-scheme:light dark;--line:#8884;--mark:#2a78b8}
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:76rem;padding:0 1rem}
h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:2.5rem}.wide{overflow-x:auto}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{padding:.3rem .7rem;border-bottom:1px solid var(--line);text-align:left;white-space:nowrap}
td.n,th.n{text-align:right}td.t{white-space:normal;overflow-wrap:anywhere;min-width:12rem}
svg{display:block;max-width:100%}svg text{fill:currentColor;font:12px system-ui,sans-serif}
"""


def comparison_page(comparisons: Sequence[Comparison], title: str) -> str:
    """The whole page."""
    parts = [element("h1", title)]
    for comparison in comparisons:
        parts += [element("h2", comparison.heading), _dots(comparison.rows)]
        parts.append(_table(*run_second(*comparison.cells()), texts={"run"}))
        parts += [element("p", note) for note in comparison.notes]
        if comparison.pairs:
            parts.append(element("p", comparison.pairs_line()))
            parts.append(_table(*comparison.pair_cells(), texts={"test"}))
            head, rows = comparison.disagreement_cells(_MOST_VIDEOS)
            if rows:
                parts.append(element("p", what_differs(comparison, len(rows))))
                parts.append(_table(head, rows, texts={"video", "label", "other's answer"}))
    return document(title, parts, policy=_POLICY, style=_STYLE)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], *, texts: set[str]) -> Html:
    """Without columns that are empty in every row. texts: columns that are no numbers."""
    kept = [(c, "t" if header[c] in texts else "n") for c in range(len(header)) if any(row[c] for row in rows)]
    head = element("tr", *(element("th", header[c], class_=kind) for c, kind in kept))
    body = [element("tr", *(element("td", row[c], class_=kind) for c, kind in kept)) for row in rows]
    return element("div", element("table", element("thead", head), element("tbody", *body)), class_="wide")


def _dots(rows: Sequence[ComparedSetting]) -> Html:
    """The values with their intervals, a line per setting, as an SVG."""
    ends = [end for row in rows for end in (row.low, row.value, row.high) if math.isfinite(end)]
    if not ends:
        return Html("")
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
    box = f'<svg viewBox="0 0 {left + width + 40} {height}" width="{left + width + 40}" role="img">'
    return Html(f"{box}{''.join(lines)}</svg>")

"""HTML that is made of data: whatever is not Html is escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from vidtrain.terminal import printable


class Html(str):
    """Text that is HTML already. Only functions of this folder make it."""

    __slots__ = ()


def escape(value: object) -> Html:
    """Data as text of a page or value of an attribute: no character of it is markup, or steers what is shown."""
    return value if isinstance(value, Html) else Html(html.escape(printable(value), quote=True))


def joined(parts: Iterable[object], between: str = "") -> Html:
    """The parts one after the other, each escaped unless it is Html. between: Html."""
    return Html(between.join(escape(part) for part in parts))


def element(tag: str, *content: object, **attributes: object) -> Html:
    """<tag a="b">content</tag>; class_ for class; data_v for data-v; an attribute that is None is not written."""
    names = ((name.rstrip("_").replace("_", "-"), value) for name, value in attributes.items() if value is not None)
    head = "".join(f' {name}="{escape(value)}"' for name, value in names)
    return Html(f"<{tag}{head}>{joined(content)}</{tag}>")


def document(title: str, body: Iterable[object], *, policy: str, style: str, script: str = "") -> str:
    """A whole page. policy: what it may do, whatever stands in it. style, script: its CSS and JavaScript."""
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="referrer" content="no-referrer">',
            f"<title>{escape(title)}</title>\n<style>{style}</style>\n</head>\n<body>",
            joined(body, "\n"),
            *([f"<script>{script}</script>"] if script else []),
            "</body>\n</html>\n",
        ]
    )


@dataclass(frozen=True)
class Number:
    """A cell that is sorted by its value. bar: a share in [0, 1] that is drawn behind it."""

    value: float | None
    form: str = ".3f"
    bar: bool = False

    def cell(self) -> Html:
        if self.value is None:
            return element("td", "", class_="n")
        width = f"--w:{100 * min(max(self.value, 0.0), 1.0):.1f}%" if self.bar else None
        shown = format(self.value, self.form)
        return element("td", shown, class_="n bar" if self.bar else "n", style=width, data_v=f"{self.value:.6g}")


def table(
    header: Sequence[str], rows: Iterable[Sequence[Any]], *, sortable: bool = False, label: str | None = None
) -> Html:
    """A table whose wide content scrolls by itself. Cells: Number, Html or data. header: of empty texts alone: none."""
    rows = list(rows)
    kinds = ["n" if rows and all(isinstance(row[n], Number) for row in rows) else None for n in range(len(header))]
    titles = (element("th", title, scope="col", class_=kind) for title, kind in zip(header, kinds, strict=True))
    head = element("thead", element("tr", *titles)) if any(header) else ""
    lines = []
    for row in rows:
        cells = [cell.cell() if isinstance(cell, Number) else element("td", cell) for cell in row]
        lines.append(element("tr", *cells))
    kind = "sortable" if sortable else None
    whole = element("table", head, element("tbody", *lines), class_=kind, aria_label=label)
    return element("div", whole, class_="scroll", tabindex="0")


def class_table(header: Sequence[str], rows: Sequence[Sequence[Any]], total: int) -> Html:
    """A sortable table of the first of `total` classes, with a note of the others."""
    more = total - len(rows)
    note = element("p", f"{more} more classes are in result.json.", class_="note") if more else ""
    return joined([tall(table(header, rows, sortable=True, label="classes"), len(rows)), note])


_TALL = 24  # rows, from which on a table scrolls by itself


def tall(whole: Html, rows: int) -> Html:
    """A table of so many rows, which does not take more than a screen."""
    return element("div", whole, class_="tall", tabindex="0") if rows > _TALL else whole

"""A report as one HTML file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from vidtrain import __version__
from vidtrain.reports.page import sections, timelines
from vidtrain.reports.page.content import ReportContent
from vidtrain.reports.page.markup import Html, document, element
from vidtrain.reports.page.style import POLICY, SCRIPT, STYLE
from vidtrain.runs.atomic import whole_file

Section = Callable[[ReportContent], Html]

_SECTIONS: Final[tuple[tuple[str, str, Section], ...]] = (
    ("learning", "Learning curves", sections.learning),
    ("timelines", "Truth and answer of the worst videos", timelines.timelines),
    ("overlaps", "Precision by overlap", timelines.overlaps),
    ("segment_classes", "Classes", timelines.segment_classes),
    ("confusion", "Confusion", sections.confusion),
    ("pairs", "Most confused pairs", sections.pairs),
    ("errors", "Most confident errors", sections.errors),
    ("classes", "Classes", sections.classes),
    ("reliability", "Reliability of the probabilities", sections.reliability),
    ("views", "Views", sections.views),
    ("suspects", "Labels that may be wrong", sections.suspects),
    ("data", "Data", sections.data),
    ("configuration", "Configuration", sections.configuration),
    ("environment", "Environment", sections.environment),
    ("commands", "Commands", sections.commands),
)


def page(content: ReportContent) -> str:
    """The whole page."""
    shown = [(name, title, html) for name, title, draw in _SECTIONS if (html := draw(content))]
    links = element("nav", *(element("a", title, href=f"#{name}") for name, title, _ in shown), aria_label="sections")
    parts = [element("section", element("h2", title, id=name), html) for name, title, html in shown]
    body = [
        element("header", element("h1", content.title), sections.verdict(content), sections.tiles(content)),
        links,
        element("main", *parts),
        element("footer", sections.notes(content), f"vidtrain {__version__}"),
    ]
    return document(f"{content.title}: vidtrain report", body, policy=POLICY, style=STYLE, script=SCRIPT)


def write_page(file: Path, content: ReportContent) -> int:
    """Write it whole or not at all; returns its bytes."""
    encoded = page(content).encode("utf-8", "backslashreplace")
    with whole_file(file) as out:
        out.write(encoded)
    return len(encoded)

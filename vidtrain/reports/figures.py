"""What all figures share: names as matplotlib can draw them, and no chatter about fonts."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from vidtrain.terminal import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(**options: Any) -> Figure:
    """A figure of 100 dots per inch with a constrained layout. options: of matplotlib's Figure."""
    logging.getLogger("matplotlib").setLevel(logging.WARNING)  # it reports its font cache
    from matplotlib.figure import Figure

    return Figure(dpi=100, layout="constrained", **options)


def figure_label(name: str, most: int = 28) -> str:
    """A name as a figure can show it, at most `most` characters: long names often differ at their ends.

    Draw it with parse_math=False: between two dollar signs matplotlib reads formulas.
    """
    name = printable(name)
    half = (most - 3) // 2
    return name if len(name) <= most else f"{name[:half]}...{name[-half:]}"


@contextmanager
def quiet_fonts() -> Iterator[None]:
    """Letters that the font has not are drawn as boxes, without a warning for each."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        yield

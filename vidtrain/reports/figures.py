"""What all figures share: names as matplotlib can draw them, no chatter about fonts, how they are written."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from vidtrain.runs.atomic import make_parent, whole_file
from vidtrain.terminal import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger("vidtrain")

FIGURES: Final = "figures"
"""The folder of figures beside the numbers that they draw."""


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


def write_figure(figure: Figure, folder: Path, name: str) -> None:
    """folder/NAME.png and NAME.svg, the latter with its text as text. The folder is made.

    Raises:
        OSError, DataError: they cannot be written; the folder is a link.
    """
    import matplotlib

    make_parent(folder / name, folder.parent)  # not through a link in a stranger's folder
    with quiet_fonts(), matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        for kind, metadata in (("png", None), ("svg", {"Date": None})):  # the same figure is the same file
            with whole_file(folder / f"{name}.{kind}") as file:
                figure.savefig(file, format=kind, metadata=metadata)
            figure.set_layout_engine("none")  # it stays where it was put: placing the parts takes half of the time


def write_png(figure: Figure, file: Path) -> None:
    """A PNG alone, whole or not at all."""
    with quiet_fonts(), whole_file(file) as out:
        figure.savefig(out, format="png")


def pixels_of(figure: Figure) -> npt.NDArray[np.uint8]:
    """uint8 (H, W, 3)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    with quiet_fonts():
        canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def write_image(file: Path, image: npt.NDArray[np.uint8]) -> None:
    """Write uint8 (H, W, 3) as a PNG. Raises OSError, DataError as `write_figure`."""
    from PIL import Image

    make_parent(file, file.parent.parent)
    with whole_file(file) as out:
        Image.fromarray(image).save(out, format="PNG")


def read_figure(file: Path) -> npt.NDArray[np.uint8]:
    """The pixels of a PNG that `write_figure` has written, uint8 (H, W, 3)."""
    from PIL import Image

    with Image.open(file) as image:
        return np.asarray(image.convert("RGB"))


def write_each(folder: Path, figures: Mapping[str, Callable[[], Figure | None]]) -> list[str]:
    """Draw and write figures by name, each as write_figure does; those written. One that fails is logged, not raised:
    a figure ends no training."""
    written = []
    for name, draw in figures.items():
        try:
            if (figure := draw()) is not None:
                write_figure(figure, folder, name)
                written.append(name)
        except Exception as error:
            log.warning("%s: this figure is not written (%s: %s)", folder / name, type(error).__name__, error)
    return written

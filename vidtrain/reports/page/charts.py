"""Charts as inline SVG. Their colours are those of the page, light or dark (style.py)."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from vidtrain.reports.confusion import pooled, row_shares
from vidtrain.reports.curves import Points, thinned
from vidtrain.reports.page.markup import Html, element, escape, joined

_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 10, 10, 38  # around the plot, on the left at least
_TITLE, _DIGIT = 21, 6.6  # width of a turned title, and of a character of a tick's label
_ACCENT = (68, 119, 170)  # of a pattern that is an image


class _Axes:
    """The plot's area: data coordinates -> those of the SVG."""

    def __init__(self, x: tuple[float, float], y: tuple[float, float], size: tuple[int, int]) -> None:
        self.x, self.y = _widened(x), _widened(y)
        self.width, self.height = size
        self.rows = [(value, f"{value:g}") for value in ticks(*self.y)]
        self.left = max(_LEFT, _TITLE + _DIGIT * max((len(label) for _, label in self.rows), default=0))

    def at(self, x: float, y: float) -> tuple[float, float]:
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        inner = self.width - self.left - _RIGHT, self.height - _TOP - _BOTTOM
        return self.left + across * inner[0], _TOP + (1 - up) * inner[1]

    def svg(self, marks: Sequence[Html], *, label: str, x_title: str, y_title: str, counts: bool = False) -> Html:
        """counts: x is one, and no tick stands between two whole numbers."""
        parts = []
        for value in ticks(*self.x, whole=counts):
            across, _ = self.at(value, self.y[0])
            parts.append(_text(across, self.height - _BOTTOM + 14, f"{value:g}", "middle"))
        for value, text in self.rows:
            _, up = self.at(self.x[0], value)
            parts.append(
                Html(f'<line class="grid" x1="{self.left:g}" x2="{self.width - _RIGHT}" y1="{up:.1f}" y2="{up:.1f}"/>')
            )
            parts.append(_text(self.left - 5, up + 4, text, "end"))
        parts.append(_text((self.left + self.width - _RIGHT) / 2, self.height - 6, x_title, "middle"))
        middle = (_TOP + self.height - _BOTTOM) / 2
        turned = f'<text class="axis" text-anchor="middle" transform="translate(11 {middle:.0f}) rotate(-90)">'
        parts.append(Html(f"{turned}{escape(y_title)}</text>"))
        box = f'<svg viewBox="0 0 {self.width} {self.height}" role="img" aria-label="{escape(label)}">'
        return Html(f"{box}{joined(parts)}{joined(marks)}</svg>")


def line_chart(
    lines: Mapping[str, Points], *, title: str, x_title: str, share: bool = False, counts: bool = False
) -> Html:
    """Lines over one axis with a legend where there are several. share: the values lie in [0, 1]. counts: x is one."""
    lines = {name: thinned(points) for name, points in lines.items() if points}
    xs, ys = zip(*(point for points in lines.values() for point in points), strict=True)
    first = 0.0 if counts and min(xs) == max(xs) else min(xs)  # a single epoch stands after none
    axes = _Axes((first, max(xs)), (0.0, 1.0) if share else (min(ys), max(ys)), (360, 230))
    marks = []
    for number, points in enumerate(lines.values()):
        places = [axes.at(*point) for point in points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        marks.append(Html(f'<polyline class="line c{number}" points="{path}"/>'))
        if len(points) <= 60:
            for (x, y), (across, up) in zip(points, places, strict=True):
                tip = f"<title>{x:.4g}: {y:.4g}</title>"
                marks.append(Html(f'<circle class="c{number}" cx="{across:.1f}" cy="{up:.1f}" r="2.5">{tip}</circle>'))
    key = [element("span", element("i", class_=f"c{n}"), name) for n, name in enumerate(lines) if len(lines) > 1]
    last = ", ".join(f"{name} {points[-1][1]:.4g}".strip() for name, points in lines.items())
    label = f"{title} over {x_title}; last: {last}"
    chart = axes.svg(marks, label=label, x_title=x_title, y_title=title, counts=counts)
    return element("figure", chart, element("figcaption", *key, class_="key") if key else "", class_="chart")


def reliability_chart(bins: Sequence[Mapping[str, Any]]) -> Html:
    """Accuracy over confidence, each bin as dark as it is full. bins: of result.json, one or more that hold videos."""
    axes = _Axes((0.0, 1.0), (0.0, 1.0), (360, 300))
    (x0, y0), (x1, y1) = axes.at(0, 0), axes.at(1, 1)
    marks = []
    most = max(found["count"] for found in bins)
    for found in (b for b in bins if b["count"]):
        left, up = axes.at(found["low"], found["accuracy"])
        right, down = axes.at(found["high"], 0)
        tip = f"{found['count']} videos: right {found['accuracy']:.3f}, probability {found['confidence']:.3f}"
        shade = 0.25 + 0.75 * math.sqrt(found["count"] / most)
        marks.append(
            Html(
                f'<rect class="c0" x="{left + 0.5:.1f}" y="{up:.1f}" width="{max(right - left - 1, 1):.1f}" '
                f'height="{max(down - up, 0.5):.1f}" opacity="{shade:.2f}"><title>{tip}</title></rect>'
            )
        )
    marks.append(Html(f'<line class="ideal" x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}"/>'))
    whole = axes.svg(marks, label="reliability", x_title="probability of the answer", y_title="share that is right")
    note = "Darker bars hold more videos; those below the diagonal are overconfident."
    return element("figure", whole, element("figcaption", note), class_="chart")


def confusion_table(confusion: npt.NDArray[Any], names: Sequence[str]) -> Html:
    """A cell per pair of classes with its count, as dark as its share of the row."""
    shares = row_shares(confusion)
    corner = element("th", "true \\ predicted", class_="corner")
    header = [corner, *(element("th", element("span", name), scope="col", class_="turned") for name in names)]
    rows = []
    for row, name in enumerate(names):
        cells = [
            _cell(int(n), float(s), row == k) for k, (n, s) in enumerate(zip(confusion[row], shares[row], strict=True))
        ]
        rows.append(element("tr", element("th", name, scope="row"), *cells))
    whole = element("table", element("thead", element("tr", *header)), element("tbody", *rows), class_="confusion")
    return element("div", whole, class_="scroll", tabindex="0")


def _cell(count: int, share: float, diagonal: bool) -> Html:
    if not count:
        return Html("<td></td>")
    kind = ("d" if diagonal else "e") + (" full" if share > 0.55 else "")
    return Html(f'<td class="{kind}" style="--s:{100 * share:.0f}%" title="{share:.3f} of its row">{count}</td>')


def confusion_pattern(confusion: npt.NDArray[Any], most: int = 500) -> Html:
    """The matrix of many classes as an image: transparent where nothing is, so that it fits a light and a dark page."""
    from PIL import Image

    shares = row_shares(pooled(confusion, most))
    pixels = np.zeros((*shares.shape, 4), dtype=np.uint8)
    pixels[..., :3] = _ACCENT
    pixels[..., 3] = (255 * np.sqrt(shares)).round()  # few are confused in any one cell
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG", optimize=True)
    alt = f"confusion matrix of {len(confusion)} classes: rows true, columns predicted"
    source = data_uri("image/png", out.getvalue())
    image = f'<img class="pattern" src="{source}" alt="{escape(alt)}" width="{len(shares)}" height="{len(shares)}">'
    return element("figure", Html(image), element("figcaption", "down: true class; across: predicted class"))


def data_uri(kind: str, content: bytes) -> str:
    """The file itself as an address. kind: its media type."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def ticks(low: float, high: float, about: int = 5, *, whole: bool = False) -> list[float]:
    """Round numbers in [low, high], 1, 2 or 5 times a power of ten apart. whole: whole ones, where there is one."""
    if whole and math.ceil(low) <= high:
        low, high = math.ceil(low), math.floor(high)
        if high - low < about:
            return [float(number) for number in range(low, high + 1)]
    span = high - low
    power = 10.0 ** math.floor(math.log10(span / about))
    step = next(power * m for m in (1, 2, 5, 10) if span / (power * m) <= about)
    first = math.ceil(low / step - 1e-9)
    return [float(f"{n * step:.12g}") for n in range(first, math.floor(high / step + 1e-9) + 1)]


def _widened(ends: tuple[float, float]) -> tuple[float, float]:
    low, high = ends
    if high - low > 1e-9 * max(abs(low), abs(high), 1e-30):
        return low, high
    room = abs(low) * 0.1 or 1.0
    return low - room, high + room


def _text(x: float, y: float, text: str, anchor: str) -> Html:
    return Html(f'<text class="axis" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>')

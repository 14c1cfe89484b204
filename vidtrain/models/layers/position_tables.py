"""Tables of positions: the fixed sine-cosine one, and learned ones brought to a clip of another size.

In space a table is interpolated bicubically, in time linearly or to the nearest frame (`Table.time`); the rows of
class tokens stay. A table that has the right size already is returned as it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from vidtrain.errors import CheckpointError


@dataclass(frozen=True)
class Table:
    """How a model's learned table of positions is laid out: (..., rows, D) with `tokens` rows and then the grid's."""

    grid: tuple[int, ...]
    """(T, H, W), (H, W) or (T,) positions of this model."""
    tokens: int = 0
    """Rows for class tokens, which come first."""
    time: str = "linear"
    """Interpolation in time: linear or nearest."""


def sincos_table(rows: int, width: int) -> torch.Tensor:
    """(1, rows, width) float32: sin(n / 10000^(2i / width)) in the columns 2i, its cosine in 2i + 1 (Vaswani et al.
    2017), computed in double precision."""
    column = torch.arange(width, dtype=torch.float64, device="cpu")
    angle = torch.arange(rows, dtype=torch.float64, device="cpu")[:, None] / 10000 ** ((column - column % 2) / width)
    return torch.where(column % 2 == 0, angle.sin(), angle.cos()).float()[None]


def wave_table(rows: int, width: int, *, std: float) -> torch.Tensor:
    """(1, rows, width) float32: sines in the even columns, cosines in the odd ones, whose periods rise from 3 rows to
    2 * rows by a constant factor. sincos_table's are made for long texts: over 16 frames most of its columns are flat,
    and neighbours look alike.

    std: root mean square of a pair of columns.
    """
    angle = 2 * math.pi * torch.arange(rows, dtype=torch.float64, device="cpu")[:, None] / _wave_periods(rows, width)
    even = torch.arange(width, device="cpu") % 2 == 0
    return (std * math.sqrt(2) * torch.where(even, angle.sin(), angle.cos())).float()[None]


def wave_shift(rows: int, width: int, steps: int) -> torch.Tensor:
    """(width, width) float32: the matrix that turns each row of wave_table(rows, width) into the one `steps` after it,
    wave_shift @ table[n] = table[n + steps]; the last column of an odd width has no partner and stays."""
    angle = 2 * math.pi * steps / _wave_periods(rows, width)
    matrix = torch.diag(angle.cos())
    sines = torch.arange(0, width - 1, 2, device="cpu")
    matrix[sines, sines + 1], matrix[sines + 1, sines] = angle[sines].sin(), -angle[sines].sin()
    if width % 2:
        matrix[-1, -1] = 1.0
    return matrix.float()


def _wave_periods(rows: int, width: int) -> torch.Tensor:
    """(width,) float64: the period of each column of wave_table, in rows."""
    pair = torch.arange(width, dtype=torch.float64, device="cpu") // 2
    return 3 * (max(2 * rows, 3) / 3) ** (pair / max((width - 1) // 2, 1))


def resize_grid(
    table: torch.Tensor, old: tuple[int, ...], new: tuple[int, ...], *, tokens: int = 0, time: str = "linear"
) -> torch.Tensor:
    """(..., tokens + prod(old), D) -> (..., tokens + prod(new), D). Grids as in Table."""
    if tuple(old) == tuple(new):
        return table
    lead, rows = table[..., :tokens, :], table[..., tokens:, :]
    width = table.shape[-1]
    grid = rows.reshape(*old, width).float()
    if len(old) != 2 and old[0] != new[0]:
        flat = grid.reshape(old[0], -1).t()[None]  # (1, H * W * D, T)
        corners = {"align_corners": False} if time == "linear" else {}
        grid = F.interpolate(flat, size=new[0], mode=time, **corners)[0].t().reshape(new[0], *old[1:], width)
    if len(old) > 1 and old[-2:] != new[-2:]:
        images = grid.reshape(-1, *old[-2:], width).permute(0, 3, 1, 2)
        grid = F.interpolate(images, size=new[-2:], mode="bicubic", align_corners=False).permute(0, 2, 3, 1)
    resized = grid.reshape(*table.shape[:-2], math.prod(new), width).to(table.dtype)
    return torch.cat([lead, resized], dim=-2)


def fit_tables(state: Mapping[str, torch.Tensor], model: nn.Module) -> tuple[dict[str, torch.Tensor], list[str]]:
    """`state`, under the model's own names, with its tables of positions brought to the model's clips, and a sentence
    about each kind of change. A model says by `position_tables() -> dict[str, Table]` which tables it has (others are
    returned as they came) and by `position_note() -> str | None` what else there is to know.

    Raises:
        CheckpointError: a table of images that are no squares.
    """
    fitted, changes = dict(state), dict[tuple[str, str], str]()
    tables: dict[str, Table] = getattr(model, "position_tables", dict)()
    own = dict(model.named_parameters())
    for key, table in tables.items():
        if key not in state or state[key].shape == own[key].shape or state[key].shape[-1] != own[key].shape[-1]:
            continue
        old = _grid(key, state[key].shape[-2] - table.tokens, table)
        fitted[key] = resize_grid(state[key], old, table.grid, tokens=table.tokens, time=table.time)
        how = {2: "bicubic", 1: table.time, 3: f"bicubic in space, {table.time} in time"}[len(old)]
        name = key.rpartition(".")[2]
        changes.setdefault((name, how), f"positions interpolated: {name} from {_by(old)} to {_by(table.grid)} ({how})")
    note = getattr(model, "position_note", lambda: None)()
    return fitted, [*changes.values(), *([note] if note else [])]


def _grid(key: str, rows: int, table: Table) -> tuple[int, ...]:
    """The grid of a table with so many rows."""
    if len(table.grid) == 1:
        return (rows,)
    side = math.isqrt(rows)
    if len(table.grid) == 2:
        if side * side == rows:
            return side, side
        raise CheckpointError(f"{key} has {rows} positions, expected a square of them")
    return likely_grid(rows, table.grid)


def likely_grid(rows: int, model: tuple[int, ...] | None = None) -> tuple[int, int, int]:
    """The (T, S, S) of a table with T * S * S rows, which their number alone does not tell: one near a cube, as all the
    published ones are, and rather one that is as long or as large as the model's."""

    def unlikely(grid: tuple[int, int, int]) -> float:
        shared = model is not None and (grid[0] == model[0] or grid[2] == model[2])
        return abs(math.log(grid[0] / grid[2])) + (0.0 if shared else 0.5)

    sides = [side for side in range(1, math.isqrt(rows) + 1) if rows % side**2 == 0]
    return min(((rows // side**2, side, side) for side in sides), key=unlikely)


def _by(grid: tuple[int, ...]) -> str:
    return " x ".join(map(str, grid))

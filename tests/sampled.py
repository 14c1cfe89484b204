"""Parametrised tests of the same lines with many networks: a few run in `make test`, all of them in `make test-all`."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def sampled(rows: Iterable[Any], kept: Collection[Any]) -> list[Any]:
    """Rows for `pytest.mark.parametrize`: all but those that stand in `kept`, or begin with a name in it, are slow."""
    rows = list(rows)
    named = [row if row in kept or not isinstance(row, tuple) else row[0] for row in rows]
    missing = [name for name in kept if name not in named]
    assert not missing, f"no rows: {missing}"
    return [
        row if name in kept else pytest.param(*(row if isinstance(row, tuple) else (row,)), marks=pytest.mark.slow)
        for row, name in zip(rows, named, strict=True)
    ]

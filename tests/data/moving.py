"""Textured images that move by a known amount, drawn again at each position: no pixel is interpolated. For tests."""

from __future__ import annotations

import numpy as np

from tests.videos import Pictures


def texture(
    shift: tuple[float, float] = (0.0, 0.0),
    height: int = 128,
    width: int = 171,
    *,
    finest: float = 4.0,
    coarsest: float = 48.0,
    seed: int = 0,
) -> Pictures:
    """(height, width, 3) uint8: 80 waves a colour, `finest` to `coarsest` pixels long, moved right and down."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width].astype(float)
    lengths = np.exp(rng.uniform(np.log(finest), np.log(coarsest), (3, 80)))
    angles, phases = rng.uniform(0, 2 * np.pi, (2, 3, 80))
    picture = np.zeros((height, width, 3))
    for colour, wave in np.ndindex(lengths.shape):
        angle, turn = angles[colour, wave], 2 * np.pi / lengths[colour, wave]
        along = (x - shift[0]) * np.cos(angle) + (y - shift[1]) * np.sin(angle)
        picture[..., colour] += np.cos(along * turn + phases[colour, wave])
    return np.clip(128 + picture * 40 / np.sqrt(40), 0, 255).round().astype(np.uint8)


def moving(count: int, step: tuple[float, float], height: int = 48, width: int = 64, seed: int = 0) -> Pictures:
    """(count, height, width, 3) uint8: the texture that moves by `step` pixels from frame to frame."""
    places = [(n * step[0], n * step[1]) for n in range(count)]
    return np.stack([texture(place, height, width, seed=seed, coarsest=24) for place in places])

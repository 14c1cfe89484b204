"""Renders the scenes of the built-in dataset: what a shape looks like, where it is, how it is painted.

See vidtrain.data.motion.motion for the rules that the frames keep to.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Yuv420 = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Floats64 = npt.NDArray[np.float64]

# cycles per frame of the attributes x, y, angle, size: between 1.5 and 3 pixels per frame at 112 x 112
SPEEDS = ((0.013, 0.027), (0.013, 0.027), (0.012, 0.025), (0.03, 0.055))

_SMALLEST = 0.13  # radius of the smallest shape as a share of the frame's side
_GROWTH = 1.8  # of a shape in one cycle; the large copy ends at 0.13 * 1.8**2 = 0.42 of the side
_SPRITE = 256  # side of the table a shape is looked up in: under 0.2 pixel off at 112 x 112
_REACH = 1.15  # the sprite spans [-_REACH, _REACH] in units of the shape's radius
_FAR = 1e6  # from the outline: not painted
_PART = 8  # frames rendered at once
_BT601 = np.array([[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]]) / 255


@dataclass(frozen=True)
class Scene:
    """How a scene looks, all float32. Colours are Y, U, V of BT.601, 0 to 255.

    background: (3, size, size). sprite: (4, _SPRITE**2), the colours of the shape, and the signed distance to
    its outline in units of its radius, negative inside.
    """

    background: Floats
    sprite: Floats


def scene_clips(seed: tuple[int, ...], size: int, num_frames: int) -> Iterator[Yuv420]:
    """Four clips of a scene as `render` gives them: it moves right, moves down, turns clockwise, grows."""
    rng = np.random.default_rng(seed)
    scene = draw_scene(rng, size)
    for moving, speeds in enumerate(SPEEDS):
        phases = np.tile(rng.uniform(size=4), (num_frames, 1))
        phases[:, moving] += rng.uniform(*speeds) * np.arange(num_frames)
        yield render(scene, phases % 1.0)


def render(scene: Scene, phases: Floats64) -> Yuv420:
    """The frames of a scene at `phases`.

    Args:
        phases: float64 (T, 4) in [0, 1): x, y, angle, size.

    Returns:
        uint8 (T, 3 * size / 2, size): yuv420p, the planes one below the other. Painting in the colours of the
        video file saves a third of the time.
    """
    # a few frames at a time: large enough for numpy to run threads side by side, small enough for the cache
    parts = [_render_part(scene, phases[first : first + _PART]) for first in range(0, len(phases), _PART)]
    return np.concatenate(parts)


def _render_part(scene: Scene, phases: Floats64) -> Yuv420:
    size, count = scene.background.shape[-1], len(phases)
    torus = np.tile(scene.background, (1, 2, 2))
    # turn the torus until the shape is in the middle, paint, turn it back
    shifts = np.floor(phases[:, :2] * size).astype(int) - size // 2
    canvas = np.stack([torus[:, y % size :, x % size :][:, :size, :size] for x, y in shifts])
    x, y = (phases[:, :2] * size - shifts).T
    angle, grown = 2 * np.pi * phases[:, 2], phases[:, 3]
    radius = size * _SMALLEST * _GROWTH**grown
    _paint(canvas, scene.sprite, x, y, angle, radius * _GROWTH, _fade(1.0 - grown))
    _paint(canvas, scene.sprite, x, y, angle, radius, _fade(grown))
    canvas += np.float32(0.5)  # the cast to uint8 cuts
    turned = np.stack([np.roll(c, (y, x), axis=(1, 2)) for c, (x, y) in zip(canvas, shifts, strict=True)])
    luma, chroma = turned[:, 0], turned[:, 1:]
    rows = chroma[..., ::2, :] + chroma[..., 1::2, :]
    halves = (rows[..., ::2] + rows[..., 1::2]) / 4
    planes = [luma.reshape(count, size, size), halves.reshape(count, size // 2, size)]
    return np.concatenate(planes, axis=1).astype(np.uint8)


def _fade(phase: Floats64) -> Floats64:
    """0 at phase 0, 1 from phase 0.35 on, smooth between."""
    t = np.minimum(phase / 0.35, 1.0)
    return t * t * (3.0 - 2.0 * t)


def _paint(
    canvas: Floats,
    sprite: Floats,
    x: Floats64,
    y: Floats64,
    angle: Floats64,
    radius: Floats64,
    opacity: Floats64,
) -> None:
    """Lay the shape over the middle of each canvas, with an edge one pixel soft.

    Args:
        canvas: float32 (T, 3, size, size), changed in place.
        sprite: see Scene.
        x, y: float64 (T,) centre in pixels. angle: radians, clockwise. radius: pixels. opacity: 0 to 1.
    """
    middle = canvas.shape[-1] // 2
    reach = min(int(np.ceil(radius.max() * _REACH)) + 1, middle)  # only the square around the shape
    window = slice(middle - reach, middle + reach)
    pixels = np.arange(window.start, window.stop) + 0.5
    texels = (_SPRITE / (2 * _REACH) / radius)[:, None]
    dx, dy = (pixels - x[:, None]) * texels, (pixels - y[:, None]) * texels
    c, s = np.cos(angle)[:, None], np.sin(angle)[:, None]
    u = np.float32(c * dx + _SPRITE / 2)[:, None, :] + np.float32(s * dy)[:, :, None]
    v = np.float32(-s * dx + _SPRITE / 2)[:, None, :] + np.float32(c * dy)[:, :, None]
    np.clip(u, 0, _SPRITE - 1, out=u)
    np.clip(v, 0, _SPRITE - 1, out=v)
    index = v.astype(np.int32) * _SPRITE + u.astype(np.int32)
    sharpness, strength = np.float32(radius)[:, None, None], np.float32(opacity)[:, None, None]
    alpha = np.clip(np.float32(0.5) - sharpness * sprite[3].take(index), 0, 1) * strength
    for plane in range(3):
        under = canvas[:, plane, window, window]
        under += alpha * (sprite[plane].take(index) - under)


def draw_scene(rng: np.random.Generator, size: int) -> Scene:
    """Random colours, textures and outline."""
    colours = _colours(rng)
    pattern = _texture(rng, (np.arange(size) + 0.5) / size, 2.0, 5.0)
    background = colours[0] + pattern * (colours[1] - colours[0])

    axis = np.linspace(-_REACH, _REACH, _SPRITE)
    distance = _distance_to_outline(rng, axis)
    # nothing is painted outside this disc, so the size of the window that _paint works in leaves no trace
    distance[np.hypot(axis[None, :], axis[:, None]) > _REACH - 0.02] = _FAR
    inside = colours[2] + _texture(rng, axis, 0.5, 1.4) * (colours[3] - colours[2])
    rim = np.clip((distance + 0.16) / 0.03, 0, 1)
    coloured = inside + rim * (colours[4] - inside)
    sprite = np.concatenate([coloured, distance[None]]).reshape(4, -1)
    return Scene(np.float32(background), np.float32(sprite))


def _colours(rng: np.random.Generator) -> Floats64:
    """(5, 3, 1, 1) YUV: two of the background, two of the shape, one of its rim, which is brighter than the rest.

    With dark rims in half of the scenes, small nets took four times as long to learn to turn and to grow.
    """
    rgb = rng.uniform(30, 225, size=(5, 3))
    rgb[:2] *= 0.5
    rgb[2:4] += np.array([[60.0], [-60.0]])
    rgb[4] = rng.uniform(200, 245, 3)
    rgb = np.clip(rgb, 8, 247)[:, None, :]
    return ((rgb * _BT601).sum(axis=-1) + np.array([16.0, 128.0, 128.0]))[..., None, None]


def _texture(rng: np.random.Generator, axis: Floats64, lowest: float, highest: float) -> Floats64:
    """A smooth pattern in 0..1 on the grid axis x axis: waves of `lowest` to `highest` cycles a unit."""
    turns, shifts = rng.uniform(0, 2 * np.pi, size=(2, 8, 1))
    waves = 2 * np.pi * rng.uniform(lowest, highest, size=(8, 1))
    across = waves * np.cos(turns) * axis
    down = waves * np.sin(turns) * axis + shifts
    # cos(down + across) summed over the waves; einsum, since a BLAS starts threads and differs between machines
    total = np.einsum("ky,kx->yx", np.cos(down), np.cos(across))
    total -= np.einsum("ky,kx->yx", np.sin(down), np.sin(across))
    return 0.5 + 0.5 * np.tanh(total)


def _distance_to_outline(rng: np.random.Generator, axis: Floats64) -> Floats64:
    """Signed distance, to first order, on the grid axis x axis to a closed curve within the unit circle.

    The curve is 1 plus five harmonics in polar coordinates; the first makes it lopsided, so no turn but a
    full one maps it on itself.
    """
    strengths = rng.uniform(0.5, 1.0, size=5) * np.array([0.18, 0.2, 0.16, 0.1, 0.06])
    shifts = rng.uniform(0, 2 * np.pi, size=5)
    orders = np.arange(1, 6)
    waves = np.linspace(0, 2 * np.pi, 721)[:, None] * orders + shifts
    radii = 1 + (np.cos(waves) * strengths).sum(axis=1)
    slopes = (-np.sin(waves) * orders * strengths).sum(axis=1)
    rho = np.hypot(axis[None, :], axis[:, None])
    around = np.arctan2(axis[:, None], axis[None, :]) % (2 * np.pi) * (720 / (2 * np.pi))
    nearest = np.rint(around).astype(np.int32)
    radius, slope = (values.take(nearest) / radii.max() for values in (radii, slopes))
    return (rho - radius) / np.sqrt(1 + (slope / np.maximum(rho, 0.2)) ** 2)

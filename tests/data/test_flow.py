"""Flow as 8-bit codes: encoding, mirroring, cutting together with RGB."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from vidtrain.data.clips.crop import Crop, cut_flow
from vidtrain.data.flow.codes import LIMIT, STILL, decode, encode, mirror


def random_codes(frames: int = 2, height: int = 20, width: int = 30) -> np.ndarray:
    return np.random.default_rng(0).integers(1, 256, (frames, height, width, 2), dtype=np.uint8)


def test_codes_keep_flow_to_half_a_step_and_clip_at_the_limit() -> None:
    flow = np.random.default_rng(0).uniform(-25, 25, (50, 40, 2)).astype(np.float32)
    codes = encode(flow)
    assert codes.min() == 1
    assert codes.max() == 255
    assert np.abs(decode(codes) - flow.clip(-LIMIT, LIMIT)).max() <= LIMIT / 127 / 2 + 1e-5
    assert np.array_equal(encode(decode(codes)), codes)
    odd = np.array([0.0, -0.0, np.nan, np.inf, -np.inf, 20.0, -20.0], np.float32)
    assert encode(odd).tolist() == [STILL, STILL, STILL, 255, 1, 255, 1]


def test_the_codes_of_minus_u_are_256_less_those_of_u() -> None:
    flow = np.random.default_rng(1).uniform(-30, 30, (3, 8, 9, 2)).astype(np.float32)
    negated = flow[:, :, ::-1] * np.array([-1, 1], np.float32)
    assert np.array_equal(mirror(encode(flow)), encode(negated))
    assert np.array_equal(mirror(mirror(encode(flow))), encode(flow))


def test_a_cut_at_the_same_size_copies_the_codes() -> None:
    codes = random_codes()
    cut = Crop((20, 30), 3, 5, 12)
    assert np.array_equal(cut_flow(codes, cut), codes[:, 3:15, 5:17])
    flipped = cut_flow(codes, Crop((20, 30), 3, 5, 12, flip=True))
    assert np.array_equal(flipped, mirror(codes[:, 3:15, 5:17]))
    assert flipped.flags.c_contiguous


@pytest.mark.parametrize(
    "cut", [Crop((40, 60), 7, 11, 24), Crop((10, 15), 1, 2, 8), Crop((20, 30), 2, 3, 16, False, (9, 14))]
)
def test_flow_is_scaled_as_pillow_scales_pictures_and_its_values_with_it(cut: Crop) -> None:
    """Pillow's bilinear filter, box and all, is an independent one of the same definition."""
    flow = np.random.default_rng(2).uniform(-4, 4, (1, 20, 30, 2)).astype(np.float32)
    region = cut.region or (cut.size, cut.size)
    down, across = 20 / cut.read_size[0], 30 / cut.read_size[1]
    box = (cut.left * across, cut.top * down, (cut.left + region[1]) * across, (cut.top + region[0]) * down)
    planes = []
    for channel, ratio in ((0, cut.size / (box[2] - box[0])), (1, cut.size / (box[3] - box[1]))):
        plane = Image.fromarray(decode(encode(flow))[0, ..., channel])
        planes.append(np.asarray(plane.resize((cut.size, cut.size), Image.Resampling.BILINEAR, box=box)) * ratio)
    found = decode(cut_flow(encode(flow), cut))[0]
    inner = (slice(3, -3), slice(3, -3))  # at the border of the box Pillow does not look outside
    assert np.abs(found - np.stack(planes, -1))[inner].max() < 0.6 * LIMIT / 127 + 1e-3


def test_a_constant_motion_stays_constant_and_grows_with_the_picture() -> None:
    codes = encode(np.full((1, 20, 30, 2), (2.0, -3.0), np.float32))
    twice = decode(cut_flow(codes, Crop((40, 90), 3, 4, 30)))
    assert np.abs(twice - (6.0, -6.0)).max() < 0.25  # 30 -> 90 pixels wide, 20 -> 40 high, and a step of 0.16 before
    assert np.ptp(twice.reshape(-1, 2), axis=0).max() == 0

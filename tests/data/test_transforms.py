"""Where clips are cut: inside the frame, of the right size, as the options say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms.v2.functional import resize

from vidtrain.data.clips.crop import Crop
from vidtrain.data.clips.transforms import CROPS, EvalCrops, TrainCrop
from vidtrain.data.settings import CropName, TransformConfig
from vidtrain.errors import ConfigError
from vidtrain.types import VideoInfo

sides = st.integers(1, 500)


def train_crop(size: int, resize: int | str, resize_max: int | None = None, **options: Any) -> TrainCrop:
    """With an area, of random area and aspect."""
    crop = CropName.resized if "area" in options else CropName.random
    return TrainCrop(TransformConfig(size=size, resize=resize, resize_max=resize_max, crop=crop, **options))


def cuts_of(size: int, resize: int | str, crops: int = 1) -> EvalCrops:
    return EvalCrops(TransformConfig(size=size, resize=resize), crops)


def info(height: int, width: int) -> VideoInfo:
    return VideoInfo(10, 25.0, height, width)


@given(sides, sides, st.integers(1, 120), st.floats(0.01, 1), st.integers(0, 10_000))
def test_a_resized_crop_lies_inside_the_frame(height: int, width: int, size: int, least: float, seed: int) -> None:
    cut = train_crop(size, size, area=[least, 1.0]).draw(info(height, width), np.random.default_rng(seed))
    region = cut.region or (size, size)
    for top, length, whole in zip((cut.top, cut.left), region, cut.read_size, strict=True):
        assert top >= 0
        assert top + length <= whole
    frames = np.zeros((2, *cut.read_size, 3), np.uint8)
    assert cut.apply(frames).shape == (2, size, size, 3)
    if cut.region is None:  # scaled down while it is read, never up
        assert cut.read_size[0] <= max(height, size)
        assert cut.read_size[1] <= max(width, size)


def test_a_resized_crop_has_the_area_and_the_aspect_asked_for() -> None:
    rng, video = np.random.default_rng(0), info(400, 600)
    cut = train_crop(8, 8, area=[0.2, 0.5], aspect=[0.5, 2.0])
    areas, ratios = [], []
    for _ in range(500):
        found = cut.draw(video, rng)
        height, width = (8 * whole / read for whole, read in zip((400, 600), found.read_size, strict=True))
        areas.append(height * width / (400 * 600))
        ratios.append(width / height)
    assert 0.17 < min(areas) < 0.23
    assert 0.45 < max(areas) < 0.56
    assert min(ratios) < 0.65
    assert 1.55 < max(ratios) < 2.3


@pytest.mark.parametrize("squash", [False, True])
def test_a_training_crop_lies_anywhere_and_flips_as_often_as_asked(squash: bool) -> None:
    """Frames of 40 x 60 at a short side of 20 to 22: every place of a crop of 16, in both directions, by itself."""
    rng, draw = np.random.default_rng(0), train_crop(16, 20, 22, flip=0.25, squash=squash)
    cuts = [draw.draw(info(40, 60), rng) for _ in range(3000)]
    for short in (20, 21, 22):
        own = [cut for cut in cuts if min(cut.read_size) == short]
        assert 850 < len(own) < 1150
        (height, width), *others = {cut.read_size for cut in own}
        assert not others
        for places, room in (([c.top for c in own], height - 16), ([c.left for c in own], width - 16)):
            assert set(places) == set(range(room + 1))
            assert np.mean(places) == pytest.approx(room / 2, rel=0.1)
        assert abs(np.corrcoef([c.top for c in own], [c.left for c in own])[0, 1]) < 0.12
    assert np.mean([cut.flip for cut in cuts]) == pytest.approx(0.25, abs=0.03)


def test_a_resized_crop_lies_anywhere() -> None:
    rng, draw = np.random.default_rng(0), train_crop(8, 8, area=[0.1, 0.1], aspect=[1.0, 1.0])
    cuts = [draw.draw(info(80, 120), rng) for _ in range(500)]
    for places, room in (([c.top for c in cuts], 21 - 8), ([c.left for c in cuts], 31 - 8)):
        assert min(places) == 0
        assert room - 1 <= max(places) <= room
        assert np.mean(places) == pytest.approx(room / 2, rel=0.15)


def test_both_ways_of_scaling_a_region_show_the_same_picture() -> None:
    """A ramp from left to right: the crop's ends are where the region's ends were."""
    ramp = np.tile(np.linspace(0, 250, 100).astype(np.uint8)[None, None, :, None], (1, 60, 1, 3))
    cut = Crop((60, 100), top=10, left=20, size=48, region=(30, 40))
    out = cut.apply(ramp)
    assert out.shape == (1, 48, 48, 3)
    assert abs(int(out[0, 0, 0, 0]) - int(ramp[0, 0, 20, 0])) <= 3
    assert abs(int(out[0, 0, -1, 0]) - int(ramp[0, 0, 59, 0])) <= 3
    flipped = Crop((60, 100), 10, 20, 48, flip=True, region=(30, 40)).apply(ramp)
    assert np.array_equal(flipped, out[:, :, ::-1])


@pytest.mark.parametrize("region", [(30, 40), (48, 31), (60, 100)])
def test_a_region_is_scaled_as_torchvision_does(region: tuple[int, int]) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, 60, 100, 3), dtype=np.uint8)
    images = torch.from_numpy(frames[:, : region[0], : region[1]].copy()).permute(0, 3, 1, 2)
    wanted = resize(images, [48, 48], antialias=True).permute(0, 2, 3, 1).numpy()
    assert np.array_equal(Crop((60, 100), 0, 0, 48, region=region).apply(frames), wanted)


@pytest.mark.parametrize("crops", CROPS)
@pytest.mark.parametrize("shape", [(40, 60), (60, 40), (32, 32)])
def test_test_crops_are_in_the_frame_and_share_one_read_size(crops: int, shape: tuple[int, int]) -> None:
    cuts = cuts_of(24, 32, crops).all(info(*shape))
    assert len(cuts) == crops
    assert len({cut.read_size for cut in cuts}) == 1
    frames = np.random.default_rng(0).integers(0, 256, (1, *cuts[0].read_size, 3), dtype=np.uint8)
    pictures = [cut.apply(frames) for cut in cuts]
    assert all(p.shape == (1, 24, 24, 3) for p in pictures)
    down, right = (side - 24 for side in cuts[0].read_size)
    centre = (down // 2, right // 2)
    long = [(0, centre[1]), (down, centre[1])] if shape[0] > shape[1] else [(centre[0], 0), (centre[0], right)]
    places = [(cut.top, cut.left) for cut in cuts]
    assert places[1 if crops == 3 else 0] == centre
    if crops == 3:
        assert places == [long[0], centre, long[1]]
    if crops >= 5:
        height, width = cuts[0].read_size
        assert np.array_equal(pictures[1], frames[:, :24, :24])
        assert np.array_equal(pictures[4], frames[:, height - 24 :, width - 24 :])
    if crops == 10:
        for plain, mirrored in zip(pictures[:5], pictures[5:], strict=True):
            assert np.array_equal(plain[:, :, ::-1], mirrored)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"area": [0.5, 0.2]}, "transform.area"),
        ({"area": [0.0, 1.0]}, "transform.area"),
        ({"aspect": [2.0, 1.0]}, "transform.aspect"),
        ({"flip": 1.5}, "transform.flip=1.5"),
    ],
)
def test_options_out_of_range(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        train_crop(8, 8, **options)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"eval\.crops=4: allowed are 1"):
        cuts_of(8, 8, 4)


@pytest.mark.parametrize("video", [info(240, 320), info(320, 240), info(128, 171)])
def test_an_exact_size_is_taken_whatever_the_aspect(video: VideoInfo) -> None:
    """torchvision's way: frames of 128 x 171, the centre 112 x 112 of them."""
    (centre,) = cuts_of(112, "128x171").all(video)
    assert (centre.read_size, centre.top, centre.left) == ((128, 171), 8, 29)
    drawn = train_crop(112, "128x171").draw(video, np.random.default_rng(0))
    assert drawn.read_size == (128, 171)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: cuts_of(112, "100x171"), r"transform\.resize=100x171 is less than transform\.size=112"),
        (
            lambda: cuts_of(112, "128 x 171"),
            r"transform\.resize=128 x 171: expected a short side such as 128, or HEIGHTxW",
        ),
        (lambda: cuts_of(112, "0x171"), "expected a short side"),
        (lambda: train_crop(112, "128x171", 160), r"transform\.resize_max goes with a short side"),
    ],
)
def test_sizes_that_cannot_be(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()

"""What changes the pixels of a clip: reproducible, alike in all frames, nothing when switched off."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from vidtrain.data.clips.augment import Augment
from vidtrain.data.settings import TransformConfig
from vidtrain.errors import ConfigError
from vidtrain.types import Frames


def augment(**options: Any) -> Augment:
    return Augment(TransformConfig(**options))


EACH = {
    "colours": augment(colour=0.5),
    "hue": augment(hue=0.5),
    "grey": augment(grayscale=1.0),
    "rand_augment": augment(policy="rand_augment", magnitude=20),
    "trivial_augment": augment(policy="trivial_augment"),
    "erasing": augment(erasing=1.0),
}


def still(frames: int = 6) -> Frames:
    """A clip in which nothing moves: whatever treats its frames alike keeps it still."""
    picture = np.random.default_rng(0).integers(0, 256, (1, 24, 20, 3), dtype=np.uint8)
    return np.repeat(picture, frames, axis=0)


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("name", EACH)
def test_all_frames_are_changed_alike_and_reproducibly(name: str) -> None:
    augment, clip = EACH[name], still()
    changed = [augment.apply(clip, rng(seed)) for seed in range(8)]
    for seed, one in enumerate(changed):
        assert one.shape == clip.shape
        assert one.dtype == np.uint8
        assert (one == one[:1]).all()
        assert np.array_equal(one, augment.apply(clip, rng(seed)))
    assert any(not np.array_equal(one, clip) for one in changed)
    if name != "grey":
        assert len({one.tobytes() for one in changed}) > 1
    assert np.array_equal(clip, still())  # the input is left as it was


def test_colours_are_drawn_around_those_that_are_there() -> None:
    flat = np.full((1, 4, 4, 3), 100, np.uint8)
    levels = [augment(colour=0.5).apply(flat, rng(seed))[0, 0, 0, 0] for seed in range(300)]
    assert 48 <= min(levels) < 60
    assert 140 < max(levels) <= 150
    assert 0.4 < np.mean(np.array(levels) < 100) < 0.6


def test_as_many_clips_are_grey_as_asked() -> None:
    changed = [augment(grayscale=0.2).apply(still(1), rng(seed)) for seed in range(300)]
    assert 0.14 < np.mean([np.ptp(one, axis=-1).max() == 0 for one in changed]) < 0.26


@pytest.mark.parametrize("name", EACH)
def test_the_generator_of_torch_is_left_alone(name: str) -> None:
    """Dropout must not depend on what a loader without workers augments."""
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    EACH[name].apply(still(), rng(0))
    assert torch.equal(torch.rand(3), expected)


def test_switched_off_it_returns_the_clip_and_draws_nothing() -> None:
    clip, draws = still(), rng(3)
    assert augment().apply(clip, draws) is clip
    assert draws.random() == rng(3).random()


def test_grey_clips_have_no_colour() -> None:
    grey = EACH["grey"].apply(still(), rng(0)).astype(int)
    assert np.ptp(grey, axis=3).max() <= 1


def test_hue_keeps_grey_pixels() -> None:
    clip = np.repeat(still()[..., :1], 3, axis=3)
    assert np.abs(EACH["hue"].apply(clip, rng(0)).astype(int) - clip).max() <= 1


def test_erasing_takes_2_to_33_percent() -> None:
    clip = still()
    for seed in range(20):
        changed = (EACH["erasing"].apply(clip, rng(seed)) != clip).any(-1).mean()
        assert 0.01 < changed < 0.36


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: augment(colour=3), "transform.colour=3: must be at least 0 and at most 1"),
        (lambda: augment(hue=0.6), "transform.hue=0.6: must be at least 0 and at most 0.5"),
        (lambda: augment(erasing=2), "transform.erasing=2: must be at least 0 and at most 1"),
        (lambda: augment(magnitude=31), "transform.magnitude=31: must be at least 0 and at most 30"),
        (lambda: augment(num_ops=0), "transform.num_ops=0: must be at least 1"),
    ],
)
def test_options_out_of_range(make, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError, match=message):
        make()

"""What config.json and preprocessor_config.json of the Hugging Face hub say of a video transformer: the options that
no tensor shows, and the clips that it expects."""

from __future__ import annotations

from typing import Any

from vidtrain.errors import CheckpointError
from vidtrain.models.weights.expected_clips import Colours, Expects
from vidtrain.models.weights.metadata import Beside, Said

_ACTS = {
    "gelu": ("timesformer", "videomae", "vjepa2"),
    "gelu_fast": ("vivit",),
    "gelu_new": ("vivit",),
    "gelu_pytorch_tanh": ("vivit",),
}
"""hidden_act -> models whose MLPs have it; the last three are the same approximation."""

_LARGEST_CLIP = 1 << 26  # frames x side x side, of whose patches tables are made; published: 19 million


def stated(said: Said, name: str) -> tuple[dict[str, Any], Expects]:
    """Options of the model `name` and clips, of what stands beside the tensors.

    Raises:
        CheckpointError: a value of another type, or a net that this model is not.
    """
    nothing = Beside("config.json", {})
    config = said.get("config.json", nothing)
    images = said.get("video_preprocessor_config.json", said.get("preprocessor_config.json", nothing))
    act, heads = config.text("hidden_act"), config.whole("num_attention_heads")
    if act is not None and not name.startswith(_ACTS.get(act, ())):
        raise CheckpointError(f"{config.name}: hidden_act={act}: {name} has another function in its MLPs")
    options: dict[str, Any] = {"heads": heads}
    side = config.whole("crop_size") if name.startswith("vjepa2") else _side(config)
    frames = config.whole("frames_per_clip" if name.startswith("vjepa2") else "num_frames")
    if (frames or 1) * (side or 1) ** 2 > _LARGEST_CLIP:
        raise CheckpointError(
            f"{config.name}: {frames} frames of {side} x {side}: expected {_LARGEST_CLIP} pixels at most"
        )
    if name.startswith("vjepa2"):
        options |= {"probe_heads": heads}
    else:
        options |= {"norm_eps": config.number("layer_norm_eps"), "num_frames": frames, "size": side}
    clips = Expects(size=side, num_frames=frames) | _preprocessing(images)
    return {key: value for key, value in options.items() if value is not None}, clips


def _preprocessing(images: Beside) -> Expects:
    """The pipeline of a processor: scale the frame, cut the centre, bytes to a range, normalise."""
    size = _size(images, "size") if images.switch("do_resize", True) else None
    crop = _size(images, "crop_size") if images.switch("do_center_crop", True) else None
    if crop is None and isinstance(size, str) and len(set(size.split("x"))) == 1:
        crop = int(size.split("x")[0])
    mean, std = _colours(images)
    return Expects(mean=mean, std=std, size=crop if isinstance(crop, int) else None, resize=size)


def _size(images: Beside, key: str) -> int | str | None:
    """{"shortest_edge": 256} -> 256; {"height": 224, "width": 224} -> 224 of a crop, "224x224" of a frame; 224."""
    if not isinstance(images.values.get(key), dict):
        return images.whole(key)
    box = images.inner(key)
    if (short := box.whole("shortest_edge")) is not None:
        return short
    height, width = box.whole("height"), box.whole("width")
    if height is None or width is None:
        return None
    if key == "size":
        return f"{height}x{width}"
    if height != width:
        raise CheckpointError(f"{images.name}: {key}: {height} x {width}, expected a square")
    return height


def _side(config: Beside) -> int | None:
    """Of image_size: 224, or [224, 224]."""
    value = config.values.get("image_size")
    if isinstance(value, list) and len(value) == 2 and value[0] == value[1]:
        return Beside(config.name, {"image_size": value[0]}).whole("image_size")
    return config.whole("image_size")


def _colours(images: Beside) -> tuple[Colours | None, Colours | None]:
    """Mean and std for RGB in [0, 1] of: bytes times rescale_factor, less one with `offset`, then (x - mean) / std."""
    mean, std = images.numbers("image_mean"), images.numbers("image_std")
    factor = images.number("rescale_factor")
    if not images.values or (mean is None and factor is None):
        return None, None
    normalised = images.switch("do_normalize", True)
    scaled = images.switch("do_rescale", True)
    low = mean if normalised and mean is not None else (0.0, 0.0, 0.0)
    wide = std if normalised and std is not None else (1.0, 1.0, 1.0)
    span = 255 * (1 / 255 if factor is None else factor) if scaled else 255.0
    offset = 1.0 if scaled and images.switch("offset", False) else 0.0
    if not span > 0 or not min(wide) > 0:
        raise CheckpointError(f"{images.name}: image_std and rescale_factor: expected numbers above 0")
    return _three((value + offset) / span for value in low), _three(value / span for value in wide)


def _three(values: Any) -> Colours:
    first, second, third = (round(value, 6) for value in values)
    return first, second, third

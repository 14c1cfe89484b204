"""Classify a video with a file of `vidtrain export`: python run_onnx.py clip.mp4 [model.onnx]

Frames, scale, crops, average and calibration are those of `vidtrain predict`, for sound files of an even frame rate."""

import json
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import onnxruntime


def clips_of(seconds: list[float], how: dict[str, Any], count: int) -> Any:
    """Frame numbers (count, T) of a video whose frames are shown at these seconds."""
    total, grid = len(seconds), np.arange(how["num_frames"])
    if how["mode"] == "segments":  # frames from the middles of T equal parts
        parts, edges = len(grid) * count, np.arange(len(grid) + 1) * total // len(grid)
        middles = (2 * (grid * count + np.arange(count)[:, None]) + 1) * total // (2 * parts)
        return np.clip(middles, edges[:-1], np.maximum(edges[1:] - 1, edges[:-1]))
    rate = (total - 1) / (seconds[-1] - seconds[0]) if total > 1 else 1.0
    step = rate / how["fps"] if how["fps"] else how["window"] / len(grid) if how["window"] else how["stride"]
    offsets = np.floor(grid * step + 0.5).astype(int)
    room = max(0, total - 1 - offsets[-1])  # for starts, evenly spread and symmetrical
    exact = np.arange(count) * room / (count - 1) if count > 1 else np.array([room / 2])
    starts = np.where(exact < room / 2, np.floor(exact + 0.5), np.ceil(exact - 0.5)).astype(int)
    found = starts[:, None] + offsets
    return found % total if how["short"] == "loop" else np.minimum(found, total - 1)


def crops_of(frame: Any, how: dict[str, Any], count: int) -> Any:
    """uint8 (count, size, size, 3) of a frame that is turned upright and scaled."""
    turn, scale, size = round(frame.rotation / 90) % 4, how["resize"], how["size"]
    shown = (frame.width, frame.height) if turn % 2 else (frame.height, frame.width)
    if isinstance(scale, str):
        high, wide = map(int, scale.split("x"))
    else:
        high, wide = (scale if how["squash"] else max(scale, round(n * scale / min(shown))) for n in shown)
    packing = "rgb24" if (high, wide) == shown else "gbrp"  # in planes FFmpeg scales as vidtrain does
    width, height = (high, wide) if turn % 2 else (wide, high)
    rgb = frame.reformat(width=width, height=height, format=packing, interpolation="BILINEAR").to_ndarray()
    down, right = high - size, wide - size
    corners = [(down // 2, right // 2), (0, 0), (0, right), (down, 0), (down, right)][: 1 if count == 1 else 5]
    if count == 3:  # along the longer side
        corners = [(down * n // 2, right // 2) if down > right else (down // 2, right * n // 2) for n in range(3)]
    cut = np.stack([np.rot90(rgb, turn)[y : y + size, x : x + size] for y, x in corners])
    return np.concatenate([cut, cut[:, :, ::-1]]) if count == 10 else cut


def probabilities(video: str, session: Any, about: dict[str, Any]) -> Any:
    """Of the classes of a video, (K,)."""
    sampler, how, views = (about["config"][name] for name in ("sampler", "transform", "eval"))
    with av.open(video) as source:
        clips = clips_of([float(frame.time) for frame in source.decode(video=0)], sampler, views["clips"])
    with av.open(video) as source:
        frames = enumerate(source.decode(video=0))
        kept = {n: crops_of(frame, how, views["crops"]) for n, frame in frames if n in clips}
    asked = [session.run(["logits", "probs"], {"rgb": np.stack([kept[n] for n in clip], 1)}) for clip in clips]
    logits, probs = (np.concatenate(found).astype(float) for found in zip(*asked, strict=True))
    if views["average"] != "logits":
        return calibrated(probs.mean(0), about)
    mean = logits.mean(0)
    powers = np.exp(mean - mean.max())
    return calibrated(1 / (1 + np.exp(-mean)) if about["multi_label"] else powers / powers.sum(), about)


def calibrated(probs: Any, about: dict[str, Any]) -> Any:
    """(K,) at the temperature of the calibration; those of 0 and 1 are taken for float32's nearest ones."""
    temperature, ends = (about["calibration"] or {}).get("temperature"), np.finfo(np.float32)
    if temperature is None:
        return probs
    probs = probs.astype(float).clip(ends.tiny, 1 - ends.eps / 2 if about["multi_label"] else 1)
    if about["multi_label"]:
        return 1 / (1 + (1 / probs - 1) ** (1 / temperature))
    powers = probs ** (1 / temperature)
    return powers / powers.sum()


def printable(name: str) -> str:
    """A class name without what steers a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in name)


if __name__ == "__main__":
    network = onnxruntime.InferenceSession(sys.argv[2] if len(sys.argv) > 2 else Path(__file__).with_name("model.onnx"))
    contract = json.loads(network.get_modelmeta().custom_metadata_map["vidtrain"])
    found = probabilities(sys.argv[1], network, contract)
    for number in found.argsort()[::-1][:5]:
        print(f"{found[number]:.6f}  {printable(contract['class_names'][number])}")

"""Classify a video with a file of `vidtrain export`: python run_onnx.py clip.mp4 [model.onnx]

Requires numpy, av and onnxruntime, not PyTorch. Frames, scale, crops, average and calibration are those of `vidtrain
predict` and stand in the file. For sound files of an even frame rate; vidtrain itself also notices damaged ones.
"""

import json
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import onnxruntime


def clips_of(seconds: list[float], how: dict[str, Any], count: int) -> Any:
    """Frame numbers (count, T). seconds: at which the frames of the video are shown."""
    total, frames = len(seconds), how["num_frames"]
    if how["mode"] == "segments":
        edges = np.arange(frames + 1) * total // frames
        middles = ((2 * (np.arange(frames) * count + np.arange(count)[:, None]) + 1) * total) // (2 * frames * count)
        return np.clip(middles, edges[:-1], np.maximum(edges[1:] - 1, edges[:-1]))
    rate = (total - 1) / (seconds[-1] - seconds[0]) if total > 1 else 1.0
    step = rate / how["fps"] if how["fps"] else how["window"] / frames if how["window"] else how["stride"]
    offsets = np.floor(np.arange(frames) * step + 0.5).astype(int)
    room = max(0, total - 1 - int(offsets[-1]))
    starts = (2 * np.arange(count) * room + count - 1) // max(1, 2 * (count - 1))
    starts[count - count // 2 :] = room - starts[: count // 2][::-1]
    if count % 2:
        starts[count // 2] = room // 2
    found = starts[:, None] + offsets
    return found % total if how["short"] == "loop" else np.minimum(found, total - 1)


def scaled(frame: Any, how: dict[str, Any]) -> Any:
    """uint8 (height, width, 3) as shown, its short side or its size as asked for."""
    turn, size = round(frame.rotation / 90) % 4, how["resize"]
    height, width = (frame.width, frame.height) if turn % 2 else (frame.height, frame.width)
    if isinstance(size, str) or how["squash"]:
        height, width = map(int, size.split("x")) if isinstance(size, str) else (size, size)
    else:
        height, width = (max(size, round(side * size / min(height, width))) for side in (height, width))
    stored = (width, height) if turn % 2 else (height, width)
    packing = "rgb24" if stored == (frame.height, frame.width) else "gbrp"
    rgb = frame.reformat(width=stored[1], height=stored[0], format=packing, interpolation="BILINEAR")
    return np.rot90(rgb.to_ndarray(), turn)


def crops(clip: Any, size: int, count: int) -> Any:
    """uint8 (T, height, width, 3) -> (count, T, size, size, 3)."""
    down, right = clip.shape[1] - size, clip.shape[2] - size
    places = [(down // 2, right // 2)]
    if count == 3:
        places = [(down // 2 * (down <= right), right // 2 * (down > right)), *places]
        places.append((down, right // 2) if down > right else (down // 2, right))
    elif count > 1:
        places += [(0, 0), (0, right), (down, 0), (down, right)]
    cut = np.stack([clip[:, y : y + size, x : x + size] for y, x in places])
    return np.concatenate([cut, cut[:, :, :, ::-1]]) if count == 10 else cut


def probs_of(logits: Any, several: bool) -> Any:
    if several:
        return 1 / (1 + np.exp(-logits))
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def probabilities(video: str, session: Any, about: dict[str, Any]) -> Any:
    """Of the classes of a video, (K,)."""
    how, views, several = about["config"]["transform"], about["config"]["eval"], about["multi_label"]
    if views["protocol"] != "vidtrain" or views["hop"] is not None or views["max_views"] or "flow" in about["inputs"]:
        sys.exit("frames by another protocol, sliding clips, max_views and optical flow: use vidtrain predict")
    with av.open(video) as source:
        seconds = [float(frame.time) for frame in source.decode(video=0)]
    wanted = clips_of(seconds, about["config"]["sampler"], views["clips"])
    needed = set(wanted.flat)
    with av.open(video) as source:
        kept = {n: scaled(frame, how) for n, frame in enumerate(source.decode(video=0)) if n in needed}
    clips = (crops(np.stack([kept[n] for n in clip]), how["size"], views["crops"]) for clip in wanted)
    logits = np.concatenate([session.run(["logits"], {"rgb": clip})[0] for clip in clips]).astype(float)
    averaged = views["average"] == "logits"
    probs = probs_of(logits.mean(0), several) if averaged else probs_of(logits, several).mean(0)
    temperature = (about["calibration"] or {}).get("temperature")
    if temperature is None:
        return probs
    return probs_of((np.log(probs) - np.log1p(-probs) * several) / temperature, several)


if __name__ == "__main__":
    file = sys.argv[2] if len(sys.argv) > 2 else Path(__file__).with_name("model.onnx")
    network = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    contract = json.loads(network.get_modelmeta().custom_metadata_map["vidtrain"])
    found = probabilities(sys.argv[1], network, contract)
    for number in found.argsort()[::-1][:5]:
        print(f"{found[number]:.6f}  {contract['class_names'][number]}")

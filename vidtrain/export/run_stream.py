"""Watch a stream with a file of `vidtrain export stream=true`: python run_stream.py rtsp://camera [model.onnx]

Requires numpy, av and onnxruntime. Takes what FFmpeg opens; frames, scale and crop are those of `vidtrain predict`.
A state lives for two clips, a new one begins every clip, the older of the two answers: live.state=renewed. For one that
goes on without end leave out the lines that begin others and end it.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import onnxruntime


def image_of(frame: Any, how: dict[str, Any]) -> Any:
    """uint8 (size, size, 3): the centre of a frame that is turned upright and scaled."""
    turn, scale, size = round(frame.rotation / 90) % 4, how["resize"], how["size"]
    shown = (frame.width, frame.height) if turn % 2 else (frame.height, frame.width)
    if isinstance(scale, str):
        high, wide = map(int, scale.split("x"))
    else:
        high, wide = (scale if how["squash"] else max(scale, round(n * scale / min(shown))) for n in shown)
    packing = "rgb24" if (high, wide) == shown else "gbrp"
    width, height = (high, wide) if turn % 2 else (wide, high)
    rgb = frame.reformat(width=width, height=height, format=packing, interpolation="BILINEAR").to_ndarray()
    y, x = (high - size) // 2, (wide - size) // 2
    return np.rot90(rgb, turn)[y : y + size, x : x + size]


def steps_of(source: Any, about: dict[str, Any]) -> Iterator[tuple[float, Any]]:
    """Seconds, and the next frames that the network takes, uint8 (1, T, size, size, 3)."""
    sampler, how, held = about["config"]["sampler"], about["config"]["transform"], list[Any]()
    rate = float(source.streams.video[0].average_rate or 25)
    due, step = 0, rate / sampler["fps"] if sampler["fps"] else sampler["stride"]
    for number, frame in enumerate(source.decode(video=0)):
        while number == int(due * step + 0.5):  # twice where the network's rate is above the stream's
            due, held = due + 1, [*held, image_of(frame, how)]
            if len(held) == about["inputs"]["rgb"]["shape"][1]:
                yield (number + 1) / rate, np.stack(held)[None]
                held = []


def answers(source: Any, session: Any, about: dict[str, Any]) -> Iterator[tuple[float, Any]]:
    """Seconds, and the probabilities (K,) of the frames up to there, from when on a clip has been seen."""
    names, outputs = ([one[key] for one in about["state"]] for key in ("name", "next"))
    start = {one["name"]: np.full(one["shape"], float(one["start"]), one["dtype"]) for one in about["state"]}
    clip, alive = about["config"]["sampler"]["num_frames"], list[dict[str, Any]]()
    for seconds, frames in steps_of(source, about):
        if not alive or alive[-1]["seen"] >= clip:
            alive.append({"seen": 0, "state": start})
        for one in alive:
            probs, *after = session.run(["probs", *outputs], {"rgb": frames, **one["state"]})
            one["probs"], one["state"] = probs[0], dict(zip(names, after, strict=True))
            one["seen"] += frames.shape[1]
        if alive[0]["seen"] >= clip:
            yield seconds, calibrated(alive[0]["probs"], about)
        if alive[0]["seen"] >= 2 * clip:
            del alive[0]


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
    with av.open(sys.argv[1]) as video:
        for end, found in answers(video, network, contract):
            print(f"{end:8.2f} s  {found.max():.4f}  {printable(contract['class_names'][found.argmax()])}", flush=True)

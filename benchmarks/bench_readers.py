"""How fast the video readers are on this machine: CPU time per clip, PyAV's reader against decord and a full decode.

    python benchmarks/bench_readers.py                      # writes two videos to a temporary folder, two minutes
    python benchmarks/bench_readers.py my.mp4 other.avi     # the same on files of yours
    python benchmarks/bench_readers.py --rounds 30 --json result.json

Three things are measured, pictures scaled to a short side of 128 pixels while decoding:
    open    opening the file and finding its frames
    train   one clip of 16 frames, 4 apart, at a random place
    test    10 such clips spread evenly over the video, read in one go

The contestants: `pyav` is vidtrain's default reader; `decord` is bare decord with one thread, width and height given
at open and one get_batch; `torchcodec`, if installed, is bare torchcodec with one thread and its own Resize; `raw` is
what FFmpeg itself takes through PyAV, in one thread and without converting a picture: for a train clip all frames from
the keyframe before it to its last, for the test clips all frames of the file. All open the file again each time, as a
loader's worker does. Rounds are interleaved, so that a busy machine slows all of them; the table shows medians. CPU
time counts all threads of this process; vidtrain runs decord and torchcodec in processes of their own, which costs
0.6 ms per clip of 16 frames on top.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from vidtrain.data.clips.sampling import ClipSpec, random_clip, uniform_clips
from vidtrain.data.readers.pyav.reader import PyAVReader
from vidtrain.data.readers.timeline import Timeline
from vidtrain.types import Frames, Indices

SHORT_SIDE = 128
SPEC = ClipSpec(num_frames=16, stride=4)
Reader = Callable[[str, Indices, tuple[int, int]], Any]


def read_pyav(path: str, wanted: Indices, size: tuple[int, int]) -> Frames:
    with PyAVReader().open(path) as video:
        return video.read(wanted, size)


def open_pyav(path: str, wanted: Indices, size: tuple[int, int]) -> None:
    PyAVReader().open(path).close()


def read_decord(path: str, wanted: Indices, size: tuple[int, int]) -> Frames:
    import decord

    frames, place = np.unique(wanted, return_inverse=True)
    reader = decord.VideoReader(path, num_threads=1, height=size[0], width=size[1])
    out: Frames = reader.get_batch(frames.tolist()).asnumpy()[place]
    return out


def read_torchcodec(path: str, wanted: Indices, size: tuple[int, int]) -> Frames:
    from torchcodec.decoders import VideoDecoder
    from torchcodec.transforms import Resize

    frames, place = np.unique(wanted, return_inverse=True)
    reader = VideoDecoder(path, dimension_order="NHWC", num_ffmpeg_threads=1, transforms=[Resize(size)], device="cpu")
    out: Frames = reader.get_frames_at(frames.tolist()).data.numpy()[place]
    return out


class Raw:
    """Decodes and throws away. The keyframes are found beforehand and do not count."""

    def __init__(self, path: str) -> None:
        with av.open(path) as container:
            packets = [p for p in container.demux(container.streams.video[0]) if p.size]
        times = sorted(p.pts for p in packets if p.pts is not None)
        self.keys = {times.index(p.pts): p.pts for p in packets if p.is_keyframe and p.pts is not None}

    def read(self, path: str, wanted: Indices, size: tuple[int, int]) -> None:
        first = max((key for key in self.keys if key <= int(wanted[0])), default=0) if len(wanted) <= 16 else 0
        with av.open(path) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            if first:
                container.seek(self.keys[first], stream=stream)
            for number, _ in enumerate(container.decode(stream), first):
                if number == int(wanted[-1]) and len(wanted) <= 16:
                    return


def write_video(path: Path, height: int, width: int, seconds: int = 10, fps: int = 30) -> None:
    """Soft shapes of many sizes drifting behind each other, with a little grain; x264 with its defaults."""
    rng = np.random.default_rng(0)
    layers = [_texture(rng, height + 128, width + 128, cell) for cell in (64, 24, 8)]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for number in range(seconds * fps):
            picture = np.zeros((height, width, 3), np.float32)
            for depth, layer in enumerate(layers):
                top, left = (int(64 + 60 * f(number / (20 + 15 * depth))) for f in (np.sin, np.cos))
                picture += layer[top : top + height, left : left + width]
            picture += rng.normal(0, 2, (height, width, 1)).astype(np.float32)
            frame = av.VideoFrame.from_ndarray(picture.clip(0, 255).astype(np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _texture(rng: np.random.Generator, height: int, width: int, cell: int) -> npt.NDArray[np.float32]:
    """(height, width, 3) float32, random colours on a grid of `cell` pixels, blended in between."""
    grid = rng.uniform(0, 85, (height // cell + 2, width // cell + 2, 3)).astype(np.float32)
    for axis, length in ((0, height), (1, width)):
        at = np.arange(length) / cell
        low = at.astype(int)
        part = (at - low).astype(np.float32).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
        grid = grid.take(low, axis) * (1 - part) + grid.take(low + 1, axis) * part
    return grid


def measure(path: str, readers: dict[str, Reader], rounds: int) -> list[dict[str, Any]]:
    """One row per task: the median CPU milliseconds of each reader."""
    with PyAVReader().open(path) as video:
        info = video.info
    scale = SHORT_SIDE / min(info.height, info.width)
    size = round(info.height * scale), round(info.width * scale)
    test = uniform_clips(Timeline.of(info), SPEC, 10).reshape(-1)
    readers = {**readers, "raw": Raw(path).read}
    tasks: dict[str, dict[str, Reader]] = {"open": {"pyav": open_pyav}, "train": readers, "test": readers}
    times: dict[str, dict[str, list[float]]] = {task: {name: [] for name in who} for task, who in tasks.items()}
    for number in range(rounds + 1):
        rng = np.random.default_rng(number)
        clip = random_clip(Timeline.of(info), SPEC, rng)[0]
        for task, who in tasks.items():
            for name, read in who.items():
                begin = time.process_time()
                read(path, test if task == "test" else clip, size)
                if number:  # the first round warms up
                    times[task][name].append((time.process_time() - begin) * 1e3)
    video_name = f"{info.width}x{info.height}, {info.num_frames} frames"
    return [
        {"video": video_name, "task": task, "ms": {r: statistics.median(ms) for r, ms in by_reader.items()}}
        for task, by_reader in times.items()
    ]


def show(rows: list[dict[str, Any]]) -> None:
    names = list(rows[1]["ms"])
    print(f"{'CPU ms per item':36}" + "".join(f"{name:>12}" for name in names) + "   pyav is faster by")
    for row in rows:
        ms = row["ms"]
        ratios = ", ".join(f"{ms[name] / ms['pyav']:.2f} ({name})" for name in ms if name != "pyav")
        numbers = "".join(f"{ms[name]:12.1f}" if name in ms else " " * 12 for name in names)
        print(f"{row['video'] + ', ' + row['task']:36}{numbers}   {ratios}")


def main() -> None:
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("videos", nargs="*", help="files to measure; none: two written for the purpose")
    parser.add_argument("--rounds", type=int, default=20, help="measured rounds (default 20)")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    options = parser.parse_args()
    readers: dict[str, Reader] = {"pyav": read_pyav}
    try:
        import decord

        decord.logging.set_level(decord.logging.QUIET)
        readers["decord"] = read_decord
    except ImportError:
        print("decord is not installed: skipped")
    try:
        import torchcodec.transforms  # noqa: F401

        readers["torchcodec"] = read_torchcodec
    except (ImportError, OSError, RuntimeError):
        print("torchcodec is not installed: skipped")
    with tempfile.TemporaryDirectory() as folder:
        videos = options.videos
        if not videos:
            videos = [str(Path(folder) / "small.mp4"), str(Path(folder) / "large.mp4")]
            write_video(Path(videos[0]), 256, 340)
            write_video(Path(videos[1]), 720, 1280)
        rows = [row for path in videos for row in measure(path, readers, options.rounds)]
    show(rows)
    if options.json:
        versions = {"python": platform.python_version(), "av": av.__version__, "numpy": np.__version__}
        result = {"versions": versions, "machine": platform.machine(), "rounds": options.rounds, "rows": rows}
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()

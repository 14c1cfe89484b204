"""What readers make of damaged files: the same copies that the tests damage, and who says so.

    python benchmarks/bench_damaged.py                 # 90 kinds of files with four damages each, ten minutes
    python benchmarks/bench_damaged.py --step 11       # every eleventh

Each contestant reads a file the way its users do, and gives frames until it ends or raises an error:

    vidtrain    each frame by itself through the default reader, those that it refuses skipped
    PyAV        `for frame in container.decode(video=0)`, up to the first error
    OpenCV      `VideoCapture.read` until it returns nothing
    decord      `reader[n]` for each n, those that raise skipped

A frame is wrong when no frame that the same reader gives of the undamaged file is like it: the mean of one of its 8x8
blocks is off by more than 6 levels of 255 from each. So a right frame in the place of another is not noticed, of no
contestant. Frames lost are those of the undamaged file that another contestant gave and this one did not.
Each reads in a process of its own, which is ended when a file takes longer than 20 s.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import av
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.data.encodes import COUNT, NOISE, broken_copy, damages, make
from vidtrain.data.readers.pyav.reader import PyAVReader
from vidtrain.errors import VideoError

SECONDS = 20


def with_vidtrain(path: str) -> Iterator[Any]:
    with PyAVReader().open(path) as video:
        for number in range(min(video.info.num_frames, 2 * COUNT)):
            try:
                yield video.read(np.array([number]))[0]
            except VideoError:
                continue


def with_pyav(path: str) -> Iterator[Any]:
    with av.open(path) as container:
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="rgb24")


def with_opencv(path: str) -> Iterator[Any]:
    import cv2

    capture = cv2.VideoCapture(path)
    while True:
        there, frame = capture.read()
        if not there:
            return
        yield frame[..., ::-1]


def with_decord(path: str) -> Iterator[Any]:
    import decord

    decord.logging.set_level(decord.logging.QUIET)
    reader = decord.VideoReader(path, num_threads=1)
    for number in range(min(len(reader), 2 * COUNT)):
        try:
            yield reader[number].asnumpy()
        except (decord.DECORDError, RuntimeError, IndexError):
            continue


CONTESTANTS: dict[str, Callable[[str], Iterator[Any]]] = {
    "vidtrain": with_vidtrain,
    "PyAV": with_pyav,
    "OpenCV": with_opencv,
    "decord": with_decord,
}


def frames_of(name: str, path: str) -> Iterator[Any]:
    """The means of each frame's 8x8 blocks, float64 (H / 8, W / 8, 3), until the end or an error."""
    try:
        for frame in islice(CONTESTANTS[name](path), 2 * COUNT):
            height, width = frame.shape[0] // 8 * 8, frame.shape[1] // 8 * 8
            yield frame[:height, :width].reshape(height // 8, 8, width // 8, 8, 3).mean((1, 3))
    except Exception:  # each library has errors of its own; what came before counts
        return


def judge(name: str, broken: str, sound: str) -> tuple[set[int], int]:
    """Which frames of the sound file came from the damaged one, and how many that are none of them."""
    whole = list(frames_of(name, sound))
    came, wrong = set[int](), 0
    for frame in frames_of(name, broken):
        off = [np.abs(frame - other).max() if frame.shape == other.shape else 255.0 for other in whole]
        if whole and min(off) <= NOISE:
            came.add(int(np.argmin(off)))
        else:
            wrong += 1
    return came, wrong


def serve(pipe: Connection, name: str) -> None:
    while True:
        pipe.send(judge(name, *pipe.recv()))


class Contestant:
    """A process that reads with one library."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._start()

    def _start(self) -> None:
        here, there = multiprocessing.Pipe()
        self._process = multiprocessing.get_context("spawn").Process(
            target=serve, args=(there, self._name), daemon=True
        )
        self._process.start()
        there.close()
        self._pipe = here

    def read(self, broken: Path, sound: Path) -> tuple[set[int], int] | None:
        """What `judge` finds; None: it hung or crashed."""
        try:
            self._pipe.send((str(broken), str(sound)))
            if self._pipe.poll(SECONDS):
                found: tuple[set[int], int] = self._pipe.recv()
                return found
        except (EOFError, OSError):
            pass
        self._process.kill()
        self._start()
        return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--step", type=int, default=1)
    step = parser.parse_args().step
    contestants = {name: Contestant(name) for name in CONTESTANTS}
    counts = {name: Counter[str]() for name in contestants}
    files = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for kind, content, damage in damages()[::step]:
            try:
                path = make(kind, content, folder)
            except (av.error.FFmpegError, ValueError):
                continue
            broken = broken_copy(path, damage, folder)
            if broken is not None:
                files += 1
                found = {name: one.read(broken, path) for name, one in contestants.items()}
                anyone = set[int]().union(*(one[0] for one in found.values() if one is not None))
                for name, one in found.items():
                    came, wrong = one or (set[int](), 0)
                    counts[name] += Counter(
                        wrong_files=wrong > 0, wrong=wrong, lost=len(anyone - came), hung=one is None, given=len(came)
                    )
            path.unlink()
    print(f"{files} damaged files")
    print("|  | files with a wrong frame given | wrong frames given | right frames given | lost | hung or crashed |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, count in counts.items():
        row = (count[key] for key in ("wrong_files", "wrong", "given", "lost", "hung"))
        print(f"| {name} | {' | '.join(map(str, row))} |")


if __name__ == "__main__":
    main()

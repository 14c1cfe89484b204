"""What is read is a function of the file alone: not of what lies in memory behind a packet.

glibc fills freed and fresh memory with a byte of our choice (MALLOC_PERTURB_), which has to be set before a process
starts. Elsewhere the variable does nothing and the tests compare equal runs.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.data.test_jpeg_pack import pack as write_jpeg_pack
from tests.data.test_readers_frames import encode
from tests.videos import full_decode, pack, read, scene, write_video
from vidtrain.data.readers.any_path import AnyReader
from vidtrain.data.readers.pyav.opening import packet_of
from vidtrain.data.readers.pyav.reader import PyAVReader
from vidtrain.engine.checkpoints.checkpoint import load_checkpoint

_READ = """
import hashlib, sys
import numpy as np
from vidtrain.data.readers.any_path import AnyReader
from vidtrain.data.readers.pyav.reader import PyAVReader
for path in sys.argv[1:]:
    with AnyReader(PyAVReader()).open(path) as video:
        frames = video.read(np.arange(video.info.num_frames))
        for number in range(0, len(frames), 9):
            assert (video.read(np.array([number]))[0] == frames[number]).all(), number
        print(hashlib.sha256(frames).hexdigest())
"""


def read_in_dirty_memory(paths: list[Path], byte: int) -> list[str]:
    """The hash of each video's frames, read in a process whose memory is filled with `byte`."""
    command = [sys.executable, "-c", _READ, *map(str, paths)]
    environment = {**os.environ, "MALLOC_PERTURB_": str(byte)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_frames_are_the_same_whatever_memory_holds(tmp_path: Path) -> None:
    made = write_video(tmp_path / "made.avi", scene(40), codec="mpeg4", options={"g": "12", "bf": "2"})
    packed = pack(made, tmp_path / "packed.avi")
    images = tmp_path / "images"
    images.mkdir()
    for number, frame in enumerate(scene(6)):
        (images / f"{number}.jpg").write_bytes(encode(frame, "jpeg"))
        (images / f"{number + 6}.webp").write_bytes(encode(frame, "webp"))
    jpegs = write_jpeg_pack(tmp_path / "clip.jpack", scene(12))
    paths = [packed, images, jpegs]
    right = [
        hashlib.sha256(read(path, list(range(n)), reader=AnyReader(PyAVReader()))).hexdigest()
        for path, n in zip(paths, (len(full_decode(packed)), 12, 12), strict=True)
    ]
    assert hashlib.sha256(full_decode(packed)).hexdigest() == right[0]
    assert [read_in_dirty_memory(paths, byte) for byte in (170, 1)] == [right, right]


@pytest.mark.parametrize("folder", ["ucf101_3c/originals_avi", "odd"])
def test_ucf101_originals_are_the_same_whatever_memory_holds(test_videos: Path, folder: str) -> None:
    path = sorted((test_videos / folder).rglob("*.avi"))[0]
    right = hashlib.sha256(full_decode(path)).hexdigest()
    assert read_in_dirty_memory([path], 170) == [right]


@pytest.mark.slow
def test_the_case_called_broken_at_random(test_cases: Path) -> None:
    path = test_cases / "packed_avi" / "v_BabyCrawling_g16_c01.avi"
    right = hashlib.sha256(full_decode(path)).hexdigest()
    assert [read_in_dirty_memory([path], byte) for byte in (170, 85)] == [[right], [right]]


@pytest.mark.parametrize("data", [b"\xff", bytes(range(256)) * 5, bytearray(b"abc")])
def test_zeros_follow_a_packet_made_from_bytes(data: bytes) -> None:
    packet = packet_of(data)
    assert bytes(packet) == data
    assert packet.buffer_ptr
    assert ctypes.string_at(packet.buffer_ptr + packet.size, 64) == bytes(64)


def test_all_packets_made_from_bytes_have_these_zeros() -> None:
    code = Path(__file__).parents[2] / "vidtrain"
    made = {file.name: len(re.findall(r"\bPacket\(", file.read_text("utf-8"))) for file in code.rglob("*.py")}
    assert {name: count for name, count in made.items() if count} == {"opening.py": 2}  # one stands in a docstring


TINY = [
    *["model=single_frame", "sampler.num_frames=4", "sampler.stride=2", "transform.size=32", "transform.resize=32"],
    *["trainer.epochs=1", "trainer.batch_size=4", "trainer.num_workers=2", "trainer.device=cpu", "eval.clips=2"],
]


@pytest.mark.slow
def test_five_runs_on_ucf101_originals_agree_in_every_bit(test_videos: Path, test_cases: Path, tmp_path: Path) -> None:
    """Lists, weights, scores, findings and copies, whatever memory holds."""
    root = tmp_path / "ucf"
    shutil.copytree(test_videos / "ucf101_3c" / "originals_avi", root, copy_function=os.symlink)
    crawling = test_cases / "packed_avi" / "v_BabyCrawling_g16_c01.avi"
    root.joinpath("BabyCrawling").chmod(0o755)
    (root / "BabyCrawling" / crawling.name).symlink_to(crawling)
    found = []
    for number, byte in enumerate((170, 170, 170, 85, 1)):
        folder = tmp_path / f"{number}"
        folder.mkdir()
        data = ["data=folder", f"data.root={root}", "data.val_fraction=0.3"]
        for command in (
            ["train", *data, *TINY, "run_dir=run"],
            ["data", "check", *data, "output=check"],
            ["data", "prepare", *data, "output=copies", "num_workers=2"],
        ):
            done = subprocess.run(
                [sys.executable, "-m", "vidtrain", *command],
                cwd=folder,
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
                env={**os.environ, "MALLOC_PERTURB_": str(byte)},
            )
            assert done.returncode == 0, done.stderr
            assert "unreadable video replaced" not in done.stderr
        found.append(written(folder))
    assert len(found[0]) > 20
    assert [run == found[0] for run in found] == [True] * 5


def written(folder: Path) -> dict[str, str]:
    """What the three commands left that should be the same each time: the name of each file and the hash of it."""
    weights = load_checkpoint(str(folder / "run" / "best.pt"))["model"]
    hashes = {name: hashlib.sha256(tensor.numpy().tobytes()).hexdigest() for name, tensor in weights.items()}
    for file in sorted(folder.rglob("*")):
        if file.suffix in (".csv", ".mp4", ".npy"):
            content = file.read_bytes().replace(str(folder).encode(), b"")
            hashes[str(file.relative_to(folder))] = hashlib.sha256(content).hexdigest()
    return hashes

"""Training clips from shards in a store beside shards on this machine's disk: clips per second, CPU time of a clip.

    pip install 'vidtrain[store]' 'moto[server]'     # without moto the S3 rows are skipped
    python benchmarks/bench_shards.py                # about 10 minutes
    python benchmarks/bench_shards.py --write benchmarks/scale_shards.md

The stores run on this machine, started by this script: moto's S3 server, and a file server (aiohttp) that waits 30 ms
before each answer, as a store does that is not next door; it answers plain GETs with a range, which is all that a
training asks for, be it by http:// or by s3://. All are read over the loopback.

One worker decodes an epoch of 16-frame clips at 112 pixels in batches of 8, with an empty cache; the second epoch finds
every video in it. Contestants take turns; figures are medians. The checksum of all clips must be the same for all.

clips/s   wall clock, from the second batch on; the server takes a part of a small machine's cores, too
CPU       of the process and its worker, without the server
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import fsspec  # type: ignore[import-untyped]
import torch

sys.path.insert(0, str(Path(__file__).parent))
from bench_data import processor
from bench_data_parts import Table, to_markdown, to_text
from bench_readers import write_video

from vidtrain.data.clips import read_ahead
from vidtrain.data.clips.dataset import ClipParts, TrainClips
from vidtrain.data.clips.loader import TrainLoader
from vidtrain.data.clips.workers import Workers
from vidtrain.data.formats.shards import shards
from vidtrain.data.readers.any_path import AnyReader
from vidtrain.data.readers.pyav.reader import PyAVReader
from vidtrain.data.settings import SamplerConfig, TransformConfig
from vidtrain.store_cache import fetch_ahead

DISK = "this machine's disk"
DISTINCT = 3
VIDEOS = 64
WAIT = 0.03
SHARD = "10MB"
BATCH = 8
KEYS = {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench", "AWS_DEFAULT_REGION": "us-east-1"}


@dataclass(frozen=True)
class Contestant:
    """Where the shards are. ahead: the loader reads ahead. warm: all videos are in the cache. endpoint: of s3://."""

    root: str
    ahead: bool = True
    warm: bool = False
    endpoint: str = ""


def epoch(one: Contestant, cache: Path) -> dict[str, float]:
    """Read an epoch; what it took and the checksum of its clips."""
    os.environ["VIDTRAIN_CACHE"] = str(cache)
    if one.endpoint:
        fsspec.config.conf["s3"] = {"endpoint_url": one.endpoint}
    for kind in ("http", "s3"):
        with suppress(ImportError):
            fsspec.get_filesystem_class(kind).clear_instance_cache()
    manifest = shards(one.root).splits["train"]
    parts = ClipParts(AnyReader(PyAVReader()), SamplerConfig(16, 4), TransformConfig(size=112, resize=128))
    with mock.patch.object(read_ahead, "fetch_ahead", fetch_ahead if one.ahead else lambda paths: None):
        loader = TrainLoader(TrainClips(manifest, parts, seed=0), Workers(1), batch_size=BATCH)
        clips, check, began, spent = 0, 0, 0.0, 0.0
        for batch in loader.epoch(0):
            assert not batch.bad, batch.bad
            check = zlib.crc32(batch.inputs["rgb"].numpy().tobytes(), check)
            if not began:
                began, spent = time.perf_counter(), _cpu()
                continue
            clips += len(batch)
            ended, used = time.perf_counter(), _cpu()  # while the worker is there
    return {"clips_s": clips / (ended - began), "cpu_ms": 1000 * (used - spent) / clips, "check": check}


def _cpu() -> float:
    """CPU seconds of this process and of its children that run."""
    seconds = time.process_time()
    for thread in Path("/proc/self/task").iterdir():
        for pid in (thread / "children").read_text().split():
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            seconds += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return seconds


def serve(folder: Path, port: int, wait: float) -> None:
    """A file server that waits before each answer; the first word of an address is dropped, as a bucket's name is."""
    from aiohttp import web

    async def answer(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(wait)
        return web.FileResponse(folder / request.match_info["name"])

    app = web.Application()
    app.router.add_get("/bucket/{name:.+}", answer)
    web.run_app(app, host="127.0.0.1", port=port, print=None)


# ---------------------------------------------------------------- the parent


@contextmanager
def server(port: int, start: Callable[[], Any]) -> Iterator[None]:
    """A process that answers at a port while the block runs."""
    process = start()
    try:
        until = time.monotonic() + 300
        while time.monotonic() < until:
            with socket.socket() as one:
                if not one.connect_ex(("127.0.0.1", port)):
                    break
            time.sleep(0.1)
        else:
            raise SystemExit("the server does not answer")
        yield
    finally:
        process.kill()


def file_server(folder: Path, port: int) -> Any:
    process = multiprocessing.get_context("fork").Process(target=serve, args=(folder, port, WAIT), daemon=True)
    process.start()
    return process


def moto_server(port: int) -> Any:
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def datasets(home: Path) -> dict[str, Path]:
    """Folders of shards: of videos as they are found, and of `vidtrain data prepare`'s copies of them."""
    (home / "first").mkdir()
    for n in range(DISTINCT):
        write_video(home / "first" / f"{n}.mp4", 256 + 2 * n, 340)
    split = ["data.val_fraction=0", "data.test_fraction=0"]

    def run(action: str, *options: str) -> None:
        command = [sys.executable, "-m", "vidtrain", "data", action, "num_workers=1", *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stderr)

    for number, video in enumerate(sorted((home / "first").iterdir())):
        folder = home / "single" / f"class{number}"
        folder.mkdir(parents=True)
        shutil.copy(video, folder)
    run("prepare", "data=folder", f"data.root={home / 'single'}", f"output={home / 'copies'}", *split)
    found = {}
    for title, sources in (
        ("videos, 340x256", sorted((home / "first").iterdir())),
        ("prepared copies", sorted((home / "copies").rglob("*.mp4"))),
    ):
        assert len(sources) == DISTINCT
        root = home / title.split(",")[0].replace(" ", "_")
        for n in range(VIDEOS):
            folder = root / f"class{n % 4}"
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(sources[n % DISTINCT], folder / f"{n:03}.mp4")
        found[title] = home / f"{root.name}_shards"
        run("shard", "data=folder", f"data.root={root}", f"output={found[title]}", f"shard.size={SHARD}", *split)
    return found


def measure(name: str, folder: Path, home: Path, rounds: int) -> Table:
    """A table of one dataset."""
    with ExitStack() as servers:
        port, moto = free_port(), free_port()
        servers.enter_context(server(port, partial(file_server, folder, port)))
        near = f"http://127.0.0.1:{port}"
        contestants = {
            DISK: Contestant(str(folder)),
            "http, 30 ms": Contestant(f"{near}/bucket"),
            "http, 30 ms, without reading ahead": Contestant(f"{near}/bucket", ahead=False),
            "http, 30 ms, second epoch": Contestant(f"{near}/bucket", warm=True),
        }
        if find_spec("s3fs"):
            contestants["s3, 30 ms"] = Contestant("s3://bucket", endpoint=near)
        if find_spec("s3fs") and find_spec("moto"):
            servers.enter_context(server(moto, partial(moto_server, moto)))
            contestants["s3, moto"] = Contestant("s3://bucket", endpoint=f"http://127.0.0.1:{moto}")
            _upload(folder, contestants["s3, moto"].endpoint)
        found: dict[str, list[dict[str, float]]] = {title: [] for title in contestants}
        for number in range(rounds):
            for title, one in contestants.items():
                cache = home / ("warm" if one.warm else "cold") / folder.name
                if not one.warm:
                    shutil.rmtree(cache, ignore_errors=True)
                elif not number:
                    epoch(one, cache)
                found[title].append(epoch(one, cache))
                print(f"{name}: {title}: {found[title][-1]}", file=sys.stderr, flush=True)
    assert len({one["check"] for each in found.values() for one in each}) == 1, "other clips came from the store"
    best = {title: {key: median(one[key] for one in each) for key in each[0]} for title, each in found.items()}
    rows = []
    for title, taken in best.items():
        shares = [taken["clips_s"] / best[DISK]["clips_s"], best[DISK]["cpu_ms"] / taken["cpu_ms"]]
        rows.append(
            [title, f"{taken['clips_s']:.0f}", f"{shares[0]:.2f}", f"{taken['cpu_ms']:.1f}", f"{shares[1]:.2f}"]
        )
    size = sum(file.stat().st_size for file in folder.glob("*.tar")) / VIDEOS / 1e3
    header = ["shards on", "clips/s", "of the disk's", "CPU ms per clip", "clips per CPU second, of the disk's"]
    return Table(f"{name[0].upper()}{name[1:]}, {size:.0f} kB each", header, rows)


def _upload(folder: Path, endpoint: str) -> None:
    system = fsspec.filesystem("s3", endpoint_url=endpoint)
    system.mkdir("bucket")
    system.put([str(file) for file in folder.iterdir() if file.suffix in (".tar", ".json", ".npy")], "s3://bucket/")


def main() -> None:
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="rounds in which the contestants take turns")
    parser.add_argument("--only", default="", help="the table whose title has this word: videos, copies")
    parser.add_argument("--write", type=Path, help="write the tables to this Markdown file")
    given = parser.parse_args()
    began, made = time.time(), []
    torch.set_num_threads(1)
    os.environ |= KEYS
    with tempfile.TemporaryDirectory() as name:
        for title, folder in datasets(Path(name)).items():
            if given.only not in title:
                continue
            made.append(measure(title, folder, Path(name), given.rounds))
            print(f"\n{made[-1].title}\n{to_text(made[-1])}", flush=True)
    if given.write:
        words = " ".join(["benchmarks/bench_shards.py", *sys.argv[1:]])
        head = [
            f"`python {words}`, {time.strftime('%Y-%m-%d')}, {processor()}, {(time.time() - began) / 60:.0f} minutes."
        ]
        parts: list[Any] = [part for table in made for part in ("", f"### {table.title}", "", to_markdown(table))]
        given.write.write_text("\n".join([*head, *parts]).rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

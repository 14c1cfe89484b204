"""Shards in a store: the frames of the files, fetched once; stores that fail, hang, cut and lack what was listed."""

from __future__ import annotations

import errno
import gc
import io
import multiprocessing
import os
import shutil
import sys
import tarfile
import threading
import time
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from tests.data.prepared import READER
from tests.videos import scene, write_video
from vidtrain import remote, store_cache
from vidtrain.data.clips import read_ahead
from vidtrain.data.clips.dataset import ClipParts, EvalViews, TrainClips
from vidtrain.data.clips.loader import TrainLoader, eval_loader
from vidtrain.data.clips.workers import Workers
from vidtrain.data.formats.lists import lists
from vidtrain.data.formats.shards import shards
from vidtrain.data.formats.table import table
from vidtrain.data.manifest.index import read_index
from vidtrain.data.manifest.manifest import Manifest, VideoData
from vidtrain.data.prepare.sharding import write_shards
from vidtrain.data.settings import EvalConfig, SamplerConfig, ShardConfig, TransformConfig
from vidtrain.errors import ConfigError, DataError, VideoError
from vidtrain.remote import check_url, read_bytes
from vidtrain.store_cache import Cache, local_file
from vidtrain.tar_members import open_bytes, stretch_of, walk_tar

ROOT = "moody://bucket/set"


class Moody(MemoryFileSystem):
    """A store that does next what `moods` says: fails, hangs, cuts, refuses, or, at its end, answers."""

    protocol = "moody"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    moods: ClassVar[list[str]] = []
    asked: ClassVar[list[str]] = []

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        name: str = super()._strip_protocol(path.removeprefix("moody://"))
        return name

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **options: Any) -> bytes:
        self.asked.append(path)
        mood = self.moods.pop(0) if self.moods else ""
        if mood == "fails":
            raise ConnectionResetError("reset\nby peer")
        if mood == "refuses":
            raise PermissionError("secret key abc")
        if mood == "hangs":
            time.sleep(3)
        content: bytes = super().cat_file(path, start, end, **options)
        if not content and (start, end) != (None, None):
            raise OSError(errno.EINVAL, "The requested range is not satisfiable")  # as S3 has it
        return content[:700] if mood == "cuts" else content


fsspec.register_implementation("moody", Moody, clobber=True)


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of four videos on this machine."""
    home = tmp_path_factory.mktemp("local")
    rows = [str(write_video(home / f"{n}.mp4", scene(6, seed=n))) for n in range(4)]
    every = Manifest.of(rows, [0, 1, 0, 1])
    write_shards(VideoData(("a", "b"), {"train": every, "test": every}), home / "out", ShardConfig(), workers=1)
    return home / "out"


@pytest.fixture(autouse=True)
def cache(local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache, and the shards in the store."""
    monkeypatch.setenv("VIDTRAIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "_PAUSE", 0.001)
    monkeypatch.setattr(Moody, "moods", [])
    system = fsspec.filesystem("moody")
    for file in local.iterdir():
        if file.is_file():
            system.pipe_file(f"/bucket/set/{file.name}", file.read_bytes())
    Moody.asked.clear()
    del system
    yield tmp_path / "cache"
    Moody.store.clear()
    store_cache._written.clear()
    store_cache._coming.clear()


def frames(path: str) -> np.ndarray:
    with READER.open(path) as video:
        return video.read(np.arange(video.info.num_frames))


def kept(cache: Path) -> list[Path]:
    return [file for file in (cache / "files").glob("*/*") if file.is_file()]


def test_the_store_gives_what_the_disk_gives(local: Path, cache: Path) -> None:
    here, there = read_index(local), shards(ROOT)
    for split, manifest in here.splits.items():
        assert there.splits[split].labels.tolist() == manifest.labels.tolist()
        for path, url in zip(manifest.paths, there.splits[split].paths, strict=True):
            assert url == path.replace(str(local), ROOT)
            assert np.array_equal(frames(url), frames(path))
    # fetched once, by range reads, and index arrays are not fetched again
    count = len(Moody.asked)
    assert len(kept(cache)) == 8
    shards(ROOT)
    frames(there.splits["train"].paths[0])
    assert Moody.asked[count:] == ["bucket/set/index.json"] or Moody.asked[count:] == ["/bucket/set/index.json"]


def test_another_index_of_the_same_names_is_fetched(local: Path, tmp_path: Path) -> None:
    assert shards(ROOT).splits["train"].labels.tolist() == [0, 1, 0, 1]
    shutil.copytree(local, tmp_path / "other")
    data = read_index(local)
    swapped = replace(data.splits["train"], labels=np.array([1, 0, 1, 0]))  # index.json differs in its digest alone
    from vidtrain.data.manifest.index import write_index

    write_index(tmp_path / "other", replace(data, splits={**data.splits, "train": swapped}))
    for file in (tmp_path / "other").glob("*.[jn][sp]*"):
        fsspec.filesystem("moody").pipe_file(f"/bucket/set/{file.name}", file.read_bytes())
    assert shards(ROOT).splits["train"].labels.tolist() == [1, 0, 1, 0]


@pytest.mark.parametrize(
    ("first", "late"),
    [(1000, 0), (4_000_000_000, 0), (1_700_000_000, 10**18)],
    ids=["past", "of a clock that was ahead", "of a file server whose clock is ahead"],
)
def test_what_was_not_used_for_longest_makes_room(
    cache: Path, monkeypatch: pytest.MonkeyPatch, first: int, late: int
) -> None:
    now = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: now() - late)
    paths = list(shards(ROOT).splits["train"].paths)
    size = max(int(path.partition("+")[2].partition("/")[0]) for path in paths)
    monkeypatch.setenv("VIDTRAIN_CACHE_GB", str(3.2 * size / 1e9))  # room for three of them, 0.9 of it for two
    own = Cache.of_this_machine()
    for age, path in enumerate(paths[:3]):
        os.utime(own.fetch(path), (first + age, first + age))
    own.fetch(paths[0])  # used again
    own.fetch(paths[3])
    names = {path: own.fetch(path) for path in (paths[0], paths[3])}
    assert set(kept(cache)) == set(names.values())
    assert sum(file.stat().st_size for file in kept(cache)) <= own.most


def test_the_cache_is_looked_through_when_its_room_is_used_up(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By all processes together: each look takes the time of 200,000 files."""
    for n in range(12):
        put(f"{n}.mp4", bytes(100))
    monkeypatch.setenv("VIDTRAIN_CACHE_GB", "1e-6")  # 1,000 bytes
    looks: list[int] = []
    shrink = Cache._shrink
    monkeypatch.setattr(Cache, "_shrink", lambda self: looks.append(len(kept(cache))) or shrink(self))
    for n in range(8):
        Cache.of_this_machine().fetch(f"moody://bucket/{n}.mp4")
        store_cache._written.clear()  # as another process would begin
    assert looks == [1]  # nobody knew what was there
    for n in range(8, 12):
        Cache.of_this_machine().fetch(f"moody://bucket/{n}.mp4")
    assert looks == [1, 11]
    assert len(kept(cache)) == 10
    monkeypatch.setenv("VIDTRAIN_CACHE_GB", "5e-7")  # another size
    put("12.mp4", bytes(100))
    Cache.of_this_machine().fetch("moody://bucket/12.mp4")
    assert looks == [1, 11, 11]
    assert len(kept(cache)) == 4


@pytest.mark.parametrize("mood", ["fails", "cuts"])
def test_a_store_that_fails_for_a_while(mood: str) -> None:
    path = shards(ROOT).splits["train"].paths[0]
    Moody.moods[:] = [mood] * 2
    assert len(frames(path)) == 6
    assert not Moody.moods


def test_a_store_of_s3_keeps_its_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all members one pool, not one for each."""
    made: list[Any] = []
    monkeypatch.setattr(remote, "_signed", {})
    monkeypatch.setattr(remote, "SignedRanges", lambda system: made.append(system) or system)
    monkeypatch.setattr(Moody, "protocol", ("moody", "s3"))
    for path in shards(ROOT).splits["train"].paths[:2]:
        assert len(frames(path)) == 6
    assert len(made) == 1


@pytest.mark.parametrize(
    ("mood", "reason"),
    [
        ("fails", "cannot be fetched (3 tries; ConnectionResetError: reset)"),
        ("cuts", "cannot be fetched (3 tries; OSError: got 700 of "),
        ("hangs", "cannot be fetched (3 tries; no answer within 0.02 s)"),
        ("refuses", "the store does not allow to read it"),
    ],
)
def test_a_store_that_gives_nothing_is_a_broken_video(
    mood: str, reason: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = shards(ROOT).splits["train"].paths[0]
    monkeypatch.setenv("VIDTRAIN_STORE_SECONDS", "0.02" if mood == "hangs" else "5")
    Moody.moods[:] = [mood] * 3
    with pytest.raises(VideoError) as error:
        READER.open(path)
    assert error.value.path == path
    assert error.value.reason.startswith(reason)
    assert not kept(cache)


def test_what_is_not_there_any_more_or_another(local: Path) -> None:
    path = shards(ROOT).splits["train"].paths[0]
    tar = path.partition("@")[0].removeprefix("moody:/")
    content = (local / "train-000000.tar").read_bytes()
    fsspec.filesystem("moody").pipe_file(tar, b"\0" * len(content))
    with pytest.raises(VideoError, match="the tar file has changed since its index was written"):
        READER.open(path)
    Moody.store.clear()
    with pytest.raises(VideoError, match="no such file in the store"):
        READER.open(path)
    with pytest.raises(DataError, match=rf"^{ROOT}/index.json: no such file in the store"):
        shards(ROOT)


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize(
    ("folder", "reads"), [("d", 1), (f"{'d' * 99}/{'e' * 40}", 1), ("ä" * 40, 1), ("/".join(["d" * 99] * 20), 2)]
)
def test_another_member_of_equal_size_is_not_taken_for_the_one_of_the_index(
    folder: str, reads: int, format: int, tmp_path: Path
) -> None:
    if format == tarfile.USTAR_FORMAT and reads == 2:
        pytest.skip("ustar holds no name of so many bytes")
    contents = {f"{folder}/{name}.mp4": name.encode() * 900 for name in "abc"}

    def pack(names: list[str]) -> bytes:
        with tarfile.open(tmp_path / "it.tar", "w", format=format) as tar:
            for name in names:
                info = tarfile.TarInfo(name)
                info.size = len(contents[name])
                tar.addfile(info, io.BytesIO(contents[name]))
        return (tmp_path / "it.tar").read_bytes()

    system = fsspec.filesystem("moody")
    system.pipe_file("/bucket/it.tar", pack(list(contents)))
    with (tmp_path / "it.tar").open("rb") as file:
        paths = [member.path("moody://bucket/it.tar") for member in walk_tar(file, "it")]
    Moody.asked.clear()
    assert [read_bytes(path, 5, 10**9) for path in paths] == list(contents.values())
    assert len(Moody.asked) == reads * len(paths)
    system.pipe_file("/bucket/it.tar", pack([*list(contents)[1:], next(iter(contents))]))
    for path in paths:
        with pytest.raises(VideoError, match="the tar file has changed since its index was written"):
            read_bytes(path, 5, 10**9)


def test_errors_name_the_video_and_not_its_copy() -> None:
    fsspec.filesystem("moody").pipe_file("/bucket/a.mp4", b"no video")
    with pytest.raises(VideoError, match=r"^moody://bucket/a.mp4: is not a video file that FFmpeg knows$"):
        READER.open("moody://bucket/a.mp4")


@pytest.mark.parametrize(
    "content", [b"[]", b"{}", b"no json", b'{"splits": {"train": 1}, "content": ""}', b"[" * 10**5]
)
def test_an_index_that_is_none(content: bytes) -> None:
    fsspec.filesystem("moody").pipe_file("/bucket/set/index.json", content)
    with pytest.raises(DataError, match=r"index.json: not an index that can be read \(.*\); write it again"):
        shards(ROOT)


@pytest.mark.parametrize("url", ["https://me:word@server/set", "https://server/set?X-Amz-Signature=word"])
def test_addresses_with_secrets_are_refused_and_not_shown(url: str) -> None:
    with pytest.raises(ConfigError, match="an address with a password or a query") as error:
        check_url(url)
    assert "word@" not in str(error.value)
    assert "Signature" not in str(error.value)
    with pytest.raises(ConfigError):
        shards(url)


def test_stores_that_fsspec_does_not_know() -> None:
    with pytest.raises(ConfigError, match=r"^nope://: no kind of store that is known: s3, gs, az, http"):
        shards("nope://bucket/set")


@pytest.mark.parametrize(
    ("url", "package", "fix"),
    [
        ("gs://bucket/set", "gcsfs", r"requires the package gcsfs: pip install gcsfs"),
        ("az://box/set", "adlfs", r"requires the package adlfs: pip install adlfs"),
        ("s3://bucket/set", "s3fs", r"requires vidtrain's extra for stores: pip install 'vidtrain\[store\]'"),
        ("sftp://host/set", "paramiko", r'SFTPFileSystem requires "paramiko" to be installed'),
    ],
)
def test_stores_whose_package_is_missing(url: str, package: str, fix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr(sys.modules["fsspec.registry"], "_registry", {})  # of what was imported before
    with pytest.raises(ConfigError, match=rf"^{url.partition('/')[0]}//: {fix}$"):
        shards(url)


@pytest.mark.parametrize(
    ("name", "text"), [("VIDTRAIN_CACHE_GB", "0"), ("VIDTRAIN_STORE_SECONDS", "a"), ("VIDTRAIN_CACHE_GB", "nan")]
)
def test_settings_that_are_none(name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, text)
    with pytest.raises(ConfigError, match=rf"^{name}={text}: expected a number above 0"):
        Cache.of_this_machine()


# ---------------------------------------------------------------- ahead of their use


PARTS = ClipParts(READER, SamplerConfig(num_frames=2, stride=1), TransformConfig(size=32, resize=36))


def clips_of(manifest: Manifest) -> TrainClips:
    return TrainClips(manifest, PARTS, seed=1)


def test_videos_of_a_batch_are_fetched_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """All four are asked for before the first has come, and each once: by the batch, or by the one before it."""
    manifest = shards(ROOT).splits["train"]
    together = threading.Barrier(4, timeout=5)
    cat = Moody.cat_file

    def waiting(self: Moody, path: str, *args: Any, **options: Any) -> bytes:
        if path.endswith(".tar"):
            together.wait()
        return cat(self, path, *args, **options)

    monkeypatch.setattr(Moody, "cat_file", waiting)
    loader = TrainLoader(clips_of(manifest), Workers(0), batch_size=2)
    Moody.asked.clear()
    found = list(loader.epoch(0))
    assert not [bad for batch in found for bad in batch.bad]
    assert [len(batch) for batch in found] == [2, 2]
    assert len(Moody.asked) == 4
    assert not store_cache._coming


def test_clips_of_a_store_are_those_of_the_disk(local: Path) -> None:
    def pixels(manifest: Manifest, workers: int, share: tuple[int, int] = (0, 1), start: int = 0) -> list[list[int]]:
        loader = TrainLoader(clips_of(manifest), Workers(workers), batch_size=2, share=share)
        batches = loader.epoch(3, start)
        return [[*batch.videos.tolist(), *batch.inputs["rgb"].flatten(1).sum(1).tolist()] for batch in batches]

    here, there = pixels(read_index(local).splits["train"], 0), shards(ROOT).splits["train"]
    assert sorted(row for first, second, *_ in here for row in (first, second)) == [0, 1, 2, 3]
    for workers in (0, 2):
        assert pixels(there, workers) == here
        assert pixels(there, workers, start=1) == here[1:]  # a resume in the middle of an epoch
    for rank in range(2):  # two processes share each batch
        assert pixels(there, 0, (rank, 2)) == [batch[rank::2] for batch in here]


def test_views_of_a_test_are_fetched_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = shards(ROOT).splits["test"]
    ahead: list[list[str]] = []
    monkeypatch.setattr(read_ahead, "fetch_ahead", lambda paths: ahead.append(list(paths)))
    views = EvalViews(manifest, PARTS, EvalConfig(clips=1, crops=1, batch_size=2))
    assert [batch.videos.tolist() for batch in eval_loader(views, Workers(0))] == [[0, 1], [2, 3]]
    assert ahead == [list(manifest.paths), list(manifest.paths)[2:]]


@pytest.mark.parametrize("mood", ["fails", "refuses"])
def test_what_goes_wrong_ahead_of_its_use_is_said_when_it_is_used(mood: str) -> None:
    first, second = list(shards(ROOT).splits["train"].paths)[:2]
    Moody.moods[:] = [mood] * 3
    store_cache.fetch_ahead([first])
    with pytest.raises(VideoError, match="cannot be fetched" if mood == "fails" else "does not allow") as error:
        READER.open(first)
    assert error.value.path == first
    Moody.moods.clear()
    assert len(frames(first)) == 6  # it is asked for again
    store_cache.fetch_ahead([second])
    store_cache.fetch_ahead([])  # another epoch: the first is wanted no more
    assert not store_cache._coming
    assert len(frames(second)) == 6


def test_what_had_to_make_room_is_fetched_again(cache: Path) -> None:
    path = shards(ROOT).splits["train"].paths[0]
    store_cache.fetch_ahead([path])
    store_cache._coming[path].result().unlink()
    assert len(frames(path)) == 6


def test_no_more_is_fetched_ahead_than_memory_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    paths = list(shards(ROOT).splits["train"].paths)
    monkeypatch.setattr(store_cache, "_MOST_AHEAD", sum(stretch_of(path).size or 0 for path in paths[:2]))
    store_cache.fetch_ahead([paths[0], paths[0], *paths])
    assert [*store_cache._coming] == paths[:2]


def test_a_forked_process_fetches_ahead_itself() -> None:
    """Its parent's threads do not come along."""
    paths = list(shards(ROOT).splits["train"].paths)
    store_cache.fetch_ahead(paths[:1])
    assert len(frames(paths[0])) == 6
    child = multiprocessing.get_context("fork").Process(target=_fetch_in_child, args=(paths[1],))
    child.start()
    child.join(20)
    assert child.exitcode == 0


def test_a_file_system_outlives_its_place_in_fsspecs_cache() -> None:
    """Which fsspec empties in a forked process; s3fs would then close its parent's connections there."""
    system, _ = remote._system(ROOT)
    alive = weakref.ref(system)
    del system
    Moody.store.clear()  # whose files know their file system
    Moody.clear_instance_cache()
    gc.collect()
    assert alive() is not None


def _fetch_in_child(path: str) -> None:
    store_cache.fetch_ahead([path])
    assert store_cache._coming[path].result(10).is_file()


# ---------------------------------------------------------------- what a user names


def put(name: str, content: bytes) -> str:
    fsspec.filesystem("moody").pipe_file(f"/bucket/{name}", content)
    return f"moody://bucket/{name}"


def test_a_file_that_has_changed_is_fetched_again(monkeypatch: pytest.MonkeyPatch) -> None:
    url = put("best.pt", b"one")
    for content, asked in ((b"one", 1), (b"one", 1), (b"two", 2)):
        if content == b"two":
            put("best.pt", content)
        assert local_file(url).read_bytes() == content
        assert local_file(url).suffix == ".pt"
        assert len(Moody.asked) == asked
    # a store that tells neither when a file was written nor what it is: asked each time
    monkeypatch.setattr(Moody, "info", lambda self, path, **_: {"name": path, "size": 3, "type": "file"})
    assert local_file(url).read_bytes() == b"two"
    put("best.pt", b"six")
    assert local_file(url).read_bytes() == b"six"


def test_a_large_file_may_take_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDTRAIN_STORE_SECONDS", "0.5")
    url, limits = put("best.pt", bytes(2_000_000)), []
    fetch = store_cache.fetch
    monkeypatch.setattr(
        store_cache, "fetch", lambda path, seconds, *a: limits.append(seconds) or fetch(path, seconds, *a)
    )
    local_file(url)
    assert limits == [2.5]


def test_a_folder_is_no_file() -> None:
    put("run/best.pt", b"")
    with pytest.raises(VideoError, match=r"^moody://bucket/run: is a folder, and folders in a store are not"):
        local_file("moody://bucket/run")


def test_lists_in_a_store_name_videos_there(local: Path, tmp_path: Path) -> None:
    first = open_bytes(read_index(local).splits["train"].paths[0]).read()
    put("set/a/1.mp4", first)
    other = put("other/2.mp4", first)
    put("set/train.csv", f"path,label\na/1.mp4,x\n{other},y\nb/3.mp4,x\n".encode())
    for found in (
        lists(ROOT, train="train.csv", val_fraction=0, test_fraction=0),
        lists(tmp_path, train=f"{ROOT}/train.csv", val_fraction=0, test_fraction=0),
        table(ROOT, train="train.csv", val_fraction=0, test_fraction=0),
    ):
        train = found.splits["train"]
        if train.missing:  # the names of the others start from a folder of this machine
            assert (list(train.paths), list(train.missing)) == ([other], ["a/1.mp4", "b/3.mp4"])
            continue
        assert list(train.paths) == [f"{ROOT}/a/1.mp4", other, f"{ROOT}/b/3.mp4"]
        assert (found.class_names, train.labels.tolist()) == (("x", "y"), [0, 1, 0])
        assert len(frames(train.paths[0])) == 6
        with pytest.raises(VideoError, match="no such file in the store"):
            READER.open(train.paths[2])
    grouped = lists(ROOT, train="train.csv", val_fraction=0.5, test_fraction=0, group_by=r"(\w+)/", split_seed=1)
    assert not {path.split("/")[-2] for path in grouped.splits["train"].paths} & {
        path.split("/")[-2] for path in grouped.splits["val"].paths
    }


def test_a_folder_of_videos_is_read_where_it_lies() -> None:
    from vidtrain.data.formats.folder import folder

    with pytest.raises(DataError, match=rf"^{ROOT}: this format reads a folder of this machine"):
        folder(ROOT)


# ---------------------------------------------------------------- files of this machine, and what has no end


def test_a_device_or_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pt")
    for url in ("file:///dev/zero", "FILE:///dev/zero", f"file://{tmp_path}/pipe.pt", "local:///dev/zero"):
        with pytest.raises(VideoError, match=rf"^{url}: is not a regular file$"):
            local_file(url)
        with pytest.raises(VideoError, match=rf"^{url}: is not a regular file$"):
            Cache.of_this_machine().fetch(url)


def test_names_of_files_of_this_machine(tmp_path: Path) -> None:
    (tmp_path / "w?t.pt").write_bytes(b"one")
    assert local_file(f"file://{tmp_path}/w?t.pt").read_bytes() == b"one"
    assert local_file(f"FILE://{tmp_path}/w?t.pt").read_bytes() == b"one"
    with pytest.raises(ConfigError, match="password"):
        local_file("file://me:word@server/w?t.pt")


def test_pieces_together_are_the_file(monkeypatch: pytest.MonkeyPatch, local: Path) -> None:
    monkeypatch.setattr(remote, "_PIECE", 1000)
    for size in (0, 999, 1000, 1001, 3000):
        url, content = put(f"{size}.bin", os.urandom(size)), fsspec.filesystem("moody").cat(f"/bucket/{size}.bin")
        assert read_bytes(url, 5, 10) == content  # its size is known, whatever the cache holds
        assert Cache.of_this_machine().fetch(url).read_bytes() == content
    path = shards(ROOT).splits["train"].paths[0]
    assert (stretch_of(path).size or 0) > 2000
    here = open_bytes(read_index(local).splits["train"].paths[0]).read()
    assert Cache.of_this_machine().fetch(path).read_bytes() == here


def test_a_file_without_a_size_is_read_as_far_as_the_cache_reaches(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "_PIECE", 1000)
    monkeypatch.setattr(Moody, "info", lambda self, path, **_: {"name": path, "size": None, "type": "file"})
    url = put("endless.bin", bytes(5500))
    assert len(read_bytes(url, 5, 5500)) == 5500
    monkeypatch.setenv("VIDTRAIN_CACHE_GB", "3e-6")
    Moody.asked.clear()
    with pytest.raises(VideoError, match=r"endless.bin: has more than the 3,000 bytes that the cache holds"):
        Cache.of_this_machine().fetch(url)
    assert len(Moody.asked) == 4
    assert not kept(cache)


def test_what_nobody_waits_for_ends_at_its_next_piece(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_PIECE", 10)
    url, cat, gate = put("slow.bin", bytes(10_000)), Moody.cat_file, threading.Event()

    def slow(self: Moody, path: str, *args: Any, **options: Any) -> bytes:
        content = cat(self, path, *args, **options)
        if len(Moody.asked) > 2:
            gate.wait(5)
        return content

    monkeypatch.setattr(Moody, "cat_file", slow)
    before = set(threading.enumerate())
    with pytest.raises(VideoError, match=r"3 tries; no answer within 0.05 s"):
        replace(Cache.of_this_machine(), seconds=0.05).fetch(url)
    count = len(Moody.asked)
    gate.set()
    for thread in set(threading.enumerate()) - before:
        thread.join(5)
        assert not thread.is_alive()
    assert len(Moody.asked) == count
    assert not kept(cache)


@pytest.mark.parametrize("name", [".lock", ".room", "seen"])
def test_a_file_of_the_cache_that_cannot_be_written(name: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDTRAIN_CACHE_GB", "1e-6")
    url = put("a.pt", bytes(100))
    file = Cache.of_this_machine()._file(url).with_suffix(".seen") if name == "seen" else cache / name
    file.mkdir(parents=True)
    with pytest.raises(ConfigError, match=rf"^{file}: cannot be written \(.*\): .*VIDTRAIN_CACHE=FOLDER$"):
        local_file(url)


def test_an_index_that_cannot_be_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("VIDTRAIN_CACHE", str(tmp_path / "file"))
    with pytest.raises(ConfigError, match=rf"^{tmp_path}/file/indices/.*: cannot be written .*VIDTRAIN_CACHE=FOLDER$"):
        shards(ROOT)


def test_a_file_larger_than_the_cache_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDTRAIN_CACHE_GB", "1e-6")  # 1,000 bytes
    url = put("large.pt", bytes(1001))
    said = r"^moody://bucket/large.pt: has 1,001 bytes; the cache holds 1,000: raise VIDTRAIN_CACHE_GB$"
    with pytest.raises(VideoError, match=said):
        local_file(url)
    with pytest.raises(
        VideoError, match=r"large.pt: has 1,001 bytes or more; the cache holds 1,000: raise VIDTRAIN_CA"
    ):
        Cache.of_this_machine().fetch(url)
    for name in ("a.json", "b.bin"):  # each fits, both do not
        put(f"two/{name}", bytes(600))
    with pytest.raises(VideoError, match=r"^moody://bucket/two: has a\.json, b\.bin, together more; the cache holds"):
        store_cache.folder_or_file("moody://bucket/two", ["a.json"], ["b.bin"])


@pytest.mark.parametrize("url", ["file://", "file:///", "s3://"])
def test_an_address_of_nothing(url: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{url}: names nothing in the store: "):
        store_cache.folder_or_file(url, ["best.pt"])


def test_a_device_is_no_folder() -> None:
    with pytest.raises(VideoError, match=r"^file:///dev/zero: is not a regular file$"):
        store_cache.folder_or_file("file:///dev/zero", ["best.pt"])

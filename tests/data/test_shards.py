"""Videos in tar files: written, found again and read in place, to the bit; and tar files that are no such thing."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.data.prepared import READER, run
from tests.videos import scene, write_video
from vidtrain.data.formats.shards import shards
from vidtrain.data.manifest.index import read_index
from vidtrain.data.manifest.manifest import IntLists, Manifest, StringArray, VideoData
from vidtrain.data.prepare.shard_sample import member_names
from vidtrain.data.prepare.sharding import Sharded, bytes_of, write_shards
from vidtrain.data.readers.any_path import AnyReader
from vidtrain.data.readers.decord import DecordReader
from vidtrain.data.settings import CopyFormat, ShardConfig
from vidtrain.errors import ConfigError, DataError, VideoError
from vidtrain.tar_members import mapped, open_bytes, size_of, stretch_of, walk_tar

LOSSLESS = {".mp4": "libx264", ".mkv": "libx264", ".avi": "mpeg4", ".ts": "mpeg2video"}


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """One of each container."""
    home = tmp_path_factory.mktemp("videos") / "kinds"
    home.mkdir()
    frames = scene(20)
    return [write_video(home / f"a{suffix}", frames, codec=codec) for suffix, codec in LOSSLESS.items()]


def data_of(paths: list[Path]) -> VideoData:
    """Each in train and, the first two, in test; class 0 and 1 in turn."""
    rows = [str(path) for path in paths]
    labels = [n % 2 for n in range(len(rows))]
    return VideoData(
        ("left, up", "right"), {"train": Manifest.of(rows, labels), "test": Manifest.of(rows[:2], labels[:2])}
    )


def shard(data: VideoData, output: Path, **settings: object) -> Sharded:
    return write_shards(data, output, replace(ShardConfig(), **settings), workers=1)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def written(videos: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of the videos, one video each. Read them, do not change them."""
    output = tmp_path_factory.mktemp("written") / "shards"
    assert shard(data_of(videos), output, size="1kB") == Sharded(6, 0, 6, sum(map(size, [*videos, *videos[:2]])), ())
    return output


def size(path: Path) -> int:
    return path.stat().st_size


# ---------------------------------------------------------------- writing


def test_rows_keep_their_order_and_bytes(videos: list[Path], written: Path) -> None:
    data, found = data_of(videos), read_index(written)
    assert found.class_names == data.class_names
    for split, manifest in data.splits.items():
        assert found.splits[split].labels.tolist() == manifest.labels.tolist()
        for path, source in zip(found.splits[split].paths, manifest.paths, strict=True):
            assert path.startswith(str(written / split))
            assert path.endswith(f"/{Path(source).name}") == (
                Path(source).suffix == ".mp4"
            )  # the others are a-2, a-3 ...
            assert open_bytes(path).read() == Path(source).read_bytes()
            assert size_of(path) == size(Path(source))


def test_other_tools_read_them(videos: list[Path], written: Path) -> None:
    """By Python's tarfile, on which WebDataset is built: a sample is what has one name before its first dot."""
    contents: dict[str, bytes] = {}
    for tar in sorted(written.glob("train-*.tar")):
        with tarfile.open(tar) as file:
            members = file.getmembers()
            assert len({member.name.partition(".")[0] for member in members}) == 1
            contents |= {member.name: file.extractfile(member).read() for member in members}  # type: ignore[union-attr]
            assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in members} == {(0, 0, 0, "", "", 0o644)}
    assert contents["a.mp4"] == videos[0].read_bytes()
    assert contents["a.cls"] == b"0"
    assert json.loads(contents["a-2.json"]) == {"path": "a-2.mkv", "label": 1, "class": "right"}
    assert len(contents) == 3 * len(videos)


def test_classes_of_any_name_but_those_of_two_lines(videos: list[Path], tmp_path: Path) -> None:
    data = data_of(videos)
    names = ("caf\udce9", *data.class_names[1:])
    shard(replace(data, class_names=names), tmp_path / "out")
    (tmp_path / "out" / "index.json").unlink()
    assert shards(str(tmp_path / "out")).class_names == names
    with pytest.raises(DataError, match=r"^class 'a\\nb': classes.txt has a name per line: rename it$"):
        shard(replace(data, class_names=("a\nb", *data.class_names[1:])), tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_written_twice_they_have_the_same_bytes(videos: list[Path], tmp_path: Path) -> None:
    for name in "ab":
        shard(data_of(videos), tmp_path / name)
    files = [sorted(path for path in (tmp_path / name).iterdir() if path.suffix in (".tar", ".txt")) for name in "ab"]
    assert [path.name for path in files[0]] == ["classes.txt", "test-000000.tar", "train-000000.tar"]
    assert [path.read_bytes() for path in files[0]] == [path.read_bytes() for path in files[1]]


def test_training_videos_are_shuffled_and_others_are_not(tmp_path: Path) -> None:
    for n in range(12):
        (tmp_path / f"{n:02}.mp4").write_bytes(b"%d" % n)
    paths = [str(path) for path in sorted(tmp_path.glob("*.mp4"))]
    every = Manifest.of(paths, [0] * 12)
    orders = {}
    for seed in (0, 1):
        shard(VideoData(("a",), {"train": every, "test": every}), tmp_path / f"out{seed}", seed=seed)
        for split in ("train", "test"):
            tar = tmp_path / f"out{seed}" / f"{split}-000000.tar"
            with tar.open("rb") as file:
                orders[split, seed] = [m.name for m in walk_tar(file, "it") if m.name.endswith(".mp4")]
    ascending = [Path(path).name for path in paths]
    assert orders["test", 0] == orders["test", 1] == ascending
    assert orders["train", 0] != ascending
    assert orders["train", 0] != orders["train", 1]
    assert sorted(orders["train", 1]) == ascending


def test_a_second_run_writes_what_is_missing(videos: list[Path], written: Path, tmp_path: Path) -> None:
    output, data = tmp_path / "shards", data_of(videos)
    shutil.copytree(written, output)
    before = {path.name: path.read_bytes() for path in output.glob("*.tar")}
    (output / "train-000001.tar").unlink()
    with (output / "test-000000.tar").open("r+b") as file:
        file.truncate(1000)
    (output / "index.json").unlink()
    with (output / "shards.jsonl").open("a") as journal:
        journal.write('{"name": "../elsewhere.tar", "plan": "", "bytes": 1}\n{"name": "train-0')  # killed within a line
    (tmp_path / "elsewhere.tar").write_bytes(b"mine")
    again = shard(data, output, size="1kB")
    assert (again.made, again.kept) == (2, 4)
    assert {path.name: path.read_bytes() for path in output.glob("*.tar")} == before
    assert (tmp_path / "elsewhere.tar").read_bytes() == b"mine"
    read_index(output)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


def test_what_another_job_has_left_is_not_touched(videos: list[Path], written: Path, tmp_path: Path) -> None:
    output, data = tmp_path / "shards", data_of(videos)
    shutil.copytree(written, output)
    before = contents(output)
    other = replace(data, splits={"train": replace(data.splits["train"], labels=np.array([1, 1, 0, 1]))})
    fewer = replace(data, splits={"train": data.splits["train"]})
    gone = data_of([*videos[:3], tmp_path / "gone.mp4"])
    for wrong, size, said in (
        (other, "1kB", r"holds test-000000.tar \(and 2 more\)"),
        (fewer, "1kB", r"holds test-000000.tar \(and 1 more\)"),
        (data, "1GB", r"holds test-000000.tar \(and 5 more\)"),
        (gone, "1kB", r"not there now, the first: .*gone.mp4\)"),
    ):
        with pytest.raises(ConfigError, match=rf"^output=.*shards: .*{said}.*; choose another output="):
            shard(wrong, output, size=size)
    assert contents(output) == before
    assert shard(data, output, size="1kB").made == 0


@pytest.mark.parametrize("name", ["train-000000.tar", "classes.txt", "report.csv", "index.json", "train.labels.npy"])
def test_a_file_of_the_users_own_is_not_overwritten(videos: list[Path], tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"mine")
    with pytest.raises(ConfigError, match=rf"holds {name} of another dataset"):
        shard(data_of(videos[:2]), tmp_path)
    assert contents(tmp_path) == {name: b"mine"}


def test_a_shard_whose_run_was_killed_right_behind_it_is_this_jobs(videos: list[Path], tmp_path: Path) -> None:
    data = data_of(videos)
    shard(data, tmp_path, size="1kB")
    lines = (tmp_path / "shards.jsonl").read_text().splitlines()
    (tmp_path / "shards.jsonl").write_text("\n".join(lines[:6]))  # of what was begun
    for name in ("classes.txt", "report.csv", "index.json"):
        (tmp_path / name).unlink()
    assert shard(data, tmp_path, size="1kB").made == 6


def test_rows_of_one_video_and_videos_that_are_not_there(videos: list[Path], tmp_path: Path) -> None:
    rows = [str(videos[0]), str(tmp_path / "gone.mp4"), str(videos[0])]
    manifest = Manifest(StringArray.of(rows), np.array([0, 1, 1]), np.array([0.0, 0, 0.2]), np.array([0.2, 1, np.inf]))
    tags = replace(manifest, tags=IntLists.of([[0], [1], [0, 1]]))
    done = shard(VideoData(("a", "b"), {"train": manifest, "test": tags}), tmp_path / "out")
    assert (done.videos, [bad.path for bad in done.bad]) == (2, [rows[1]])
    found = read_index(tmp_path / "out")
    assert found.splits["train"].labels.tolist() == [0, 1]
    assert found.splits["train"].starts.tolist() == [0, 0.2]  # type: ignore[union-attr]
    assert not found.splits["train"].missing
    assert list(found.splits["test"].missing) == [rows[1]]
    assert len(set(found.splits["train"].paths)) == 1
    (tmp_path / "out" / "index.json").unlink()
    again = shards(tmp_path / "out", val_fraction=0)
    assert [t.tolist() for t in again.splits["test"].tags or ()] == [[0], [0, 1]]
    assert again.splits["train"].ends.tolist() == [0.2, np.inf]  # type: ignore[union-attr]
    assert again.class_names == ("a", "b")


def test_folders_of_images_are_refused(tmp_path: Path) -> None:
    (tmp_path / "frames").mkdir()
    with pytest.raises(DataError, match=r"frames: is a folder of images \(1 of 1 videos are\).* prepare.format=jpeg"):
        shard(data_of([tmp_path / "frames"]), tmp_path / "out")


@pytest.mark.parametrize("size", ["", "1", "GB", "0GB", "-1GB", "1 PB", "nanGB", "1e9GB"])
def test_sizes_that_are_none(size: str) -> None:
    with pytest.raises(ConfigError, match=r"^shard.size=.*: expected a number above 0 with kB, MB, GB or TB"):
        bytes_of(size)


def test_sizes() -> None:
    assert [bytes_of(size) for size in ("1GB", "1.5 mb", "2kB", "0.001TB")] == [10**9, 1_500_000, 2000, 10**9]


def test_names_are_keys_of_webdataset() -> None:
    names = member_names(["/d/a/x.y.MP4", "/d/a/x_y.avi", "/d/a/X_Y.mkv", "/d/b/x", "/d/b/.mp4"])
    assert list(names.values()) == ["a/x_y.mp4", "a/x_y-2.avi", "a/X_Y-3.mkv", "b/x.bin", "b/_.mp4"]


# ---------------------------------------------------------------- reading


@pytest.mark.parametrize("kind", LOSSLESS)
def test_a_member_has_the_frames_of_its_file(videos: list[Path], written: Path, kind: str) -> None:
    row = list(LOSSLESS).index(kind)
    path = read_index(written).splits["train"].paths[row]
    with READER.open(str(videos[row])) as whole, READER.open(path) as member:
        assert member.info == whole.info
        for indices in ([19, 3, 3, 11], range(20)):
            wanted = np.array(indices)
            assert np.array_equal(member.read(wanted, (24, 32)), whole.read(wanted, (24, 32)))


def test_decord_and_packs_read_members(videos: list[Path], written: Path, tmp_path: Path) -> None:
    pytest.importorskip("decord")
    decord = AnyReader(DecordReader(timeout=None))
    source, path = str(videos[0]), read_index(written).splits["train"].paths[0]
    with decord.open(source) as whole, decord.open(path) as member:
        assert np.array_equal(member.read(np.arange(20)), whole.read(np.arange(20)))
    run(data_of(videos[:1]), tmp_path / "packs", format=CopyFormat.jpeg, min_psnr=0.0)
    packs = read_index(tmp_path / "packs")
    shard(packs, tmp_path / "out")
    source, path = packs.splits["train"].paths[0], read_index(tmp_path / "out").splits["train"].paths[0]
    assert path.endswith(".jpack")
    with READER.open(source) as whole, READER.open(path) as member:
        assert np.array_equal(member.read(np.arange(20)), whole.read(np.arange(20)))


def test_shards_of_shards(written: Path, videos: list[Path], tmp_path: Path) -> None:
    """Members are sources like others, also of `data prepare`: the copies have the names that they have in the tar."""
    shard(read_index(written), tmp_path / "again")
    path = read_index(tmp_path / "again").splits["train"].paths[0]
    assert open_bytes(path).read() == videos[0].read_bytes()
    assert path.endswith("/a.mp4")
    one = read_index(written)
    run(replace(one, splits={"test": one.splits["test"]}), tmp_path / "copies", format=CopyFormat.jpeg, min_psnr=0.0)
    assert sorted(copy.name for copy in (tmp_path / "copies").glob("*.jpack")) == ["a-2.jpack", "a.jpack"]


def test_an_index_that_no_longer_fits_is_a_broken_video(written: Path, tmp_path: Path) -> None:
    shutil.copytree(written, tmp_path / "out")
    path = read_index(tmp_path / "out").splits["train"].paths[0]
    stretch = stretch_of(path)
    other = path.replace(f"@{stretch.start}+", f"@{stretch.start + 1}+")
    for wrong in (other, path.replace("@", "@9"), path.replace(f"+{stretch.size}", "+17")):
        with pytest.raises(VideoError, match="the tar file has changed since its index was written"):
            READER.open(wrong)
    with Path(stretch.file).open("r+b") as file:
        file.truncate(stretch.start + 100)
    with pytest.raises(VideoError, match="the tar file is cut off within it"):
        READER.open(path)
    Path(stretch.file).unlink()
    with pytest.raises(VideoError, match=r"no such file"):
        READER.open(path)


# ---------------------------------------------------------------- anybody's tar files


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_another_member_of_equal_size_is_not_taken_for_the_one_of_the_index(tmp_path: Path, format: int) -> None:
    """Short names, long ones, and such that are not ASCII, each with one of its own kind in its place."""
    for names in (("./a.mp4", "./b.mp4"), (f"{'d' * 99}/{'a' * 80}.mp4", f"{'d' * 99}/{'b' * 80}.mp4"), ("ä", "ö")):
        contents = {name: name[-5:].encode() for name in names}
        tar = tar_of(tmp_path / "it.tar", contents, format)
        with tar.open("rb") as file:
            paths = [member.path(str(tar)) for member in walk_tar(file, "it")]
        assert [open_bytes(path).read() for path in paths] == list(contents.values())
        assert [mapped(path).tobytes() for path in paths] == list(contents.values())
        tar_of(tar, dict(reversed(contents.items())), format)
        for path in paths:
            for read in (open_bytes, mapped):
                with pytest.raises(OSError, match="the tar file has changed since its index was written"):
                    read(path)


def tar_of(path: Path, contents: dict[str, bytes], format: int = tarfile.GNU_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=format) as tar:
        for name, content in contents.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_anybodys_tar_files(tmp_path: Path, format: int) -> None:
    long = f"./{'d' * 60}/{'e' * 60}"
    for split, names in (("train-00", ("00", "01", long)), ("my_val", ("02",)), ("test/0", ("03",))):
        contents = {}
        for name in names:
            contents |= {f"{name}.mp4": name.encode(), f"{name}.cls": b"1\n" if name == "01" else b"0"}
        tar_of(tmp_path / f"{split}.tar", {**contents, "readme.txt": b"?"}, format)
    tar_of(tmp_path / ".old" / "train.tar", {"9.mp4": b"", "9.cls": b"9"})
    found = shards(tmp_path)
    assert {split: manifest.labels.tolist() for split, manifest in found.splits.items()} == {
        "train": [0, 1, 0],
        "val": [0],
        "test": [0],
    }
    assert (found.class_names, found.splits["train"].starts) == (("0", "1"), None)
    assert found.splits["train"].paths[2].endswith(f"/{long[2:]}.mp4")
    assert [open_bytes(path).read() for path in found.splits["train"].paths] == [b"00", b"01", long.encode()]
    assert (
        "train-00.tar: 1 samples without a video, or without a label (.json, .cls, .txt) are skipped (readme.txt)"
        in found.notes
    )


def test_labels_of_any_writer(tmp_path: Path) -> None:
    contents = {
        "0.mp4": b"",
        "0.json": b'{"class": "up"}',
        "1.mp4": b"",
        "1.txt": b"down\n",
        "2.mp4": b"",
        "2.json": b'["of its own"]',
        "2.cls": b"up",
        "3.mp4": b"",
        "3.json": b'{"label": "down", "start": 1, "end": 2}',
    }
    tar_of(tmp_path / "train.tar", contents)
    found = shards(tmp_path, val_fraction=0, test_fraction=0)
    train = found.splits["train"]
    assert [found.class_names[label] for label in train.labels] == ["up", "down", "up", "down"]
    assert train.ends.tolist() == [np.inf, np.inf, np.inf, 2]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "text",
    [
        b"{}",
        b"[]",
        b'{"label": 1.5}',
        b'{"label": 0, "start": "a"}',
        b'{"label": 0, "start": 2, "end": 1}',
        b"[" * 10**5,
    ],
)
def test_labels_that_are_none(tmp_path: Path, text: bytes) -> None:
    tar_of(tmp_path / "train.tar", {"0.mp4": b"", "0.json": text})
    with pytest.raises(DataError, match=r'train.tar: 0.json: expected a "label"'):
        shards(tmp_path)


def test_two_videos_in_a_sample(tmp_path: Path) -> None:
    tar_of(tmp_path / "train.tar", {"0.mp4": b"", "0.avi": b"", "0.cls": b"0"})
    with pytest.raises(DataError, match=r"sample 0 has several videos: 0.mp4, 0.avi"):
        shards(tmp_path)


def test_a_tar_file_that_is_cut_between_two_members_is_noted(tmp_path: Path) -> None:
    tar = tar_of(tmp_path / "train.tar", {"0.mp4": b"0", "0.cls": b"0", "1.mp4": b"1", "1.cls": b"0"})
    said = "train.tar: ends without an end-of-archive mark: cut off between two members?"
    assert said not in shards(tmp_path, val_fraction=0, test_fraction=0).notes
    with tar.open("r+b") as file:
        file.truncate(4 * 512)
    assert said in shards(tmp_path, val_fraction=0, test_fraction=0).notes


def test_samples_of_which_none_has_a_video_are_named(tmp_path: Path) -> None:
    tar_of(tmp_path / "train.tar", {"s00.take1.mp4": b"0", "s00.take1.cls": b"0"})
    with pytest.raises(
        DataError, match=r"no videos in the tar files: .*skipped \(s00.take1.mp4\).*up to the first dot"
    ):
        shards(tmp_path)


def test_what_is_no_file_is_skipped(tmp_path: Path) -> None:
    """Links, folders, devices, and names that lead out; nothing is followed."""
    path = tmp_path / "it.tar"
    with tarfile.open(path, "w") as tar:
        for number, kind in enumerate(
            (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE)
        ):
            info = tarfile.TarInfo(f"{number}.mp4")
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
        for name in ("../up.mp4", "/root.mp4", "a/../../b.mp4", "good.mp4"):
            info = tarfile.TarInfo(name)
            info.size = 3
            tar.addfile(info, io.BytesIO(b"abc"))
    with path.open("rb") as file:
        assert [member.name for member in walk_tar(file, "it")] == ["good.mp4"]


def damaged(path: Path, kind: str) -> bytes:
    whole = tar_of(path, {"a.mp4": bytes(2000), "b.mp4": b"b"}).read_bytes()
    if kind == "cut":
        return whole[:1500]
    if kind == "checksum":
        return whole[:2560] + bytes([whole[2560] ^ 1]) + whole[2561:]
    if kind == "long":
        tar_of(path, {"a" * 70000: b""})
        return path.read_bytes()
    return {"empty": b"", "text": b"no tar" * 200, "gzip": b"\x1f\x8b" + bytes(1000)}[kind]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("cut", "is cut off within a.mp4: 1500 bytes"),
        ("checksum", "damaged at byte 2560"),
        ("long", "a name of 70001 bytes at byte 0; at most 65536 are read"),
        ("empty", "not a tar file: 0 bytes"),
        ("text", "not a tar file, or a compressed one"),
        ("gzip", "not a tar file, or a compressed one"),
    ],
)
def test_damaged_tar_files(tmp_path: Path, kind: str, message: str) -> None:
    path = tmp_path / "train.tar"
    path.write_bytes(damaged(path, kind))
    with pytest.raises(DataError, match=rf"{path}: {message}"):
        shards(tmp_path)


def test_no_tar_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds neither index.json nor a .tar file; `vidtrain data shard` writes them"):
        shards(tmp_path)

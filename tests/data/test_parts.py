"""Work in parts: beside each other in one folder, without a file made twice, and with the bits of a whole run."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.data.prepared import READER, as_data, made_folder, painted, run
from tests.videos import write_video
from vidtrain.data.checks.probe_files import Probes, Settings
from vidtrain.data.checks.probe_video import Depth
from vidtrain.data.flow.cache import make_flow, make_flow_part
from vidtrain.data.flow.methods import OpenCVFlow
from vidtrain.data.jobs.journal import Journal
from vidtrain.data.jobs.output_files import Job, part_of, whole
from vidtrain.data.jobs.parts import Part, PartMade, writer
from vidtrain.data.manifest.manifest import VideoData
from vidtrain.data.prepare.prepare import prepare_part
from vidtrain.data.prepare.sharding import write_shards, write_shards_part
from vidtrain.data.settings import CopyFormat, FlowCacheConfig, PrepareConfig, ShardConfig
from vidtrain.errors import ConfigError, VideoError, VidtrainError
from vidtrain.runs import sole_writer


@pytest.mark.parametrize("text", ["", "3", "0/2", "3/2", "1/0", "-1/2", "1/2/3", "a/b", "1 / 2", "1/99999999"])
def test_what_is_no_part(text: str) -> None:
    with pytest.raises(ConfigError, match=rf"^jobs.part={text}: expected K/N, such as 3/8"):
        Part.of(text)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 20])
def test_parts_are_all_of_the_list_once(count: int) -> None:
    items = list(range(13))
    shares = [list(Part.of(f"{number}/{count}").share(items)) for number in range(1, count + 1)]
    assert sorted(item for share in shares for item in share) == items
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


# ---------------------------------------------------------------- who may write


def test_parts_of_one_division_go_together_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sole_writer, "_PATIENCE", 0.05)
    with ExitStack() as held:
        for number in (1, 2):
            held.enter_context(writer(tmp_path, "output", Part(number, 3)))
        for part, words in (
            (None, "part 1/3 of it is at work there: wait for its end"),
            (Part(1, 2), "part 1/3 of it is at work there: wait for its end, or make it parts of 3, too"),
            (Part(2, 3), "another vidtrain process is writing there"),
        ):
            with pytest.raises(VidtrainError) as error, writer(tmp_path, "output", part):
                pass
            assert str(error.value).startswith(f"output={tmp_path}: {words}")
    with writer(tmp_path, "output", None):
        assert [file.name for file in tmp_path.iterdir()] == [".lock"]
        with pytest.raises(VidtrainError, match="another"), writer(tmp_path, "output", Part(1, 3)):
            pass


def test_what_parts_share_is_written_by_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sole_writer, "_PATIENCE", 0.05)

    def another() -> None:
        with writer(tmp_path, "output", Part(2, 2)):
            pass

    with pytest.raises(VidtrainError, match="another vidtrain"), writer(tmp_path, "output", Part(1, 2), begin=another):
        pass
    another()


def test_of_two_that_make_one_file_the_later_is_left_alone(tmp_path: Path) -> None:
    """A process that others hold for dead may still write when its file is made again."""
    job = Job("source.mp4", str(tmp_path / "copy.mp4"))

    def overtaken() -> None:
        with whole(job, str(tmp_path)) as one, one.open("wb") as early:
            with whole(job, str(tmp_path)) as other:
                other.write_bytes(b"a whole file")
            early.write(b"half a file")

    def replaced() -> None:
        with whole(job, str(tmp_path)) as one:
            one.unlink()
            one.write_bytes(b"of the other")

    with pytest.raises(VideoError, match="another process makes its file"):
        overtaken()
    assert Path(job.target).read_bytes() == b"a whole file"
    with pytest.raises(VideoError, match="another process makes its file"):
        replaced()
    assert part_of(Path(job.target)).read_bytes() == b"of the other"


# ---------------------------------------------------------------- the journal


@dataclass(frozen=True)
class Line:
    name: str
    value: int


def journal_of(folder: Path, part: Part | None = None) -> Journal[Line]:
    return Journal(folder / "lines.jsonl", "name", lambda content: Line(content["name"], content["value"]), part=part)


def write(folder: Path, lines: dict[str, int], part: Part | None = None) -> None:
    journal = journal_of(folder, part)
    for name, value in lines.items():
        journal.add(Line(name, value))
    journal.close()


def test_a_journal_reads_what_parts_have_written_and_takes_it_in(tmp_path: Path) -> None:
    write(tmp_path, {"a": 1, "b": 1})
    write(tmp_path, {"b": 2, "c": 2}, Part(2, 3))
    write(tmp_path, {"d": 3}, Part(12, 30))
    older = tmp_path / "lines.1-of-4.jsonl"
    older.write_text(json.dumps({"name": "c", "value": 0}) + "\n" + json.dumps({"name": "e", "value": 4}) + '\n{"name')
    os.utime(older, ns=(10**9, 10**9))
    (tmp_path / "lines.old-of-me.jsonl").write_text(json.dumps({"name": "x", "value": 9}))
    expected = {"a": 1, "b": 2, "c": 2, "d": 3, "e": 4}

    for part in (None, Part(1, 3)):
        found = journal_of(tmp_path, part)
        assert {name: line.value for name, line in found.entries.items()} == expected
        assert sorted(line.value for line in found.replaced) == [0, 1]

    journal = journal_of(tmp_path)
    journal.take_in_parts()
    journal.close()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["lines.jsonl", "lines.old-of-me.jsonl"]
    assert {name: line.value for name, line in journal_of(tmp_path).entries.items()} == expected


# ---------------------------------------------------------------- the work


def content(folder: Path) -> dict[str, str]:
    """Name -> digest of what has been made, without journals (which say when sources were changed) and locks."""
    return {
        file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in folder.rglob("*")
        if file.is_file() and not file.name.endswith((".jsonl", ".lock", "report.csv"))
    }


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> VideoData:
    """Five videos, some of whose copies would have one name; and one that is none."""
    root = tmp_path_factory.mktemp("in")
    names = ("a.mp4", "a.avi", "A.mp4", "b/a.mp4", "c.mkv")
    made = [
        write_video(made_folder((root / name).parent) / Path(name).name, painted(8 + n)) for n, name in enumerate(names)
    ]
    (root / "bad.mp4").write_bytes(b"no video")
    return as_data([*made, root / "bad.mp4"])


PREPARE = PrepareConfig(short_side=32)
SHARD = ShardConfig(size="3kB")
FLOW = FlowCacheConfig(short_side=32)


def a_part(action: str, data: VideoData, output: Path, part: Part) -> PartMade:
    if action == "prepare":
        return prepare_part(data, output, PREPARE, READER, part, workers=None)
    if action == "shard":
        return write_shards_part(data, output, SHARD, part, workers=None)
    return make_flow_part(data.files(), output, FLOW, OpenCVFlow("dis"), READER, part, workers=None)


def all_of(action: str, data: VideoData, output: Path) -> tuple[int, int]:
    """(made, kept)."""
    if action == "prepare":
        found = run(data, output, workers=None, short_side=32)
        return found.made, found.kept
    if action == "shard":
        shards = write_shards(data, output, SHARD, workers=None)
        return shards.made, shards.kept
    flow = make_flow(data.files(), output, FLOW, OpenCVFlow("dis"), READER, workers=None)
    return flow.made, flow.kept


@pytest.mark.parametrize("action", ["prepare", "shard", "flow"])
def test_parts_leave_what_a_whole_run_leaves(action: str, videos: VideoData, tmp_path: Path) -> None:
    if action == "flow":
        pytest.importorskip("cv2", reason="computing flow needs OpenCV")
    count, _ = all_of(action, videos, tmp_path / "whole")
    assert count > 3
    out = tmp_path / "parts"
    made = [a_part(action, videos, out, Part(number, 3)) for number in (3, 2)]
    assert not (out / "index.json").exists()
    assert all(done.made and not done.kept for done in made)
    again = a_part(action, videos, out, Part(2, 3))
    assert (again.made, again.kept) == (0, made[1].made)
    finished = sum(done.made for done in made)
    assert all_of(action, videos, out) == (count - finished, finished)  # the part that nobody did
    assert all_of(action, videos, out) == (0, count)
    moved = content(tmp_path / "whole")
    index = [name for name in moved if name.endswith(("paths.npy", "index.json"))]  # say where they lie
    assert {k: v for k, v in content(out).items() if k not in index} == {
        k: v for k, v in moved.items() if k not in index
    }
    assert not [file.name for file in out.rglob("*-of-*")]
    if action != "shard":
        assert sum(len(done.bad) for done in made) == 1


def test_a_part_leaves_the_shards_of_others_to_them(videos: VideoData, tmp_path: Path) -> None:
    """Another part may have begun and finished one since the journals were read."""
    assert a_part("shard", videos, tmp_path, Part(1, 2)).made
    (tmp_path / "shards.1-of-2.jsonl").unlink()
    assert a_part("shard", videos, tmp_path, Part(2, 2)).made
    (tmp_path / "shards.2-of-2.jsonl").unlink()
    with pytest.raises(ConfigError, match=r"holds train-00000\d.tar \(and \d more\) of another dataset"):
        a_part("shard", videos, tmp_path, Part(2, 2))


def test_copies_with_other_settings_are_removed_by_the_last_run(videos: VideoData, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(videos, out, workers=None, short_side=32)
    packs = PrepareConfig(short_side=32, format=CopyFormat.jpeg)
    for number in (1, 2):
        prepare_part(videos, out, packs, READER, Part(number, 2), workers=None)
    assert len(list(out.rglob("*.mp4"))) == 5
    assert run(videos, out, workers=None, short_side=32, format=packs.format).kept == 5
    assert not list(out.rglob("*.mp4"))
    assert len(list(out.rglob("*.jpack"))) == 5


def test_probes_of_parts_are_known_to_the_whole(videos: VideoData, tmp_path: Path) -> None:
    paths = list(videos.splits["train"].paths)
    settings = Settings(READER, "any", Depth.OPENED, 20.0)
    for number in (1, 2):
        part = Part(number, 2)
        found = list(Probes(tmp_path, part).complete(part.share(paths), settings, workers=None, what="checking"))
        assert not any(one.known for one in found)
    probes = Probes(tmp_path)
    probes.take_in_parts()
    assert all(one.known for one in probes.complete(paths, settings, workers=None, what="checking"))
    assert [file.name for file in tmp_path.iterdir()] == ["probes.jsonl"]

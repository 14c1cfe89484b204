"""Features on disk: written whole or not at all, refused with other settings, read as sequences."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vidtrain.data.clips import loader as loaders
from vidtrain.data.clips.dataset import ClipParts
from vidtrain.data.clips.loader import TrainLoader, collate
from vidtrain.data.clips.sampling import ClipSpec
from vidtrain.data.clips.workers import Workers
from vidtrain.data.features.files import FILE, FeatureFolder, Video, open_features, read_info
from vidtrain.data.features.index import clip_seconds, write_feature_index
from vidtrain.data.features.sequences import EvalSequences, TrainSequences
from vidtrain.data.features.subsets import few_of_each, with_validation
from vidtrain.data.formats.features import features
from vidtrain.data.formats.index import index
from vidtrain.data.manifest.manifest import IntLists, Manifest, VideoData
from vidtrain.data.readers.pyav.reader import PyAVReader
from vidtrain.data.readers.timeline import packed
from vidtrain.data.settings import SamplerConfig, TransformConfig
from vidtrain.errors import ConfigError, DataError, VideoError
from vidtrain.sequences import Sequences
from vidtrain.types import Sample

SPEC = ClipSpec(num_frames=4, stride=2)  # span 7
FRAMES = (30, 7, 61, 20)
MADE = {"model._target_": "net", "sampler.num_frames": 4, "transform.size": 32, "layer": "features", "hop": None}

PARTS = ClipParts(PyAVReader(), SamplerConfig(), TransformConfig())


def vectors(video: int, clips: int, dtype: str = "float16") -> np.ndarray[Any, Any]:
    return np.random.default_rng(video).normal(size=(clips, 3)).astype(dtype)


def clips_of(frames: int) -> int:
    return max(1, -(-(frames - 7) // 7) + 1)


@pytest.fixture
def sources(tmp_path: Path) -> list[Video]:
    found = []
    for number in range(len(FRAMES)):
        path = tmp_path / "videos" / f"клип {number}.mp4"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes(number + 1))
        found.append(Video(str(path)))
    return found


def fill(folder: Path, sources: list[Video], rows: range | list[int] | None = None) -> dict[str, Any]:
    """Write the features of some videos, in two pieces each."""
    writer = FeatureFolder(folder, MADE, "float16")
    done = {}
    for row in range(len(sources)) if rows is None else rows:
        video, clips = sources[row], clips_of(FRAMES[row])
        found = vectors(row, clips)
        for number in (0, *([1] if clips > 1 else [])):
            writer.add(video, number, clips, found[number : (1 if number == 0 else clips)])
        done[video.key] = writer.finish(video, clips=clips, frames=FRAMES[row], fps=10.0)
    writer.close()
    return done


def made(folder: Path, sources: list[Video], tags: bool = False) -> VideoData:
    """A finished folder: three videos to train on, one to test."""
    done = fill(folder, sources)
    lists = IntLists.of([[0], [0, 1], []]) if tags else None
    train = Manifest.of([video.path for video in sources[:3]], [0, 1, -1] if tags else [0, 1, 0])
    train = Manifest(train.paths, train.labels, tags=lists)
    test = Manifest.of([sources[3].path], [1])
    test = Manifest(test.paths, test.labels, tags=IntLists.of([[1]]) if tags else None)
    return write_feature_index(folder, VideoData(("a", "b"), {"train": train, "test": test}), done, SPEC, None)


def test_what_was_written_is_read(tmp_path: Path, sources: list[Video]) -> None:
    made(tmp_path / "out", sources)
    data = features(tmp_path / "out")
    assert data.class_names == ("a", "b")
    assert data.features is not None
    assert (data.features.length, dict(data.features.made_by)) == (3, MADE)
    assert data.splits["train"].labels.tolist() == [0, 1, 0]
    for row in range(3):
        path = data.splits["train"].paths[row]
        assert np.array_equal(open_features(path, 3), vectors(row, clips_of(FRAMES[row])))
        assert np.array_equal(np.load(path), open_features(path, 3))  # an ordinary .npy
    assert any("groups sampler, transform, decoder" in note for note in data.notes)


def test_seconds_of_each_clip(tmp_path: Path, sources: list[Video]) -> None:
    made(tmp_path / "out", sources)
    assert clip_seconds(tmp_path / "out", "train", 0).tolist() == pytest.approx(
        np.array([[0, 0.7], [0.7, 1.4], [1.4, 2.1], [2.1, 2.8], [2.3, 3.0]])
    )
    assert clip_seconds(tmp_path / "out", "train", 1).tolist() == [[0, 0.7]]
    assert len(clip_seconds(tmp_path / "out", "test", 0)) == 3


def test_seconds_of_clips_of_uneven_frames(tmp_path: Path, sources: list[Video]) -> None:
    """12 frames a tenth of a second each, then 6 of half a second; by frames and by the second."""
    times = np.concatenate([np.arange(12) / 10, 1.2 + np.arange(7) / 2])
    for name, spec, seconds in (
        ("stride", SPEC, [[0, 0.7], [0.7, 2.2], [1.1, 4.2]]),
        ("fps", ClipSpec(4, fps=2), [[0, 2.2], [2.2, 4.2]]),
    ):
        folder = FeatureFolder(tmp_path / name, MADE, "float16")
        folder.add(sources[0], 0, len(seconds), vectors(0, len(seconds)))
        done = folder.finish(sources[0], clips=len(seconds), frames=18, fps=17 / 3.7, times=times)
        folder.close()
        again = FeatureFolder(tmp_path / name, MADE, "float16")
        assert again.finished(sources[0]) == done
        again.close()
        data = VideoData(("a",), {"train": Manifest.of([sources[0].path], [0])})
        write_feature_index(tmp_path / name, data, {sources[0].key: done}, spec, None)
        assert clip_seconds(tmp_path / name, "train", 0).tolist() == pytest.approx(np.array(seconds))


def test_a_journal_without_times_is_read(tmp_path: Path, sources: list[Video]) -> None:
    """As it was written before it had them."""
    done = fill(tmp_path / "out", sources)
    journal = tmp_path / "out" / "videos.jsonl"
    journal.write_text(journal.read_text().replace(', "times": ""', ""))
    again = FeatureFolder(tmp_path / "out", MADE, "float16")
    assert [again.finished(video) for video in sources] == list(done.values())
    again.close()


def test_a_line_whose_times_are_those_of_other_frames_is_none(tmp_path: Path, sources: list[Video]) -> None:
    done = fill(tmp_path / "out", sources)
    journal = tmp_path / "out" / "videos.jsonl"
    first, *others = journal.read_text().splitlines(keepends=True)
    journal.write_text(first.replace('"times": ""', f'"times": "{packed(np.arange(9) / 4)}"') + "".join(others))
    again = FeatureFolder(tmp_path / "out", MADE, "float16")
    assert [again.finished(video) for video in sources] == [None, *list(done.values())[1:]]
    again.close()


@pytest.mark.parametrize(
    "wrong",
    [
        *({"file": name} for name in ("../x.npy", "videos/ab/../x.npy", "videos/ab/x.npy\n", "x.npy")),
        *({"clips": "3"}, {"clips": True}, {"bytes": 1.5}, {"frames": None}, {"fps": "x"}, {"start": "0"}, {"path": 1}),
        *({"stamp": []}, {"stamp": {}}, {"surprise": 1}, {"times": 3}, {"times": "abcd"}),
    ],
    ids=str,
)
def test_a_line_of_another_kind_is_none(tmp_path: Path, sources: list[Video], wrong: dict[str, Any]) -> None:
    fill(tmp_path / "out", sources[:1])
    journal = tmp_path / "out" / "videos.jsonl"
    before = FeatureFolder(tmp_path / "out", MADE, "float16")
    assert before.finished(sources[0]) is not None
    before.close()
    line = json.loads(journal.read_text())
    if "file" in wrong:  # which is there, and as large as the line says
        copy = tmp_path / "out" / wrong["file"]
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(tmp_path / "out" / line["file"], copy)
    journal.write_text(json.dumps({**line, **wrong}) + "\n")
    again = FeatureFolder(tmp_path / "out", MADE, "float16")
    assert again.finished(sources[0]) is None
    again.close()


@pytest.mark.parametrize("length", [0, -1, 1 << 31, "3", 3.0, True, [3]])
def test_settings_of_another_kind(tmp_path: Path, sources: list[Video], length: Any) -> None:
    made(tmp_path / "out", sources)
    file = tmp_path / "out" / FILE
    content = json.loads(file.read_text())
    for wrong in ({"length": length}, {"made_by": [length]}, {"made_by": length}):
        file.write_text(json.dumps({**content, **wrong}))
        with pytest.raises(DataError, match="its made_by, length, tokens or checkpoint is none"):
            read_info(tmp_path / "out")


def test_the_folder_can_be_moved(tmp_path: Path, sources: list[Video]) -> None:
    made(tmp_path / "out", sources)
    (tmp_path / "out").rename(tmp_path / "elsewhere")
    data = features(tmp_path / "elsewhere")
    assert len(open_features(data.splits["test"].paths[0], 3)) == 3


def test_nothing_half_is_left(tmp_path: Path, sources: list[Video]) -> None:
    folder = FeatureFolder(tmp_path / "out", MADE, "float16")
    link = tmp_path / "out" / f"{sources[0].file}.part"
    link.parent.mkdir(parents=True)
    link.symlink_to(tmp_path / "elsewhere")
    folder.add(sources[0], 0, 5, vectors(0, 2))
    assert not (tmp_path / "elsewhere").exists()
    assert not list((tmp_path / "out").rglob("*.npy"))
    # as a kill leaves it: the part is there, and half a line in the journal
    (part,) = (tmp_path / "out").rglob("*.part")
    folder.close()
    part.write_bytes(b"half")
    with (tmp_path / "out" / "videos.jsonl").open("a") as journal:
        journal.write('{"key": "ab')
    done = fill(tmp_path / "out", sources)
    assert not list((tmp_path / "out").rglob("*.part"))
    again = FeatureFolder(tmp_path / "out", MADE, "float16")
    assert [again.finished(video) for video in sources] == list(done.values())
    again.close()


def test_a_full_disk_is_named(tmp_path: Path, sources: list[Video]) -> None:
    """By a limit to the size of a file, which is met when the bytes are flushed."""
    resource = pytest.importorskip("resource")
    folder = FeatureFolder(tmp_path / "out", {}, "float32")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(OSError, match="too large") as error:
            folder.add(sources[0], 0, 1, np.zeros((1, 5000), np.float32))
        assert error.value.filename == str(tmp_path / "out" / sources[0].file)
        folder.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_makes_a_file_unfinished(tmp_path: Path, sources: list[Video]) -> None:
    done = fill(tmp_path / "out", sources)
    (tmp_path / "out" / done[sources[0].key].file).unlink()
    cut = tmp_path / "out" / done[sources[1].key].file
    cut.write_bytes(cut.read_bytes()[:-1])
    Path(sources[2].path).write_bytes(b"changed since")
    folder = FeatureFolder(tmp_path / "out", MADE, "float16")
    assert [folder.finished(video) is not None for video in sources] == [False, False, False, True]
    folder.close()


def test_files_that_fit_are_read_once(tmp_path: Path, sources: list[Video]) -> None:
    made(tmp_path / "out", sources)
    for most, kept in ((1.0, True), (1e-9, False), (0, False)):
        data = features(tmp_path / "out", memory_gb=most, max_clips=2)
        assert data.features is not None
        assert (data.features.kept is not None) == kept
        clips = TrainSequences(data.splits["train"], data.features, PARTS, seed=0)
        views = EvalSequences(data.splits["train"], data.features, batch_size=8)
        first = only(views[0])
        assert np.array_equal(first.numpy(), vectors(0, clips_of(FRAMES[0])))
        first.zero_()  # a sample is its owner's
        path = Path(data.splits["train"].paths[0])
        whole = path.read_bytes()
        path.unlink()
        assert (views[0].inputs is not None) == kept
        if kept:
            assert np.array_equal(only(views[0]).numpy(), vectors(0, clips_of(FRAMES[0])))
            found = {tuple(only(clips[epoch, 0, 0])[:, 0].tolist()) for epoch in range(40)}
            every = vectors(0, clips_of(FRAMES[0]))[:, 0].tolist()
            assert found == {(every[n], every[n + 1]) for n in range(len(every) - 1)}  # stretches are drawn as before
        path.write_bytes(whole)


def test_a_video_begun_anew(tmp_path: Path, sources: list[Video]) -> None:
    folder = FeatureFolder(tmp_path / "out", MADE, "float16")
    folder.add(sources[0], 0, 5, vectors(9, 3))
    folder.add(sources[0], 0, 5, vectors(0, 5))
    done = folder.finish(sources[0], clips=5, frames=30, fps=10.0)
    folder.add(sources[1], 0, 1, vectors(1, 1))
    folder.discard(sources[1])
    folder.close()
    assert np.array_equal(np.load(tmp_path / "out" / done.file), vectors(0, 5))
    assert len(list((tmp_path / "out" / "videos").rglob("*.*"))) == 1


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"transform.size": 64}, "transform.size=32, now it is 64"),
        ({"hop": 16}, "hop=null, now it is 16"),
        ({"new": 1}, "new=null, now it is 1"),
    ],
)
def test_other_settings_are_refused(
    tmp_path: Path, sources: list[Video], changed: dict[str, Any], message: str
) -> None:
    fill(tmp_path / "out", sources)
    before = (tmp_path / "out" / FILE).read_bytes()
    with pytest.raises(ConfigError, match=message) as caught:
        FeatureFolder(tmp_path / "out", {**MADE, **changed}, "float16")
    assert "\n" not in str(caught.value)
    assert (tmp_path / "out" / FILE).read_bytes() == before


def test_a_folder_of_something_else_is_refused(tmp_path: Path, sources: list[Video]) -> None:
    with pytest.raises(ConfigError, match="something else than features"):
        FeatureFolder(tmp_path / "videos", MADE, "float16")


def test_another_length_is_refused(tmp_path: Path, sources: list[Video]) -> None:
    fill(tmp_path / "out", sources, [0])
    folder = FeatureFolder(tmp_path / "out", MADE, "float16")
    with pytest.raises(DataError, match="length 4, the others 3"):
        folder.add(sources[1], 0, 1, np.zeros((1, 4), np.float16))
    folder.close()


def test_lost_videos(tmp_path: Path, sources: list[Video]) -> None:
    """Left out of train; missing in test, so that a score says of how many."""
    done = fill(tmp_path / "out", sources, [0, 2])
    train = Manifest.of([video.path for video in sources[:2]], [0, 1])
    test = Manifest.of([video.path for video in sources[2:]], [0, 1], missing=["gone.mp4"])
    write_feature_index(tmp_path / "out", VideoData(("a", "b"), {"train": train, "test": test}), done, SPEC, None)
    data = features(tmp_path / "out")
    assert (len(data.splits["train"]), list(data.splits["train"].missing)) == (1, [])
    assert list(data.splits["test"].missing) == ["gone.mp4", sources[3].path]
    assert data.splits["test"].listed == 3


def test_parts_of_one_file_are_apart(tmp_path: Path, sources: list[Video]) -> None:
    parts = [Video(sources[2].path, 0.0, 2.0), Video(sources[2].path, 2.0, None), sources[2]]
    assert len({part.key for part in parts}) == len({part.file for part in parts}) == 3
    folder = FeatureFolder(tmp_path / "out", MADE, "float16")
    done = {}
    for number, part in enumerate(parts):
        folder.add(part, 0, 1, vectors(number, 1))
        done[part.key] = folder.finish(part, clips=1, frames=61, fps=10.0)
    folder.close()
    whole = Manifest.of([sources[2].path] * 2, [0, 1])
    manifest = Manifest(whole.paths, whole.labels, np.array([0.0, 2.0]), np.array([2.0, np.inf]))
    done[parts[0].key] = type(done[parts[0].key])(**{**vars(done[parts[0].key]), "clips": 3})
    done[parts[1].key] = type(done[parts[1].key])(**{**vars(done[parts[1].key]), "clips": 6})
    write_feature_index(tmp_path / "out", VideoData(("a", "b"), {"train": manifest}), done, SPEC, None)
    assert clip_seconds(tmp_path / "out", "train", 1)[0].tolist() == [2.0, 2.7]


# ---------------------------------------------------------------- reading


def test_mistakes_are_named(tmp_path: Path, sources: list[Video]) -> None:
    with pytest.raises(DataError, match=r"no such folder|does not exist"):
        features(tmp_path / "none")
    with pytest.raises(DataError, match=r"holds no features.json; `vidtrain extract` writes one"):
        features(tmp_path / "videos")
    FeatureFolder(tmp_path / "begun", MADE, "float16").close()
    with pytest.raises(DataError, match="holds no features yet"):
        features(tmp_path / "begun")
    made(tmp_path / "out", sources)
    with pytest.raises(DataError, match="data=features"):
        index(tmp_path / "out")
    content = json.loads((tmp_path / "out" / FILE).read_text())
    (tmp_path / "out" / FILE).write_text(json.dumps({**content, "version": 99}))
    with pytest.raises(DataError, match="version 99"):
        read_info(tmp_path / "out")
    (tmp_path / "out" / FILE).write_text("{}")
    with pytest.raises(DataError, match="cannot be read"):
        read_info(tmp_path / "out")


def test_broken_files(tmp_path: Path) -> None:
    np.save(tmp_path / "flat.npy", np.zeros(3))
    np.save(tmp_path / "whole.npy", np.zeros((2, 3), int))
    np.save(tmp_path / "empty.npy", np.zeros((0, 3)))
    (tmp_path / "text.npy").write_text("features")
    (tmp_path / "nothing.npy").touch()
    for name in ("flat", "whole", "empty", "text", "nothing", "none"):
        with pytest.raises(VideoError) as caught:
            open_features(str(tmp_path / f"{name}.npy"), 3)
        assert caught.value.path.endswith(f"{name}.npy")


def test_batches_are_sequences_in_the_order_of_the_samples(tmp_path: Path, sources: list[Video]) -> None:
    made(tmp_path / "out", sources)
    data = features(tmp_path / "out")
    assert data.features is not None
    views = EvalSequences(data.splits["train"], data.features, batch_size=32)
    batch = collate([views[row] for row in (1, 2, 0)])
    assert isinstance(batch.inputs["features"], Sequences)
    assert batch.inputs["features"].lengths.tolist() == [1, 9, 5]
    assert batch.targets.tolist() == [1, 0, 0]
    packed = batch.inputs["features"].pack()
    padded, lengths = torch.nn.utils.rnn.pad_packed_sequence(packed, batch_first=True)
    assert lengths.tolist() == [1, 9, 5]
    assert padded.dtype == torch.float32
    for place, row in enumerate((1, 2, 0)):
        wanted = torch.from_numpy(vectors(row, int(lengths[place]))).float()
        assert torch.equal(padded[place, : lengths[place]], wanted)
    parts = batch.split(2)
    assert [part.inputs["features"].lengths.tolist() for part in parts] == [[1, 9], [5]]
    assert torch.equal(torch.cat([part.inputs["features"].values for part in parts]), batch.inputs["features"].values)


def only(sample: Sample) -> torch.Tensor:
    assert sample.inputs is not None
    return sample.inputs["features"]


def test_a_random_stretch_in_training(tmp_path: Path, sources: list[Video]) -> None:
    made(tmp_path / "out", sources)
    data = features(tmp_path / "out", max_clips=4)
    assert data.features is not None
    clips = TrainSequences(data.splits["train"], data.features, PARTS, seed=0)
    whole = torch.from_numpy(vectors(2, 9))
    starts = set()
    for epoch in range(60):
        part = only(clips[epoch, 2, 0])
        assert len(part) == 4
        starts.add(next(s for s in range(6) if torch.equal(part, whole[s : s + 4])))
        assert torch.equal(part, only(clips[epoch, 2, 0]))  # a function of seed, epoch and row
    assert starts == set(range(6))
    assert len(only(clips[0, 1, 0])) == 1  # a shorter video is taken whole
    assert len(only(EvalSequences(data.splits["train"], data.features, batch_size=32)[2])) == 9  # a test reads all
    with pytest.raises(ConfigError, match=r"data\.max_clips=0"):
        TrainSequences(data.splits["train"], features(tmp_path / "out", max_clips=0).features, PARTS, seed=0)


def test_broken_files_are_replaced_in_training_and_named_in_testing(tmp_path: Path, sources: list[Video]) -> None:
    made(tmp_path / "out", sources)
    data = features(tmp_path / "out")
    broken = data.splits["train"].paths[0]
    Path(broken).write_bytes(b"x")
    assert data.features is not None
    sample = TrainSequences(data.splits["train"], data.features, PARTS, seed=0)[0, 0, 0]
    assert sample.video in (1, 2)
    assert [video.path for video in sample.bad] == [broken]
    sample = EvalSequences(data.splits["train"], data.features, batch_size=32)[0]
    assert sample.inputs is None
    assert sample.bad[0].path == broken


@pytest.mark.parametrize("workers", [0, 1])
def test_loaders(tmp_path: Path, sources: list[Video], workers: int) -> None:
    made(tmp_path / "out", sources, tags=True)
    data = features(tmp_path / "out")
    assert data.features is not None
    assert data.multi_label
    clips = TrainSequences(data.splits["train"], data.features, PARTS, seed=0, num_classes=2)
    loader = TrainLoader(clips, Workers(workers), batch_size=3)
    (batch,) = loader.epoch(0)
    assert sorted(batch.videos.tolist()) == [0, 1, 2]
    lengths = {0: 5, 1: 1, 2: 9}
    assert batch.inputs["features"].lengths.tolist() == [lengths[row] for row in batch.videos.tolist()]
    tags = {0: [1, 0], 1: [1, 1], 2: [0, 0]}
    assert batch.targets.tolist() == [tags[row] for row in batch.videos.tolist()]
    views = EvalSequences(data.splits["train"], data.features, batch_size=2, num_classes=2)
    batches = list(loaders.eval_loader(views, Workers(workers)))
    assert [b.videos.tolist() for b in batches] == [[0, 1], [2]]


# ---------------------------------------------------------------- tokens


def test_tokens_of_a_clip_stand_in_a_row(tmp_path: Path, sources: list[Video]) -> None:
    """(clips, P, D) on disk, (clips x P, D) to a model; a stretch is of whole clips."""
    folder, done = FeatureFolder(tmp_path / "out", {**MADE, "tokens": True}, "float16"), {}
    whole = np.arange(5 * 2 * 3, dtype=np.float16).reshape(5, 2, 3)
    folder.add(sources[0], 0, 5, whole[:3])
    folder.add(sources[0], 3, 5, whole[3:])
    with pytest.raises(DataError, match="length 3 x 3, the others 2 x 3"):
        folder.add(sources[1], 0, 1, np.zeros((1, 3, 3), np.float16))
    with pytest.raises(DataError, match="length 3, the others 2 x 3"):
        folder.add(sources[1], 0, 1, np.zeros((1, 3), np.float16))
    done[sources[0].key] = folder.finish(sources[0], clips=5, frames=30, fps=10.0)
    folder.close()
    data = VideoData(("a",), {"train": Manifest.of([sources[0].path], [0])})
    write_feature_index(tmp_path / "out", data, done, SPEC, None)
    found = features(tmp_path / "out", max_clips=2)
    assert found.features is not None
    assert (found.features.length, found.features.tokens) == (3, 2)
    assert found.features.protocol.startswith("2 tokens per clip (length 3")
    read = only(EvalSequences(found.splits["train"], found.features, batch_size=8)[0])
    assert torch.equal(read, torch.from_numpy(whole).flatten(0, 1))
    part = only(TrainSequences(found.splits["train"], found.features, PARTS, seed=0)[3, 0, 0])
    assert part.shape == (4, 3)
    assert int(part[0, 0]) % 6 == 0  # begins with a clip
    with pytest.raises(VideoError, match="expected clips x 4 x 3"):
        open_features(found.splits["train"].paths[0], 3, 4)


# ---------------------------------------------------------------- parts of the training videos


@pytest.fixture
def grouped(tmp_path: Path) -> VideoData:
    """Two classes of four groups of three videos, as UCF101 names them."""
    names = [f"v_{c}_g{g:02d}_c{n:02d}" for c in ("Run", "Walk") for g in range(1, 5) for n in range(1, 4)]
    folder = tmp_path / "out"
    (folder / "videos" / "aa").mkdir(parents=True)
    files = [f"videos/aa/{number}.npy" for number in range(len(names))]
    rows = [f"{tmp_path}/set/{name}.avi,,,made,1,{file}," for name, file in zip(names, files, strict=True)]
    (folder / "report.csv").write_text("path,start,end,status,clips,file,reason\n" + "\n".join(rows) + "\n")
    paths = [str(folder / file) for file in files]
    return VideoData(("run", "walk"), {"train": Manifest.of(paths, [0] * 12 + [1] * 12)})


def group_of(path: str) -> int:
    """Of a file's number in `grouped`."""
    return int(Path(path).stem) // 3


def test_validation_videos_are_whole_groups(grouped: VideoData) -> None:
    data, note = with_validation(grouped, 0.25, seed=0)
    train, val = ({group_of(path) for path in data.splits[split].paths} for split in ("train", "val"))
    assert not train & val
    assert len(data.splits["val"]) == 6
    assert sorted(set(data.splits["val"].labels.tolist())) == [0, 1]
    assert "6 of 24 training videos are held out" in note
    assert "groups by" in note
    other, _ = with_validation(grouped, 0.25, seed=1)
    assert list(other.splits["val"].paths) != list(data.splits["val"].paths)


@pytest.mark.parametrize("count", [1, 3, 4, 5])
def test_few_of_each_class_are_of_as_many_groups_as_there_are(grouped: VideoData, count: int) -> None:
    train = grouped.splits["train"]
    found = few_of_each(train, count, seed=0)
    assert np.bincount(found.labels).tolist() == [count, count]
    for label in (0, 1):
        groups = [group_of(path) for path, own in zip(found.paths, found.labels, strict=True) if own == label]
        assert len(set(groups)) == min(count, 4)
    draws = {tuple(few_of_each(train, count, seed).paths) for seed in range(5)}
    assert len(draws) > 2
    assert tuple(found.paths) in draws
    with pytest.raises(DataError, match=r"probe\.shots=13: class run has 12 training videos"):
        few_of_each(train, 13, 0, ("run", "walk"))

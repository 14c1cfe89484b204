"""vidtrain extract -> train model=feature_rnn data=features -> eval, from the command line."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests import warm
from tests.cli.conftest import NUMBERS_ONLY, Call, Done, environment
from tests.videos import scene, write_video
from vidtrain import build, create_model, load_model
from vidtrain.data.clips.sampling import ClipSpec, sliding_clips, uniform_clips
from vidtrain.data.clips.transforms import EvalCrops
from vidtrain.data.features.index import clip_seconds
from vidtrain.data.formats.features import features
from vidtrain.data.readers.pyav.reader import PyAVReader
from vidtrain.data.readers.timeline import Timeline
from vidtrain.data.settings import TransformConfig
from vidtrain.engine.preprocess import Preprocess
from vidtrain.shell import cli
from vidtrain.types import Indices

CLIP = [
    *["sampler.num_frames=4", "sampler.stride=2", "transform.size=32", "transform.resize=40", "eval.batch_size=3"],
    "trainer.num_workers=0",
]
SPEC = ClipSpec(num_frames=4, stride=2)
NET = ["model=slow_fusion", "model.width=4"]
LENGTHS = {"train/a": (40, 11, 25), "train/b": (30, 18, 7), "test/a": (22,), "test/b": (33,)}


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight small videos of two classes, of lengths from 7 to 40 frames; a clip's span is 7."""
    root = tmp_path_factory.mktemp("set")
    for folder, lengths in LENGTHS.items():
        (root / folder).mkdir(parents=True)
        for number, count in enumerate(lengths):
            write_video(root / folder / f"{number}.mp4", scene(count, seed=len(folder) * number), fps=10)
    return root


@pytest.fixture(scope="module")
def extracted(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The features of the eight. Read it, do not change it."""
    folder = tmp_path_factory.mktemp("extracted") / "out"
    with pytest.raises(SystemExit) as end:
        cli.main(["extract", *NET, *of(videos), *CLIP, f"output={folder}"])
    assert end.value.code == 0
    return folder


def error_line(done: Done) -> str:
    """The line that a user's mistake prints, after the warning that the weights are random."""
    lines = done.stderr.strip().splitlines()
    assert len([line for line in lines if "features of random weights" not in line]) == 1, done.stderr
    assert lines[-1].startswith("vidtrain: error: ")
    return lines[-1].removeprefix("vidtrain: error: ")


def of(videos: Path) -> list[str]:
    return ["data=folder", f"data.root={videos}", "data.val_fraction=0"]


def by_hand(
    model: torch.nn.Module,
    path: str,
    clips: Callable[[Timeline], Indices] = lambda own: sliding_clips(own, SPEC, 7),
) -> torch.Tensor:
    """The features of each clip of a file, one after the other. clips: of its timeline."""
    found = []
    preprocess = Preprocess([0.45] * 3, [0.225] * 3, torch.device("cpu"))
    with PyAVReader().open(path) as video, torch.no_grad():
        cut = EvalCrops(TransformConfig(size=32, resize=40)).all(video.info)[0]
        for clip in clips(Timeline(video.info.num_frames, video.info.fps)):
            frames = torch.from_numpy(cut.apply(video.read(clip, cut.read_size)))
            found.append(model.forward_features(preprocess({"rgb": frames[None]})["rgb"]))  # type: ignore[operator]
    return torch.cat(found)


def test_extract_train_eval(videos: Path, call: Call, tmp_path: Path) -> None:
    out = call("extract", *NET, *of(videos), *CLIP, "output=out").stdout.splitlines()
    assert out[0] == "8 of 8 videos have features in out (8 now, 0 before)"
    assert out[-1] == "train on them with: vidtrain train model=feature_rnn data=features data.root=out"

    info = call("data", "info", "data=features", "data.root=out").stdout
    assert "features: 2 classes" in info
    assert re.search(r"all videos +6 +2", info)
    small = ["model.hidden=8", "trainer.epochs=2", "trainer.batch_size=3", "trainer.num_workers=0", *NUMBERS_ONLY]
    run = ["train", "model=feature_rnn", "data=features", "data.root=out", *small, "schedule.warmup_epochs=0"]
    call(*run, "data.max_clips=3", "run_dir=r")
    result = json.loads((tmp_path / "r" / "result.json").read_text())
    assert (result["test"]["scored"], result["test"]["listed"]) == (2, 2)
    assert "features (length 32, layer features) of vidtrain.models.slow_fusion" in result["test"]["protocol"]
    model, content = load_model(tmp_path / "r" / "best.pt")
    assert content["config"]["model"]["in_features"] == 32
    assert not any(key.startswith("network") for key in model.state_dict())

    done = call("eval", "checkpoint=r/best.pt", "output=again")
    assert "scored 2 of 2" in done.stdout
    for name in ("predictions.csv", "result.json"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "r" / "test" / name).read_bytes()
    rows = list(csv.DictReader((tmp_path / "again" / "predictions.csv").open()))
    probs = {row["label"]: {row["top1"]: float(row["prob1"]), row["top2"]: float(row["prob2"])} for row in rows}
    data = features(tmp_path / "out")
    for row, label in enumerate("ab"):
        found = torch.from_numpy(np.load(data.splits["test"].paths[row])).float()
        with torch.no_grad():
            expected = model(found[None]).softmax(1)[0]
        assert [probs[label][name] for name in "ab"] == pytest.approx(expected.tolist(), abs=2e-6)
    line = error_line(call("predict", "checkpoint=r/best.pt", f"input={videos}/test/a/0.mp4", check=2))
    assert "predict reads videos, this checkpoint features" in line
    line = error_line(call("eval", "checkpoint=r/best.pt", *of(videos), check=2))
    assert "FeatureRNN reads features of length 32, the data are videos" in line
    line = error_line(call("extract", "checkpoint=r/best.pt", "output=o2", check=2))
    assert "data=features holds features already" in line


@pytest.mark.parametrize(
    ("hop", "workers", "batch"),
    [
        pytest.param(None, 0, 3, marks=pytest.mark.slow),
        (5, 2, 4),
        ("0.5s", 0, 4),
        pytest.param(20, 1, 100, marks=pytest.mark.slow),
    ],
)
def test_features_are_those_of_a_plain_loop(
    videos: Path, call: Call, tmp_path: Path, hop: int | str | None, workers: int, batch: int
) -> None:
    model = create_model("slow_fusion", num_classes=2, width=4).eval()
    torch.save(model.state_dict(), tmp_path / "net.pt")
    given = [*NET, "model.weights=net.pt", *of(videos), *CLIP, f"trainer.num_workers={workers}", "dtype=float32"]
    call("extract", *given, f"eval.batch_size={batch}", "output=out", *([] if hop is None else [f"hop={hop}"]))
    data = features(tmp_path / "out")
    rows = list(csv.DictReader((tmp_path / "out" / "report.csv").open()))
    assert len(rows) == 8

    def expected(line: Timeline) -> Indices:
        return sliding_clips(line, SPEC, hop or 7)

    for row in rows:
        found = torch.from_numpy(np.load(tmp_path / "out" / row["file"]))
        torch.testing.assert_close(found, by_hand(model, row["path"], expected), rtol=1e-5, atol=1e-5)
        assert len(found) == int(row["clips"])
    # numbers of both splits, in the order of the data
    for split, lengths in (("train", (40, 11, 25, 30, 18, 7)), ("test", (22, 33))):
        assert [Path(path).stem[0] for path in data.splits[split].paths]
        for row, length in enumerate(lengths):
            clips = np.load(data.splits[split].paths[row], mmap_mode="r")
            seconds = clip_seconds(tmp_path / "out", split, row)
            assert len(seconds) == len(clips) == len(expected(Timeline(length, 10)))
            assert seconds[-1].tolist() == pytest.approx([length / 10 - 0.7, length / 10])


@pytest.mark.parametrize(
    ("given", "spec", "clips"),
    [
        pytest.param(["sampler.mode=segments"], ClipSpec(4, mode="segments"), 1, marks=pytest.mark.slow),
        (["sampler.mode=segments", "clips=3"], ClipSpec(4, mode="segments"), 3),
        (["clips=2"], SPEC, 2),
    ],
    ids=["segments", "clips of segments", "clips"],
)
def test_clips_spread_over_each_video(
    videos: Path, call: Call, tmp_path: Path, given: list[str], spec: ClipSpec, clips: int
) -> None:
    model = create_model("slow_fusion", num_classes=2, width=4).eval()
    torch.save(model.state_dict(), tmp_path / "net.pt")
    whole = ["extract", *NET, "model.weights=net.pt", *of(videos), *CLIP, *given, "output=out", "dtype=float32"]
    out = call(*whole).stdout.splitlines()
    assert out[1] == f"{8 * clips} clips, 32 numbers each"
    reader = "feature_rnn" if clips > 1 else "probe"
    assert out[-1] == f"train on them with: vidtrain train model={reader} data=features data.root=out"
    rows = list(csv.DictReader((tmp_path / "out" / "report.csv").open()))
    for row in rows:
        found = torch.from_numpy(np.load(tmp_path / "out" / row["file"]))
        expected = by_hand(model, row["path"], lambda own: uniform_clips(own, spec, clips))
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    said = f"{clips} {'spread over the video' if spec == SPEC else 'of frames of the whole video'}"
    assert f"over 4-frame clips at 32 px, {said}" in features(tmp_path / "out").features.protocol  # type: ignore[union-attr]
    own = uniform_clips(Timeline(40, 10), spec, clips)
    seconds = np.stack([own.min(1), own.max(1) + 1], 1) / 10
    assert clip_seconds(tmp_path / "out", "train", 0).tolist() == pytest.approx(seconds)
    assert call(*whole).stdout.startswith("8 of 8 videos have features in out (0 now, 8 before)")
    other = [option for option in whole if not option.startswith("clips=")]
    said = call(*other, f"clips={clips + 1}", check=2).stderr
    assert f"made with clips={clips}, now it is {clips + 1}" in said


def test_from_a_checkpoint(trained: Path, call: Call, tmp_path: Path) -> None:
    """Data, sampler, transform and weights are the checkpoint's; another layer is one word away."""
    checkpoint = [f"checkpoint={trained / 'best.pt'}"]
    assert "32 of 32 videos" in call("extract", *checkpoint, "output=out", "dtype=float32").stdout
    model, _ = load_model(trained / "best.pt")
    assert list(features(tmp_path / "out").splits) == ["train", "val", "test"]
    made = json.loads((tmp_path / "out" / "features.json").read_text())
    assert made["made_by"]["sampler.num_frames"] == 8
    assert made["length"] == model.num_features
    fewer = ["output=o2", "layer=net.3", "data.train_scenes=1", "data.val_scenes=1"]
    line = error_line(call("extract", *checkpoint, *fewer, check=2))
    assert "the motion data of the checkpoint are not there, and a checkpoint makes no files: give data=motion" in line
    own = ["data=motion", f"data.root={tmp_path / 'd'}", "data.test_scenes=1", "data.size=32", "data.num_frames=12"]
    call("extract", *checkpoint, *fewer, *own)
    assert features(tmp_path / "o2").features.length == model.net[3].out_channels  # type: ignore[union-attr, index]
    line = error_line(call("extract", *checkpoint, "output=o3", "layer=nets.3", check=2))
    assert "layer=nets.3: SlowFusion has none (did you mean net.3?); it has: features, dropout, head" in line


def test_a_second_run_does_what_is_missing(videos: Path, call: Call, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    shutil.copytree(videos, mine)
    given = ["extract", *NET, *of(mine), *CLIP, "output=out"]
    call(*given)
    files = {file: file.stat().st_mtime_ns for file in (tmp_path / "out" / "videos").rglob("*.npy")}
    assert len(files) == 8
    lost, changed = sorted(files)[:2]
    lost.unlink()
    write_video(mine / "train" / "a" / "new.mp4", scene(15), fps=10)
    source = next(
        r["path"] for r in csv.DictReader((tmp_path / "out" / "report.csv").open()) if changed.name in r["file"]
    )
    write_video(source, scene(50), fps=10)
    done = call(*given)
    assert done.stdout.startswith("9 of 9 videos have features in out (3 now, 6 before)")
    again = {file: file.stat().st_mtime_ns for file in (tmp_path / "out" / "videos").rglob("*.npy")}
    assert len(again) == 9
    assert sum(again[file] == time for file, time in files.items()) == 6
    assert call(*given).stdout.startswith("9 of 9 videos have features in out (0 now, 9 before)")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ("transform.size=24", "made with transform.size=32, now it is 24"),
        ("sampler.stride=1", "made with sampler.stride=2, now it is 1"),
        ("hop=3", "made with hop=null, now it is 3"),
        ("layer=net", "made with layer=features, now it is net"),
        ("dtype=float32", "made with dtype=float16, now it is float32"),
        ("trainer.seed=1", "made with weights="),
        ("model.width=5", "made with model.width=4, now it is 5"),
    ],
)
def test_other_settings_are_refused(videos: Path, extracted: Path, call: Call, changed: str, message: str) -> None:
    given = ["extract", *NET, *of(videos), *CLIP, f"output={extracted}"]
    before = {file: file.read_bytes() for file in extracted.rglob("*") if file.is_file()}
    assert message in error_line(call(*given, changed, check=2))
    assert {file: file.read_bytes() for file in extracted.rglob("*") if file.is_file()} == before


def test_bad_videos_are_named_and_do_not_stop_it(videos: Path, call: Call, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    shutil.copytree(videos, mine)
    (mine / "train" / "a" / "0.mp4").write_bytes(b"no video")
    whole = (mine / "test" / "b" / "0.mp4").read_bytes()
    (mine / "test" / "b" / "0.mp4").write_bytes(whole[: len(whole) // 2])
    given = ["extract", *NET, *of(mine), *CLIP, "output=out"]
    out = call(*given).stdout.splitlines()
    assert out[0].startswith("6 of 8 videos have features")
    bad = [line for line in out if line.startswith("bad: ")]
    assert [line.split(": ")[1] for line in bad] == [f"{mine}/train/a/0.mp4", f"{mine}/test/b/0.mp4"]
    rows = {row["path"]: row for row in csv.DictReader((tmp_path / "out" / "report.csv").open())}
    assert rows[f"{mine}/train/a/0.mp4"]["status"] == "bad"
    assert rows[f"{mine}/train/a/0.mp4"]["reason"]
    assert rows[f"{mine}/train/a/1.mp4"]["status"] == "made"
    data = features(tmp_path / "out")
    assert (len(data.splits["train"]), len(data.splits["test"])) == (5, 1)
    assert list(data.splits["test"].missing) == [f"{mine}/test/b/0.mp4"]
    assert not list((tmp_path / "out").rglob("*.part"))
    (mine / "test" / "b" / "0.mp4").write_bytes(whole)  # mended
    assert call(*given).stdout.startswith("7 of 8 videos have features in out (1 now, 6 before)")
    for file in mine.rglob("*.mp4"):
        file.write_bytes(b"no video")
    assert "none of the 8 videos could be read; the first: " in error_line(call(*given[:-1], "output=o2", check=2))


def test_parts_of_untrimmed_files(call: Call, tmp_path: Path) -> None:
    write_video(tmp_path / "long.mp4", scene(60), fps=10)
    lines = [
        "path,label,start,end",
        *(f"long.mp4,{c},{s},{e}" for c, s, e in (("a", 0, 2), ("b", 2, 3.5), ("a", 3, 6))),
    ]
    (tmp_path / "train.csv").write_text("\n".join(lines))
    columns = [f"data.{c}_column={c}" for c in ("path", "label", "start", "end")]
    table = [
        "data=table",
        "data.root=.",
        "data.train=train.csv",
        *columns,
        "data.val_fraction=0",
        "data.test_fraction=0",
    ]
    assert call("extract", *NET, *table, *CLIP, "output=out").stdout.startswith("3 of 3 videos")
    data = features(tmp_path / "out")
    assert [len(np.load(path)) for path in data.splits["train"].paths] == [3, 3, 5]
    seconds = [clip_seconds(tmp_path / "out", "train", row) for row in range(3)]
    assert [(s[0, 0], s[-1, 1]) for s in seconds] == [(0.0, 2.0), (2.0, 3.5), (3.0, 6.0)]


def test_a_killed_run_goes_on(videos: Path, call: Call, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    for number in range(16):
        folder = mine / "train" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(videos / "train" / "a" / "0.mp4", folder / f"{number}.mp4")
    given = ["extract", *NET, *of(mine), *CLIP, "hop=3", "output=out", "data.test_fraction=0"]
    call(*given[:-2], "output=whole", "data.test_fraction=0")
    command = ["-m", "vidtrain", *given]
    process = warm.Python(command, cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    journal, deadline = tmp_path / "out" / "videos.jsonl", time.monotonic() + 60
    while not (journal.is_file() and len(journal.read_bytes().splitlines()) >= 3):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL if os.name == "posix" else signal.SIGTERM)
    process.communicate()
    before = len(list((tmp_path / "out" / "videos").rglob("*.npy")))
    assert 3 <= before < 16
    assert not (tmp_path / "out" / "index.json").exists()
    assert "holds no index" in error_line(call("data", "info", "data=features", "data.root=out", check=2))
    done = call(*given).stdout
    kept = int(re.search(r"16 of 16 videos have features in out \(\d+ now, (\d+) before\)", done).group(1))  # type: ignore[union-attr]
    assert before - 1 <= kept <= before  # the one whose line was not yet written is made again
    assert not list((tmp_path / "out").rglob("*.part"))
    for file in (tmp_path / "whole" / "videos").rglob("*.npy"):
        other = np.load(tmp_path / "out" / file.relative_to(tmp_path / "whole"))
        np.testing.assert_allclose(other, np.load(file), rtol=2e-3, atol=1e-4)  # float16, in other batches


def test_mistakes_are_one_line(videos: Path, call: Call, trained: Path) -> None:
    data = of(videos)
    checkpoint = f"checkpoint={trained / 'best.pt'}"
    for wrong, message in (
        ([*NET, *data], "output is not set"),
        ([*NET, "output=o"], "neither checkpoint nor data is set"),
        ([*data, "output=o"], "neither checkpoint nor model is set"),
        ([checkpoint, *NET, "output=o"], "checkpoint=... brings its own model"),
        ([*NET, *data, "output=o", "hop=0"], "hop=0: must be at least 1"),
        ([*NET, *data, "output=o", "hop=0.5"], "hop=0.5: must be a whole number of frames, such as 16, or seconds"),
        ([*NET, *data, "output=o", "eval.clips=3"], "eval.clips: extract reads eval.batch_size only"),
        ([*NET, *data, "output=o", "sampler=segments", "hop=8"], "cannot slide"),
        ([*NET, *data, "output=o", "clips=0"], "clips=0: must be at least 1 and at most 10000"),
        ([*NET, *data, "output=o", "clips=2", "hop=8"], "clips=2 spreads clips over a video, hop=8 sets"),
        ([*NET, *data, "output=o", "dtype=int8"], "dtype"),
        ([*NET, *data, "output=o", "sampler.strid=3"], "no key 'sampler.strid' (did you mean stride?)"),
        (["model=slow_fusion", *data, "output=o", "model.widht=3"], "no key 'model.widht' (did you mean width?)"),
        ([*NET, *data, f"output={videos}"], "holds something else than features"),
        (["checkpoint=none.pt", "output=o"], "none.pt: no such file"),
    ):
        done = call("extract", *wrong, check=2)
        assert message in error_line(done), wrong
    assert not Path("o").exists()


def test_training_says_what_does_not_fit(videos: Path, extracted: Path, call: Call) -> None:
    feats = ["data=features", f"data.root={extracted}", "trainer.num_workers=0", "run_dir=r"]
    for wrong, message in (
        (["model=slow_fusion", *feats], "data=features holds vectors of length 32"),
        (["model=feature_rnn", "model.in_features=31", *feats], "reads features of length 31, the data have 32"),
        (["model=feature_rnn", "model.in_features=32", *of(videos)], "the data are videos: give data=features"),
        (["model=feature_rnn", *feats, "data.max_clips=0"], "data.max_clips=0: must be 1 or more"),
        (["model=feature_rnn", *feats, "task.mixup=0.8", "trainer.batch_size=2"], "mix clips, and the data are"),
    ):
        line = call("train", *wrong, check=2).stderr.strip().splitlines()[-1]
        assert line.startswith("vidtrain: error: "), line
        assert message in line, line
        shutil.rmtree("r", ignore_errors=True)
    for action in ("check", "show", "prepare", "stats", "doctor"):
        line = error_line(call("data", action, *feats[:2], check=2))
        assert "looks at videos, data=features holds features" in line


def test_from_videos_directly(videos: Path, extracted: Path, call: Call, tmp_path: Path) -> None:
    """The same model without an extraction: the frozen network runs in every step."""
    small = ["model=feature_rnn_tiny", "model.network_options={width: 4}", "model.hidden=8", "trainer.epochs=1"]
    clip = [*CLIP, "sampler.num_frames=12", "sampler.stride=1", "trainer.batch_size=3", "schedule.warmup_epochs=0"]
    call("train", *small, *of(videos), *clip, "eval.clips=2", *NUMBERS_ONLY, "run_dir=r")
    model, content = load_model(tmp_path / "r" / "best.pt")
    assert content["config"]["model"]["in_features"] is None
    assert model(torch.zeros(1, 3, 12, 32, 32)).shape == (1, 2)
    assert "scored 2 of 2" in call("eval", "checkpoint=r/best.pt", "output=again").stdout
    line = error_line(call("eval", "checkpoint=r/best.pt", "data=features", f"data.root={extracted}", check=2))
    assert "reads clips" in line


def test_help_and_hash(call: Call) -> None:
    out = call("extract", "--help").stdout
    for key in ("checkpoint", "output", "layer", "hop", "dtype"):
        assert f"  {key}=" in out
    assert "extract" in call("--help").stdout
    from vidtrain.commands.extract import weights_hash

    torch.manual_seed(0)
    model = build.create_model("slow_fusion", num_classes=2)
    before = weights_hash(model)
    assert weights_hash(model.to(memory_format=torch.channels_last_3d)) == before
    with torch.no_grad():
        model.head.weight[0, 0] += 1e-6  # type: ignore[index, union-attr]
    assert weights_hash(model) != before

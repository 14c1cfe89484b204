"""vidtrain init: what it finds, what it chooses, and that what it writes trains at the first start."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.cli.conftest import NUMBERS_ONLY, Call, error_line
from tests.videos import numbered, write_video
from vidtrain.commands.init_choices import Chosen, GivenWeights, Machine, TrainingVideos, choose, to_yaml
from vidtrain.commands.report import _commands
from vidtrain.data.checks.stats import Stats

LAPTOP = Machine(cores=2, memory=8)
SMALL = ["sampler.num_frames=4", "transform.size=32", "transform.resize=32", "trainer.num_workers=0"]
SHORT = ["trainer.epochs=1", "trainer.max_batches=1", "eval.clips=1", *NUMBERS_ONLY, *SMALL]


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 frames at 20 fps, 64 x 48."""
    return write_video(tmp_path_factory.mktemp("clip") / "clip.mp4", numbered(40), fps=20)


def clips_of(root: Path, clip: Path, counts: dict[str, int], name: str = "{n:03}.mp4") -> Path:
    for label, count in counts.items():
        (root / label).mkdir(parents=True)
        for n in range(count):
            shutil.copy(clip, root / label / name.format(n=n, p=n % 4))
    return root


def written(file: Path) -> dict[str, Any]:
    """Dotted key -> value, "/GROUP" -> choice."""
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    found = {key.removeprefix("override "): value for line in content.pop("defaults") for key, value in line.items()}
    return found | {f"{a}.{b}": value for a, section in content.items() for b, value in section.items()}


def test_a_folder_of_clips_trains_at_the_first_start(clip: Path, tmp_path: Path, call: Call) -> None:
    root = clips_of(tmp_path / "my clips", clip, {"walk": 12, "run": 12, "fall": 4}, "p{p}_{n:02}.mp4")
    (root / "walk" / "notes.txt").write_text("x")
    (root / "run" / "p3_99.mp4").write_bytes(b"no video")
    done = call("init", root)
    file = tmp_path / "my_conf" / "experiment" / "my_clips.yaml"
    found = written(file)
    assert found["/data"] == "folder"
    assert found["data.root"] == str(root)
    assert found["data.folds"] == 4  # persons of the smallest class
    assert found["data.group_by"]
    assert (found["sampler.num_frames"], found["sampler.stride"]) == (16, 2)  # 31 of 40 frames
    # below its reason
    why = "frames are resized to squares: a square crop would lose 25% of the median one"
    assert f"  # {why}\n  squash: true\n" in file.read_text()
    assert "p3_99.mp4: is not a video file" in done.stdout
    assert "skipped 1 file that is not a video: 1 .txt" in done.stdout
    assert "vidtrain train --config-dir my_conf experiment=my_clips\n" in done.stdout
    # of the experiment what there is of it: its data and clips, no model's size, optimizer or number of epochs
    shown = call("data", "show", "--config-dir", "my_conf", "+experiment=my_clips", "show.clips=1", "show.frames=1")
    assert shown.stdout == "1 clips of train: show/folder_my_clips_train.png\n"
    composed = call("data", "--config-dir", "my_conf", "experiment=my_clips", "sampler.stride=1", "--cfg", "job").stdout
    chosen = yaml.safe_load(composed)
    assert (chosen["data"]["folds"], chosen["transform"]["squash"], chosen["sampler"]["stride"]) == (4, True, 1)
    assert not {"trainer", "optimizer", "eval"} & set(chosen)
    trained = call("train", "--config-dir", "my_conf", "experiment=my_clips", "run_dir=run", *SHORT)
    assert "scored " in trained.stdout
    again = _commands(tmp_path / "run", tmp_path / "run")["train it again:"]
    assert again.startswith("vidtrain train --config-dir my_conf experiment=my_clips ")
    assert "the smallest class has 4 groups; with folds each video is tested once" in done.stdout
    assert call("init", root, check=2).stderr == (
        "vidtrain: error: my_conf/experiment/my_clips.yaml: is there already: remove it, or give another folder with "
        "output=...\n"
    )


def test_a_list_with_the_one_for_testing_beside_it(clip: Path, tmp_path: Path, call: Call) -> None:
    clips_of(tmp_path / "set", clip, {"walk": 4, "run": 4})
    for split, rows in (("train", range(3)), ("test", range(3, 4))):
        lines = [f"{name}/{n:03}.mp4 {label}" for n in rows for label, name in enumerate(("run", "walk"))]
        (tmp_path / "set" / f"{split}_1.csv").write_text("\n".join(lines))
    (tmp_path / "set" / "classes.txt").write_text("run\nwalk\n")
    call("init", "set/train_1.csv", "output=other")
    found = written(tmp_path / "other" / "experiment" / "train_1.yaml")
    expected = {"data.train": "train_1.csv", "data.test": "test_1.csv", "data.classes": "classes.txt", "/data": "list"}
    assert {key: found[key] for key in expected} == expected
    assert "data.folds" not in found
    call("train", "--config-dir", "other", "experiment=train_1", "--cfg", "job")


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({"a": 1, "b": 1}, {"data.val_fraction": 0.0, "data.test_fraction": 0.0}),
        ({"a": 3, "b": 9}, {"data.folds": 3}),
        ({"a": 9, "b": 9}, {"data.folds": 5}),
    ],
)
def test_what_is_held_out_of_few_videos(
    counts: dict[str, int], expected: dict[str, Any], clip: Path, tmp_path: Path, call: Call
) -> None:
    clips_of(tmp_path / "few", clip, counts)
    said = call("init", "few").stdout
    assert ("one split would test 3 videos, where 75% right may be " in said) == (counts["a"] == 9)
    found = written(tmp_path / "my_conf" / "experiment" / "few.yaml")
    keys = ("data.folds", "data.val_fraction", "data.test_fraction")
    assert {key: found[key] for key in keys if key in found} == expected


def test_validation_that_would_lack_classes_is_not_held_out(clip: Path, tmp_path: Path, call: Call) -> None:
    """Two recordings of each class: one to train, one to test."""
    clips_of(tmp_path / "few", clip, {"a": 8, "b": 8, "c": 8})
    for label in "abc":
        for n, file in enumerate(sorted((tmp_path / "few" / label).iterdir())):
            file.rename(file.with_name(f"v_{label}_g{4 + n // 4:02}_c{n % 4:02}.mp4"))
    for n in range(2):  # and a third of one class, which could be held out
        shutil.copy(clip, tmp_path / "few" / "c" / f"v_c_g01_c{n:02}.mp4")
    call("init", "few")
    found = written(tmp_path / "my_conf" / "experiment" / "few.yaml")
    assert (found["data.folds"], found["data.val_fraction"]) == (2, 0.0)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("nowhere", "input=nowhere: no such file or folder; expected a folder per class in it, or a list of videos"),
        ("empty", "holds no class folders; expected "),
        ("single", "holds one class folder only (a), expected two or more"),
        ("other", "class folder without a video"),
        ("table.parquet", "input=table.parquet: a table: train with data=table"),
        ("timed", "input=timed: labels.csv says from when to when things happen"),
        ("timed/labels.csv", "task=segments data=segments data.root={root}/timed data.annotations=labels.csv"),
    ],
)
def test_what_is_no_data_set_is_one_line(given: str, said: str, tmp_path: Path, call: Call) -> None:
    for folder in ("empty", "single/a", "other/a", "other/b"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "other" / "a" / "x.txt").write_text("x")
    (tmp_path / "table.parquet").write_bytes(b"PAR1")
    (tmp_path / "timed").mkdir()
    (tmp_path / "timed" / "labels.csv").write_text("video,start,end,label\nmonday.mp4,1.5,2,walk\n")
    said = said.format(root=tmp_path)
    assert said in error_line(call("init", given, check=2))
    assert not (tmp_path / "my_conf").exists()


def test_a_start_from_a_file_of_weights(clip: Path, trained: Path, tmp_path: Path, call: Call) -> None:
    clips_of(tmp_path / "few", clip, {"walk": 4, "run": 4})
    call("init", "few", f"weights={trained / 'best.pt'}", "device=cpu")
    found = written(tmp_path / "my_conf" / "experiment" / "few.yaml")
    expected = {
        "/model": "slow_fusion",
        "/tune": "head",
        "/optimizer": "adamw",
        "model.weights": str(trained / "best.pt"),
    }
    assert {key: found[key] for key in expected} == expected
    assert not {"/transform", "sampler.stride", "sampler.num_frames"} & found.keys()
    call("train", "--config-dir", "my_conf", "experiment=few", "run_dir=run", *SHORT)
    (tmp_path / "other.pt").write_bytes(trained.joinpath("result.json").read_bytes())
    assert "other.pt" in error_line(call("init", "few", "weights=other.pt", "output=o", check=2))


# ---------------------------------------------------------------- the choices


def stats_of(frames: list[int], fps: list[float], height: int = 240, width: int = 320) -> Stats:
    count = len(frames)
    ones = np.ones(count, dtype=np.int64)
    seconds = np.array(frames) / np.array(fps)
    text = np.array(["train"] * count)
    return Stats(
        splits=text,
        labels=0 * ones,
        frames=np.array(frames),
        seconds=seconds,
        fps=np.array(fps, dtype=np.float64),
        heights=height * ones,
        widths=width * ones,
        sizes=ones,
        codecs=text,
        class_names=("walk", "fall"),
        counts={},
        unreadable=0,
        missing=0,
    )


def chosen(
    stats: Stats | None = None,
    counts: tuple[int, int] = (100, 100),
    machine: Machine = LAPTOP,
    multi_label: bool = False,
    lonely: tuple[str, ...] = (),
) -> dict[str, Any]:
    training = TrainingVideos(sum(counts), counts, multi_label, lonely)
    choices = choose(stats_of([250] * 4, [25.0] * 4) if stats is None else stats, training, machine)
    assert all(choice.why and "\n" not in choice.why for choice in choices)
    assert len({choice.key for choice in choices}) == len(choices)
    return {choice.key: choice.value for choice in choices}


@pytest.mark.parametrize(
    ("frames", "fps", "expected"),
    [
        ([250] * 4, [25.0] * 4, {"sampler.num_frames": 16, "sampler.stride": 5, "eval.clips": 7}),  # 76 frames, 3 s
        ([46] * 4, [30.0] * 4, {"sampler.num_frames": 16, "sampler.stride": 3, "eval.clips": 2}),  # just fits
        ([45, 45, 90, 90], [30.0] * 4, {"sampler.num_frames": 16, "sampler.stride": 2}),  # three quarters fit
        ([12] * 4, [30.0] * 4, {"sampler.num_frames": 8, "sampler.stride": 1}),
        ([1] * 4, [25.0] * 4, {"sampler.num_frames": 8, "sampler.stride": 1, "eval.clips": 2}),
        ([20_000] * 4, [25.0] * 4, {"sampler.stride": 5, "eval.clips": 10}),
        ([100, 200] * 2, [25.0, 50.0] * 2, {"sampler.fps": 5.0}),  # 4 s: 16 frames need 4 per second
        ([30, 60] * 2, [15.0, 30.0] * 2, {"sampler.fps": 8.0}),  # 2 s
        ([10, 12] * 2, [1.0, 2.0] * 2, {"sampler.fps": 1.5}),  # no more than the files have
    ],
)
def test_clips_fit_into_the_videos(frames: list[int], fps: list[float], expected: dict[str, float]) -> None:
    found = chosen(stats_of(frames, fps))
    assert {key: found.get(key) for key in expected} == expected
    assert ("sampler.fps" in found) != ("sampler.stride" in found)


def test_rates_are_said_to_be_of_most_files() -> None:
    """Between the 5 % and the 95 % ones, which a file of an odd rate does not widen."""
    stats = stats_of([60] * 100, [10.0] * 50 + [30.0] * 49 + [240.0])
    choices = choose(stats, TrainingVideos(100, [50, 50], multi_label=False, lonely=[]), LAPTOP)
    why = next(choice.why for choice in choices if choice.key == "sampler.fps")
    assert why.startswith("90 % of the files have 10 to 30 frames per second: ")


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ((100, 90), {}),
        ((100, 50), {"task.class_weights": "balanced"}),
        ((100, 20), {"sampler.class_balance": 1.0}),
        ((100, 5), {"sampler.class_balance": 0.5, "task.logit_adjust": 1.0}),
    ],
)
def test_classes_of_unequal_size(counts: tuple[int, int], expected: dict[str, Any]) -> None:
    corrections = ("task.class_weights", "sampler.class_balance", "task.logit_adjust", "task.focal_gamma")
    assert {k: v for k, v in chosen(counts=counts).items() if k in corrections} == expected
    assert chosen(counts=(100, 5), multi_label=True)["task.class_weights"] == "sqrt"


def test_machine_and_size_decide_about_network_and_batch() -> None:
    gpu = Machine(cores=16, memory=80, gpu="GPU X")
    small, large = chosen(counts=(40, 40)), chosen(counts=(5000, 5000), machine=gpu)
    assert (small["/model"], small["/transform"], small["trainer.batch_size"]) == ("slow_fusion", "small", 8)
    assert (large["/model"], large["/transform"], large["trainer.batch_size"]) == ("r3d_18", "crop", 64)
    assert chosen(counts=(5000, 5000))["/model"] == "slow_fusion"
    assert chosen(counts=(50, 50), machine=gpu)["/model"] == "slow_fusion"
    assert (small["trainer.epochs"], large["trainer.epochs"]) == (60, 10)  # 600 updates, 10 epochs or more
    assert (small["trainer.base_batch"], "trainer.base_batch" in chosen()) == (16, False)


def test_how_much_of_a_published_network_is_trained() -> None:
    stats, start = stats_of([250] * 4, [25.0] * 4), GivenWeights("/w.pt", "torchvision", "r3d_18", {"dropout": 0.5})
    gpu = Machine(cores=16, memory=24, gpu="GPU X")
    for counts, machine, tune, rate in (
        ((500, 500), LAPTOP, "head", 1e-3),
        ((99, 99), gpu, "last", 1e-4),
        ((101, 101), gpu, "full", 1e-4),
    ):
        choices = choose(stats, TrainingVideos(sum(counts), counts, False, ()), machine, start)
        found = {choice.key: choice.value for choice in choices}
        assert (found["/tune"], found["optimizer.lr"], found["/model"]) == (tune, rate, "r3d_18")
        assert (found["model.weights"], found["model.dropout"]) == ("/w.pt", 0.5)
        assert found["trainer.batch_size"] == (4 if machine is LAPTOP else 8)


@pytest.mark.parametrize("validated", [True, False])
def test_patience_is_spoken_of_where_there_is_a_validation(validated: bool) -> None:
    training = TrainingVideos(200, (100, 100), False, (), validated=validated)
    choices = choose(stats_of([250] * 4, [25.0] * 4), training, LAPTOP)
    assert ("trainer.patience" in next(choice.why for choice in choices if choice.key == "trainer.epochs")) == validated


@pytest.mark.parametrize(
    ("frames", "videos", "said"),
    [
        (250, 200, "600 in all; together 2.1 times as long"),  # 7 clips of 76 frames
        (1000, 200, "600 in all; together 0.76 times as long"),  # 10 at most
        (10_000, 200, "600 in all; in a median video of 400 s"),
        (60, 8, "200 in all (600 are aimed at, in 10 to 100 epochs); together 2.3 times as long"),
    ],
)
def test_reasons_are_true(frames: int, videos: int, said: str) -> None:
    training = TrainingVideos(videos, (videos // 2,) * 2, False, (), validated=False)
    choices = choose(stats_of([frames] * 4, [25.0] * 4), training, LAPTOP)
    why = {choice.key: choice.why for choice in choices}
    for part, key in zip(said.split("; "), ("trainer.epochs", "eval.clips"), strict=True):
        assert part in why[key]


def test_squash_and_flip() -> None:
    assert chosen()["transform.squash"] is True
    assert "transform.squash" not in chosen(stats_of([50] * 4, [25.0] * 4, 128, 128))
    assert chosen(lonely=("turn left",))["transform.flip"] == 0
    assert "transform.flip" not in chosen()


def test_values_of_any_kind_are_read_as_they_are() -> None:
    values = ["a: b # c", '"${x}"\\d', "on", "12", "yes", "1e5", None, 0.5, 1e-05, True, 3, "Äö"]
    text = to_yaml([Chosen(f"data.k{n}", value, "why") for n, value in enumerate(values)], ["head\nmore"])
    from omegaconf import OmegaConf

    read = OmegaConf.to_container(OmegaConf.create(text.replace("defaults:\n", "")), resolve=True)
    assert list(read["data"].values()) == values  # type: ignore[index,call-overload]


# ---------------------------------------------------------------- real sets


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ucf101_3c/videos", "ucf101_3c/train_split1.csv", "motion_shapes/videos", "odd"])
def test_real_sets_train_at_the_first_start(name: str, test_videos: Path, tmp_path: Path, call: Call) -> None:
    source = test_videos / name
    if name == "odd":  # difficult files in two classes
        source = tmp_path / "odd"
        for n, file in enumerate(sorted((test_videos / name).iterdir())):
            (source / "ab"[n % 2]).mkdir(parents=True, exist_ok=True)
            (source / "ab"[n % 2] / file.name).symlink_to(file)
    call("init", source)
    (file,) = (tmp_path / "my_conf" / "experiment").iterdir()
    done = call("train", "--config-dir", "my_conf", f"experiment={file.stem}", "run_dir=run", *SHORT)
    assert "scored " in done.stdout


@pytest.mark.slow
def test_the_built_in_data_written_to_a_folder(tmp_path: Path, call: Call) -> None:
    call("data", "make", "data.root=motion", "data.train_scenes=4", "data.val_scenes=2", "data.test_scenes=2")
    (made,) = (tmp_path / "motion").iterdir()
    call("init", made)
    (file,) = (tmp_path / "my_conf" / "experiment").iterdir()
    done = call("train", "--config-dir", "my_conf", f"experiment={file.stem}", "run_dir=run", *SHORT)
    assert "scored " in done.stdout


def test_a_single_class_is_refused(clip: Path, tmp_path: Path, call: Call) -> None:
    root = clips_of(tmp_path / "clips", clip, {"walk": 3})
    assert "holds one class folder only (walk), expected two or more" in error_line(call("init", root, check=2))
    (tmp_path / "list.csv").write_text("".join(f"clips/walk/{n:03}.mp4,walk\n" for n in range(3)))
    line = error_line(call("init", tmp_path / "list.csv", check=2))
    assert "has a single class, walk, and nothing to distinguish it from: expected a folder per class" in line
    assert not (tmp_path / "my_conf").exists()

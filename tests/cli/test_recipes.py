"""conf/experiment: every recipe says what it is, names options that are there, and takes a step at a tiny size."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cli.conftest import Call
from vidtrain.options.option_texts import conf_dir, fields, group_options
from vidtrain.options.presets import list_models

FOLDER = conf_dir() / "experiment"
NAMES = sorted(file.stem for file in FOLDER.glob("*.yaml"))
BASES = sorted(f"base/{file.stem}" for file in (FOLDER / "base").glob("*.yaml"))
OF_PAPERS = [name for name in NAMES if name.startswith(("kinetics_", "ssv2_", "diving48_"))]
STARTS = ("weights", "pretrained", "backbone_weights", "inflate_from")  # which every model takes


def text(name: str) -> str:
    return (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")


def leaves(node: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in node.items():
        if isinstance(value, dict) and key != "network_options":
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key


def resolved(name: str) -> tuple[dict[str, str], list[str]]:
    """The choices of groups and the dotted keys of a recipe and of those it is based on."""
    content = yaml.safe_load(text(name))
    choices: dict[str, str] = {}
    keys: list[str] = []
    for entry in content.pop("defaults", []):
        if isinstance(entry, str) and entry != "_self_":
            below = entry if not name.startswith("base/") else f"base/{entry}"
            more, others = resolved(below)
            choices |= more
            keys += others
        elif isinstance(entry, dict):
            ((group, choice),) = entry.items()
            choices[group.removeprefix("override /")] = choice
    return choices, [*keys, *leaves(content)]


@pytest.mark.parametrize("name", [*NAMES, *BASES])
def test_its_keys_are_options_and_its_choices_are_there(name: str) -> None:
    choices, keys = resolved(name)
    folders = [conf_dir()]
    typed = {key for key, annotation, _, _ in fields("train") if annotation != "Any"}
    named = {"optimizer": "sgd", "task": "classification", **choices}
    known = typed | {
        f"{group}.{key}" for group, choice in named.items() for key in group_options(group, choice, folders)
    }
    known |= {f"model.{key}" for key in STARTS}
    if "model" not in named:  # a base: some model has it
        known |= {f"model.{key}" for model in list_models() for key in group_options("model", model, folders)}
    assert set(keys) <= known, set(keys) - known


@pytest.mark.parametrize("name", NAMES)
def test_its_head_has_the_command_that_runs_it(name: str) -> None:
    head = text(name).split("\ndefaults:")[0]
    assert head.startswith("# @package _global_\n# ")
    assert re.search(rf"^#   vidtrain train (-m )?experiment={name}\b", head, re.MULTILINE), head
    assert re.search(r"Expected|Results|Published|[Ss]core|top-1|reaches|\d\.\d\d", head), head


@pytest.mark.parametrize("name", OF_PAPERS)
def test_a_recipe_of_a_paper_says_what_was_published_at_what_cost_and_where_it_stands(name: str) -> None:
    head = text(name).split("\ndefaults:")[0].replace("\n# ", " ")
    assert re.search(r"Published: top-1 \d\d(\.\d+)?", head), head
    assert re.search(r"Cost\b.*?(GPUs|V100|not stated|as kinetics_)", head), head
    assert re.search(r"[Ss]ource", head), head
    assert "Not trained here." in head, head


def test_bases_are_used_and_are_none_of_the_choices() -> None:
    used = {
        entry for name in [*NAMES, *BASES] for entry in re.findall(r"^  - (?:base/)?(\w+)$", text(name), re.MULTILINE)
    }
    assert {base.removeprefix("base/") for base in BASES} <= used


# models, and what makes them small: a network of the same function, or options
SMALLER = [
    ("c2d_r50 slow_r50", ["model=slow_tiny"]),
    ("i3d_r50 i3d_r50_nonlocal", ["model=i3d_resnet_tiny"]),
    ("slowfast_4x16_r50 slowfast_r50 slowfast_r101", ["model=slowfast_tiny"]),
    ("x3d_xs x3d_s x3d_m x3d_l", ["model=x3d_tiny"]),
    ("mvit_v1_b mvit_v2_s", ["model.width=8", "model.depths=[1,1,1,1]"]),
    ("swin3d_t swin3d_s swin3d_b", ["model.width=6", "model.depths=[1,1,1,1]", "model.heads=[1,1,2,2]"]),
    ("vivit vivit_fe", ["model=vivit_tiny"]),
    ("uniformerv2_b16 uniformerv2_b16_ssv2 uniformerv2_l14", ["model=uniformerv2_tiny"]),
    (
        "videomae_vit_s videomae_vit_b videomae_vit_l videomae_vit_h videomaev2_vit_b videomaev2_vit_g",
        ["model=videomae_tiny"],
    ),
    ("hiera_b", ["model=hiera_tiny"]),
    ("movinet_a0 movinet_a2", ["model=movinet_tiny"]),
    ("movinet_a0_stream", ["model=movinet_tiny_stream"]),
    ("i3d s3d s3dg r2plus1d_34", ["model.width=8"]),
    ("csn_r101", ["model=csn_tiny"]),
    ("r2plus1d_r50", ["model=r2plus1d_tiny"]),
    ("tsm_r50", ["model=tsm_tiny"]),
    ("tsn_r50", ["model=tsn_tiny"]),
    ("timesformer", ["model=timesformer_tiny"]),
    ("vjepa2_vit_l vjepa21_vit_l", ["model=vjepa2_tiny", "tune.heads=4"]),
    ("c3d", ["model.width=4", "model.hidden=16", "sampler.num_frames=16"]),
    ("timm_frames", ["model.backbone=tiny"]),
    ("two_stream_tiny", ["flow=dis"]),
    ("probe", ["probe.shots=[1,2]", "probe.seeds=2"]),
    ("slow_fusion r3d_18 mc3_18 r2plus1d_18 segment_head feature_rnn tsm_mobilenet_v2", []),
]
SMALL = {model: options for models, options in SMALLER for model in models.split()}
STEP = [
    *["sampler.num_frames=8", "transform.size=32", "transform.resize=36", "transform.resize_max=null"],
    *["trainer.epochs=1", "trainer.max_batches=1", "trainer.batch_size=10", "trainer.num_workers=0"],
    *["sampler.short=loop", "eval.figures=false", "report=false", "logger=jsonl", "data.max_bad_fraction=0"],
    *["eval.batch_size=16", "schedule.warmup_epochs=0"],
]


LONG = ["data=motion_long", "data.root=long", "data.train_videos=2", "data.val_videos=1", "data.test_videos=1"]
LONG += ["data.seconds=10", "data.size=32"]


@pytest.fixture(scope="module")
def clips(tiny: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of the built-in dataset as a folder: names say who is in a clip, twelve of each class by six."""
    from vidtrain import build

    options: dict[str, Any] = {
        o.split("=")[0].removeprefix("data."): o.split("=")[1] for o in tiny if o.startswith("data.")
    }
    numbers = {key: int(value) if value.isdigit() else value for key, value in options.items()}
    data = build.build_data({"_target_": "vidtrain.data.motion.motion.motion", **numbers})
    root = tmp_path_factory.mktemp("clips")
    for label in (0, 1):
        train = data.splits["train"]
        row = next(row for row in range(len(train)) if train.labels[row] == label)
        for number in range(12):
            target = root / data.class_names[label] / f"subject{number % 6}_{number:02}.mp4"
            target.parent.mkdir(exist_ok=True)
            shutil.copy(train.paths[row], target)
    return root


def run_small(name: str, call: Call, clips: Path, tmp_path: Path) -> None:
    """A step of training, a validation and the recipe's own test, on a small network and clips of 32 pixels."""
    choices, keys = resolved(name)
    model = choices.get("model", "slow_fusion")
    chosen = [f"model.{key}=null" for key in STARTS if f"model.{key}" in keys]
    segments = choices.get("task") == "segments"
    where = LONG if segments else ["data=folder", f"data.root={clips}"]
    if choices.get("data") == "features":
        spread = ["untrimmed=true", "hop=8"] if segments else []
        call("extract", "model=early_fusion", "model.weights=null", *STEP[:4], *where, *spread, "output=f")
        where = ["data=features", "data.root=f"]
    where += ["data.group_by='subject\\d+'"] if "data.group_by" in keys else []
    done = call("train", f"experiment={name}", *chosen, *STEP, *SMALL[model], *where, "run_dir=run")
    assert "scored" in done.stdout
    assert (tmp_path / "run" / "best.pt").is_file()


QUICK = ["kinetics_slowfast_r50", "folder_subjects"]
BUILT_IN = ["demo", "motion_32", "motion_adamw", "motion_small"]  # benchmarks/motion.md has them


@pytest.mark.parametrize("name", QUICK)
def test_a_step(name: str, call: Call, clips: Path, tmp_path: Path) -> None:
    run_small(name, call, clips, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if name not in [*QUICK, *BUILT_IN]])
def test_a_step_of_every_recipe(name: str, call: Call, clips: Path, tmp_path: Path) -> None:
    if name in ("few_shot", "ucf101_transfer", "hmdb51_transfer", "folder_transfer"):
        pytest.importorskip("timm")
    run_small(name, call, clips, tmp_path)

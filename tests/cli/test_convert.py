"""vidtrain convert: PySlowFast's YAML and MMAction2's Python files as experiments; a stranger's file runs nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cli.conftest import Call, error_line
from vidtrain.commands.convert import converted
from vidtrain.errors import ConfigError
from vidtrain.options.foreign.reading import read_python, read_yaml

SLOWFAST = """
TRAIN: {DATASET: kinetics, BATCH_SIZE: 16, EVAL_PERIOD: 5}
DATA: {NUM_FRAMES: 32, SAMPLING_RATE: 2, TRAIN_JITTER_SCALES: [256, 320], TRAIN_CROP_SIZE: 224, TEST_CROP_SIZE: 256,
  RANDOM_FLIP: False}
SLOWFAST: {ALPHA: 8, FUSION_KERNEL_SZ: 5}
RESNET: {DEPTH: 50}
AUG: {AA_TYPE: rand-m7-n4-mstd0.5-inc1, COLOR_JITTER: 0.4, RE_PROB: 0.25, NUM_SAMPLE: 2}
MIXUP: {ALPHA: 0.8, CUTMIX_ALPHA: 1.0, LABEL_SMOOTH_VALUE: 0.1}
BN: {USE_PRECISE_STATS: True, NUM_BATCHES_PRECISE: 150}
SOLVER: {BASE_LR: 1e-1, LR_POLICY: steps_with_relative_lrs, STEPS: [0, 14, 18], LRS: [1, 0.1, 0.01], MAX_EPOCH: 22,
  WEIGHT_DECAY: 1e-4, WARMUP_EPOCHS: 2.0, OPTIMIZING_METHOD: sgd, MOMENTUM: 0.9, CLIP_GRAD_L2NORM: 1.0}
MODEL: {ARCH: slowfast, DROPOUT_RATE: 0.4, NUM_CLASSES: 400}
TEST: {NUM_ENSEMBLE_VIEWS: 4, NUM_SPATIAL_CROPS: 1}
MULTIGRID: {SHORT_CYCLE: True}
"""
TSM = """
_base_ = ['base.py']
import os
os.system('touch ran')
frames = 4 * 2
train_pipeline = [
    dict(type='DecordInit'),
    dict(type='SampleFrames', clip_len=1, frame_interval=1, num_clips=frames),
    dict(type='Resize', scale=(-1, 256)),
    dict(type='RandomResizedCrop'),
    dict(type='Resize', scale=(224, 224), keep_ratio=False),
    dict(type='PytorchVideoWrapper', op='RandAugment', magnitude=7, num_layers=4),
    dict(type='Flip', flip_ratio=0.0),
    dict(type='Fancy', strength=3),
]
test_pipeline = [dict(type='SampleFrames', clip_len=1, num_clips=8, twice_sample=True), dict(type='ThreeCrop')]
train_dataloader = dict(batch_size=16, dataset=dict(ann_file=f'list_{frames}.txt', data_prefix=dict(video='/data/x'),
                        pipeline=train_pipeline))
model = dict(backbone=dict(depth=101), cls_head=dict(dropout_ratio=0.8))
auto_scale_lr = dict(enable=False, base_batch_size=128)
optim_wrapper = dict(clip_grad=dict(max_norm=20), paramwise_cfg=dict(fc_lr5=True))
param_scheduler = [dict(type='LinearLR', end=5), dict(type='MultiStepLR', milestones=[20, 40], gamma=0.1)]
"""
BASE = """
colours = dict(mean=[127.5, 127.5, 127.5], std=[51.0, 51.0, 51.0])
model = dict(backbone=dict(type='ResNetTSM', depth=50, pretrained='torchvision://resnet50'),
             data_preprocessor=dict(**colours))
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=-(-0.0005)))
train_cfg = dict(max_epochs=50, val_interval=2)
"""


def said(source: Path) -> tuple[dict[str, Any], list[str]]:
    choices, left = converted(source)
    return {choice.key: choice.value for choice in choices}, left


def test_a_yaml_of_pyslowfast(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(SLOWFAST)
    keys, left = said(tmp_path / "s.yaml")
    expected = {
        "/data": "kinetics",
        "/model": "slowfast_4x16_r50",
        "/optimizer": "sgd",
        "/schedule": "step",
        "/eval": "pyslowfast",
        "model.dropout": 0.4,
        "sampler.num_frames": 32,
        "sampler.stride": 2,
        "sampler.clips_per_video": 2,
        "transform.size": 224,
        "transform.resize": 256,
        "transform.resize_max": 320,
        "transform.flip": 0.0,
        "transform.policy": "rand_augment",
        "transform.magnitude": 7,
        "transform.num_ops": 4,
        "transform.erasing": 0.25,
        "task.mixup": 0.8,
        "task.cutmix": 1.0,
        "task.label_smoothing": 0.1,
        "optimizer.lr": 0.1,
        "optimizer.weight_decay": 1e-4,
        "optimizer.momentum": 0.9,
        "optimizer.decay_norms": False,
        "schedule.milestones": [14.0, 18.0],
        "schedule.gamma": 0.1,
        "schedule.warmup_epochs": 2.0,
        "trainer.epochs": 22,
        "trainer.batch_size": 32,  # two clips of each video
        "trainer.base_batch": 32,
        "trainer.clip_grad": 1.0,
        "trainer.val_every": 5,
        "trainer.precise_bn": 150,
        "eval.clips": 4,
        "eval.crops": 1,
    }
    assert keys == expected
    assert left == ["DATA.TEST_CROP_SIZE=256", "MULTIGRID.SHORT_CYCLE=True"]


def test_lists_of_pyslowfast_are_of_any_dataset(tmp_path: Path) -> None:
    own = "MODEL: {ARCH: slow}\nTRAIN: {DATASET: kinetics}\nDATA: {PATH_TO_DATA_DIR: /lists, PATH_PREFIX: /videos}\n"
    (tmp_path / "a.yaml").write_text(own)
    keys, left = said(tmp_path / "a.yaml")
    lists = {f"data.{split}": f"/lists/{split}.csv" for split in ("train", "val", "test")}
    expected = {"/data": "list", "data.root": "/videos", **lists}
    assert {key: value for key, value in keys.items() if "data" in key} == expected
    assert left == []


@pytest.mark.parametrize(
    ("sections", "model"),
    [
        ("MODEL: {ARCH: slowfast}\nRESNET: {DEPTH: 101}", "slowfast_r101"),
        ("MODEL: {ARCH: i3d}\nNONLOCAL: {LOCATION: [[[]], [[1, 3]]]}", "i3d_r50_nonlocal"),
        ("MODEL: {ARCH: i3d}\nNONLOCAL: {LOCATION: [[[]], [[]]]}", "i3d_r50"),
        ("MODEL: {ARCH: x3d}\nDATA: {NUM_FRAMES: 13}", "x3d_s"),
        ("MODEL: {ARCH: x3d}\nX3D: {DEPTH_FACTOR: 5.0}", "x3d_l"),
        ("MODEL: {ARCH: mvit}\nMVIT: {REL_POS_SPATIAL: True}", "mvit_v2_s"),
        ("MODEL: {ARCH: vit}\nTIMESFORMER: {ATTENTION_TYPE: x}", "timesformer"),
        ("MODEL: {ARCH: csn}\nDATA: {TRAIN_CROP_SIZE: 224, TEST_CROP_SIZE: 224}", "csn_r101"),
    ],
)
def test_architectures_of_pyslowfast(sections: str, model: str, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(f"{sections}\nSOLVER: {{BASE_LR: 0.1}}\n")
    keys, left = said(tmp_path / "s.yaml")
    assert keys["/model"] == model
    assert not [line for line in left if line.startswith("DATA.")]


def test_a_python_file_of_mmaction2_is_parsed_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base.py").write_text(BASE)
    (tmp_path / "tsm_8xb16-1x1x8.py").write_text(TSM)
    keys, left = said(tmp_path / "tsm_8xb16-1x1x8.py")
    assert not (tmp_path / "ran").exists()
    expected = {
        "/data": "list",
        "data.root": "/data/x",
        "data.train": "list_8.txt",
        "/model": "tsm_r50",
        "model.backbone": "resnet101",
        "model.dropout": 0.8,
        "model.pretrained": "imagenet",
        "transform.mean": [0.5, 0.5, 0.5],
        "transform.std": [0.2, 0.2, 0.2],
        "/sampler": "segments",
        "sampler.num_frames": 8,
        "transform.resize": 256,
        "transform.crop": "resized",
        "transform.area": [0.08, 1.0],
        "transform.size": 224,
        "transform.policy": "rand_augment",
        "transform.magnitude": 7,
        "transform.num_ops": 4,
        "transform.flip": 0.0,
        "/optimizer": "sgd",
        "optimizer.lr": 0.01,
        "optimizer.weight_decay": 0.0005,
        "optimizer.momentum": 0.9,
        "optimizer.nesterov": False,
        "trainer.clip_grad": 20,
        "schedule.warmup_epochs": 5.0,
        "/schedule": "step",
        "schedule.milestones": [20.0, 40.0],
        "schedule.gamma": 0.1,
        "trainer.epochs": 50,
        "trainer.val_every": 2,
        "trainer.batch_size": 128,
        "trainer.base_batch": 128,
        "/eval": "mmaction2",
        "eval.clips": 2,
        "eval.crops": 3,
    }
    assert keys == expected
    assert "optim_wrapper.paramwise_cfg.fc_lr5=True" in left
    assert "train_pipeline=the operations Fancy" in left
    assert "frames=8" in left


def test_tsm_on_mobilenet_of_mmaction2(tmp_path: Path) -> None:
    backbone = "dict(type='MobileNetV2TSM', shift_div=8, pretrained='mmcls://mobilenet_v2')"
    (tmp_path / "tsm.py").write_text(f"model = dict(backbone={backbone})\ntrain_pipeline = []\n")
    keys, _ = said(tmp_path / "tsm.py")
    assert (keys["/model"], keys["model.pretrained"]) == ("tsm_mobilenet_v2", "imagenet")


def test_videos_of_a_test_below_another_folder_are_named(tmp_path: Path) -> None:
    of = "dict(dataset=dict(ann_file='{0}.txt', data_prefix=dict(video='/data/{0}')))"
    (tmp_path / "a.py").write_text(
        f"{TSM.split('train_dataloader')[0].replace('base.py', 'b.py')}train_dataloader = {of.format('train')}\n"
        f"test_dataloader = {of.format('val')}\n"
    )
    (tmp_path / "b.py").write_text(BASE)
    keys, left = said(tmp_path / "a.py")
    assert (keys["data.root"], keys["data.test"]) == ("/data/train", "val.txt")
    said_so = "test_dataloader.dataset.data_prefix=/data/val: there is one data.root, from which data.test has to name"
    assert [line for line in left if line.startswith(said_so)]


def test_what_is_assigned_to_a_part_counts_and_other_statements_are_named(tmp_path: Path) -> None:
    """As MMAction2's own tutorials change a configuration: at its end."""
    lines = [
        *("import os", "'text'", "x = dict(one=1, two=[dict(three=3)])", "y = x", "y['one'] = 4"),
        *("x['two'][0]['three'] = dict(x=x)", "x['two'][7] = 1", "x.update(", "  one=5)"),
        *("for n in range(3):", "  x['one'] = n"),
    ]
    (tmp_path / "a.py").write_text("\n".join(lines))
    content = {"one": 4, "two": [{"three": {"x": {"one": 4, "two": [{"three": 3}]}}}]}
    left = {"a.py:7": "x['two'][7] = 1", "a.py:8": "x.update(one=5)", "a.py:10": "for n in range(3): x['one'] = n"}
    assert read_python(tmp_path / "a.py") == {"x": content, "y": content, **left}


def test_delete_and_lists_replace(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = dict(one=1, two=dict(three=3))\ny = [1, 2]\n")
    (tmp_path / "b.py").write_text(
        "_base_ = 'a.py'\nx = dict(two=dict(_delete_=True, four=4))\ny = [3]\nz = open('f')\n"
    )
    assert read_python(tmp_path / "b.py") == {"x": {"one": 1, "two": {"four": 4}}, "y": [3], "z": "<open('f')>"}


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.py", "_base_ = 'a.py'", "based on itself"),
        ("a.py", "_base_ = '../gone.py'", "is not there"),
        ("a.py", "_base_ = '/etc/passwd'", "is not there"),
        ("a.py", f"x = 0x{'f' * 9000}", "more than 64 bits"),
        ("a.py", "_base_ = 5", "_base_: expected a path"),
        ("a.py", "_base_ = None", "_base_: expected a path"),
        ("a.py", "_base_ = 'a\\0.py'", "is not there"),
        ("a.py", "x = (", "not a Python file"),
        (
            "a.py",
            "a = [0] \nb = [a, a, a, a, a, a, a, a]\n" + "".join(f"b = [{'b, ' * 9}]\n" for _ in range(9)),
            "more or deeper",
        ),
        ("a.py", "x = " + "[" * 60 + "]" * 60, "more or deeper"),
        ("a.py", "x = 1", "neither PySlowFast's YAML"),
        ("a.yaml", "x: 1", "neither PySlowFast's YAML"),
        ("a.yaml", "- 1", "expected a mapping"),
        ("a.yaml", "x: !!python/object/apply:os.system ['touch ran']", "cannot be read as YAML"),
        (
            "a.yaml",
            "c0: &c0 [1]\n" + "".join(f"c{n}: &c{n} [{f'*c{n - 1}, ' * 9}]\n" for n in range(1, 9)),
            "values",
        ),
        ("a.yaml", "MODEL: {ARCH: resnet}\nSOLVER: {BASE_LR: 1}", "MODEL.ARCH: resnet: not among"),
        ("a.yaml", "MODEL: {ARCH: slow}\nSOLVER: {OPTIMIZING_METHOD: lamb}", "OPTIMIZING_METHOD: lamb"),
        (
            "a.py",
            "model = dict(backbone=dict(type='ResNet3dCSN', depth=152))\ntrain_pipeline = []",
            "depth 152: not in the",
        ),
        ("gone.yaml", None, "no such file"),
    ],
)
def test_what_cannot_be_converted_is_one_line(name: str, text: str | None, expected: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=expected) as error:
        converted(tmp_path / name)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "ran").exists()


def test_numbers_that_yaml_takes_for_texts(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("MODEL: {ARCH: slow}\nSOLVER: {BASE_LR: 1e-4, WEIGHT_DECAY: 5e-5}\n")
    assert read_yaml(tmp_path / "a.yaml")["SOLVER"]["BASE_LR"] == "1e-4"
    keys, _ = said(tmp_path / "a.yaml")
    assert (keys["optimizer.lr"], keys["optimizer.weight_decay"]) == (1e-4, 5e-5)


def test_what_is_written_composes_and_is_not_overwritten(call: Call, tmp_path: Path) -> None:
    (tmp_path / "My recipe (1).yaml").write_text(SLOWFAST)
    done = call("convert", "config=My recipe (1).yaml")
    file = tmp_path / "my_conf" / "experiment" / "My_recipe__1_.yaml"
    assert "2 values could not be taken over" in done.stdout
    text = file.read_text()
    assert "#   MULTIGRID.SHORT_CYCLE=True\n" in text
    assert "  # SOLVER.BASE_LR\n  lr: 0.1\n" in text
    assert "milestones: [14.0, 18.0]" in text
    shown = call("train", "--config-dir", "my_conf", "experiment=My_recipe__1_", "data.root=/k", "--cfg", "job").stdout
    job = yaml.safe_load(shown)
    assert (job["model"]["alpha"], job["schedule"]["milestones"], job["eval"]["clips"]) == (8, [14.0, 18.0], 4)
    assert "is there already" in error_line(call("convert", "config=My recipe (1).yaml", check=2))
    assert "cannot be made" in error_line(call("convert", "config=My recipe (1).yaml", "output=/proc/x", check=2))


@pytest.mark.parametrize(
    ("given", "key", "left"),
    [
        ("MAX_EPOCH: [1]", "trainer.epochs", "SOLVER.MAX_EPOCH=[1]"),
        ("MAX_EPOCH: -3", "trainer.epochs", "SOLVER.MAX_EPOCH=-3"),
        ("MAX_EPOCH: 8.5", "trainer.epochs", "SOLVER.MAX_EPOCH=8.5"),
        ("BASE_LR: 0.1 x", "optimizer.lr", "SOLVER.BASE_LR=0.1 x"),
        ("BASE_LR: .inf", "optimizer.lr", "SOLVER.BASE_LR=inf"),
        ("LR_POLICY: steps_with_relative_lrs, STEPS: [a], LRS: [1, 2]", "schedule.milestones", "SOLVER.STEPS=['a']"),
    ],
)
def test_what_is_no_number_of_a_yaml_is_not_taken_over(given: str, key: str, left: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(f"MODEL: {{ARCH: slow}}\nSOLVER: {{{given}}}\n")
    keys, rest = said(tmp_path / "a.yaml")
    assert key not in keys
    assert rest == [left]


@pytest.mark.parametrize(
    ("old", "new", "key", "left"),
    [
        ("lr=0.01", "lr=0.1 ** 2", "optimizer.lr", "optim_wrapper.optimizer.lr=<0.1 ** 2>"),
        ("lr=0.01", "lr=1 / 0", "optimizer.lr", "optim_wrapper.optimizer.lr=<1 / 0>"),
        ("lr=0.01", "lr='x'", "optimizer.lr", "optim_wrapper.optimizer.lr=x"),
        ("max_epochs=50", "max_epochs=int(10)", "trainer.epochs", "train_cfg.max_epochs=<int(10)>"),
        ("batch_size=16", "batch_size=0", "trainer.batch_size", "train_dataloader.batch_size=0"),
        ("clip_len=1,", "clip_len=int(8),", "sampler.num_frames", "SampleFrames.clip_len=<int(8)>"),
        ("num_clips=8", "num_clips=len([1])", "eval.clips", "test_pipeline: SampleFrames.num_clips=<len([1])>"),
        ("end=5", "end=x()", "schedule.warmup_epochs", "param_scheduler: LinearLR.end=<x()>"),
        (
            "flip_ratio=0.0",
            "flip_ratio=x()",
            "transform.flip",
            "train_pipeline=the operations Flip flip_ratio=<x()>, Fancy",
        ),
    ],
)
def test_what_is_no_number_of_python_is_not_taken_over(old: str, new: str, key: str, left: str, tmp_path: Path) -> None:
    (tmp_path / "base.py").write_text(BASE.replace(old, new))
    (tmp_path / "a.py").write_text(TSM.replace(old, new))
    keys, rest = said(tmp_path / "a.py")
    assert key not in keys
    assert left in rest


@pytest.mark.parametrize(
    ("policies", "taken", "left"),
    [
        ("[dict(type='PolyLR', power=2)]", {}, ["param_scheduler[0]={'type': 'PolyLR', 'power': 2}"]),
        ("dict(type='OneCycleLR')", {}, ["param_scheduler[0]={'type': 'OneCycleLR'}"]),
        ("[5, None]", {}, ["param_scheduler[0]=5"]),
        (
            "[dict(type='LinearLR', end=500, by_epoch=False), dict(type='CosineAnnealingLR', eta_min=lr / 100)]",
            {"/schedule": "cosine", "schedule.final_ratio": 0.01},
            ["param_scheduler[0]={'type': 'LinearLR', 'end': 500, 'by_epoch': False}"],
        ),
        (
            "[dict(type='LinearLR', end=5), dict(type='LinearLR', begin=5, end_factor=0.0)]",
            {"schedule.warmup_epochs": 5.0},
            ["param_scheduler[1]={'type': 'LinearLR', 'begin': 5, 'end_factor': 0.0}"],
        ),
        (
            "[dict(type='MultiStepLR', milestones=[3]), dict(type='CosineAnnealingLR', eta_min_ratio=0.1)]",
            {"/schedule": "step", "schedule.milestones": [3.0], "schedule.gamma": 0.1},
            ["param_scheduler[1]={'type': 'CosineAnnealingLR', 'eta_min_ratio': 0.1}"],
        ),
        (
            "dict(type='CosineAnnealingLR', eta_min=7)",
            {"/schedule": "cosine"},
            ["param_scheduler: CosineAnnealingLR.eta_min=7"],
        ),
    ],
)
def test_a_policy_that_has_no_counterpart_is_named(
    policies: str, taken: dict[str, Any], left: list[str], tmp_path: Path
) -> None:
    (tmp_path / "a.py").write_text(
        "model = dict(backbone=dict(type='C3D'))\ntrain_pipeline = []\nlr = 0.5\n"
        f"optim_wrapper = dict(optimizer=dict(type='SGD', lr=lr))\nparam_scheduler = {policies}\n"
    )
    keys, rest = said(tmp_path / "a.py")
    assert {key: value for key, value in keys.items() if "schedule" in key} == taken
    assert rest == ["lr=0.5", *left] or rest == [*left, "lr=0.5"]


def test_each_base_is_read_once_and_all_are_counted(tmp_path: Path) -> None:
    for number in range(20):
        bases = [f"b{other}.py" for other in range(number + 1, min(number + 9, 20))]
        (tmp_path / f"b{number}.py").write_text(f"_base_ = {bases}\nx{number} = {number}\n")
    assert len(read_python(tmp_path / "b4.py")) == 16  # 32,000 ways lead to the last
    with pytest.raises(ConfigError, match="more than 16 files"):
        read_python(tmp_path / "b0.py")

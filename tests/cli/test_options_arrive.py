"""What the options of a training say arrives at the part that they are for."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cli.conftest import Call
from vidtrain import build
from vidtrain.commands import training_parts as training

PARTS = ("TrainClips", "TrainLoader", "TrainingStep", "EMA", "Checkpoints", "standard_hooks", "Trainer")


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    """The keywords that each part of a training is made with; the parts are the real ones."""
    found: dict[str, dict[str, Any]] = {}
    for name in PARTS:
        home = build if name == "TrainClips" else training
        real = getattr(home, name)

        def noting(*args: Any, _name: str = name, _real: Any = real, **options: Any) -> Any:
            found[_name] = {**options, "args": args}
            return _real(*args, **options)

        monkeypatch.setattr(home, name, noting)
    return found


def test_training(tiny: list[str], call: Call, made: dict[str, dict[str, Any]]) -> None:
    call(
        "train",
        *tiny,
        *["trainer.test=false", "trainer.epochs=1", "trainer.max_batches=1", "run_dir=run", "trainer.seed=7"],
        *["task.label_smoothing=0.2", "task.mixup=0.3", "task.cutmix=0.4", "trainer.clip_grad=2"],
        *["trainer.ema=0.75", "trainer.keep_last=3", "sampler.class_balance=0.5", "sampler.clips_per_video=2"],
        *["trainer.on_oom=fail", "transform.flip=0.125", "transform.hue=0.25", "trainer.overfit=true"],
        *[
            "trainer.async_save=true",
            "data.max_bad_fraction=0.5",
            "schedule=step",
            "schedule.gamma=0.3",
            "transform.mean=[0.1,0.2,0.3]",
        ],
    )
    clips, loader, step = (made[name] for name in ("TrainClips", "TrainLoader", "TrainingStep"))
    task = step["args"][2]
    assert (task.criterion.label_smoothing, [alpha for _, alpha in task.criterion._mixes]) == (0.2, [0.3, 0.4])
    assert (task.multi_label, len(task.class_names)) == (False, 8)
    parts = clips["args"][1]
    assert (clips["seed"], parts.sampler.clips_per_video, parts.sampler.class_balance) == (7, 2, 0.5)
    # move_left and move_right, turn_cw and turn_ccw: the labels that a flip exchanges
    assert clips["flip_labels"] is not None
    assert not np.array_equal(clips["flip_labels"], np.arange(8))
    assert (parts.transform.flip, parts.transform.hue) == (0.125, 0.25)
    expected = {"batch_size": 8, "most": 1, "fixed": True, "share": (0, 1)}
    assert {key: loader[key] for key in expected} == expected
    assert (step["clip_grad"], step["halve_on_oom"]) == (2, False)
    assert step["ema"].decay == 0.75
    assert step["args"][0].preprocess._shift.flatten().tolist() == pytest.approx(
        [-0.1 / 0.225, -0.2 / 0.225, -0.3 / 0.225]
    )
    assert (made["Checkpoints"]["keep_last"], made["Checkpoints"]["in_background"]) == (3, True)
    trainer = made["Trainer"]
    assert made["standard_hooks"]["args"][1] == 8  # half of sixteen videos
    schedule = trainer["args"][2].schedule
    assert (schedule.name.value, schedule.gamma) == ("step", 0.3)
    assert made["Checkpoints"]["describe"]["class_names"][0] == "move_left"
    assert trainer["validate"] is not None


def test_corrections_for_unequal_classes(tiny: list[str], call: Call, made: dict[str, dict[str, Any]]) -> None:
    corrections = ["task.class_weights={move_left: 3}", "task.focal_gamma=1.5", "task.logit_adjust=0.5"]
    call("train", *tiny, *corrections, "trainer.epochs=1", "trainer.max_batches=1", "run_dir=run", "eval.clips=1")
    task = made["TrainingStep"]["args"][2]
    weights, offsets = task.criterion._weights, task.criterion._offsets
    # eight classes of two videos each
    assert weights[task.class_names.index("move_left")].item() == pytest.approx(3 / ((3 + 7) / 8))
    assert offsets.tolist() == pytest.approx([0.5 * math.log(1 / 8)] * 8)
    assert task.criterion.focal_gamma == 1.5


def test_tune(tiny: list[str], call: Call, made: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    """What is trained is what `tune` says, with its numbers, at the optimizer as in the log."""
    short = [*tiny, "trainer.epochs=1", "trainer.max_batches=1", "trainer.test=false"]

    def trained(*options: str) -> tuple[Any, dict[str, Any], str]:
        log = call("train", *short, *options, f"run_dir={len(list(tmp_path.iterdir()))}").stderr
        step = made["TrainingStep"]
        groups = step["args"][1].param_groups
        model = step["args"][0].model
        own = {name: p for name, p in model.named_parameters() if p.requires_grad}
        assert {id(p) for group in groups for p in group["params"]} == {id(p) for p in own.values()}
        return model, own, log

    model, own, log = trained("tune=lora", "tune.rank=3", "tune.alpha=6", "tune.targets=[net.3,net.6]")
    layers = {name.rpartition(".weight_lora_a")[0]: p for name, p in own.items() if name.endswith("_lora_a")}
    assert {name: len(p) for name, p in layers.items()} == {"net.3": 3, "net.6": 3}
    assert model.get_submodule("net.3").lora_scale == 2.0
    assert "tune=lora: trains " in log
    assert "head, LoRA rank 3 on 2 layers" in log
    assert {name.rpartition(".")[0] for name in trained("tune=last", "tune.blocks=1")[1]} == {"net.9", "net.10", "head"}
    model, own, log = trained("tune=probe", "tune.pooling=attentive", "tune.layer=net.4", "tune.heads=2")
    assert all(name.startswith("heads.0.") for name in own)
    assert (model.network.layer, model.network.tokens) == ("net.4", True)
    assert model.heads[0].pooler.cross_attention_block.xattn.heads == 2
    assert "a query and a linear layer on net.4" in log

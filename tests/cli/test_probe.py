"""vidtrain extract -> train model=probe data=features: a grid chosen on val, tested on test."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.cli.conftest import NUMBERS_ONLY, Call
from vidtrain import load_model
from vidtrain.data.formats.features import features
from vidtrain.shell import cli

FAST = ["trainer.num_workers=0", "trainer.epochs=10", "schedule.warmup_epochs=0", "trainer.batch_size=8"]
FAST += NUMBERS_ONLY


@pytest.fixture(scope="module")
def folders(tiny: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Features of the motion data by a random network, with `vectors` of which the class can be read, and tokens."""
    home = tmp_path_factory.mktemp("features")
    clip = [*[key for key in tiny if key.startswith(("data.", "sampler.", "transform."))], "trainer.num_workers=0"]
    for name, extra in (("vectors", []), ("tokens", ["tokens=true", "layer=net.5"])):
        command = ["extract", "model=slow_fusion", "model.width=4", "data=motion", *clip, *extra]
        with pytest.raises(SystemExit) as end:
            cli.main([*command, f"output={home / name}"])
        assert end.value.code == 0
    data = features(home / "vectors")
    for split, manifest in data.splits.items():
        for row, (path, label) in enumerate(zip(manifest.paths, manifest.labels, strict=True)):
            vectors = np.random.default_rng((row, len(split))).normal(size=np.load(path).shape)
            vectors[:, label] += 6
            np.save(path, vectors.astype(np.float16))
    return {name: home / name for name in ("vectors", "tokens")}


def of(folder: Path) -> list[str]:
    return ["data=features", f"data.root={folder}", *FAST]


@pytest.mark.parametrize("head", ["linear", pytest.param("knn", marks=pytest.mark.slow), "prototypes"])
def test_train_and_eval(folders: dict[str, Path], call: Call, tmp_path: Path, head: str) -> None:
    done = call("train", "model=probe", f"model.head={head}", *of(folders["vectors"]), "run_dir=r")
    result = json.loads((tmp_path / "r" / "result.json").read_text())
    assert result["test"]["top1"] > 0.6  # chance is 0.125
    assert len((tmp_path / "r" / "test" / "predictions.csv").read_text().splitlines()) == 9
    assert ("nothing here is trained by gradient" in done.stderr) == (head != "linear")
    assert "features kept in memory" in done.stderr
    again = call("eval", "checkpoint=r/best.pt", "output=again")
    assert json.loads((tmp_path / "again" / "result.json").read_text())["top1"] == result["test"]["top1"]
    assert "scored 8 of 8" in again.stdout
    call("train", "model=probe", f"model.head={head}", *of(folders["vectors"]), "run_dir=r", "resume=auto")


def test_a_member_is_chosen_on_val(folders: dict[str, Path], call: Call, tmp_path: Path) -> None:
    """Of one that does not learn and one that does; where they stand in the list does not matter."""
    grid = ["model=probe", "model.lr_factors=[0.000001,5.0]", "model.decay_factors=[1.0]"]
    done = call("train", *grid, *of(folders["vectors"]), "run_dir=r")
    model, _ = load_model(tmp_path / "r" / "best.pt")
    assert model.members[int(model.chosen)] == "lr_x5_decay_x1"  # type: ignore[union-attr, index, arg-type]
    with (tmp_path / "r" / "grid.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 10 * 2
    assert [line["chosen"] for line in lines[-2:]] == ["0", "1"]
    assert float(lines[-1]["top1"]) > 0.6 > float(lines[-2]["top1"])
    assert "chosen on val: lr_x5_decay_x1" in done.stderr


def test_attention_over_tokens(folders: dict[str, Path], call: Call, tmp_path: Path) -> None:
    head = ["model=probe", "model.head=attentive", "optimizer=adamw", "model.lr_factors=[1.0,10.0]"]
    call("train", *head, *of(folders["tokens"]), "run_dir=r", "trainer.epochs=1")
    model, content = load_model(tmp_path / "r" / "best.pt")
    assert content["config"]["model"]["in_features"] == model.in_features
    assert len(model.members) == 6  # type: ignore[arg-type]
    line = call("train", "model=feature_rnn", *of(folders["tokens"]), "run_dir=s", check=2).stderr.splitlines()[-1]
    assert "the data hold tokens, FeatureRNN reads one vector per clip" in line


def test_without_a_validation_split(folders: dict[str, Path], call: Call, tmp_path: Path) -> None:
    index = folders["vectors"] / "index.json"
    before = index.read_text()
    content = json.loads(before)
    del content["splits"]["val"]
    index.write_text(json.dumps(content))
    try:
        log = call("train", "model=probe", *of(folders["vectors"]), "trainer.epochs=1", "run_dir=r").stderr
        assert "no val split: " in log
        assert "training videos are held out to choose by" in log
        assert torch.load(tmp_path / "r" / "best.pt", weights_only=True)["class_names"]
    finally:
        index.write_text(before)


def test_few_shots(folders: dict[str, Path], call: Call, tmp_path: Path) -> None:
    few = ["model=probe", "model.head=prototypes", "probe.shots=[1,2]", "probe.seeds=2"]
    out = call("train", *few, *of(folders["vectors"]), "run_dir=r").stdout
    with (tmp_path / "r" / "few_shot.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [(line["shots"], line["seed"]) for line in lines] == [("1", "0"), ("1", "1"), ("2", "0"), ("2", "1")]
    for line in lines:
        folder = tmp_path / "r" / "few_shot" / f"{line['shots']}_{line['seed']}" / "test"
        own = json.loads((folder / "result.json").read_text())
        assert float(line["top1"]) == pytest.approx(own["top1"], abs=1e-6)
    first, second = json.loads((tmp_path / "r" / "result.json").read_text())["few_shot"]
    scores = [float(line["top1"]) for line in lines[:2]]
    assert first["mean"] == pytest.approx(sum(scores) / 2, abs=1e-6)
    assert first["interval"][1] - first["mean"] == pytest.approx(12.706 * abs(scores[0] - scores[1]) / 2, abs=1e-5)
    assert (first["shots"], second["shots"]) == (1, 2)
    assert "videos per class" in out
    for wrong, message in (
        (["probe.shots=[3]"], "probe.shots=3: class"),
        (["probe.shots=[1]", "trainer.test=false"], "reports scores of the test split"),
    ):
        done = call("train", "model=probe", *wrong, *of(folders["vectors"]), "run_dir=w", check=2)
        assert message in done.stderr.splitlines()[-1]


PROBED = ["model.width=4", "tune=probe", "tune.pooling=attentive", "optimizer=adamw"]


def test_a_probe_of_the_model_of_the_run(tiny: list[str], call: Call, tmp_path: Path) -> None:
    """tune=probe: trained, tested, and read back from best.pt as what it is."""
    options = [*tiny, *PROBED]
    call("train", *options, "run_dir=whole")
    whole = json.loads((tmp_path / "whole" / "result.json").read_text())
    model, content = load_model(tmp_path / "whole" / "best.pt")
    layer = model.network.layer  # type: ignore[union-attr]
    assert content["config"]["tune"]["layer"] == layer
    assert layer.startswith("net.")  # type: ignore[union-attr, operator]
    call("eval", "checkpoint=whole/best.pt", "output=again")
    again = json.loads((tmp_path / "again" / "result.json").read_text())
    assert again["loss"] == pytest.approx(whole["test"]["loss"], abs=1e-5)


@pytest.mark.slow
def test_a_probe_of_the_model_of_the_run_is_stopped_and_goes_on(tiny: list[str], call: Call, tmp_path: Path) -> None:
    options = [*tiny, *PROBED]
    call("train", *options, "run_dir=parts", "schedule=constant", "trainer.epochs=1")
    call("train", *options, "run_dir=parts", "schedule=constant", "resume=parts", "resume_changed=true")
    call("train", *options, "run_dir=once", "schedule=constant")
    parts, once = (load_model(tmp_path / name / "best.pt")[0].state_dict() for name in ("parts", "once"))
    assert all(torch.equal(parts[key], value) for key, value in once.items())


def test_a_probe_of_a_probe_is_a_mistake(folders: dict[str, Path], call: Call) -> None:
    done = call("train", "model=probe", "tune=probe", *of(folders["vectors"]), "run_dir=r", check=2)
    assert "is a head on a frozen network itself: take tune=full" in done.stderr.splitlines()[-1]

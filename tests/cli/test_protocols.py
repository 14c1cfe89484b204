"""eval=NAME from the command line: whose frames and crops were tested is what the result, the folder and errors say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from tests.cli.conftest import Call, error_line
from tests.cli.test_runs import rows_of
from vidtrain import build
from vidtrain.data.clips.protocols import check_clips
from vidtrain.data.settings import EvalConfig, SamplerConfig, TransformConfig
from vidtrain.options.option_texts import conf_dir

PRESETS = {
    "pyslowfast": ("stride", "10x3 views (clips x crops), frames and crops as pyslowfast, probabilities averaged"),
    "pyslowfast_offset": ("fps", "5x1 views (clips x crops), frames and crops as pyslowfast_offset, probabilities"),
    "pytorchvideo": ("stride", "10x3 views (clips x crops), frames and crops as pytorchvideo, probabilities averaged"),
    "pytorchvideo_0_1_5": ("stride", "10x3 views (clips x crops), frames and crops as pytorchvideo_0_1_5, probabilit"),
    "torchvision": ("fps", "5x1 views (clips x crops), frames and crops as torchvision, probabilities averaged"),
    "mmaction2": ("stride", "10x3 views (clips x crops), frames and crops as mmaction2, probabilities averaged"),
    "mmaction2_uniform": (
        "segments",
        "4x3 views (clips x crops), frames and crops as mmaction2_uniform, probabilities",
    ),
    "tsm": ("dense", "10x3 views (clips x crops), frames and crops as tsm, logits averaged"),
    "videomae": ("stride", "5x3 views (clips x crops), frames and crops as videomae, probabilities averaged"),
    "internvideo2": ("segments", "4x3 views (clips x crops), frames and crops as internvideo2, probabilities averaged"),
}


def preset_of(group: str, name: str) -> Any:
    """A file of conf/ over those that it names as its defaults, without Hydra, which takes a quarter of a second."""
    own = OmegaConf.load(conf_dir() / group / f"{name}.yaml")
    assert isinstance(own, DictConfig)
    bases = [base for base in own.pop("defaults", []) if base != "_self_"]
    return OmegaConf.merge(*(preset_of(group, base) for base in bases), own)


def test_every_preset_is_whole_and_fits_its_sampler() -> None:
    own = {"one_clip", "ten_clips", "thirty_views", "sliding"}
    assert {file.stem for file in (conf_dir() / "eval").glob("*.yaml")} == own | set(PRESETS)
    for preset, (sampler, expected) in PRESETS.items():
        evaluation: Any = OmegaConf.merge(EvalConfig, preset_of("eval", preset))
        clips: Any = OmegaConf.to_object(OmegaConf.merge(SamplerConfig, preset_of("sampler", sampler)))
        assert evaluation.protocol.value == preset
        check_clips(evaluation.protocol, clips, evaluation.clips, evaluation.hop)
        assert expected in build.protocol(clips, TransformConfig(), evaluation)
    # one replaces what a checkpoint says, key by key: each has all that another one sets, or that would stay
    for preset in own | set(PRESETS):
        assert {"protocol", "average", "hop", "crops"} <= set(preset_of("eval", preset))


def test_a_short_side_that_becomes_the_crop_is_said(trained: Path, call: Call) -> None:
    for preset, side in (("eval=pyslowfast", 32), ("eval=pytorchvideo", 40)):
        call("eval", f"checkpoint={trained / 'best.pt'}", preset, "transform.resize=40", "output=found")
        assert f"at 32 px (short side {side})" in json.loads(Path("found/result.json").read_text())["protocol"]


def test_the_test_after_training_and_an_own_preset_that_undoes_it(tiny: list[str], call: Call) -> None:
    call("train", *tiny, "trainer.epochs=1", "eval=tsm", "sampler=segments", "eval.crops=1", "run_dir=run")
    result = json.loads(Path("run/result.json").read_text())
    assert result["test"]["protocol"].endswith("2x1 views (clips x crops), frames and crops as tsm, logits averaged")
    call("eval", "checkpoint=run/best.pt", "eval=one_clip")
    own = json.loads(Path("run/eval/test_1x1/result.json").read_text())
    assert own["protocol"].endswith("1x1 views (clips x crops), probabilities averaged")
    call("eval", "checkpoint=run/best.pt")
    assert rows_of(Path("run/eval/test_2x1_tsm/predictions.csv")) == rows_of(Path("run/test/predictions.csv"))


def test_predict_reads_what_eval_reads(trained: Path, call: Call) -> None:
    options = [f"checkpoint={trained / 'best.pt'}", "eval=videomae", "eval.average=logits"]
    call("eval", *options, "output=found")
    rows = rows_of(Path("found/predictions.csv"))
    call("predict", *options, f"input={Path(rows[0]['file']).parents[1]}", "output=p.csv", "top=8")
    predicted = {row["path"]: row for row in rows_of(Path("p.csv"))}
    for row in rows:
        assert predicted[row["file"]].items() >= {key: row[key] for key in row if key not in ("path", "label")}.items()
    call("eval", options[0], "eval=videomae", "output=probabilities")
    assert rows_of(Path("probabilities/predictions.csv")) != rows


MISTAKES = [
    (
        ["eval=tsm"],
        "eval.protocol=tsm: got clips of a stride (sampler.fps=null), expected sampler.mode=segments, clips",
    ),
    (["eval=pyslowfast", "sampler=segments"], "eval.protocol=pyslowfast: got sampler.mode=segments, expected clips of"),
    (["eval=pyslowfast", "eval.hop=16"], "eval.protocol=pyslowfast spreads eval.clips over a video, it cannot slide"),
    (["eval=videomae", "eval.crops=1"], "eval.crops=1: eval.protocol=videomae has 3"),
    (["eval.protocol=slowfast"], "eval.protocol"),
]


@pytest.mark.parametrize(("options", "message"), MISTAKES)
def test_mistakes(trained: Path, call: Call, options: list[str], message: str) -> None:
    done = call("eval", f"checkpoint={trained / 'best.pt'}", *options, check=2)
    assert message in error_line(done)

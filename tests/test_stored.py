"""The configuration of a checkpoint: every value is what it says, bounded, and marked as the file's."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from omegaconf import OmegaConf

from vidtrain.errors import CheckpointError, ConfigError
from vidtrain.options import checkpoint_config as module
from vidtrain.options.checkpoint_config import checkpoint_config
from vidtrain.options.instantiate import ORIGIN
from vidtrain.options.schema import TrainConfig

STORED = {
    "task": {"_target_": "vidtrain.tasks.classification.task.Classification", "mixup": 0.0},
    "model": {"_target_": "vidtrain.models.slow_fusion.slow_fusion", "width": 8},
    "data": {"_target_": "vidtrain.data.formats.folder.folder", "root": "/videos", "group_by": None},
    "decoder": {"_target_": "vidtrain.data.readers.pyav.PyAVReader"},
    "optimizer": {"_target_": "torch.optim.SGD", "lr": 0.1},
}


def stored(**changes: Any) -> dict[str, Any]:
    return {"config": {**copy.deepcopy(STORED), **changes}}


def read(
    content: dict[str, Any],
    given: dict[str, Any] | None = None,
    choices: dict[str, Any] | None = None,
    file: str | None = "x.pt",
    trust: tuple[str, ...] = (),
) -> TrainConfig:
    return checkpoint_config(content, OmegaConf.create(given or {}), choices or {}, file=file, trust=trust)


def test_the_sections_are_marked_as_the_files() -> None:
    config = read(stored(), trust=("mine",), file="${a}.pt")
    for name in STORED:
        assert getattr(config, name)[ORIGIN] == {"file": "${a}.pt", "trust": ["mine"]}
    config = read(stored(), {"data": {"root": "/a"}, "decoder": {"_target_": "mine.Reader"}}, {"decoder": "mine"})
    assert config.data["root"] == "/a"
    assert config.data[ORIGIN]["file"] == "x.pt"  # keys that the user changed leave it the file's
    assert ORIGIN not in config.decoder
    assert config.decoder == {"_target_": "mine.Reader"}
    own = {ORIGIN: {"file": "mine", "trust": ["os"]}, **STORED["decoder"]}
    assert read(stored(decoder=own)).decoder[ORIGIN] == {"file": "x.pt", "trust": []}
    assert ORIGIN not in read(stored(), file=None).model


@pytest.mark.parametrize(
    "text",
    ["${optimizer}", "${.lr}", "\\${a}", "\\\\${a}", "${oc.env:HOME}", "a ${oc.create:{a: 1}} b", "$", "${", "{}"],
)
def test_nothing_in_it_is_resolved(text: str) -> None:
    config = read(stored(data={**STORED["data"], "root": text, "more": [{"a": text}]}))
    assert config.data["root"] == text
    assert config.data["more"] == [{"a": text}]
    # nor when the user changes another key beside it
    config = read(stored(data={**STORED["data"], "root": text}), {"data": {"group_by": "x"}})
    assert (config.data["root"], config.data["group_by"]) == (text, "x")


def test_what_the_user_escapes_is_not_resolved_either() -> None:
    assert read(stored(), {"data": {"root": "\\${a}"}}).data["root"] == "${a}"


def test_three_question_marks_are_no_missing_value() -> None:
    assert read(stored(data={**STORED["data"], "root": "???"})).data["root"] is None


@pytest.mark.parametrize("name", ["task", "model", "data", "decoder", "optimizer"])
def test_a_section_is_a_mapping(name: str) -> None:
    for value in ([1], "x", 3, None, True):
        with pytest.raises(
            CheckpointError, match=rf"x\.pt: its {name} section is no mapping but {type(value).__name__}"
        ):
            read(stored(**{name: value}))
    content = stored(**{name: {}})
    if name == "optimizer":
        assert read(content)
        return
    with pytest.raises(CheckpointError, match=rf"x\.pt: its configuration has no {name}"):
        read(content)


@pytest.mark.parametrize(
    ("section", "value", "message"),
    [
        ("sampler", {"num_frames": 100_000}, "together are more than 16 GiB of frames"),
        ("sampler", {"stride": 10**18}, "sampler.stride=1000000000000000000: must be at least 1 and at most 1000000"),
        ("sampler", {"fps": 1e-300}, "sampler.fps=1e-300: must be at least 1e-06"),
        ("transform", {"size": 20_000}, "together are more than 16 GiB of frames"),
        ("transform", {"resize": 60_000}, "transform.resize=60000 together are more than 16 GiB of frames"),
        ("transform", {"resize": 10**10}, "transform.resize=10000000000 together are more than 16 GiB of frames"),
        ("transform", {"resize_max": 60_000}, "transform.resize_max=60000 together are more than 16 GiB of frames"),
        ("transform", {"resize": "9x"}, "transform.resize=9x: expected a short side such as 128, or HEIGHTxWIDTH"),
        ("eval", {"clips": 100_000}, "together are more than 16 GiB of frames"),
        ("eval", {"crops": 3, "clips": 10_000}, "together are more than 16 GiB of frames"),
        ("eval", {"batch_size": 100_000}, "together are more than 16 GiB of frames"),
        ("trainer", {"num_workers": 257}, "trainer.num_workers=257: at most 256"),
        ("trainer", {"surprise": 1}, "surprise"),
        ("sampler", {"num_frames": "x"}, "used: sampler.num_frames: Value 'x'"),
        ("sampler", {"num_frames": -1}, "sampler.num_frames=-1"),
        ("sampler", [1], "cannot be used"),
    ],
)
def test_what_cannot_be_used_is_one_line(section: str, value: Any, message: str) -> None:
    with pytest.raises(CheckpointError, match=r"x\.pt: its configuration cannot be used: ") as caught:
        read(stored(**{section: value}))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_users_own_clips_are_held_against_the_same_bound() -> None:
    for file in ("x.pt", None):
        with pytest.raises(ConfigError, match=r"^sampler\.num_frames=16, transform\.resize=60000 together are more"):
            read(stored(), {"transform": {"resize": 60_000}}, file=file)
    read(stored(), {"transform": {"resize": "9999x9999"}})


def test_what_users_have_is_within_the_bounds() -> None:
    """A long clip in many views, on a large machine."""
    config = read(
        stored(
            sampler={"num_frames": 128},
            transform={"size": 224, "resize": 256},
            eval={"clips": 10, "crops": 3, "batch_size": 64},
            trainer={"num_workers": 256},
        )
    )
    assert config.eval.clips == 10


def test_keys_that_the_section_has_not(  # the user's, so the message says what there is
) -> None:
    with pytest.raises(ConfigError, match=r"no key 'data\.rot'.*root.*the checkpoint's data has:"):
        read(stored(), {"data": {"rot": "x"}})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"model": {"width": 4}},
            r"model\.width=4: the network is the checkpoint's, as it was trained \(here model\.w",
        ),
        ({"model": {"weights": "a.pt"}}, r"no key 'model\.weights'; the checkpoint's model has: _target_, width"),
        ({"trainer": {"epochs": 3}}, r"trainer\.epochs=3: counts in training alone \(here trainer\.epochs=20\); leave"),
        ({"trainer": {"seed": 3}}, r"trainer\.seed=3: counts in training alone"),
        ({"transform": {"flip": 0}}, r"transform\.flip=0: counts in training alone \(here transform\.flip=0\.5\)"),
        ({"sampler": {"class_balance": 1}}, r"sampler\.class_balance=1: counts in training alone"),
    ],
)
def test_what_has_no_effect_beside_a_checkpoint_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(stored(), given)


def test_what_has_no_effect_is_refused_beside_a_choice_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a choice itself sets counts as a whole, and a key that stays as stored changes nothing."""
    choice, named = {"crop": "resized", "size": 48, "flip": 0}, ["transform", "transform.size"]
    monkeypatch.setattr(module, "named_keys", lambda: named)
    assert read(stored(), {"transform": choice}, {"transform": "other"}).transform.size == 48
    named.append("transform.flip")
    assert read(stored(), {"transform": {**choice, "flip": 0.5}}, {"transform": "other"}).transform.size == 48
    with pytest.raises(ConfigError, match=r"transform\.flip=0: counts in training alone \(here transform\.flip=0\.5\)"):
        read(stored(), {"transform": choice}, {"transform": "other"})


def test_what_is_as_stored_or_has_an_effect_passes() -> None:
    own = {"model": {"width": 8}, "trainer": {"epochs": 20, "precision": "fp32", "num_workers": 0, "device": "cpu"}}
    config = read(
        stored(), {**own, "transform": {"size": 32, "flip": 0.5}, "sampler": {"stride": 3, "background": None}}
    )
    assert (config.transform.size, config.sampler.stride, str(config.trainer.precision)) == (32, 3, "fp32")
    assert read(stored(), {"model": {"width": 4}, "trainer": {"seed": 1}}, file=None).model["width"] == 4

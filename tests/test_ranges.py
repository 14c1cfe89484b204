"""Every number that can be set is refused outside its range, in one line that names the key."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
import re
import typing
from typing import Annotated, Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ValidationError

from vidtrain import create_model
from vidtrain.errors import ConfigError
from vidtrain.options import instantiate as targets
from vidtrain.options.commands import COMMANDS
from vidtrain.options.option_texts import conf_dir
from vidtrain.options.schema import check_numbers, schema_of
from vidtrain.ranges import Range, check_number, number, range_of

SCHEMAS = {command: schema_of(command) for command in COMMANDS}
HOSTILE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf, "-1": -1, "0": 0, "1e30": 1e30}
NEVER = ("nan", "inf", "-inf")

# What is allowed, and why. Whatever is not listed here is refused.
ALLOWED = {
    "0": {
        "num_workers, trainer.num_workers": "decoding in the main process",
        "trainer.seed, show.seed": "a seed like any other",
        "trainer.epochs": "the network that it starts from is tested",
        "trainer.precise_bn, trainer.profile": "off",
        "transform.colour, transform.grayscale, transform.hue, transform.erasing, transform.flip": "off, never",
        "transform.magnitude": "RandAugment's scale begins there",
        "transform.mean": "data that are not centred",
        "sampler.class_balance": "every video once",
        "sampler.background": "windows in which something happens alone",
        "schedule.warmup_epochs, schedule.final_ratio": "no warm-up; down to nothing",
        "trainer.save_minutes": "after every update",
        "trainer.data_timeout, trainer.rank_timeout": "waits forever, as it says",
        "prepare.crf": "lossless",
        "prepare.min_psnr": "no copy is refused",
        "segments.smoothing, segments.min_seconds, segments.merge_seconds": "off",
        "segments.threshold": "the most probable class, however improbable",
        "clip": "the first one",
        "label_errors clips": "no contact sheet",
        "thumbnails": "no file is opened",
        "port": "any that is free",
        "sweep.retries, sweep.startup_trials, sweep.prune_after": "none",
        "sweep.seed, shard.seed": "a seed like any other",
        "sweep.trial": "the first one",
        "jobs.cpus, jobs.gpus": "none is asked for",
        "jobs.deaths": "given up at the first",
        "live.idle, live.reconnect, live.alarm.cool_down": "not at all",
        "live.alarm.threshold": "the class that is the most probable, however improbable",
    },
    "-1": {"transform.mean": "a mean of the user's own"},
    "1e30": {
        "trainer.save_minutes": "never within an epoch",
        "trainer.clip_grad": "so large that nothing is clipped",
        "schedule.warmup_epochs": "compared with trainer.epochs, see engine.schedule.check_schedule",
        "sampler.fps": "a frame repeated, however often",
        "schedule.milestones": "never reached",
        "transform.aspect": "a region one pixel high",
        "prepare.min_psnr": "every copy that is not exact is refused",
        "tolerance": "export: whatever comes is kept",
        "jobs.cpus, jobs.gpus": "more than a cluster has, as Ray or Slurm then says",
    },
}


def numeric_fields(schema: type, prefix: str = "") -> list[tuple[str, Any]]:
    """(dotted key, type) of every number or list of numbers of a schema."""
    found: list[tuple[str, Any]] = []
    hints = typing.get_type_hints(schema)
    for part in dataclasses.fields(schema):
        hint = hints[part.name]
        kinds = {hint, *typing.get_args(hint)} | {x for a in typing.get_args(hint) for x in typing.get_args(a)}
        if dataclasses.is_dataclass(hint):
            found += numeric_fields(hint, f"{prefix}{part.name}.")
        elif kinds & {int, float}:
            found.append((prefix + part.name, list if list in map(typing.get_origin, kinds) else hint))
    return found


def refusal(cfg: DictConfig, key: str, value: Any) -> str | None:
    """What is said of a value, None when it is taken. Of a number that is no int OmegaConf says it, with the key.

    cfg: the defaults of a command, as they are again afterwards.
    """
    default = functools.reduce(dict.__getitem__, key.split("."), OmegaConf.to_container(cfg))
    try:
        OmegaConf.update(cfg, key, value)
        check_numbers(cfg)
    except ValidationError as error:
        first, *rest = str(error).splitlines()
        return first if any(key in line for line in rest) else f"without the key: {error}"
    except ConfigError as error:
        return str(error)
    finally:
        OmegaConf.update(cfg, key, default)
    return None


FIELDS = sorted({(command, key) for command, schema in SCHEMAS.items() for key, _ in numeric_fields(schema)})


def test_there_are_as_many_as_one_would_think() -> None:
    assert len(FIELDS) > 100
    assert ("train", "trainer.epochs") in FIELDS
    assert ("train", "transform.mean") in FIELDS


@pytest.mark.parametrize("command", SCHEMAS)
def test_every_number_of_a_schema(command: str) -> None:
    cfg = OmegaConf.structured(SCHEMAS[command])
    for key, hint in numeric_fields(SCHEMAS[command]):
        for name, value in HOSTILE.items():
            names = {key, f"{command} {key}"}
            allowed = any(names & set(keys.split(", ")) for keys in ALLOWED.get(name, {}))
            values = [value] * 3 if hint is list else value
            said = refusal(cfg, key, values)
            assert (said is None) == allowed, f"{command}: {key}={name}: {said}"
            assert not (allowed and name in NEVER)
            if said is not None:
                assert re.match(rf"{re.escape(key)}=.*: must be |Value '", said), said
                assert "\n" not in said
    assert cfg == OmegaConf.structured(SCHEMAS[command])


@pytest.mark.parametrize("command", SCHEMAS)
def test_the_defaults_are_allowed(command: str) -> None:
    check_numbers(OmegaConf.structured(SCHEMAS[command]))


def test_every_exception_is_of_a_key_that_exists() -> None:
    keys = {name for command, key in FIELDS for name in (key, f"{command} {key}")}
    assert not [
        key for reasons in ALLOWED.values() for group in reasons for key in group.split(", ") if key not in keys
    ]


@pytest.mark.parametrize("section", ["model", "data", "decoder", "optimizer"])
def test_no_function_of_ours_takes_nan_or_infinity(section: str) -> None:
    for file in sorted((conf_dir() / section).glob("*.yaml")):
        node = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
        if "_target_" not in node:  # a preset: its base names the function
            continue
        function = targets.locate(node["_target_"], section)
        for key in ("max_bad_fraction", "layer_decay", "decay_norms"):  # read before the function is called
            node.pop(key, None)
        hints = typing.get_type_hints(function.__init__ if inspect.isclass(function) else function)
        for key in set(node) & set(inspect.signature(function).parameters):
            for value in (math.nan, math.inf, -math.inf):
                if not targets._fits(value, hints.get(key, float)):
                    continue
                with pytest.raises(ConfigError, match=rf"^{section}\.{key}=-?(nan|inf): must be "):
                    targets.call({"_target_": node["_target_"], key: value}, section)


@pytest.mark.parametrize("reader", ["pyav", "decord", "torchcodec"])
@pytest.mark.parametrize("timeout", [0, -1.0, 1e30])
def test_a_reader_waits_for_a_time_above_zero(reader: str, timeout: float) -> None:
    node = {**OmegaConf.load(conf_dir() / "decoder" / f"{reader}.yaml"), "timeout": timeout}
    with pytest.raises(ConfigError, match=re.escape(f"decoder.timeout={timeout}: must be above 0 and at most 1e+06")):
        targets.call(node, "decoder")


def test_a_range_says_what_it_takes() -> None:
    said = {
        "at least 1": Range(least=1),
        "above 0 and below 1": Range(above=0, below=1),
        "at least 0 and at most 1": Range(least=0, most=1),
        "at most 5": Range(most=5),
        "below 5": Range(below=5),
        "a finite number": Range(),
        "at least 0 and at most 9223372036854775807": Range(least=0, most=2**63 - 1),
    }
    for text, allowed in said.items():
        assert str(allowed) == text
    with pytest.raises(ConfigError, match=r"^k=\[1, 0\.0\]: must be above 0 \(or null\)$"):
        check_number("k", [1, 0.0], Range(above=0, because="or null"))
    check_number("k", None, Range(above=0))
    check_number("k", True, Range(above=5))  # no number


def test_the_ends_belong_to_a_range_as_it_says() -> None:
    assert [v in Range(least=0, most=1) for v in (-1e-9, 0, 1, 1 + 1e-9)] == [False, True, True, False]
    assert [v in Range(above=0, below=1) for v in (0, 1e-9, 1 - 1e-9, 1)] == [False, True, True, False]
    assert [v in Range() for v in (math.nan, math.inf, -math.inf, 1e300)] == [False, False, False, True]


def test_lists_have_a_default_of_their_own() -> None:
    @dataclasses.dataclass
    class Options:
        steps: list[float] = number([1.0], above=0)

    assert Options().steps == [1.0]
    assert Options().steps is not Options().steps
    assert range_of(Annotated[float | None, Range(least=2)]) == Range(least=2)
    assert range_of(float) == Range()


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("timesformer_tiny", {"mlp_ratio": -1.0}, r"model\.mlp_ratio: got -1\.0, expected"),
        ("videomae_tiny", {"mlp_ratio": 0}, r"model\.mlp_ratio: got 0, expected"),
        ("vivit_tiny", {"norm_eps": -1.0}, r"model\.norm_eps: got -1\.0, expected 0 or more"),
        ("swin3d_t", {"heads": 4}, r"model\.heads=4: expected .*list.*, got int"),
        ("mvit_v2_s", {"depths": "1,2"}, r"model\.depths='1,2': expected .*list.*, got str"),
    ],
)
def test_an_option_of_a_model_that_cannot_be(model: str, options: dict[str, Any], message: str) -> None:
    with torch.device("meta"), pytest.raises(ConfigError, match=message):
        create_model(model, num_classes=3, **options)


def test_what_is_not_finite_and_what_no_float_holds() -> None:
    with pytest.raises(ConfigError, match=r"^fps=inf: must be finite, at least 1$"):
        check_number("fps", math.inf, Range(least=1))
    with pytest.raises(ConfigError, match=r"^fps=inf: must be a finite number$"):
        check_number("fps", math.inf, Range())
    assert 10**400 in Range(least=1)
    assert 10**400 not in Range(most=5)

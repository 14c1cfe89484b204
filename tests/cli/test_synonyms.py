"""Other programs' names of options lead to options that are there."""

from __future__ import annotations

from functools import cache

import pytest

from vidtrain.commands import run_dir
from vidtrain.models.settings import START_KEYS
from vidtrain.options import schema as config
from vidtrain.options.commands import COMMANDS, FROM_CHECKPOINT
from vidtrain.options.synonyms import SYNONYMS, suggestion
from vidtrain.shell.hydra_errors import all_keys, unknown_key


@cache
def keys(command: str) -> tuple[str, ...]:
    """All keys of the real configuration."""
    config.register()
    run_dir.register()
    chosen = {"train": ["data=folder", "optimizer=adamw"], "data": ["data=folder"], "bench": ["model=c3d"]}
    found = all_keys(command, chosen.get(command, []))
    assert len(found) > 1  # board has two
    return tuple(found)


def is_there(option: str, allowed: tuple[str, ...]) -> bool:
    groups = {name.split(".")[0] for name in allowed if "." in name}
    starts = {f"model.{key}" for key in START_KEYS if "model" in groups}
    return option in {*allowed, *groups, *starts}


@pytest.mark.parametrize("option", SYNONYMS)
def test_every_option_exists_and_every_word_leads_to_it(option: str) -> None:
    having = [command for command in COMMANDS if is_there(option, keys(command))]
    assert having, f"no command has {option}"
    for word in SYNONYMS[option].split():
        said = [suggestion(word, keys(command)) for command in having if word not in keys(command)]
        assert f" (did you mean {option}?)" in said, word
        # never to what the command lacks
        for command in COMMANDS:
            if (text := suggestion(word, keys(command))).startswith(" (did"):
                assert is_there(text.removeprefix(" (did you mean ").removesuffix("?)"), keys(command)), text


@pytest.mark.parametrize(
    ("command", "key", "option"),
    [
        ("train", "trainer.learning_rate", "optimizer.lr"),
        ("train", "trainer.lr", "optimizer.lr"),
        ("train", "lr", "optimizer.lr"),
        ("train", "weight_decay", "optimizer.weight_decay"),
        ("train", "optimizer.epochs", "trainer.epochs"),
        ("train", "batch_size", "trainer.batch_size"),
        ("train", "data.num_workers", "trainer.num_workers"),
        ("train", "gpus", "trainer.devices"),
        ("train", "seed", "trainer.seed"),
        ("train", "output_dir", "run_dir"),
        ("train", "pretrained", "model.pretrained"),
        ("train", "image_size", "transform.size"),
        ("train", "data.fps", "sampler.fps"),
        ("train", "task.mixupp", "task.mixup"),
        ("train", "dataset", "data"),
        ("predict", "source", "input"),
        ("predict", "weights", "checkpoint"),
        ("bench", "bs", "batch_size"),
        ("data", "workers", "num_workers"),
    ],
)
def test_suggestions(command: str, key: str, option: str) -> None:
    assert f"no key '{key}' (did you mean {option}?); allowed: " in unknown_key(key, keys(command))


def test_commands_that_read_a_checkpoint() -> None:
    assert set(FROM_CHECKPOINT) <= set(COMMANDS)
    for command in FROM_CHECKPOINT:
        assert "checkpoint" in keys(command)

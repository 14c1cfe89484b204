"""Hooks: when they are called, what they keep in a checkpoint, and one from outside."""

from __future__ import annotations

import json
import re
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.cli.conftest import Call
from tests.cli.conftest import call as call
from tests.cli.conftest import tiny as tiny
from tests.engine.test_trainer import SCORES, Clips, assert_equal, resumed, trainer
from tests.sampled import sampled
from vidtrain.engine import hooks
from vidtrain.engine.checkpoints.checkpoint import load_checkpoint
from vidtrain.engine.hooks import PRUNE, VALIDATIONS, Hook, Pruned, SweptRun
from vidtrain.engine.trainer import Trainer
from vidtrain.errors import LoaderError, StoppedError, VidtrainError
from vidtrain.tasks.task import Scores
from vidtrain.types import Batch


class Noting(Hook):
    """Notes what is called, with the number of updates and epochs done; raises in the method named `bad`."""

    def __init__(self, bad: str = "", found_at: int = 0) -> None:
        self.bad, self.found_at = bad, found_at
        self.seen: list[tuple[str, int, int]] = []

    def _note(self, method: str, trainer: Trainer) -> None:
        self.seen.append((method, trainer.progress.update, trainer.progress.epoch))
        if method == self.bad:
            raise ValueError(f"in {method}")

    def on_start(self, trainer: Trainer) -> None:
        self._note("on_start", trainer)

    def on_update(self, trainer: Trainer, group: Sequence[Batch]) -> bool:
        assert sum(map(len, group)) == 12
        self._note("on_update", trainer)
        return trainer.progress.update == self.found_at

    def on_found(self, trainer: Trainer) -> None:
        self._note("on_found", trainer)

    def before_validation(self, trainer: Trainer) -> None:
        self._note("before_validation", trainer)

    def on_validation(self, trainer: Trainer, scores: Scores) -> None:
        assert scores.summary()["top1"] >= 0
        assert (trainer.checkpoints.folder / "best.pt").is_file()
        self._note("on_validation", trainer)

    def on_epoch_end(self, trainer: Trainer) -> None:
        self._note("on_epoch_end", trainer)
        assert load_checkpoint(trainer.checkpoints.last)["epoch"] == trainer.progress.epoch - 1  # not written yet

    def on_stop(self, trainer: Trainer) -> None:
        self._note("on_stop", trainer)


def with_hooks(folder: Path, clips: Clips | None = None, /, *hooks: Hook, **settings: Any) -> Trainer:
    folder.mkdir(exist_ok=True)
    training = trainer(folder, clips or Clips(), **settings)
    training.hooks |= {f"own{number}": hook for number, hook in enumerate(hooks)}
    return training


@pytest.mark.parametrize("ema", [None, 0.9])
def test_each_event_comes_when_it_is_due(tmp_path: Path, ema: float | None) -> None:
    hook = Noting(found_at=3)
    with_hooks(tmp_path, Clips(), hook, accumulate=3, epochs=3, val_every=2, ema=ema).fit()
    before = ["before_validation"] * (1 if ema is None else 2)
    assert hook.seen == [
        ("on_start", 0, 0),
        *[("on_update", 1, 0), ("on_update", 2, 0)],
        *[(name, 2, 1) for name in [*before, "on_epoch_end"]],
        *[("on_update", 3, 1), ("on_found", 3, 1), ("on_update", 4, 1)],
        *[(name, 4, 2) for name in [*before, "on_validation", "on_epoch_end"]],
        *[("on_update", 5, 2), ("on_update", 6, 2)],
        *[(name, 6, 3) for name in [*before, "on_validation", "on_epoch_end", "on_stop"]],
    ]


@pytest.mark.parametrize("bad", ["on_start", "on_update", "before_validation", "on_validation", "on_epoch_end"])
def test_whatever_ends_a_training_every_hook_that_was_started_is_stopped(tmp_path: Path, bad: str) -> None:
    first, broken, last = Noting(), Noting(bad), Noting()
    with pytest.raises(ValueError, match=f"in {bad}"):
        with_hooks(tmp_path, Clips(), first, broken, last, accumulate=3).fit()
    assert [hook.seen[-1:] and hook.seen[-1][0] for hook in (first, broken)] == ["on_stop"] * 2
    assert [name for name, _, _ in last.seen].count("on_stop") == (0 if bad == "on_start" else 1)


def test_an_error_of_on_stop_does_not_hide_why_the_training_ended(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = Noting(), Noting("on_stop")
    training = with_hooks(tmp_path, Clips(), first, second, accumulate=3)
    training.stop.received = "SIGTERM"
    with pytest.raises(StoppedError, match="SIGTERM received: "):
        training.fit()
    assert "on_stop of a hook failed as well" in caplog.text
    assert first.seen[-1][0] == "on_stop"
    with pytest.raises(ValueError, match="in on_stop"):
        with_hooks(tmp_path / "finished", Clips(), Noting("on_stop"), accumulate=3).fit()


class Pulling(Hook):
    """Pulls the weights towards their slow average, which is its state, and so is the number of updates."""

    def __init__(self) -> None:
        self.count, self.slow = 0, torch.zeros(())

    def on_start(self, trainer: Trainer) -> None:
        if not self.count:
            self.slow = trainer.model[2].weight.detach().clone()

    def on_update(self, trainer: Trainer, group: Sequence[Batch]) -> None:
        self.count += 1
        weight = trainer.model[2].weight.data
        self.slow.lerp_(weight, 0.5)
        weight.lerp_(self.slow, 0.1 / self.count)

    def before_validation(self, trainer: Trainer) -> None:
        self.count += 100

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count, "slow": self.slow}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count, self.slow = state["count"], state["slow"].clone()


@pytest.mark.parametrize("stop_after", sampled([1, 5, 6, 11], [1, 6]))
def test_a_hook_with_a_state_continues_bit_for_bit(tmp_path: Path, stop_after: int) -> None:
    whole = with_hooks(tmp_path / "whole", Clips(), Pulling())
    whole.fit()
    with pytest.raises(KeyboardInterrupt):
        with_hooks(tmp_path / "parts", Clips(stop_after=stop_after), Pulling()).fit()
    again = resumed(with_hooks(tmp_path / "parts", Clips(), Pulling()))
    assert again.hooks["own0"].count == stop_after + 100 * (stop_after // 6)  # type: ignore[attr-defined]
    again.fit()
    assert_equal(again.model, whole.model)
    plain = with_hooks(tmp_path / "plain")
    plain.fit()
    assert not torch.equal(plain.model[2].weight, whole.model[2].weight)


def test_a_worker_that_dies_at_the_end_of_an_epoch_takes_the_hooks_back_with_it(tmp_path: Path) -> None:
    class Dying(Hook):
        def before_validation(self, trainer: Trainer) -> None:
            if trainer.progress.epoch == 2:
                raise LoaderError("a process has died")

    training = with_hooks(tmp_path, Clips(), Pulling(), Dying(), save_minutes=1e9)
    training.stop.wait = lambda: None  # type: ignore[method-assign,assignment]
    with pytest.raises(StoppedError, match="a process has died; saved after update 12"):
        training.fit()
    saved = load_checkpoint(tmp_path / "last.pt")
    assert (saved["progress"]["epoch"], saved["progress"]["batch"]) == (1, 6)
    assert saved["ranks"][0]["hooks"]["own0"]["count"] == 12 + 100


def test_what_a_checkpoint_cannot_hold_is_refused_when_it_is_saved(tmp_path: Path) -> None:
    class Wrong(Hook):
        def state_dict(self) -> dict[str, Any]:
            return {"path": Path("x")}

    with pytest.raises(VidtrainError, match=r"hook.own0: state_dict\(\) holds what no checkpoint can: expected plain"):
        with_hooks(tmp_path, Clips(), Wrong()).fit()


def test_by_another_number_of_processes_the_state_of_the_main_one_goes_on(tmp_path: Path) -> None:
    training = with_hooks(tmp_path, Clips(), Pulling(), epochs=1, validate=lambda model: SCORES)
    training.fit()
    content = training.checkpoints.load_last()
    assert content is not None
    other = {**content["ranks"][0], "hooks": {"own0": {"count": 77, "slow": torch.zeros(())}}}
    again = with_hooks(tmp_path, Clips(), Pulling())
    again.resume({**content, "ranks": [content["ranks"][0], other]})
    assert again.hooks["own0"].count == 106  # type: ignore[attr-defined]
    without = with_hooks(tmp_path)  # the hook is not used any more
    without.resume(content)
    assert without.progress.update == 6


def test_a_profile_is_written_once(tmp_path: Path) -> None:
    class Counting(Clips):
        def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
            if number == 1:
                seen.append(len(list((tmp_path / "profile").iterdir())))
            yield from super().epoch(number, start)

    seen: list[int] = []
    trainer(tmp_path, Counting(count=32), profile=2, epochs=2).fit()
    assert seen == [1]
    assert len(list((tmp_path / "profile").iterdir())) == 1


# ---------------------------------------------------------------- on the command line


def test_the_examples_of_the_documentation_run(
    tiny: list[str], call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """docs/training.md's own hook, own loss and own logger, the latter with a stand-in for the server's library."""
    text = (Path(__file__).parents[2] / "docs" / "training.md").read_text()
    blocks = re.findall(r"^    # (\S+)\n((?:    .*\n|\n)+?)(?=    # |    PYTHONPATH|\S)", text, re.MULTILINE)
    files: dict[str, str] = {}
    for name, body in blocks:
        files[name] = files.get(name, "") + textwrap.dedent(body)
    confs = {f"my_conf/{name}.yaml" for name in ("logger/aim", "hook/weight_norm", "task/poly")}
    assert set(files) == {"mycode.py", *confs}
    monkeypatch.delitem(sys.modules, "mycode", raising=False)  # of another page
    files["aim.py"] = """
logged = []
class Run:
    def __init__(self, experiment): logged.append(experiment)
    def __setitem__(self, key, value): logged.append((key, value["trainer"]["epochs"]))
    def track(self, values, step): logged.append((step, values))
    def close(self): logged.append("closed")
"""
    for name, body in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(body)
    monkeypatch.syspath_prepend(tmp_path)
    own = ["--config-dir", "my_conf", "logger=[jsonl,aim]", "hook=weight_norm", "hook.weight_norm.every=2"]
    own += ["task=poly", "task.epsilon=9"]
    call("train", *tiny, *own, "trainer.epochs=1", "trainer.max_batches=2", "trainer.test=false", "run_dir=run")
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open()]
    norms = [(r["update"], r["weight_norm"]) for r in records if "weight_norm" in r]
    assert [update for update, _ in norms] == [2]
    assert norms[0][1] > 1
    assert next(r["loss"] for r in records if r["kind"] == "train_epoch") > 9  # of 8 classes; without it about 2
    logged = sys.modules["aim"].logged
    assert (logged[:2], logged[-1]) == (["videos", ("config", 1)], "closed")
    assert (2, {"train/weight_norm": norms[0][1]}) in logged
    assert len(logged) == len(records) + 3
    for name in ("aim", "mycode"):
        sys.modules.pop(name)


OWN = '''
from vidtrain.engine.hooks import PRUNE, VALIDATIONS, Hook, Pruned, SweptRun


class Freeze(Hook):
    """Stops after some epochs, and writes down how often it was called."""

    def __init__(self, after: int, file: str = "calls.txt") -> None:
        self.after, self.file, self.calls = after, file, []

    def on_update(self, trainer, group):
        self.calls.append(trainer.progress.update)

    def on_epoch_end(self, trainer):
        trainer.progress.stopped_early = trainer.progress.epoch >= self.after

    def on_stop(self, trainer):
        (trainer.checkpoints.folder / self.file).write_text(" ".join(map(str, self.calls)))

    def state_dict(self):
        return {"calls": self.calls}

    def load_state_dict(self, state):
        self.calls = state["calls"]
'''


def test_a_hook_from_outside_is_one_class_and_one_file(
    tiny: list[str], call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "my_conf" / "hook").mkdir(parents=True)
    (tmp_path / "code" / "my_hook.py").write_text(OWN)
    (tmp_path / "my_conf" / "hook" / "mine.yaml").write_text(
        "mine:\n  _target_: my_hook.Freeze\n  after: ???  # epochs\n"
    )
    monkeypatch.syspath_prepend(tmp_path / "code")
    run = ["train", *tiny, "trainer.epochs=9", "trainer.test=false", "trainer.max_batches=2", "run_dir=run"]
    own = ["--config-dir", "my_conf", "hook=mine"]
    call(*run, *own, "hook.mine.after=2", "logger=jsonl")
    assert (tmp_path / "run" / "calls.txt").read_text() == "1 2 3 4"
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open()]
    assert max(r["epoch"] for r in records) == 2

    (tmp_path / "run" / "result.json").unlink()
    refused = call(*run, *own, "hook.mine.after=3", "logger=jsonl", "resume=run", check=2).stderr
    assert "was started with another configuration: hook.mine.after was 2, is 3" in refused
    sys.modules.pop("my_hook")

    assert "hook.mine.after=???\n      epochs" in call("train", "--help", *own).stdout
    for chosen, line in MISTAKES.items():
        done = call(*run[:-1], "run_dir=bad", *own, *chosen.split(), check=2)
        assert done.stderr.splitlines()[-1].startswith(f"vidtrain: error: {line}"), done.stderr
        assert not (tmp_path / "bad").exists()


MISTAKES = {
    "": "hook.mine.after is not set: give hook.mine.after=...",
    "hook.mine.after=x": "hook.mine.after='x': ",
    "hook.mine.after=1 hook.mine._target_=my_hook.Hok": "hook.mine._target_=my_hook.Hok: cannot be imported",
    "hook.mine.after=1 hook.mine._target_=collections.UserDict": "hook.mine: expected a vidtrain.engine.hooks.Hook, ",
    "hook.mine.afer=1": "no key 'hook.mine.afer'",
}


class Asks(Hook):
    """What a sweep does while a run is executed: asks for its end after some validations."""

    def __init__(self, folder: Path, after: int) -> None:
        self.folder, self.after = folder, after

    def on_validation(self, trainer: Trainer, scores: Scores) -> None:
        if trainer.progress.epoch == self.after:
            (self.folder / PRUNE).touch()


def test_a_run_of_a_sweep_writes_its_validations_and_ends_when_it_is_asked_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hooks, "_LOOKS_EVERY", 0.0)
    training = with_hooks(tmp_path, Clips(), SweptRun(tmp_path), Asks(tmp_path, 2), epochs=5)
    with pytest.raises(Pruned):
        training.fit()
    lines = [json.loads(line) for line in (tmp_path / VALIDATIONS).read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]
    assert all(line["primary"] == line["top1"] >= 0 and line["loss"] > 0 for line in lines)
    assert [line["scored"] for line in lines] == [24, 24]
    updates = training.progress.update
    assert updates == 2 * len(training.clips) + 1  # the first one after it was asked
    assert load_checkpoint(tmp_path / "best.pt")["epoch"] in (1, 2)


def test_a_run_without_a_validation_is_not_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks, "_LOOKS_EVERY", 0.0)
    (tmp_path / PRUNE).touch()
    training = with_hooks(tmp_path, Clips(), SweptRun(tmp_path), epochs=2, val_every=2)
    training.fit()
    assert training.progress.epoch == 2

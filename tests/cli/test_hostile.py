"""Strangers' files through the commands: nothing of theirs runs, nothing is written elsewhere, one line says why."""

from __future__ import annotations

import shutil
import signal
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from tests.hostile import Case, cases
from vidtrain.engine.checkpoints.checkpoint import load_checkpoint
from vidtrain.shell import cli

SECONDS = 10
"""Of processor time, which other programs do not take away."""
WAITING = 120
"""Of any time: who waits for the other end of a pipe uses no processor."""


class House:
    """A folder with what a user has: some videos, a good run, files that nobody may touch; and a stranger's folder."""

    def __init__(self, root: Path, trained: Path, tiny: list[str]) -> None:
        self.root, self.trained, self.tiny = root, trained, tiny
        self.content = load_checkpoint(trained / "last.pt")
        self.stranger, self.work, self.canary = root / "stranger", root / "work", root / "watched" / "canary"
        for folder in (self.work, self.canary.parent, root / "videos" / "train" / "a", root / "videos" / "train" / "b"):
            folder.mkdir(parents=True)
        (self.canary.parent / "precious").write_text("x")
        self.clip = next(Path(self.content["config"]["data"]["root"]).glob("*/test/*/*.mp4"))
        for name in "ab":
            shutil.copy(self.clip, root / "videos" / "train" / name / "0.mp4")

    def arguments(self, command: str) -> list[str]:
        best = f"checkpoint={self.stranger / 'best.pt'}"
        one_process = ["trainer.num_workers=0", "trainer.device=cpu"]
        return {
            "predict": ["predict", best, f"input={self.clip}"],
            "eval": ["eval", best, "output=evaluated"],
            "extract": ["extract", best, "output=features"],
            "inspect": ["inspect", f"weights={self.stranger / 'best.pt'}"],
            "weights": ["train", *self.tiny, f"model.weights={self.stranger / 'best.pt'}", "run_dir=run"],
            "resume": ["train", *self.tiny, f"resume={self.stranger}"],
            "data=index": ["data", "info", "data=index", f"data.root={self.stranger}"],
            "data=features": ["data", "info", "data=features", f"data.root={self.stranger}"],
            "extract into": [
                "extract", f"checkpoint={self.trained / 'best.pt'}", f"output={self.stranger}", *one_process
            ],
            "flow=cache": [
                "train", *self.tiny, "model=two_stream_tiny", "flow=cache", f"flow.root={self.stranger}", "run_dir=run"
            ],
            "data prepare": [
                "data", "prepare", "data=folder", f"data.root={self.root / 'videos'}", f"output={self.stranger}"
            ],
        }[command]  # fmt: skip

    def fresh(self, case: Case) -> None:
        for folder in (self.stranger, self.work):
            folder.mkdir(exist_ok=True)
            for entry in folder.iterdir():
                shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
            (folder / "stranger_module.py").write_text(f"open({str(self.canary)!r}, 'w')\ndef net(): pass\n")
        case.make(self.stranger, self.content, str(self.canary))

    def files(self) -> set[tuple[Path, int, int]]:
        """All but what the commands are to write, in the working folder and, where it is the output, the stranger's:
        (path, size, time of the last change), times of folders aside, which a reader's may be of."""
        ours = (self.stranger, self.work)
        others = [path for path in self.root.rglob("*") if not any(path.is_relative_to(folder) for folder in ours)]
        sizes = [(0, 0) if path.is_dir() else (path.stat().st_size, path.stat().st_mtime_ns) for path in others]
        return {(path, *size) for path, size in zip(others, sizes, strict=True)}


@contextmanager
def limited() -> Iterator[None]:
    def late(number: int, frame: Any) -> None:
        kind = f"{SECONDS} s of work" if number == signal.SIGPROF else f"{WAITING} s"
        raise TimeoutError(f"took more than {kind}")

    before = [(number, signal.signal(number, late)) for number in (signal.SIGPROF, signal.SIGALRM)]
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    signal.setitimer(signal.ITIMER_REAL, WAITING)
    try:
        yield
    finally:
        for timer in (signal.ITIMER_PROF, signal.ITIMER_REAL):
            signal.setitimer(timer, 0)
        for number, handler in before:
            signal.signal(number, handler)


@pytest.fixture
def house(trained: Path, tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> House:
    house = House(tmp_path / "house", trained, tiny)
    monkeypatch.chdir(house.work)
    return house


def faults(house: House, case: Case, command: str, capfd: pytest.CaptureFixture[str]) -> list[str]:
    """Run a command on a case; what it did that it should not."""
    house.fresh(case)
    before = house.files()
    capfd.readouterr()
    code: Any = None
    found = []
    try:
        with limited():
            cli.main(house.arguments(command))
    except SystemExit as end:
        code = end.code
    except BaseException as error:
        found.append(f"a traceback: {type(error).__name__}: {str(error)[:300]}")
    out, err = capfd.readouterr()
    if house.canary.exists():
        found.append("IT RAN")
        shutil.rmtree(house.canary, ignore_errors=True)
        house.canary.unlink(missing_ok=True)
    if changed := before ^ house.files():
        found.append(f"files elsewhere: {sorted(map(str, changed))[:3]}")
    if "Traceback" in out + err:
        found.append(f"a traceback: {(out + err)[-300:]}")
    if code == 2:
        last = err.strip().splitlines()[-1]
        if not last.startswith("vidtrain: error: ") or len(last) > 2000 or err.count("vidtrain: error: ") != 1:
            found.append(f"no one line: {err[-300:]}")
    elif not (code == 0 and case.harmless):
        found.append(f"exit code {code}: {(out + err)[-300:]}")
    return [f"{case.kind}: {case.name}: {command}: {fault}" for fault in found]


def test_a_sample_of_every_kind(house: House, capfd: pytest.CaptureFixture[str]) -> None:
    kinds: dict[str, list[Case]] = defaultdict(list)
    for case in cases():
        kinds[case.kind].append(case)
    assert len(kinds) >= 14
    found = []
    for number, several in enumerate(kinds.values()):
        case = several[len(several) // 2]
        found += faults(house, case, case.commands[number % len(case.commands)], capfd)
    assert not found, "\n".join(found)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(6))
def test_all(house: House, capfd: pytest.CaptureFixture[str], part: int) -> None:
    """About 600 files, 700 commands."""
    assert sum(1 for _ in cases()) >= 500
    found = []
    for case in islice(cases(), part, None, 6):
        for command in case.commands:
            found += faults(house, case, command, capfd)
    assert not found, f"{len(found)} faults\n" + "\n".join(found)

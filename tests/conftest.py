"""Fixtures for all tests."""

from __future__ import annotations

import gc
import os
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from vidtrain.child_python_path import processors

# Hypothesis times each example by the clock on the wall: on a machine that is busy, one that is put aside for 0.2 s is
# "too slow", and the test fails without a fault. The examples are the same in every run, so that a commit is judged by
# what it changes and a failure can be seen again; `pytest --hypothesis-profile=search` looks for new ones.
settings.register_profile("same", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
settings.register_profile("search", settings.get_profile("same"), derandomize=False, max_examples=1000)
settings.load_profile("same")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Modules and tests stay until the end: looking for garbage among them is a sixth of the time that collecting them
    takes, and each later look would go through the same million objects."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


# Files that take 8 to 40 seconds, the longest first.
LONGEST = [
    *("cli/test_extract.py", "cli/test_runs.py", "models/test_every_model.py", "cli/test_hostile.py"),
    *("data/test_readers_guarded.py", "data/test_workers.py", "data/test_prepare.py", "cli/test_kept.py"),
    *("cli/test_resume.py", "cli/test_flow.py", "cli/test_strangers.py", "engine/test_pair.py", "cli/test_probe.py"),
    *("cli/test_run_folders.py", "cli/test_publish.py", "cli/test_mistakes.py", "cli/test_export.py"),
    *("models/test_parity_resnets.py", "models/test_timm_frames.py", "tasks/test_per_class.py", "cli/test_testing.py"),
]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Of `-n auto`: one process more than processors, since many a test waits for a process or for a limit of time."""
    return processors() + 1


def pytest_configure(config: pytest.Config) -> None:
    """xdist would begin with the files of the most tests: one of four that take 20 seconds would be the last, and all
    other processes wait for it."""
    config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A worker of xdist gets a file after the other in this order."""
    root = Path(__file__).parent
    order = {root / name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path, len(order)))


@pytest.fixture(scope="session")
def test_videos() -> Path:
    """A folder with real videos and real annotation files: VIDTRAIN_TEST_VIDEOS, or shared/videos beside the code."""
    default = Path(__file__).parents[2] / "shared" / "videos"
    folder = Path(os.environ.get("VIDTRAIN_TEST_VIDEOS", default))
    if not (folder / "annotations").is_dir():
        pytest.skip(f"no real videos in {folder}; set VIDTRAIN_TEST_VIDEOS")
    return folder


@pytest.fixture(scope="session")
def test_cases() -> Path:
    """Small files that were once read wrongly: VIDTRAIN_TEST_CASES, or shared/cases beside the code."""
    folder = Path(os.environ.get("VIDTRAIN_TEST_CASES", Path(__file__).parents[2] / "shared" / "cases"))
    if not (folder / "README.md").is_file():
        pytest.skip(f"no cases in {folder}; set VIDTRAIN_TEST_CASES")
    return folder


_SAFE_PATH = os.environ.get("PYTHONSAFEPATH")


@pytest.fixture(autouse=True)
def _no_safe_path_left_behind() -> Iterator[None]:
    """A command that runs in this process keeps the working folder out of its children's paths, see
    vidtrain/child_python_path.py; the children of the next test are others."""
    yield
    if _SAFE_PATH is None:
        os.environ.pop("PYTHONSAFEPATH", None)

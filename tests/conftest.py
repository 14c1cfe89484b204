"""Fixtures for all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


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

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from vidtrain.data.formats._files.find_videos import IMAGES_PER_SECOND, find_by_name, find_clips


def make(root: Path, *files: str) -> Path:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    return root


def below(root: Path, found: dict[str, str]) -> dict[str, str]:
    return {name: Path(path).relative_to(root).as_posix() for name, path in found.items()}


def test_videos_by_name(tmp_path: Path) -> None:
    make(tmp_path, "a/1.webm", "a/b/2.MP4", "frames/3/00001.jpg", "4.txt", "a/.hidden/5.mp4", "x/6.mkv", "6.avi", "7")
    found = find_by_name([tmp_path], {"1", "2", "3", "4", "5", "6", "7", "8"})
    assert below(tmp_path, found) == {"1": "a/1.webm", "2": "a/b/2.MP4", "3": "frames/3", "6": "6.avi"}


def test_a_file_comes_before_a_folder_and_an_earlier_home_before_a_later(tmp_path: Path) -> None:
    make(tmp_path, "one/frames/1/1.jpg", "one/videos/1.mp4", "one/2.mkv", "two/2.avi", "two/3.avi")
    found = find_by_name([tmp_path / "gone", tmp_path / "one", tmp_path / "two"], {"1", "2", "3"})
    assert below(tmp_path, found) == {"1": "one/videos/1.mp4", "2": "one/2.mkv", "3": "two/3.avi"}


def test_names_with_their_folder(tmp_path: Path) -> None:
    make(tmp_path, "videos/run/1.mp4", "videos/walk/1.avi", "frames/walk/2/1.jpg", "run/x/2.mp4")
    wanted = {"run/1", "run/2", "walk/1", "walk/2"}
    assert below(tmp_path, find_by_name([tmp_path], wanted, parents=True)) == {
        "run/1": "videos/run/1.mp4",
        "walk/1": "videos/walk/1.avi",
        "walk/2": "frames/walk/2",
    }


def test_folders_of_wanted_videos_are_not_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, *(f"frames/{n}/00001.jpg" for n in range(50)))
    listed: list[str] = []
    scandir = os.scandir
    monkeypatch.setattr("os.scandir", lambda path: listed.append(os.fspath(path)) or scandir(path))
    assert len(find_by_name([tmp_path], {str(n) for n in range(50)})) == 50
    assert listed == [str(tmp_path), str(tmp_path / "frames")]


def test_links_that_lead_back_end(tmp_path: Path) -> None:
    make(tmp_path, "a/1.mp4")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    assert below(tmp_path, find_by_name([tmp_path], {"1"})) == {"1": "a/1.mp4"}
    assert [Path(path).name for path, _ in find_clips(tmp_path, Counter())] == ["1.mp4"]


def test_clips_are_files_and_folders_of_pictures(tmp_path: Path) -> None:
    make(tmp_path, "a/10.mp4", "a/9.mp4", "b/img_00001.jpg", "b/img_00002.jpg", "c/d/x.PNG", "e/poster.jpg", "e/1.avi")
    make(tmp_path, "cover.jpg", "f/notes.txt", "g/.1.jpg")
    found = [Path(path).relative_to(tmp_path).as_posix() for path, _ in find_clips(tmp_path, Counter())]
    assert found == ["a/9.mp4", "a/10.mp4", "b", "c/d", "e/1.avi"]


def test_the_rate_is_that_of_the_reader_of_folders() -> None:
    frames = pytest.importorskip("vidtrain.data.readers.image_folder")
    assert frames.FrameFolderReader().fps == IMAGES_PER_SECOND

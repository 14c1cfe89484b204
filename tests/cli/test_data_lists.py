"""Folders and lists as users name them on the command line, through `vidtrain data info`: no file is opened."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Call


def make(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


@pytest.mark.parametrize("name", ["2019", "7", "1.5"])
def test_a_folder_called_by_a_number(call: Call, tmp_path: Path, name: str) -> None:
    make(tmp_path, *(f"{name}/{k}/{n}.mp4" for k in "ab" for n in range(4)))
    assert "folder: 2 classes" in call("data", "info", "data=folder", f"data.root={name}").stdout


def test_lists_and_columns_called_by_numbers(call: Call, tmp_path: Path) -> None:
    make(tmp_path, *(f"7/{n}.mp4" for n in range(4)))
    (tmp_path / "7/2019").write_text("".join(f"{n}.mp4 {n % 2}\n" for n in range(4)))
    (tmp_path / "7/2020").write_text("jump\nrun\n")
    args = ["data.root=7", "data.train=2019", "data.val_fraction=0", "data.test_fraction=0"]
    assert "jump" in call("data", "info", "data=list", *args, "data.classes=2020").stdout
    (tmp_path / "7/t.csv").write_text("1,2\n" + "".join(f"{n}.mp4,{n % 2}\n" for n in range(4)))
    args = ["data.root=7", "data.train=t.csv", "data.path_column=1", "data.label_column=2", "data.val_fraction=0"]
    assert "table: 2 classes" in call("data", "info", "data=table", *args, "data.test_fraction=0").stdout


def test_a_home_in_the_root(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, *(f"mine/{k}/{n}.mp4" for k in "ab" for n in range(4)))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert "folder: 2 classes" in call("data", "info", "data=folder", 'data.root="~/mine"').stdout

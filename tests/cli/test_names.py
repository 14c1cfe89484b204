"""File and class names with newlines, escapes and bytes that are not UTF-8: files keep them, screens show them."""

from __future__ import annotations

import csv
import io
import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Call
from tests.cli.test_runs import rows_of
from vidtrain.engine.checkpoints.checkpoint import load_checkpoint, save_checkpoint
from vidtrain.shell import cli
from vidtrain.terminal import printable

pytestmark = pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="file names are not bytes there")

NAMES = ["a\n.mp4", "b\x1b[2J.mp4", "c\u202e.mp4", os.fsdecode(b"d\xff.mp4"), "e é.mp4"]


@pytest.fixture
def named(trained: Path, tmp_path: Path) -> Path:
    source = rows_of(trained / "test" / "predictions.csv")[0]["file"]
    folder = tmp_path / "named"
    folder.mkdir()
    for name in NAMES:
        shutil.copy(source, folder / name)
    (folder / "f\r\x07.mp4").write_bytes(b"no video")
    content = load_checkpoint(trained / "best.pt")
    # the last is a lone surrogate that stands for no byte, which json and pickle can carry
    content["class_names"][:4] = ["up\x1b]0;owned\x07", "down\n\nvidtrain: error: all is lost", "\udcff", "\ud83d"]
    save_checkpoint(tmp_path / "named.pt", content)
    return folder


def names_in(file: Path) -> list[str]:
    with file.open(newline="", encoding="utf-8", errors="surrogateescape") as handle:
        return [Path(row["path"]).name for row in csv.DictReader(handle)]


def test_predict_prints_names_as_they_may_be_seen_and_writes_them_as_they_are(named: Path, call: Call) -> None:
    done = call("predict", "checkpoint=named.pt", f"input='{named}'", "output=p.csv", "top=8", check=2)
    lines = done.stdout.split("\n")[:-1]
    shown = [line.split(": ", 1)[0].rsplit("/", 1)[1] for line in lines]
    assert shown == ["a\\n.mp4", "b\\x1b[2J.mp4", "c\\u202e.mp4", "d\\xff.mp4", "e é.mp4"]
    assert all("up\\x1b]0;owned\\x07 0." in line and "down\\n\\nvidtrain: error: " in line for line in lines)
    assert all("\\xff 0." in line and "\\ud83d 0." in line for line in lines)
    assert "f\\r\\x07.mp4: " in done.stderr
    assert not {"\x1b", "\x07", "\r", "\u202e"} & {*done.stdout, *done.stderr}
    assert names_in(Path("p.csv")) == NAMES


def test_a_terminal_that_knows_ascii_only_loses_nothing(
    named: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = {name: io.BytesIO() for name in ("stdout", "stderr")}
    for name, buffer in said.items():
        monkeypatch.setattr(sys, name, io.TextIOWrapper(buffer, "ascii", "strict", write_through=True))
    with pytest.raises(SystemExit) as end:
        cli.main(["predict", "checkpoint=named.pt", f"input='{named}'", "output=p.csv"])
    assert end.value.code == 2
    assert b"e \\xe9.mp4: " in said["stdout"].getvalue()
    assert b"f\\r\\x07.mp4: " in said["stderr"].getvalue()
    assert names_in(tmp_path / "p.csv") == NAMES


def test_what_is_printable_stays() -> None:
    for text in ["имя é (1).mp4", "日本語", "👩‍👩‍👧 family", "می‌خواهم", "C:\\clips\\new", "a\u00a0b", ""]:
        assert printable(text) == text
    assert printable("two\n\tlines\x1b", lines=True) == "two\n\tlines\\x1b"
    assert printable("\x9b1m\x7f\u2028\u200f\ufeff\udc80\ud800") == "\\x9b1m\\x7f\\u2028\\u200f\\ufeff\\x80\\ud800"

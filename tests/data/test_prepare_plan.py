"""Names of copies: none agree, whatever the disk takes for the same."""

from __future__ import annotations

import os
import shutil
import sys
import unicodedata
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from tests.data.prepared import as_data, numbers, painted, run
from tests.videos import read, write_video
from vidtrain.data.jobs.output_files import part_of
from vidtrain.data.manifest.index import read_index
from vidtrain.data.prepare.plan import name_copies
from vidtrain.data.prepare.prepare import readable


def test_names() -> None:
    sources = ["/d/x/a.avi", "/d/x/a.mp4", "/d/y/a.mp4", "/d/x/A.MKV", "/d/x/b.c.webm", "/d/x/clip.v2", "/d/x/n/.h.mp4"]
    names = name_copies(sources, [False] * 5 + [True, False], ".mp4", {}, [])
    assert list(names.values()) == [
        *["x/a.avi.mp4", "x/a.mp4.mp4", "y/a.mp4", "x/A.MKV.mp4", "x/b.c.mp4", "x/clip.v2.mp4", "x/n/.h.mp4"],
    ]
    accents = [f"/d/{unicodedata.normalize(form, 'é')}.mp4" for form in ("NFC", "NFD")]
    assert (
        len({unicodedata.normalize("NFC", n) for n in name_copies(accents, [False] * 2, ".mp4", {}, []).values()}) == 2
    )
    given_name = name_copies(["/d/a.avi", "/d/a.mov"], [False] * 2, ".mp4", {"/d/a.avi": "a.mp4"}, ["a.mov.mp4"])
    assert given_name == {"/d/a.avi": "a.mp4", "/d/a.mov": "a.mov-2.mp4"}


@given(st.lists(st.text("aA./é1-", min_size=1, max_size=6), unique=True, min_size=1), st.data())
def test_names_never_agree(parts: list[str], data: st.DataObject) -> None:
    sources = list(dict.fromkeys("/d/" + "/".join(p.strip("/.") or "x" for p in part.split("/")) for part in parts))
    sources += [source + ending for source in sources for ending in (".mp4", ".avi.mp4", ".mp4.mp4")]
    sources = list(dict.fromkeys(sources))
    first = name_copies(sources, [False] * len(sources), ".mp4", {}, [])
    kept = data.draw(st.sets(st.sampled_from(sources)))
    second = name_copies(sources, [False] * len(sources), ".mp4", {s: first[s] for s in kept}, ["a.mp4"])
    for names in (first, second):
        assert len({unicodedata.normalize("NFC", name).casefold() for name in names.values()}) == len(sources)
        assert all(name.endswith(".mp4") and not name.startswith("/") for name in names.values())


def test_readable_and_part_names() -> None:
    assert [readable(n) for n in (0, 999, 1000, 12_345_678, 10**15)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "12.3 MB",
        "1000.0 TB",
    ]
    assert part_of(Path("/x/a.mp4")) == part_of(Path("/x/a.mp4")) != part_of(Path("/x/a.jpack"))
    assert part_of(Path("/x/a.mp4")).name.startswith(".")


def test_names_on_disk(tmp_path: Path) -> None:
    home = tmp_path / "my set"
    names = ["имя 视频 é (1).mp4", "-dash.mp4", "100%.mp4", "x/a.avi", "x/a.mp4", "a:b.mp4"]
    if sys.platform == "linux":
        names.append(os.fsdecode(b"not utf-8 \xff.mp4"))
    source = write_video(tmp_path / "source.mp4", painted(4))
    for name in names:
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, home / name)
    done = run(as_data([home / name for name in names]), tmp_path / "the copies")
    assert (done.made, done.bad) == (len(names), ())
    manifest = read_index(tmp_path / "the copies").splits["train"]
    copies = [os.path.relpath(path, tmp_path / "the copies") for path in manifest.paths]
    assert copies == [n.replace("x/a.avi", "x/a.avi.mp4").replace("x/a.mp4", "x/a.mp4.mp4") for n in names]
    assert all(numbers(read(Path(path), [0, 3])) == [0, 3] for path in manifest.paths)
    assert run(as_data([home / name for name in names]), tmp_path / "the copies").kept == len(names)

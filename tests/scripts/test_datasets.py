"""scripts/datasets against a local server: downloads that are cut, checksums, unpacking, the line at the end."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import io
import json
import os
import re
import shlex
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from vidtrain.data.manifest.manifest import VideoData

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "scripts" / "datasets"
CONTENT = bytes(range(256)) * 4096  # 1 MiB
DIGEST = hashlib.sha256(CONTENT).hexdigest()


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"datasets{name}", SCRIPTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


fetching = load("_fetch")


class Server:
    """Files by path. `cut`: bytes after which a connection breaks, the first `cuts` times; `log`: what was asked.

    `fail`: requests that are answered by 503; `last`: all after so many are.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.log: list[tuple[str, str | None]] = []
        self.cut = 0
        self.cuts = 0
        self.ranges = True
        self.tag = True
        self.fail = 0
        self.last: int | None = None
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.answer(self)

            def log_message(self, *args: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        asked = request.headers.get("Range")
        self.log.append((request.path, asked))
        content = self.files.get(request.path)
        if self.fail or (self.last is not None and len(self.log) > self.last):
            self.fail = max(0, self.fail - 1)
            request.send_error(503)
            return
        if content is None:
            request.send_error(404)
            return
        tag = f'"{hashlib.sha256(content).hexdigest()[:8]}"'
        start = 0
        if asked and self.ranges and request.headers.get("If-Range") == tag:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                request.send_response(416)
                request.send_header("Content-Range", f"bytes */{len(content)}")
                request.send_header("Content-Length", "0")
                request.end_headers()
                return
            request.send_response(206)
            request.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            request.send_response(200)
        request.send_header("Content-Length", str(len(content) - start))
        if self.tag:
            request.send_header("ETag", tag)
        request.end_headers()
        body = content[start:]
        if self.cuts:
            self.cuts -= 1
            body = body[: self.cut]
        with contextlib.suppress(ConnectionError):
            request.wfile.write(body)
        request.close_connection = True


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    thread = threading.Thread(target=made.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield made
    made.http.shutdown()
    made.http.server_close()
    thread.join()


def fetch(server: Server, path: Path, **options: Any) -> Path:
    found: Path = fetching.fetch(f"{server.url}/a.bin", path, **{"wait": 0.01, **options})
    return found


def test_a_download_that_is_cut_goes_on_where_it_stopped(server: Server, tmp_path: Path) -> None:
    server.files["/a.bin"] = CONTENT
    server.cut, server.cuts = 300_000, 3
    path = fetch(server, tmp_path / "x" / "a.bin", sha256=DIGEST)
    assert path.read_bytes() == CONTENT
    assert [asked for _, asked in server.log] == [None, "bytes=300000-", "bytes=600000-", "bytes=900000-"]
    assert sorted(p.name for p in path.parent.iterdir()) == ["SHA256SUMS", "a.bin"]
    assert (path.parent / "SHA256SUMS").read_text() == f"{DIGEST}  a.bin\n"


def test_a_second_run_of_the_script_goes_on_too(server: Server, tmp_path: Path) -> None:
    server.files["/a.bin"] = CONTENT
    server.cut, server.cuts = 100_000, 1
    server.last = 1
    with pytest.raises(fetching.FetchError, match=r"run again to go on from 100,000 bytes"):
        fetch(server, tmp_path / "a.bin", tries=2)
    server.last = None
    assert not (tmp_path / "a.bin").exists()
    assert fetch(server, tmp_path / "a.bin").read_bytes() == CONTENT
    assert server.log[-1][1] == "bytes=100000-"


def test_a_part_that_is_whole_is_not_fetched_again(server: Server, tmp_path: Path) -> None:
    server.files["/a.bin"] = CONTENT
    (tmp_path / "a.bin.part").write_bytes(CONTENT)
    (tmp_path / "a.bin.part.tag").write_text(f'"{DIGEST[:8]}"')
    assert fetch(server, tmp_path / "a.bin").read_bytes() == CONTENT
    assert [asked for _, asked in server.log] == [f"bytes={len(CONTENT)}-"]


@pytest.mark.parametrize("why", ["no ranges", "another version", "no tag"])
def test_what_cannot_be_resumed_starts_again(server: Server, tmp_path: Path, why: str) -> None:
    server.files["/a.bin"] = CONTENT
    server.ranges, server.tag = why != "no ranges", why != "no tag"
    (tmp_path / "a.bin.part").write_bytes(b"x" * 1000)
    if why != "no tag":
        (tmp_path / "a.bin.part.tag").write_text('"older"')
    assert fetch(server, tmp_path / "a.bin", sha256=DIGEST).read_bytes() == CONTENT


def test_another_checksum_is_an_error_and_leaves_nothing(server: Server, tmp_path: Path) -> None:
    server.files["/a.bin"] = CONTENT[:-1]
    with pytest.raises(fetching.FetchError, match=f"its SHA-256 is [0-9a-f]{{64}}, expected {DIGEST}; it is deleted"):
        fetch(server, tmp_path / "a.bin", sha256=DIGEST)
    assert not list(tmp_path.glob("a.bin")) + list(tmp_path.glob("*.part"))
    server.files["/a.bin"] = CONTENT
    assert fetch(server, tmp_path / "a.bin", sha256=DIGEST).read_bytes() == CONTENT


def test_a_file_that_changed_since_is_found_by_a_second_run(server: Server, tmp_path: Path) -> None:
    server.files["/a.bin"] = CONTENT
    path = fetch(server, tmp_path / "a.bin")
    assert fetch(server, path) == path
    assert len(server.log) == 1
    path.write_bytes(CONTENT[:-1] + b"?")
    with pytest.raises(fetching.FetchError, match=r"a.bin: its SHA-256 is .*delete it and run again"):
        fetch(server, path)


def test_without_a_checksum_only_https_is_fetched(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files["/x"] = CONTENT
    asked: list[str] = []

    def opened(request: Any, **kwargs: Any) -> Any:
        asked.append(request.full_url)
        raise OSError("no network")

    for url in (
        "http://example.org/x",
        "ftp://example.org/x",
        "file:///etc/hostname",
        "http://127.0.0.1.example.org/x",
    ):
        with pytest.raises(fetching.FetchError, match=r"nothing but https|expected an address of http"):
            fetching.fetch(url, tmp_path / "x")
    monkeypatch.setattr(fetching.urllib.request, "urlopen", opened)
    for options in ({"plain": True}, {"sha256": DIGEST}):
        with pytest.raises(fetching.FetchError, match="no network"):
            fetching.fetch("http://example.org/x", tmp_path / "x", tries=1, **options)
    with pytest.raises(fetching.FetchError, match="expected an address of http"):
        fetching.fetch("file:///etc/hostname", tmp_path / "x", plain=True)
    assert asked == ["http://example.org/x"] * 2
    with pytest.raises(fetching.FetchError, match=r"to which https://a\.b/x leads: nothing but https"):
        fetching._refuse_plain("http://example.org/x", "https://a.b/x", False)
    assert not (tmp_path / "x").exists()


def test_the_name_of_an_archive_stays_in_its_folder() -> None:
    kinetics = load_script("kinetics")
    assert kinetics._name("https://a/b/part%20one.tar.gz") == "part one.tar.gz"
    assert kinetics._name("https://a/b/..%2F..%2Fx.tar.gz") == "x.tar.gz"
    assert kinetics._name("https://a/b/..%5C..%5Cx.tar.gz") == "x.tar.gz"
    with pytest.raises(fetching.FetchError, match="names no file"):
        kinetics._name("https://a/b/%2E%2E")


def load_script(name: str) -> ModuleType:
    """With what stands beside it, as when it is run."""
    sys.modules["_fetch"] = fetching
    sys.path.insert(0, str(SCRIPTS))
    try:
        return load(name)
    finally:
        sys.path.remove(str(SCRIPTS))
        del sys.modules["_fetch"]
        sys.modules.pop("_unpack", None)


def test_errors_of_the_server(server: Server, tmp_path: Path) -> None:
    with pytest.raises(fetching.FetchError, match="the server answers 404"):
        fetch(server, tmp_path / "a.bin")
    assert len(server.log) == 1  # nothing is tried again that cannot work
    server.files["/a.bin"], server.fail = CONTENT, 2
    assert fetch(server, tmp_path / "a.bin").read_bytes() == CONTENT
    with pytest.raises(fetching.FetchError, match="without a known checksum the server's certificate has to be"):
        fetch(server, tmp_path / "b.bin", insecure=True)
    server.http.server_close()
    with pytest.raises(fetching.FetchError, match="run again to go on from 0 bytes"):
        fetching.fetch("http://127.0.0.1:9/x", tmp_path / "c", tries=2, wait=0.01)


# ---------------------------------------------------------------- whole scripts


def tar(**files: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as made:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            made.addfile(info, io.BytesIO(content))
    return out.getvalue()


def zipped(**files: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        for name, content in files.items():
            made.writestr(name, content)
    return out.getvalue()


def script(name: str, *arguments: str | Path, check: int = 0, path: str | None = None) -> str:
    environment = {**os.environ, "PATH": os.environ["PATH"] if path is None else path, "no_proxy": "127.0.0.1"}
    command = [sys.executable, SCRIPTS / f"{name}.py", *arguments]
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=60, env=environment, check=False
    )
    assert done.returncode == check, done.stdout + done.stderr
    return done.stdout + done.stderr


def train_line(output: str) -> VideoData:
    """The dataset that the last line of a script names, as `vidtrain train` would list it."""
    words = shlex.split(output.strip().splitlines()[-1])
    assert words[:2] == ["vidtrain", "train"]
    parsed = OverridesParser.create().parse_overrides(words[2:])  # as Hydra reads the line, quotes and all
    options = {str(each.key_or_group): str(each.value()) for each in parsed}
    node: Any = OmegaConf.to_container(OmegaConf.load(ROOT / "conf" / "data" / f"{options.pop('data')}.yaml"))
    module, _, function = node.pop("_target_").rpartition(".")
    del node["max_bad_fraction"]
    node["root"] = options.pop("data.root")
    assert not options
    found: VideoData = getattr(importlib.import_module(module), function)(**node)
    return found


CLIP = "{}_000001_000011.mp4"


def kinetics_server(server: Server, version: str) -> None:
    folder = {"400": "400", "600": "600", "700": "700_2020"}[version]
    base = f"/{folder}"
    header = "label,youtube_id,time_start,time_end,split\n"
    for split, ids in (("train", "ab"), ("val", "cd")):
        names = {each: f"{each * 11}" for each in ids}
        rows = [f"{'push up' if each in 'ac' else 'yoga'},{name},1,11,{split}\n" for each, name in names.items()]
        server.files[f"{base}/annotations/{split}.csv"] = (header + "".join(rows)).encode()
        clips = {each: CLIP.format(name) for each, name in names.items()}
        if version == "400":
            archives = {
                "part_0.tar.gz": tar(**{f"./{clips[ids[0]]}": b"1"}),
                "part_1.tar.gz": tar(**{clips[ids[1]]: b"1"}),
            }
        elif version == "600":
            archives = {"push%20up.tar.gz": tar(**{clips[ids[0]]: b"1"}), "yoga.tar.gz": tar(**{clips[ids[1]]: b"1"})}
        else:
            both = {f"push up/{clips[ids[0]]}": b"1", f"yoga/{clips[ids[1]]}": b"1"}
            archives = {f"k700_{split}_001.tar.gz": tar(**both)}
        server.files |= {f"{base}/{split}/{name}": content for name, content in archives.items()}
        listed = "\n".join(f"{server.url}{base}/{split}/{name}" for name in archives)
        server.files[f"{base}/{split}/k{folder}_{split}_path.txt"] = listed.encode()
    server.files[f"{base}/replacement_for_corrupted_k400.tgz"] = tar(
        **{"replacement/" + CLIP.format("a" * 11): b"sound"}
    )


@pytest.mark.parametrize("version", ["400", "600", "700"])
def test_kinetics(server: Server, tmp_path: Path, version: str) -> None:
    kinetics_server(server, version)
    root = tmp_path / "k (1)"
    output = script("kinetics", root, "--version", version, "--base", f"{server.url}/")
    data = train_line(output)
    assert data.class_names == ("push up", "yoga")
    assert {s: (m.labels.tolist(), m.missing) for s, m in data.splits.items()} == dict.fromkeys(
        ("train", "val", "test"), ([0, 1], ())
    )
    assert not list(root.rglob("*.tar.gz"))
    if version == "400":
        assert (root / "train" / CLIP.format("a" * 11)).read_bytes() == b"sound"
    asked = len(server.log)
    assert train_line(script("kinetics", root, "--version", version, "--base", f"{server.url}/")).num_classes == 2
    assert len(server.log) == asked  # nothing twice


def test_charades(server: Server, tmp_path: Path) -> None:
    header = "id,subject,actions,length\n"
    server.files["/Charades.zip"] = zipped(
        **{
            "Charades/Charades_v1_train.csv": header + "YSKX3,P1,c000 1.00 2.00;c001 1.00 2.00,9\n",
            "Charades/Charades_v1_test.csv": header + "T5ECU,P2,c001 1.00 2.00,9\n",
            "Charades/Charades_v1_classes.txt": "c000 Holding\nc001 Putting\n",
        }
    )
    server.files["/Charades_v1_480.zip"] = zipped(**{f"Charades_v1_480/{n}.mp4": "" for n in ("YSKX3", "T5ECU")})
    assert "--accept-license" in script("charades", tmp_path, "--base", f"{server.url}/", check=2)
    assert not server.log
    data = train_line(script("charades", tmp_path, "--base", f"{server.url}/", "--accept-license"))
    assert {s: len(m) for s, m in data.splits.items()} == {"train": 1, "test": 1}
    assert data.multi_label


def test_diving48(server: Server, tmp_path: Path) -> None:
    for split, name in (("train", "a_00001"), ("test", "b_00002")):
        server.files[f"/Diving48_V2_{split}.json"] = json.dumps([{"vid_name": name, "label": 1}]).encode()
    server.files["/Diving48_vocab.json"] = json.dumps([["Back"], ["Forward"]]).encode()
    server.files["/Diving48_rgb.tar.gz"] = tar(**{"rgb/a_00001.mp4": b"1", "rgb/b_00002.mp4": b"1"})
    data = train_line(script("diving48", tmp_path, "--base", f"{server.url}/"))
    assert {s: (len(m), m.missing) for s, m in data.splits.items()} == {"train": (1, ()), "test": (1, ())}


def test_activitynet(server: Server, tmp_path: Path) -> None:
    videos = {
        each * 11: {"subset": subset, "annotations": [{"segment": [1, 2], "label": each}]}
        for each, subset in (("a", "training"), ("b", "validation"))
    }
    server.files["/anet.json"] = json.dumps({"database": videos}).encode()
    output = script("activitynet", tmp_path, "--url", f"{server.url}/anet.json", check=2)
    assert "fill in the form" in output
    assert "not there yet: v1-2_train.tar.gz" in output
    downloads = tmp_path / "downloads"
    downloads.mkdir()
    for name, each in (("v1-2_train.tar.gz", "a"), ("v1-2_val.tar.gz", "b"), ("v1-3_train_val.tar.gz", "c")):
        (downloads / name).write_bytes(tar(**{f"v1/v_{each * 11}.mp4": b"1"}))
    data = train_line(script("activitynet", tmp_path, "--url", f"{server.url}/anet.json"))
    assert {s: (len(m), m.missing) for s, m in data.splits.items()} == dict.fromkeys(("train", "val", "test"), (1, ()))


def split_in_two(content: bytes, folder: Path, name: str) -> None:
    half = len(content) // 2
    (folder / f"{name}-00").write_bytes(content[:half])
    (folder / f"{name}-01").write_bytes(content[half:])


def test_something_something(tmp_path: Path) -> None:
    output = script("something_something", tmp_path, check=2)
    assert "not there yet: the labels, the videos" in output
    assert "Sign in at" in output
    downloads = tmp_path / "downloads"
    package = "20bn-something-something-download-package-labels"
    entries = {"train": [("1", "Folding [something]")], "validation": [("2", "Unfolding [something]")]}
    lists = {
        f"labels/{split}.json": json.dumps([{"id": n, "template": t} for n, t in rows])
        for split, rows in entries.items()
    }
    lists["labels/labels.json"] = '{"Folding something": "0", "Unfolding something": "1"}'
    (downloads / f"{package}.zip").write_bytes(zipped(**lists))
    videos = tar(**{f"20bn-something-something-v2/{n}.webm": os.urandom(5000) for n in (1, 2)})
    split_in_two(videos, downloads, "20bn-something-something-v2")
    second = (downloads / "20bn-something-something-v2-01").read_bytes()
    (downloads / "20bn-something-something-v2-02").touch()
    (downloads / "20bn-something-something-v2-01").unlink()
    assert "part 01 is not there, but part 02 is" in script("something_something", tmp_path, check=2)
    (downloads / "20bn-something-something-v2-02").unlink()
    (downloads / "20bn-something-something-v2-01").write_bytes(second)
    data = train_line(script("something_something", tmp_path))
    assert {s: (len(m), m.missing) for s, m in data.splits.items()} == dict.fromkeys(("train", "val", "test"), (1, ()))
    (downloads / "20bn-something-something-v2-01").write_bytes(second[:-1])
    assert "it is damaged or another file" in script("something_something", tmp_path, check=2)


def test_jester(tmp_path: Path) -> None:
    downloads = tmp_path / "downloads"
    downloads.mkdir()
    (downloads / "jester-v1-train.csv").write_text("1;Thumb Up\n")
    (downloads / "jester-v1-validation.csv").write_text("2;Thumb Down\n")
    (downloads / "jester-v1-labels.csv").write_text("Thumb Up\nThumb Down\n")
    content = tar(**{f"20bn-jester-v1/{n}/0000{k}.jpg": os.urandom(2000) for n in (1, 2) for k in (1, 2)})
    half = len(content) // 2
    for number, part in enumerate((content[:half], content[half:])):
        with zipfile.ZipFile(downloads / f"20bn-jester-v1-0{number}.zip", "w") as made:
            made.writestr(f"20bn-jester-v1-0{number}", part)
    output = script("jester", tmp_path)
    assert "2 of 148,092 videos" in output
    data = train_line(output)
    assert data.class_names == ("Thumb Up", "Thumb Down")
    assert {s: (len(m), m.missing) for s, m in data.splits.items()} == dict.fromkeys(("train", "val", "test"), (1, ()))


def test_moments_in_time(server: Server, tmp_path: Path) -> None:
    assert "Fill in the form" in script("moments_in_time", tmp_path, check=2)
    home = "Moments_in_Time_Mini"
    server.files["/mini/m.zip"] = zipped(
        **{
            f"{home}/trainingSet.csv": "yoga/1.mp4,yoga,3,0\n",
            f"{home}/validationSet.csv": "yoga/2.mp4,yoga,3,0\n",
            f"{home}/moments_categories.txt": "yoga,0\n",
            f"{home}/training/yoga/1.mp4": "",
            f"{home}/validation/yoga/2.mp4": "",
        }
    )
    data = train_line(script("moments_in_time", tmp_path, "--url", f"{server.url}/mini/m.zip"))
    assert {s: (len(m), m.missing) for s, m in data.splits.items()} == dict.fromkeys(("train", "val", "test"), (1, ()))


@pytest.mark.parametrize("name", ["ucf101", "hmdb51"])
def test_rar_without_a_program_for_it_is_one_clear_line(server: Server, tmp_path: Path, name: str) -> None:
    output = script(name, tmp_path, "--base", f"{server.url}/", check=2, path=str(tmp_path))
    assert re.fullmatch(r"error: the archives are .rar and no program here unpacks them; install one of .*\n", output)
    assert not server.log


@pytest.mark.parametrize(
    ("name", "first"), [("ucf101", "UCF101TrainTestSplits-RecognitionTask.zip"), ("hmdb51", "test_train_splits.rar")]
)
def test_a_file_that_is_not_the_published_one_is_refused(server: Server, tmp_path: Path, name: str, first: str) -> None:
    (tmp_path / "unar").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "unar").chmod(0o755)
    server.files[f"/{first}"] = b"something else"
    output = script(name, tmp_path / "root", "--base", f"{server.url}/", check=2, path=str(tmp_path))
    assert f"{first}.part: its SHA-256 is" in output
    assert "expected" in output


@pytest.mark.parametrize("name", sorted(p.stem for p in SCRIPTS.glob("*.py") if not p.stem.startswith("_")))
def test_help_says_where_it_comes_from_and_what_was_not_run(name: str) -> None:
    text = script(name, "--help")
    assert "http" in text
    assert re.search(r"[Nn]ot run|tested with small archives", text)
    assert (ROOT / "conf" / "data" / f"{name}.yaml").is_file()

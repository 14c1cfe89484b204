"""Ranges of an object by one signed address, from moto's S3 server; what it cannot give is asked for as usual."""

from __future__ import annotations

import io
import socket
import tarfile
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest

from vidtrain import remote, signed_ranges
from vidtrain.remote import read_bytes
from vidtrain.signed_ranges import SignedRanges
from vidtrain.tar_members import walk_tar

s3fs: Any = pytest.importorskip("s3fs")
moto: Any = pytest.importorskip("moto.server")
pytestmark = pytest.mark.slow  # the server's start

CONTENT = bytes(range(256)) * 40


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


@pytest.fixture
def system(endpoint: str) -> Any:
    found = s3fs.S3FileSystem(key="k", secret="s", endpoint_url=endpoint, skip_instance_cache=True)
    if not found.exists("bucket"):
        found.mkdir("bucket")
    found.pipe_file("bucket/a b+c.tar", CONTENT)
    return found


NAME = "bucket/a b+c.tar"


def no_usual_way(system: Any) -> Any:
    return mock.patch.object(system, "cat_file", side_effect=AssertionError)


def test_many_ranges_by_one_signature(system: Any) -> None:
    ranges = SignedRanges(system)
    with no_usual_way(system), mock.patch.object(system, "sign", wraps=system.sign) as sign:
        for start, end in ((0, 10), (3, 4), (5000, 9999), (10_000, 20_000)):
            assert ranges.cat_file(NAME, start=start, end=end) == CONTENT[start:end]
        assert sign.call_count == 1
        with mock.patch("vidtrain.signed_ranges.time.monotonic", return_value=1e9):
            ranges.cat_file(NAME, start=0, end=1)
        assert sign.call_count == 2


def test_an_address_that_is_refused(system: Any, endpoint: str) -> None:
    """Once it has worked, it is signed again; before, it is not tried again."""
    wrong = (f"{endpoint}/bucket/none", f"{endpoint}/", "http://127.0.0.1:9/a")
    ranges = SignedRanges(system)
    ranges.cat_file(NAME, start=0, end=1)
    for address in wrong:
        ranges._addresses[NAME] = address, 1e12
        assert ranges.cat_file(NAME, start=7, end=99) == CONTENT[7:99]
        with no_usual_way(system):
            assert ranges.cat_file(NAME, start=7, end=99) == CONTENT[7:99]
    for address in wrong:
        fresh = SignedRanges(system)
        fresh._addresses[NAME] = address, 1e12
        with mock.patch.object(fresh, "_get", wraps=fresh._get) as tried:
            for _ in range(2):
                assert fresh.cat_file(NAME, start=7, end=99) == CONTENT[7:99]
        assert tried.call_count == 1


def test_a_server_that_falls_silent(system: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signed_ranges, "_SILENT", 0.2)
    ranges = SignedRanges(system)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        ranges._addresses[NAME] = f"http://127.0.0.1:{silent.getsockname()[1]}/a", 1e12
        assert ranges.cat_file(NAME, start=7, end=99) == CONTENT[7:99]


def test_errors_are_those_of_the_file_system(system: Any) -> None:
    ranges = SignedRanges(system)
    with pytest.raises(FileNotFoundError):
        ranges.cat_file("bucket/none", start=0, end=9)
    with no_usual_way(system):  # of the other objects
        assert ranges.cat_file(NAME, start=0, end=9) == CONTENT[:9]


@pytest.mark.parametrize("why", ["a proxy", "a requester who pays"])
def test_where_an_address_alone_is_not_enough(why: str, system: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if why == "a proxy":
        monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    else:
        system.req_kw = {"RequestPayer": "requester"}
    ranges = SignedRanges(system)
    with mock.patch.object(system, "sign") as sign:
        assert ranges.cat_file(NAME, start=7, end=99) == CONTENT[7:99]
    assert not sign.called


def test_a_member_of_a_shard_is_read_so(system: Any, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with io.BytesIO() as buffer:
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            info = tarfile.TarInfo("c/a.mp4")
            info.size = len(CONTENT)
            tar.addfile(info, io.BytesIO(CONTENT))
        buffer.seek(0)
        (member,) = walk_tar(buffer, "it")
        system.pipe_file("bucket/it.tar", buffer.getvalue())
    monkeypatch.setattr(remote, "_system", lambda url: (system, "bucket/it.tar"))
    with no_usual_way(system):
        assert read_bytes(member.path("s3://bucket/it.tar"), 30, 10**9) == CONTENT

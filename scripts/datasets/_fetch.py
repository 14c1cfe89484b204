"""What the scripts beside this one share: resumable downloads with checksums, the last line.

Standard library only: the scripts run before anything is installed.

A download goes to NAME.part and takes its name when it is whole: its length is what the server said, its SHA-256 the
one that is known. Where none is published, the SHA-256 of what came is written to SHA256SUMS beside the file (the
format of `sha256sum`), and a second run compares. A run that was cut goes on where it stopped.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import os
import ssl
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

SUMS = "SHA256SUMS"
_BLOCK = 1 << 20


class FetchError(Exception):
    """What went wrong, and what to do, in one line."""


# ---------------------------------------------------------------- downloads


def fetch(
    url: str,
    path: Path,
    *,
    sha256: str | None = None,
    tries: int = 8,
    wait: float = 2.0,
    timeout: float = 60.0,
    insecure: bool = False,
    plain: bool = False,
) -> Path:
    """Download `url` to `path`, unless it is there and whole.

    Args:
        url: http or https.
        path: the file; its folder is made.
        sha256: the checksum, in hex, where one is published.
        tries: attempts without a byte of progress before it is given up.
        wait: seconds before the second attempt, doubled before each further one.
        timeout: seconds that the server may be silent.
        insecure: do not check the server's certificate; only with `sha256`, which then tells what is genuine.
        plain: fetch over http without `sha256`, too: whoever sits between may have changed what comes.

    Raises:
        FetchError: the server has no such file, the connection fails, or the checksum differs.
    """
    if insecure and sha256 is None:
        raise FetchError(f"{url}: without a known checksum the server's certificate has to be checked")
    plain = plain or sha256 is not None
    known = sha256 or recorded(path)
    if path.exists():
        _compare(path, known, "delete it and run again")
        _record(path, known or sha256_of(path))
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    _refuse_plain(url, url, plain)
    part = path.with_name(path.name + ".part")
    failures = 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            if _continue(url, part, timeout, insecure, plain):
                break
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code not in (408, 416, 429):
                raise FetchError(f"{url}: the server answers {error.code} {error.reason}") from None
            reason: object = f"{error.code} {error.reason}"
        except (OSError, http.client.HTTPException) as error:
            reason = error
        else:
            reason = "the connection ended early"
        after = part.stat().st_size if part.exists() else 0
        failures = 0 if after > before else failures + 1
        if failures >= tries:
            raise FetchError(f"{url}: {reason}; run again to go on from {after:,} bytes")
        time.sleep(wait * 2 ** max(0, failures - 1) if failures else min(wait, 1.0))
    _compare(part, sha256, "it is deleted; run again", delete=True)
    part.with_name(part.name + ".tag").unlink(missing_ok=True)
    part.replace(path)
    _record(path, sha256 or sha256_of(path))
    return path


def _refuse_plain(url: str, asked: str, plain: bool) -> None:
    """Nobody sits between a program and its own machine; everywhere else https or a checksum says what is genuine."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https"):
        raise FetchError(f"{url}: expected an address of http or https")
    if parts.scheme != "https" and not plain and parts.hostname not in ("127.0.0.1", "localhost", "::1"):
        where = "" if url == asked else f", to which {asked} leads"
        raise FetchError(
            f"{url}{where}: nothing but https is fetched without a published checksum; --allow-http does, if you must, "
            "or get the file by another way and put it where the script looks for it"
        )


def _continue(url: str, part: Path, timeout: float, insecure: bool, plain: bool) -> bool:
    """Add to `part` what is lacking; whether it is whole."""
    tag_file = part.with_name(part.name + ".tag")  # what the server called the version that `part` is of
    start = part.stat().st_size if part.exists() else 0
    tag = tag_file.read_text() if start and tag_file.exists() else ""
    if start and not tag:
        start = 0  # a part of nobody knows which version
    request = urllib.request.Request(url, headers={"User-Agent": "vidtrain-datasets"})
    if start:
        request.add_header("Range", f"bytes={start}-")
        request.add_header("If-Range", tag)
    context = ssl._create_unverified_context() if insecure else None
    try:
        answer = urllib.request.urlopen(request, timeout=timeout, context=context)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing after `start`: whole, or from another version
            total = (error.headers.get("Content-Range") or "").rpartition("/")[2]
            if total == str(start):
                return True
            part.unlink(missing_ok=True)
        raise
    with answer:
        _refuse_plain(answer.geturl(), url, plain)  # a server may send us elsewhere
        resumed = answer.status == 206
        total_text = (
            (answer.headers.get("Content-Range") or "").rpartition("/")[2]
            if resumed
            else answer.headers.get("Content-Length", "")
        )
        if not resumed:
            start = 0
            tag_file.write_text(_tag(answer.headers))
        total = int(total_text) if total_text.isdecimal() else None
        with part.open("ab" if resumed else "wb") as file:
            _copy(answer, file, part.name.removesuffix(".part"), start, total)
    # without a length nothing tells whether the connection was cut, but the checksum
    return total is None or part.stat().st_size == total


def _tag(headers: http.client.HTTPMessage) -> str:
    """A strong ETag or a date, which If-Range takes; "" where the server gives neither."""
    tag = headers.get("ETag") or ""
    return tag if tag and not tag.startswith("W/") else headers.get("Last-Modified") or ""


def _copy(source: BinaryIO, file: BinaryIO, name: str, start: int, total: int | None) -> None:
    done, shown = start, time.monotonic()
    while block := source.read(_BLOCK):
        file.write(block)
        done += len(block)
        if time.monotonic() - shown > 5:
            shown = time.monotonic()
            share = f" ({100 * done / total:.0f} %)" if total else ""
            print(f"  {name}: {done / 1e6:,.0f} MB{share}", file=sys.stderr, flush=True)


# ---------------------------------------------------------------- checksums


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def recorded(path: Path) -> str | None:
    """The checksum that an earlier run wrote down for this file."""
    return _sums(path.parent).get(path.name)


def _sums(folder: Path) -> dict[str, str]:
    file = folder / SUMS
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}


def _record(path: Path, digest: str) -> None:
    sums = _sums(path.parent)
    if sums.get(path.name) == digest:
        return
    sums[path.name] = digest
    part = path.parent / f"{SUMS}.part"
    part.write_text("".join(f"{sums[name]}  {name}\n" for name in sorted(sums)), encoding="utf-8")
    part.replace(path.parent / SUMS)


def record(path: Path) -> None:
    """Write down the checksum of a file that came by hand, or compare it with the one written down before."""
    known = recorded(path)
    _compare(path, known, "it is damaged or another file: fetch it again, or delete its line in SHA256SUMS")
    if known is None:
        _record(path, sha256_of(path))


def _compare(path: Path, expected: str | None, then: str, delete: bool = False) -> None:
    if expected is None:
        return
    found = sha256_of(path)
    if found != expected.lower():
        if delete:
            path.unlink()
        raise FetchError(f"{path}: its SHA-256 is {found}, expected {expected}; {then}")


# ---------------------------------------------------------------- the scripts


def parser(description: str | None, *, without_checksum: bool = False) -> argparse.ArgumentParser:
    """The options that all scripts have: the folder of the dataset; and of those that fetch what nobody has signed."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("root", type=Path, help="folder of the dataset; made if absent")
    if without_checksum:
        text = "fetch over http what has no published checksum, too"
        made.add_argument("--allow-http", action="store_true", help=text)
    return made


def count(folder: Path, *endings: str) -> int:
    """Files below `folder` with one of these endings."""
    return sum(name.lower().endswith(endings) for _, _, names in os.walk(folder) for name in names)


def by_hand(missing: Sequence[str], steps: str) -> None:
    """Say what a person has to do, and end with 2."""
    print(f"not there yet: {', '.join(missing)}\n\n{steps.strip()}\n\nThen run this script again.")
    raise SystemExit(2)


def ready(data: str, root: Path, options: str = "") -> None:
    """The last line of every script: the command that trains on what was fetched."""
    place = str(root.absolute())
    quoted = f"'data.root=\"{place}\"'" if set(place) & set(" '\"(){}[],:=") else f"data.root={place}"
    print(f"\nvidtrain train data={data} {quoted}{options}")


def run(main: Callable[[], None]) -> None:
    """Call a script's main(); a FetchError or Ctrl-C ends in one line."""
    try:
        main()
    except FetchError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("stopped; run again to go on", file=sys.stderr)
        raise SystemExit(130) from None

"""Kinetics-400, 600 or 700-2020 from the mirror of the CVDF, https://github.com/cvdfoundation/kinetics-dataset

    python scripts/datasets/kinetics.py /data/k400 --version 400             # about 435 GB and as much again
    python scripts/datasets/kinetics.py /data/k400 --version 400 --splits val  # 20 archives, to try it

Reads the list of archives of each split, fetches one after the other, unpacks it to ROOT/<split>/ and deletes it
(--keep-archives: not). An archive that is unpacked is not fetched again, a run that was cut goes on.

400: flat files, labels from ROOT/annotations/*.csv; the replacements for about 1,400 damaged training videos are
fetched, too, and take their places. 600: an archive for each class, unpacked to a folder of its name; the mirror calls
its CSVs incomplete, so the folders are the labels. 700: folders of classes, and the CSVs.

The mirror publishes no checksums: their lengths are compared with what the server says, and the SHA-256 of what came
is kept in ROOT/downloads/<split>/SHA256SUMS. Not run against the mirror where this was written, for want of a
network; the whole course is tested against a local server with small archives of the same layouts.
"""

from __future__ import annotations

import urllib.parse
from pathlib import Path

from _fetch import FetchError, count, fetch, parser, ready, run
from _unpack import unpack

BASE = "https://s3.amazonaws.com/kinetics/"
FOLDERS = {"400": "400", "600": "600", "700": "700_2020"}
REPLACEMENTS = "replacement_for_corrupted_k400.tgz"


def main() -> None:
    options = parser(__doc__, without_checksum=True)
    options.add_argument("--version", choices=sorted(FOLDERS), default="400")
    options.add_argument("--splits", nargs="+", choices=("train", "val", "test"), default=["train", "val"])
    options.add_argument("--keep-archives", action="store_true", help="do not delete what is unpacked")
    options.add_argument("--base", default=BASE, help="another address with the same files")
    given = options.parse_args()
    folder = FOLDERS[given.version]
    plain = given.allow_http
    source = f"{given.base.rstrip('/')}/{folder}"
    downloads = given.root / "downloads"
    if given.version != "600":
        for split in given.splits:
            fetch(f"{source}/annotations/{split}.csv", given.root / "annotations" / f"{split}.csv", plain=plain)
    for split in given.splits:
        listed = fetch(f"{source}/{split}/k{folder}_{split}_path.txt", downloads / split / "archives.txt", plain=plain)
        urls = listed.read_text(encoding="utf-8").split("\n")
        for url in filter(None, map(str.strip, urls)):
            archive = downloads / split / _name(url)
            place = given.root / split
            if given.version == "600":
                place /= archive.name.partition(".tar")[0]
            _fetch_and_unpack(_quote(url), archive, place, given.keep_archives, plain)
        print(f"{split}: {count(given.root / split, '.mp4'):,} videos", flush=True)
    if given.version == "400" and "train" in given.splits:
        replacements = given.root / "replacements"
        _fetch_and_unpack(
            f"{source}/{REPLACEMENTS}", downloads / REPLACEMENTS, replacements, given.keep_archives, plain
        )
        _replace(replacements, given.root / "train")
    if "test" in given.splits and given.version == "600":
        print("note: the labels of the test videos are the names of their archives, where the mirror sorts them so")
    if "train" in given.splits:
        ready("kinetics", given.root)
    else:
        print(f"\nvidtrain eval checkpoint=best.pt data=kinetics data.root={given.root.absolute()}")


def _name(url: str) -> str:
    """Of the file; %2F in it leads nowhere else."""
    name = urllib.parse.unquote(url.rpartition("/")[2]).replace("\\", "/").rpartition("/")[2]
    if name in ("", ".", ".."):
        raise FetchError(f"{url}: names no file")
    return name


def _quote(url: str) -> str:
    """The address with spaces and the like written as it has to be; %20 is left as it is."""
    return urllib.parse.quote(url, safe=":/%?&=+~")


def _fetch_and_unpack(url: str, archive: Path, place: Path, keep: bool, plain: bool) -> None:
    if not archive.with_name(archive.name + ".unpacked").exists():
        fetch(url, archive, plain=plain)
    unpack(archive, place, keep=keep)


def _replace(source: Path, train: Path) -> None:
    """Put the sound videos where the damaged ones are."""
    there = {path.name: path for path in train.rglob("*.mp4")}
    for video in sorted(source.rglob("*.mp4")):
        video.replace(there.get(video.name, train / video.name))


if __name__ == "__main__":
    run(main)

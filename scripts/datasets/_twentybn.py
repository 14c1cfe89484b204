"""The two datasets of 20BN, now Qualcomm's: parts of one .tar.gz, and a package with the labels."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from _fetch import FetchError, by_hand, parser, ready, record, run
from _unpack import unpack, unpack_parts


def prepare(description: str | None, steps: str, name: str, part: str, data: str, videos: int) -> None:
    """Unpack what was downloaded by hand, or say how that is done.

    Args:
        description, steps: for the user.
        name: how the files begin.
        part: regular expression of the name of a part, without .zip.
        data: the data set in vidtrain.
        videos: how many there are.
    """
    run(lambda: _prepare(description, steps, name, re.compile(part), data, videos))


def _prepare(description: str | None, steps: str, name: str, part: re.Pattern[str], data: str, videos: int) -> None:
    given = parser(description).parse_args()
    downloads, labels = given.root / "downloads", given.root / "labels"
    downloads.mkdir(parents=True, exist_ok=True)
    for packed in sorted(path for path in downloads.glob("*.zip") if part.fullmatch(path.stem)):
        record(packed)
        unpack(packed, downloads)
    parts = sorted(path for path in downloads.iterdir() if part.fullmatch(path.name))
    packages = sorted(downloads.glob("*labels*.zip"))
    lists = sorted(downloads.glob("*-v1-*.csv"))
    missing = [what for what, there in (("the labels", packages or lists), ("the videos", parts)) if not there]
    if missing:
        by_hand(missing, steps.format(downloads=downloads))
    numbers = [int(path.name[-2:]) for path in parts]
    lacking = sorted(set(range(max(numbers) + 1)) - set(numbers))
    if lacking:
        raise FetchError(f"{downloads}: part {lacking[0]:02d} is not there, but part {max(numbers):02d} is")
    for path in (*parts, *packages):
        record(path)
    for package in packages:
        unpack(package, given.root)
    _gather(given.root, labels, lists)
    unpack_parts(parts, given.root)
    count = _count(given.root)
    print(f"{count:,} of {videos:,} videos in {given.root}")
    ready(data, given.root)


def _gather(root: Path, labels: Path, lists: list[Path]) -> None:
    """Put the lists where vidtrain looks for them, from whatever folder the package has them in."""
    labels.mkdir(exist_ok=True)
    found = [
        path
        for path in root.rglob("*")
        if re.fullmatch(r"(train|validation|test|labels|test-answers)\.(json|csv)", path.name)
    ]
    for path in (*found, *lists):
        if path.parent != labels and not (labels / path.name).exists():
            shutil.copyfile(path, labels / path.name)


def _count(root: Path) -> int:
    """Videos: .webm files, or folders called by a number."""
    homes = [path for path in root.glob("20bn-*") if path.is_dir()]
    return sum(1 for home in homes for path in home.iterdir() if path.suffix == ".webm" or path.name.isdecimal())

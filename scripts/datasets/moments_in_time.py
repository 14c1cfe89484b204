"""Moments in Time (Monfort et al., 2019): about a million clips of 3 seconds, from http://moments.csail.mit.edu/

    python scripts/datasets/moments_in_time.py /data/moments

Fetches nothing: the address of the archive is sent to those who fill in a form. The script says what to do, or fetches
the address that it is given (--url, resumed when it is cut, where the server allows that), unpacks the archive and
reports how many of the listed videos are there.

No checksum is published: the SHA-256 of what came is kept in ROOT/downloads/SHA256SUMS. Not run against the server
where this was written, for want of a network.
"""

from __future__ import annotations

from _fetch import by_hand, count, fetch, parser, ready, record, run
from _unpack import unpack

STEPS = """
1. Fill in the form at http://moments.csail.mit.edu/ ; the addresses of the archives come by mail:
   Moments_in_Time_Raw.zip, Moments_in_Time_256x256_30fps.zip (73 GB), or Moments_in_Time_Mini.zip.
2. Put one of them into {downloads}, or run this script with --url ADDRESS.
"""


def main() -> None:
    options = parser(__doc__, without_checksum=True)
    options.add_argument("--url", help="the address that came by mail")
    options.add_argument("--delete-archives", action="store_true", help="delete the archive once it is unpacked")
    given = options.parse_args()
    downloads = given.root / "downloads"
    if given.url:
        archive = downloads / given.url.rpartition("/")[2]
        if not archive.with_name(archive.name + ".unpacked").exists():
            fetch(given.url, archive, plain=given.allow_http)
    for archive in sorted(downloads.glob("*.zip")):
        record(archive)
        unpack(archive, given.root, keep=not given.delete_archives)
    lists = sorted(given.root.rglob("trainingSet.csv"))
    if not lists:
        by_hand(["trainingSet.csv and the videos"], STEPS.format(downloads=downloads))
    home = lists[0].parent  # the archives have a folder of their own
    print(f"{count(home, '.mp4'):,} videos in {home}")
    ready("moments_in_time", home)


if __name__ == "__main__":
    run(main)

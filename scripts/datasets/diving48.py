"""Diving48 (Li et al., 2018): 18,000 dives, about 10 GB, from http://www.svcl.ucsd.edu/projects/resound/dataset.html

    python scripts/datasets/diving48.py /data/diving48

Fetches the lists of version 2 and Diving48_rgb.tar.gz, and unpacks the videos to ROOT/rgb/*.mp4.

No checksums are published, and the server spoke http only when this was written: --allow-http fetches over it, with
--base http://www.svcl.ucsd.edu/projects/resound/ . The SHA-256 of what came first is kept in
ROOT/downloads/SHA256SUMS and compared by later runs. Not run where this was written, for want of a network: the
addresses are those of the page.
"""

from __future__ import annotations

from _fetch import count, fetch, parser, ready, run
from _unpack import unpack

BASE = "https://www.svcl.ucsd.edu/projects/resound/"
LISTS = ("Diving48_V2_train.json", "Diving48_V2_test.json", "Diving48_vocab.json")


def main() -> None:
    options = parser(__doc__, without_checksum=True)
    options.add_argument("--base", default=BASE, help="another address with the same files")
    options.add_argument("--delete-archives", action="store_true", help="delete the archive once it is unpacked")
    given = options.parse_args()
    for name in LISTS:
        fetch(given.base + name, given.root / name, plain=given.allow_http)
    archive = given.root / "downloads" / "Diving48_rgb.tar.gz"
    if not archive.with_name(archive.name + ".unpacked").exists():
        fetch(given.base + archive.name, archive, plain=given.allow_http)
    unpack(archive, given.root, keep=not given.delete_archives)
    print(f"{count(given.root, '.mp4'):,} videos in {given.root}")
    ready("diving48", given.root)


if __name__ == "__main__":
    run(main)

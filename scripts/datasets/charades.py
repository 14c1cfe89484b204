"""Charades (Sigurdsson et al., 2016): 9,848 videos, from https://prior.allenai.org/projects/charades

    python scripts/datasets/charades.py /data/charades --accept-license

Fetches Charades.zip (lists, 3 MB) and Charades_v1_480.zip (videos at 480p, 13 to 16 GB) and unpacks them to
ROOT/Charades/ and ROOT/Charades_v1_480/. The licence allows non-commercial research only; read it first:
https://prior.allenai.org/projects/data/charades/license.txt

No checksums are published: the SHA-256 of what came is kept in ROOT/downloads/SHA256SUMS. Not run where this was
written, for want of a network: the addresses are those of the page.
"""

from __future__ import annotations

from _fetch import by_hand, count, fetch, parser, ready, run
from _unpack import unpack

BASE = "https://ai2-public-datasets.s3-us-west-2.amazonaws.com/charades/"
LICENSE = "https://prior.allenai.org/projects/data/charades/license.txt"


def main() -> None:
    options = parser(__doc__, without_checksum=True)
    options.add_argument("--accept-license", action="store_true", help=f"you have read {LICENSE}")
    options.add_argument("--original", action="store_true", help="the videos in their own size (55 GB)")
    options.add_argument("--base", default=BASE, help="another address with the same files")
    options.add_argument("--delete-archives", action="store_true", help="delete the archives once they are unpacked")
    given = options.parse_args()
    if not given.accept_license:
        by_hand(["your agreement"], f"Read {LICENSE} and add --accept-license.")
    videos = "Charades_v1" if given.original else "Charades_v1_480"
    for name in ("Charades.zip", f"{videos}.zip"):
        archive = given.root / "downloads" / name
        if not archive.with_name(name + ".unpacked").exists():
            fetch(given.base + name, archive, plain=given.allow_http)
        unpack(archive, given.root, keep=not given.delete_archives)
    print(f"{count(given.root / videos, '.mp4'):,} of 9,848 videos in {given.root / videos}")
    ready("charades", given.root)


if __name__ == "__main__":
    run(main)

"""HMDB51 (Kuehne et al., 2011): 6,766 clips, 2.1 GB, from https://serre-lab.clps.brown.edu/resource/hmdb-a-large-human-motion-database/

    python scripts/datasets/hmdb51.py /data/hmdb51

Fetches hmdb51_org.rar (which holds a .rar for each class) and test_train_splits.rar, checks their SHA-256 (those that
torchvision's prototype datasets recorded) and unpacks them to ROOT/hmdb51_org/<class>/*.avi and
ROOT/testTrainMulti_7030_splits/. Needs a program that unpacks .rar: unrar, 7z, bsdtar or unar.

Not run where this was written, for want of a network. The laboratory has moved its pages since (serre.lab.brown.edu):
where the old addresses no longer answer, put the two files into ROOT/downloads by hand, or give --base.
"""

from __future__ import annotations

from _fetch import count, fetch, parser, ready, run
from _unpack import find_rar_tool, unpack

BASE = "https://serre-lab.clps.brown.edu/wp-content/uploads/2013/10/"
FILES = {
    "test_train_splits.rar": "229c94f845720d01eb3946d39f39292ea962d50a18136484aa47c1eba251d2b7",
    "hmdb51_org.rar": "9e714a0d8b76104d76e932764a7ca636f929fff66279cda3f2e326fa912a328e",
}


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--base", default=BASE, help="another address with the same files")
    options.add_argument("--delete-archives", action="store_true", help="delete the archives once they are unpacked")
    given = options.parse_args()
    find_rar_tool()  # before 2 GB are fetched
    downloads = given.root / "downloads"
    targets = {"test_train_splits.rar": given.root, "hmdb51_org.rar": downloads / "classes"}
    for name, digest in FILES.items():
        archive = downloads / name
        if not archive.with_name(name + ".unpacked").exists():
            fetch(given.base + name, archive, sha256=digest)
        unpack(archive, targets[name], keep=not given.delete_archives)
    for archive in sorted((downloads / "classes").glob("*.rar")):
        unpack(archive, given.root / "hmdb51_org", keep=not given.delete_archives)
    print(f"{count(given.root / 'hmdb51_org', '.avi'):,} of 6,766 videos in {given.root / 'hmdb51_org'}")
    ready("hmdb51", given.root)


if __name__ == "__main__":
    run(main)

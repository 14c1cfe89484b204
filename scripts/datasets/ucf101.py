"""UCF101 (Soomro et al., 2012): 13,320 clips, 6.5 GB, from https://www.crcv.ucf.edu/data/UCF101.php

    python scripts/datasets/ucf101.py /data/ucf101

Fetches UCF101.rar and the split files, checks their SHA-256 (those that torchvision's prototype datasets recorded)
and unpacks them to ROOT/UCF-101/<class>/*.avi and ROOT/ucfTrainTestlist/. Needs a program that unpacks .rar: unrar,
7z, bsdtar or unar. The server's certificate chain is incomplete for some systems: --insecure skips that check and
leaves it to the checksums to tell whether the files are genuine.

Not run where this was written, for want of a network: the addresses are those of the page in 2024. The download and
the unpacking of .zip are tested against a local server, the call of the .rar program is not.
"""

from __future__ import annotations

from _fetch import count, fetch, parser, ready, run
from _unpack import find_rar_tool, unpack

BASE = "https://www.crcv.ucf.edu/data/UCF101/"
FILES = {
    "UCF101TrainTestSplits-RecognitionTask.zip": "5c0d1a53b8ed364a2ac830a73f405e51bece7d98ce1254fd19ed4a36b224bd27",
    "UCF101.rar": "ca8dfadb4c891cb11316f94d52b6b0ac2a11994e67a0cae227180cd160bd8e55",
}


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--base", default=BASE, help="another address with the same files")
    options.add_argument("--insecure", action="store_true", help="do not check the server's certificate")
    options.add_argument("--delete-archives", action="store_true", help="delete the archives once they are unpacked")
    given = options.parse_args()
    find_rar_tool()  # before 6.5 GB are fetched
    for name, digest in FILES.items():
        archive = given.root / "downloads" / name
        if not archive.with_name(name + ".unpacked").exists():
            fetch(given.base + name, archive, sha256=digest, insecure=given.insecure)
        unpack(archive, given.root, keep=not given.delete_archives)
    print(f"{count(given.root / 'UCF-101', '.avi'):,} of 13,320 videos in {given.root / 'UCF-101'}")
    ready("ucf101", given.root)


if __name__ == "__main__":
    run(main)

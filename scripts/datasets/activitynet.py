"""ActivityNet v1.3 (Caba Heilbron et al., 2015): 19,994 whole videos, from http://activity-net.org/download.html

    python scripts/datasets/activitynet.py /data/activitynet

Fetches the annotations. The videos are given to those who fill in a form: the script says what to do, unpacks the
archives that it finds in ROOT/downloads, and reports how many of the listed videos are there.

No checksum of the annotations is published and their server speaks http only: --allow-http fetches over it, or put the
file into ROOT yourself (the page above links to it). The SHA-256 of what came is kept in ROOT/SHA256SUMS. Not run
against the server where this was written, for want of a network.
"""

from __future__ import annotations

import json

from _fetch import by_hand, fetch, parser, ready, run
from _unpack import unpack

URL = "http://ec2-52-25-205-214.us-west-2.compute.amazonaws.com/files/activity_net.v1-3.min.json"
STEPS = """
1. Open http://activity-net.org/download.html and fill in the form for the complete dataset ("missing videos
   request"); a link to a shared folder comes by mail and works for seven days.
2. Put these files into {downloads}:
   v1-2_train.tar.gz v1-2_val.tar.gz v1-3_train_val.tar.gz missing_files.zip (or missing_files_trainval.zip)
   The test archives have no labels and are not needed.
"""
ARCHIVES = ("v1-2_train.tar.gz", "v1-2_val.tar.gz", "v1-3_train_val.tar.gz")


def main() -> None:
    options = parser(__doc__, without_checksum=True)
    options.add_argument("--url", default=URL, help="another address of the annotations")
    options.add_argument("--delete-archives", action="store_true", help="delete the archives once they are unpacked")
    given = options.parse_args()
    listed = fetch(given.url, given.root / "activity_net.v1-3.min.json", plain=given.allow_http)
    downloads = given.root / "downloads"
    missing = [n for n in ARCHIVES if not any((downloads / f"{n}{end}").exists() for end in ("", ".unpacked"))]
    for archive in (*sorted(downloads.glob("v1-*.tar.gz")), *sorted(downloads.glob("missing_files*.zip"))):
        unpack(archive, given.root / "videos", keep=not given.delete_archives)
    videos = json.loads(listed.read_text(encoding="utf-8"))["database"]
    wanted = {name for name, entry in videos.items() if entry["subset"] != "testing"}
    there = {path.stem.removeprefix("v_") for path in given.root.rglob("*") if path.suffix in (".mp4", ".mkv", ".webm")}
    print(f"{len(wanted & there):,} of {len(wanted):,} training and validation videos in {given.root}")
    if missing and not wanted & there:
        by_hand(missing, STEPS.format(downloads=downloads))
    ready("activitynet", given.root)


if __name__ == "__main__":
    run(main)

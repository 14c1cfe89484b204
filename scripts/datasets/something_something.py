"""Something-Something v2 (Goyal et al., 2017): 220,847 videos, 19 GB, from
https://www.qualcomm.com/developer/software/something-something-v-2-dataset

    python scripts/datasets/something_something.py /data/ssv2

Fetches nothing: the publisher requires you to sign in and accept the licence. The script says what to do, joins and
unpacks what it finds in ROOT/downloads to ROOT/20bn-something-something-v2/*.webm and ROOT/labels/, and keeps the
SHA-256 of each file in ROOT/downloads/SHA256SUMS, so that a later run finds damage. No checksums are published.

The joining and unpacking are tested with small archives of the same layout.
"""

from __future__ import annotations

from _twentybn import prepare

STEPS = """
1. Sign in at https://www.qualcomm.com/developer/software/something-something-v-2-dataset/downloads (an account is
   free), and accept the licence: research only.
2. Put the files into {downloads}: the labels
   (20bn-something-something-download-package-labels.zip) and all parts of the videos
   (20bn-something-something-v2-00, -01 ..., or the .zip files that hold them).
"""

if __name__ == "__main__":
    prepare(
        __doc__,
        STEPS,
        "20bn-something-something",
        r"20bn-?something-?something-v2-\d\d",
        "something_something",
        220_847,
    )

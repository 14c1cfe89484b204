"""20BN-Jester (Materzynska et al., 2019): 148,092 videos as images, 23 GB, from
https://www.qualcomm.com/developer/software/jester-dataset

    python scripts/datasets/jester.py /data/jester

Fetches nothing: the publisher requires you to sign in and accept the licence. The script says what to do, joins and
unpacks what it finds in ROOT/downloads to ROOT/20bn-jester-v1/<id>/00001.jpg and ROOT/labels/, and keeps the SHA-256
of each file in ROOT/downloads/SHA256SUMS, so that a later run finds damage. No checksums are published.

The joining and unpacking are tested with small archives of the same layout.
"""

from __future__ import annotations

from _twentybn import prepare

STEPS = """
1. Sign in at https://www.qualcomm.com/developer/software/jester-dataset/downloads (an account is free), and accept
   the licence: research only.
2. Put the files into {downloads}: the labels (20bn-jester-download-package-labels.zip, or
   jester-v1-train.csv, jester-v1-validation.csv and jester-v1-labels.csv as they are) and all parts of the videos
   (20bn-jester-v1-00, -01 ..., or the .zip files that hold them).
"""

if __name__ == "__main__":
    prepare(__doc__, STEPS, "20bn-jester", r"20bn-?jester-v1-\d\d", "jester", 148_092)

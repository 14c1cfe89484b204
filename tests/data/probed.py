"""A reader for the processes of test_probe_files.py, which import this module without pytest."""

from __future__ import annotations

import os
import time
from pathlib import Path

from vidtrain.data.readers.base import OpenVideo
from vidtrain.data.readers.pyav.reader import PyAVReader


class OddFiles:
    """Hangs at one of the files and crashes at another, as their names say."""

    def open(self, path: str) -> OpenVideo:
        if "hang" in Path(path).name:
            time.sleep(60)
        if "crash" in Path(path).name:
            os._exit(9)
        return PyAVReader().open(path)

"""Which videos of a folder of features are alike: cosines between the means of their vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from vidtrain.data.features.files import open_features
from vidtrain.data.manifest.manifest import FeatureInfo, Manifest
from vidtrain.errors import VideoError

Vectors = npt.NDArray[np.float32]
_ROWS = 1024  # of cosines at a time


def unit_mean(features: npt.NDArray[Any]) -> Vectors:
    """(clips, D) or (clips, P, D) -> (D,): the mean of all vectors, of length 1; 0 stays 0."""
    mean = np.asarray(features, np.float32).reshape(-1, features.shape[-1]).mean(0)
    return mean / max(float(np.linalg.norm(mean)), 1e-12)


def video_vectors(manifest: Manifest, info: FeatureInfo) -> Vectors:
    """(N, D): `unit_mean` of each row.

    Raises:
        VideoError: a file that cannot be read.
    """
    found = np.zeros((len(manifest), info.length), np.float32)
    for row, path in enumerate(manifest.paths):
        found[row] = unit_mean(open_features(path, info.length, info.tokens))
        if not np.isfinite(found[row]).all():
            raise VideoError(path, "holds numbers that are not finite")
    return found


def nearest(queries: Vectors, keys: Vectors, top: int) -> tuple[Vectors, npt.NDArray[np.int64]]:
    """Of each query the cosines of the nearest keys, falling, and their rows, both (Q, min(top, N)); of equal ones the
    earlier row first."""
    top = min(top, len(keys))
    cosines, rows = np.empty((len(queries), top), np.float32), np.empty((len(queries), top), np.int64)
    for first in range(0, len(queries), _ROWS):
        part = slice(first, first + _ROWS)
        found = queries[part] @ keys.T
        rows[part] = np.argsort(-found, axis=1, kind="stable")[:, :top]
        cosines[part] = np.take_along_axis(found, rows[part], 1)
    return cosines, rows


def recall(
    queries: Vectors, asked: Sequence[set[int]], keys: Vectors, known: Sequence[set[int]], ks: Sequence[int]
) -> dict[int, float]:
    """k -> share of the queries that share a class with one of their k nearest keys.

    asked, known: the classes of each query and key; a query without one is not counted.
    """
    kept = [row for row, own in enumerate(asked) if own]
    _, rows = nearest(queries[kept], keys, max(ks))
    pairs = zip(kept, rows.tolist(), strict=True)
    hits = np.array([[bool(asked[query] & known[key]) for key in found] for query, found in pairs])
    return {k: float(hits[:, :k].any(1).mean()) if len(hits) else float("nan") for k in ks}

"""Segments from points in time, in the manner of ActionFormer (Zhang et al. 2022): what a network's points are to
answer, the loss of it, and from their answers to segments.

A point stands for a stretch of `stride` windows. It answers which classes happen there, and how far before it they
began and after it they end, in strides. Of a segment those points are to answer that lie near its centre, and whose
stride fits its length; of several segments the shortest.

Outputs, by name: logits float (B, P, K); offsets float (B, P, 2), 0 or more, in strides; points float (P, 4): place in
windows, stride, and the shortest and longest distance to an end that it answers for, in windows; there bool (B, P).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vidtrain.segments import Annotated, Floats

Outputs = Mapping[str, Tensor]

RADIUS: Final = 1.5  # strides around the centre of a segment within which points answer for it
_FOCAL: Final = (0.25, 2.0)  # alpha and gamma of Lin et al. 2017
_LEAST_SCORE: Final = 0.001


def in_windows(seconds: Floats, grid: Floats) -> Floats:
    """Times as places among windows: 2.5 is half-way between the centres of the third and the fourth."""
    if len(grid) < 2:
        return seconds - grid[0] if len(grid) else seconds
    places, step = np.arange(len(grid), dtype=np.float64), (grid[-1] - grid[0]) / (len(grid) - 1)
    found: Floats = np.interp(seconds, grid, places)
    found = np.where(seconds < grid[0], (seconds - grid[0]) / step, found)
    return np.where(seconds > grid[-1], len(grid) - 1 + (seconds - grid[-1]) / step, found)


def in_seconds(places: Floats, grid: Floats) -> Floats:
    """The inverse of `in_windows`."""
    if len(grid) < 2:
        return places + grid[0] if len(grid) else places
    last, step = len(grid) - 1, (grid[-1] - grid[0]) / (len(grid) - 1)
    found: Floats = np.interp(places, np.arange(len(grid)), grid)
    found = np.where(places < 0, grid[0] + places * step, found)
    return np.where(places > last, grid[-1] + (places - last) * step, found)


def assigned(points: Tensor, video: Annotated, classes: int) -> tuple[Tensor, Tensor]:
    """What points are to answer: labels float (P, K), offsets float (P, 2) in strides; 0 where nothing happens."""
    labels, offsets = torch.zeros(len(points), classes), torch.zeros(len(points), 2)
    if not len(video.truth):
        return labels, offsets
    ends = torch.from_numpy(in_windows(video.truth[:, :2], video.grid)).float()
    kinds = torch.from_numpy(video.truth[:, 2]).long()
    place, stride, low, high = (column[:, None] for column in points.unbind(1))
    before, after = place - ends[:, 0], ends[:, 1] - place  # (P, n)
    centre = ends.mean(1)
    near = (place - centre).abs() <= RADIUS * stride
    reach = torch.maximum(before, after)
    fits = near & (before > 0) & (after > 0) & (reach >= low) & (reach < high)
    lengths = torch.where(fits, (ends[:, 1] - ends[:, 0])[None].expand_as(fits), torch.inf)
    shortest = lengths.argmin(1)
    there = fits.any(1)
    rows = torch.arange(len(points))
    same = fits & (lengths <= lengths[rows, shortest][:, None] + 1e-3)
    labels[:] = torch.stack([(same & (kinds == k)).any(1) for k in range(classes)], 1).float()
    both = torch.stack([before[rows, shortest], after[rows, shortest]], 1) / stride
    return labels, torch.where(there[:, None], both, offsets)


def detection_loss(found: Outputs, videos: Sequence[Annotated], classes: int) -> tuple[Tensor, Tensor]:
    """(focal loss of all points + DIoU loss of those with a label, over the number of these; labels (B, P, K))."""
    logits, there = found["logits"].float(), found["there"]
    pairs = [assigned(found["points"].cpu(), video, classes) for video in videos]
    labels, offsets = (torch.stack(part).to(logits.device) for part in zip(*pairs, strict=True))
    positive = (labels.any(2)) & there
    count = positive.sum().clamp_min(1)
    alpha, gamma = _FOCAL
    plain = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    probs = logits.sigmoid()
    wrong = torch.where(labels > 0, 1 - probs, probs)
    weight = torch.where(labels > 0, alpha, 1 - alpha) * wrong**gamma
    classification = (weight * plain)[there].sum() / count
    regression = distance_loss(found["offsets"].float()[positive], offsets[positive]).sum() / count
    return classification + regression, labels


def distance_loss(found: Tensor, wanted: Tensor) -> Tensor:
    """(n,): 1 - intersection over union + squared distance of the centres / squared length around both (Zheng et al.
    2020), of segments (n, 2) by how far they reach before and after one point."""
    shared = torch.minimum(found, wanted).sum(1)
    union = found.sum(1) + wanted.sum(1) - shared
    around = torch.maximum(found, wanted).sum(1)
    apart = ((found[:, 1] - found[:, 0]) - (wanted[:, 1] - wanted[:, 0])) / 2
    least = torch.finfo(found.dtype).eps
    return 1 - shared / union.clamp_min(least) + (apart / around.clamp_min(least)) ** 2


def point_hits(found: Outputs, labels: Tensor) -> Tensor:
    """float (B,): share of a video's points that answer just their classes at 0.5."""
    right = ((found["logits"].detach() > 0) == (labels > 0)).all(2) & found["there"]
    return right.sum(1) / found["there"].sum(1).clamp_min(1)


def candidates(found: Outputs, most: int) -> Tensor:
    """float32 (B, most, 4): start, end in windows, class, score of the best; of score 0 where there are fewer."""
    logits, offsets, there = found["logits"].float(), found["offsets"].float(), found["there"]
    place, stride = found["points"][:, 0], found["points"][:, 1]
    points, classes = logits.shape[1:]
    scores = (logits.sigmoid() * there[..., None]).flatten(1)
    values, numbers = scores.topk(min(most, points * classes), 1)
    at, label = numbers // classes, numbers % classes
    reach = offsets.gather(1, at[..., None].expand(-1, -1, 2)) * stride[at][..., None]
    rows = torch.stack([place[at] - reach[..., 0], place[at] + reach[..., 1], label.float(), values], 2)
    return F.pad(rows, (0, 0, 0, most - rows.shape[1]))


def place_in_time(table: Floats, video: Annotated) -> Floats:
    """Candidates (M, 4) in windows -> float64 (k, 4) in seconds, within the video, those with a score and a length."""
    table = table[table[:, 3] > _LEAST_SCORE]
    ends = np.clip(in_seconds(table[:, :2], video.grid), 0.0, video.seconds)
    placed = np.column_stack([ends, table[:, 2:]])
    return placed[placed[:, 1] > placed[:, 0]]


def soft_nms(table: Floats, sigma: float) -> Floats:
    """float64 (k, 4), the best first: of segments of one class that overlap, the lower score is lowered by
    exp(-IoU^2 / sigma) (soft-NMS, Bodla et al. 2017)."""
    rest = table.copy()
    found: list[Floats] = []
    while len(rest):
        best = int(rest[:, 3].argmax())
        one = rest[best]
        rest = np.delete(rest, best, 0)
        if one[3] < _LEAST_SCORE:
            break
        found.append(one)
        shared = np.maximum(0.0, np.minimum(rest[:, 1], one[1]) - np.maximum(rest[:, 0], one[0]))
        iou = shared / np.maximum((rest[:, 1] - rest[:, 0]) + (one[1] - one[0]) - shared, 1e-12)
        rest[:, 3] *= np.where(rest[:, 2] == one[2], np.exp(-(iou**2) / sigma), 1.0)
    return np.array(found, np.float64).reshape(-1, 4)

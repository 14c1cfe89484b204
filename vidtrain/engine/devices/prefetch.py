"""Batches on their way to the GPU while it computes."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from vidtrain.types import Batch


def on_device(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    """The same batches, each copied to a CUDA device on a stream of its own while the one before it is used.

    Elsewhere they come as they are. The copy runs beside the computation only from pinned memory.
    """
    if device.type != "cuda":
        yield from batches
        return
    stream = torch.cuda.Stream(device)
    before: Batch | None = None
    for batch in batches:
        with torch.cuda.stream(stream):
            moved = batch.to(device)
        if before is not None:
            yield _joined(before, stream, device)
        before = moved
    if before is not None:
        yield _joined(before, stream, device)


def _joined(batch: Batch, stream: torch.cuda.Stream, device: torch.device) -> Batch:
    """For use on the current stream: it waits for the copy, and the memory is not given away before it is done."""
    current = torch.cuda.current_stream(device)
    current.wait_stream(stream)
    batch.record_stream(current)
    return batch

"""torch.compile and torch.export take the whole eval forward of the convolutional networks, without a graph break."""

from __future__ import annotations

import pytest
import torch

from tests.models.test_every_model import built, clips
from tests.sampled import sampled

NAMES = ("c3d", "tsn_tiny", "tsm_tiny", "alternating3d", "inflated", "i3d", "s3d", "s3dg")


@pytest.mark.parametrize("name", sampled(NAMES, ["alternating3d"]))
def test_export(name: str) -> None:
    model, x = built(name), clips(name)
    exported = torch.export.export(model, (x,)).module()
    with torch.no_grad():
        torch.testing.assert_close(exported(x), model(x))


@pytest.mark.parametrize("name", sampled(NAMES, ["tsm_tiny"]))
def test_compile_in_one_graph(name: str) -> None:
    """The backend changes nothing, so what is tested is the tracing."""
    torch._dynamo.reset()
    model, x = built(name), clips(name)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), model(x))


@pytest.mark.parametrize("name", sampled(["tsm_tiny", "inflated"], ["inflated"]))
def test_a_compiled_net_follows_the_number_of_frames(name: str) -> None:
    """Frames stand in the batch of these: their number must not be frozen into the graph."""
    torch._dynamo.reset()
    model, x = built(name), clips(name)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with torch.no_grad():
        for frames in (8, 4, 6):
            torch.testing.assert_close(compiled(x[:, :, :frames]), model(x[:, :, :frames]))


@pytest.mark.parametrize("name", ["i3d", "s3dg", "alternating3d", "inflated", "tsm_tiny"])
def test_channels_last(name: str) -> None:
    model, x = built(name), clips(name)
    with torch.no_grad():
        expected, got = model(x), model(x.contiguous(memory_format=torch.channels_last_3d))
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-6)

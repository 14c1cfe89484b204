"""What holds for every recurrent model: size and cost, graphs, memory order, messages."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.models.recurrent import FULL, NAMES, TINY, built, clip
from tests.sampled import sampled
from vidtrain.build import create_model
from vidtrain.errors import ConfigError
from vidtrain.models.cnn_lstm import cnn_lstm
from vidtrain.models.convlstm import convlstm
from vidtrain.models.convlstm_attention import convlstm_attention
from vidtrain.models.convlstm_deformable import convlstm_deformable
from vidtrain.models.convlstm_dilated import convlstm_dilated
from vidtrain.models.convlstm_hierarchical import convlstm_hierarchical
from vidtrain.models.layers.checkpointing import checkpoint_activations
from vidtrain.models.layers.recurrent import RecurrentClassifier
from vidtrain.models.rcn import rcn
from vidtrain.models.st_lstm import st_lstm

CONF = Path(__file__).parents[2] / "conf" / "model"


@pytest.mark.parametrize("name", sampled([name for name, _ in FULL + TINY], ["cnn_lstm_tiny", "convlstm_tiny"]))
def test_the_header_of_the_yaml_tells_the_cost(name: str) -> None:
    text = " ".join((CONF / f"{name}.yaml").read_text(encoding="utf-8").replace("\n# ", " ").split())
    found = re.search(r"([\d.]+)M parameters, ([\d.]+) GMAC at 16 x (\d+) x \3", text)
    assert found is not None
    size = int(found[3])
    assert size == (64 if name.endswith("_tiny") else 112)
    with torch.device("meta"):
        model = create_model(name, num_classes=8 if size == 64 else 400, size=size).eval()
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        assert isinstance(model, RecurrentClassifier)
        model(torch.empty(1, 3, 16, size, size, device="meta"))
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(float(found[1]), abs=0.0051)
    assert counter.get_total_flops() / 2e9 == pytest.approx(float(found[2]), abs=0.0051)


def test_parameters_of_convlstm_by_hand() -> None:
    stem = 9 * 3 * 32 + 2 * 32 + 9 * 32 * 64 + 2 * 64
    first = 9 * (64 + 64) * 4 * 64 + 2 * 4 * 64
    second = 9 * (64 + 128) * 4 * 128 + 2 * 4 * 128
    with torch.device("meta"):
        model = convlstm(num_classes=400, size=112)
    assert sum(p.numel() for p in model.parameters()) == stem + first + second + 2 * 128 + 128 * 400 + 400


@pytest.mark.parametrize(("name", "options"), sampled(TINY, ["convlstm_tiny"]))
def test_export(name: str, options: dict[str, Any]) -> None:
    model, x = built(name, **options), clip(3)
    exported = torch.export.export(model, (x,)).module()
    with torch.no_grad():
        torch.testing.assert_close(exported(x), model(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "name", sampled([f"{name}_tiny" for name in NAMES if "conv" in name or name == "rcn"], ["convlstm_tiny"])
)
def test_compile_in_one_graph(name: str) -> None:
    """The backend changes nothing, so what is tested is the tracing. (torch.compile does not trace nn.LSTM.)"""
    torch._dynamo.reset()
    model, x = built(name), clip(3)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), model(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("name", "options"), TINY)
def test_memory_order_does_not_matter(name: str, options: dict[str, Any]) -> None:
    model, x = built(name, **options), clip()
    with torch.no_grad():
        last = model(x.contiguous(memory_format=torch.channels_last_3d))
        torch.testing.assert_close(last, model(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["rcn_tiny", "convlstm_tiny", "convlstm_deformable_tiny"])
def test_activation_checkpointing_gives_the_same_gradient(name: str) -> None:
    gradients = []
    for checkpointed in (False, True):
        model = built(name, size=32).train()
        if checkpointed:
            assert checkpoint_activations(model) == len(model.layers)
        model(clip(3)).square().sum().backward()
        gradients.append([p.grad for p in model.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    ("build", "options", "message"),
    [
        (cnn_lstm, {"size": 32, "cell": "lstn"}, r"model\.cell: got 'lstn' \(did you mean lstm\?\), expected lstm"),
        (cnn_lstm, {"size": 32, "head": "mena"}, r"model\.head: got 'mena' \(did you mean mean\?\), expected last"),
        (cnn_lstm, {"size": 32, "fusion": "sum"}, r"model\.fusion: got 'sum', expected none, concat, weights"),
        (cnn_lstm, {"size": 32, "pooling": "max"}, r"model\.pooling: got 'max', expected avg, flatten"),
        (cnn_lstm, {"size": 32, "projection": 0}, r"model\.projection: got 0, expected 1 or more"),
        (cnn_lstm, {"size": 32, "hidden": 0}, r"model\.hidden: got 0, expected 1 or more"),
        (cnn_lstm, {"size": 32, "layers": 0}, r"model\.layers: got 0, expected 1 or more"),
        (st_lstm, {"size": 0}, r"model\.size: got 0, expected 1 or more"),
        (st_lstm, {"size": 32, "inputs": "mean"}, r"model\.inputs: got 'mean', expected flatten, avg"),
        (rcn, {"cell": "tanh"}, r"model\.cell: got 'tanh', expected rnn, gru, gru_reset_before, lstm"),
        (rcn, {"channels": []}, r"model\.channels: got \[\], expected a list of whole numbers of 1 or more"),
        (rcn, {"channels": 32}, r"model\.channels: got 32, expected a list"),
        (rcn, {"kernel": 2}, r"model\.kernel: got 2, expected an odd number"),
        (convlstm, {"size": 32, "stem": [8, 0]}, r"model\.stem: got \[8, 0\], expected a list"),
        (convlstm, {"size": 32, "stride": 0}, r"model\.stride: got 0, expected 1 or more"),
        (convlstm, {"peephole": True}, r"model\.size: got 0, expected 1 or more \(with peephole=true\)"),
        (convlstm_attention, {"head": "last"}, r"model\.head: got 'last', expected attention, mean, max"),
        (convlstm_dilated, {"dilation": 0}, r"model\.dilation: got 0, expected 1 or more"),
        (convlstm_hierarchical, {"time_scale": 0}, r"model\.time_scale: got 0, expected 1 or more"),
        (convlstm_deformable, {"groups": 3}, r"model\.groups: got 3, which does not divide the 64 channels of stem"),
    ],
)  # fmt: skip
def test_errors_say_what_is_allowed(build: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        build(num_classes=5, **options)
    assert "\n" not in str(caught.value)


def test_no_stem() -> None:
    assert convlstm(num_classes=5, size=16, stem=[], hidden=[4])(clip(3, 16)).shape == (2, 5)

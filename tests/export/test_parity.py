"""The comparison of an exported file with its network, and what keeps a file or not."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

from vidtrain.errors import ConfigError
from vidtrain.export.contract import contract_text
from vidtrain.export.network import Deployable
from vidtrain.export.parity import Ask, compare
from vidtrain.export.timing import latencies
from vidtrain.export.trace import NotExportableError, random_frames, trace
from vidtrain.tasks.segments.task import Segments

CLIPS = {"rgb": torch.arange(7 * 2).reshape(7, 2)}


def asked(change: float = 0.0, sizes: list[int] | None = None) -> Ask:
    """Logits (N, 2) of the clips; `change` is added to one of the fourth."""

    def ask(inputs: Mapping[str, Tensor]) -> Tensor:
        logits = inputs["rgb"].float().clone()
        if sizes is not None:
            sizes.append(len(logits))
        logits[:, 0] += change * (inputs["rgb"][:, 0] == 6)
        return logits

    return ask


def test_differences_are_measured_in_deviations_of_the_logits() -> None:
    sizes: list[int] = []
    found = compare(asked(), asked(3.0, sizes), CLIPS, multi_label=False)
    assert sizes == [1, 5, 1]  # one number of clips at once is not enough
    assert (found.clips, found.logits, found.same) == (7, 3.0, 6)
    std = torch.arange(14.0).std().item()
    assert found.std == pytest.approx(std)
    assert found.relative == pytest.approx(3 / std)
    assert found.probs == pytest.approx(torch.tensor(2.0).sigmoid() - torch.tensor(-1.0).sigmoid())
    assert found.within(0.72)
    assert not found.within(0.71)
    assert compare(asked(), asked(), CLIPS, multi_label=True).within(1e-12)


def test_nothing_is_near_what_is_not_finite() -> None:
    assert not compare(asked(), asked(math.nan), CLIPS, multi_label=False).within(1e9)
    still = {"rgb": torch.ones(3, 2)}  # logits without a deviation
    assert not compare(asked(), lambda inputs: inputs["rgb"] + 1e-6, still, multi_label=False).within(1e9)
    assert compare(asked(), asked(), still, multi_label=False).within(1e-12)


def test_networks_take_turns() -> None:
    order: list[str] = []

    def noted(name: str) -> Ask:
        def ask(inputs: Mapping[str, Tensor]) -> Tensor:
            order.append(name)
            if len(order) <= 4:  # a first call compiles and allocates
                time.sleep(0.6)
            return inputs["rgb"]

        return ask

    found = latencies({"a": noted("a"), "b": noted("b")}, CLIPS, seconds=1e-9)
    assert order == ["a", "b"] * 7  # two rounds to warm up, five are measured
    assert all(0 <= half <= most for half, most in found.values())
    assert max(most for _, most in found.values()) < 400  # milliseconds; those that warm up are not among them


class _Counting(nn.Module):
    """Takes one number of clips, and no other."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((1, 2, 3, 4))[:, None].expand(-1, 3) + float(len(x.tolist()))


def test_a_network_without_a_program_is_named() -> None:
    network = Deployable(_Counting(), [0.5] * 3, [0.5] * 3, multi_label=False).eval()
    with pytest.raises(NotExportableError, match=r"_Counting: torch\.export has no program of it: ") as error:
        trace(network, {"rgb": (2, 4, 4, 3)})
    assert "\n" not in str(error.value)


def test_the_preprocessing_is_in_the_program() -> None:
    network = Deployable(nn.Identity(), [0.1, 0.2, 0.3], [0.5, 0.25, 0.125], multi_label=True).eval()
    frames = random_frames({"rgb": (2, 4, 4, 3)}, 3)["rgb"]
    logits, probs = network(frames)
    mean, std = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.5, 0.25, 0.125])
    wanted = ((frames / 255 - mean) / std).permute(0, 4, 1, 2, 3)
    assert torch.allclose(logits, wanted, atol=1e-5)
    assert torch.allclose(probs, wanted.sigmoid(), atol=1e-5)
    with pytest.raises(ConfigError, match="three numbers each"):
        Deployable(nn.Identity(), [0.1], [0.5], multi_label=True)


def test_probabilities_beside_a_background_class() -> None:
    """As those of task=segments with task.activation=softmax."""
    network = Deployable(_Counting(), [0.5] * 3, [0.5] * 3, multi_label=True, background=True).eval()
    frames = torch.randint(0, 256, (3, 2, 4, 4, 3), dtype=torch.uint8)
    logits, probs = network(frames)
    names = [str(number) for number in range(logits.shape[1])]
    wanted = Segments(names, activation="softmax").probabilities(logits[:, None])
    assert torch.allclose(probs, wanted)
    assert (probs.sum(1) < 1).all()
    content = {"class_names": names, "config": {}, "multi_label": True}
    text = json.loads(contract_text(content, {"rgb": (2, 4, 4, 3)}, background=True))
    assert text["outputs"]["probs"].startswith("softmax of the logits and 0")

"""Heads on frozen features: each member by itself, padding, what is fitted, what answers."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.nn.utils.rnn import PackedSequence, pack_sequence

from vidtrain import create_model
from vidtrain.build import build_optimizer
from vidtrain.errors import ConfigError
from vidtrain.models.probe import FeatureProbe, GradientProbe, NearestNeighbours

LENGTHS = (2, 4, 1, 3, 2, 5, 1)
LABELS = torch.tensor([0, 1, 2, 0, 1, 2, 0])


def sequences() -> list[torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    return [
        7 + torch.randn(n, 8, generator=rng) + 4 * F.one_hot(label, 8) for n, label in zip(LENGTHS, LABELS, strict=True)
    ]


def packed(parts: list[torch.Tensor]) -> PackedSequence:
    return pack_sequence(parts, enforce_sorted=False)


def make(head: str, **options: Any) -> FeatureProbe:
    torch.manual_seed(0)
    model = create_model("probe", num_classes=3, in_features=8, support=7, head=head, **options)
    assert isinstance(model, FeatureProbe)
    return model


def fitted(head: str, **options: Any) -> FeatureProbe:
    model = make(head, **options)
    parts = sequences()
    model.fit([(packed(parts[:3]), LABELS[:3]), (packed(parts[3:]), LABELS[3:])])
    return model


@pytest.mark.parametrize("head", ["linear", "attentive", "knn", "prototypes"])
def test_an_answer_depends_on_its_own_video_only(head: str) -> None:
    """Neither on the padding nor on the other videos of the batch."""
    model = fitted(head).eval()
    parts = sequences()
    alone = torch.cat([model.answers_of_all(packed([part])) for part in parts])
    together = model.answers_of_all(packed(parts))
    assert together.shape == (7, len(model.members), 3)
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)
    if head != "attentive":  # whose order of the logits at the start is nearly arbitrary
        assert not torch.allclose(together[0], together[1], atol=1e-3)


@pytest.mark.parametrize("head", ["linear", "attentive"])
def test_members_train_as_each_would_alone(head: str) -> None:
    """A grid after three updates holds the weights of its members trained one by one with their rate and decay."""
    batch, parts = packed(sequences()), [(rate, decay) for rate in (0.5, 4.0) for decay in (0.0, 30.0)]
    options = {"_target_": "torch.optim.SGD", "lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}
    grid = fitted(head, lr_factors=[0.5, 4.0], decay_factors=[0.0, 30.0])

    def trained(model: FeatureProbe, **changed: float) -> FeatureProbe:
        optimizer = build_optimizer({**options, **changed}, model)
        for _ in range(3):
            logits = model.train()(batch)
            losses = [F.cross_entropy(x, LABELS) for x in (logits.values() if isinstance(logits, dict) else [logits])]
            optimizer.zero_grad()
            torch.stack(losses).sum().backward()
            optimizer.step()
        return model.eval()

    answers = trained(grid).answers_of_all(batch)
    for number, (rate, decay) in enumerate(parts):
        one = trained(fitted(head, lr_factors=[1.0], decay_factors=[1.0]), lr=0.1 * rate, weight_decay=0.01 * decay)
        torch.testing.assert_close(answers[:, number], one(batch), rtol=1e-4, atol=1e-5)
        grid.chosen.fill_(number)
        torch.testing.assert_close(grid(batch), answers[:, number], rtol=1e-5, atol=1e-6)
    assert grid.members[1] == "lr_x0.5_decay_x30"
    assert (answers[:, 0] - answers[:, 2]).abs().max() > 1e-3


def test_features_are_centred_and_scaled_by_the_training_videos() -> None:
    model, parts = fitted("linear"), sequences()
    means = torch.stack([part.mean(0) for part in parts])
    torch.testing.assert_close(model.mean, means.mean(0))
    torch.testing.assert_close(model.deviation, means.std(0, correction=0))
    tokens = fitted("attentive")
    torch.testing.assert_close(tokens.mean, torch.cat(parts).mean(0))
    torch.testing.assert_close(tokens.deviation, torch.cat(parts).std(0, correction=0))
    constant = make("linear")
    constant.fit([(packed([torch.full((2, 8), 3.0), torch.full((1, 8), 3.0)]), LABELS[:2])])
    assert constant.deviation.tolist() == [1.0] * 8


def test_nearest_neighbours_by_hand() -> None:
    model = fitted("knn", neighbours=[1, 3], temperature=0.5).eval()
    vectors = torch.stack([part.mean(0) for part in sequences()])
    unit = F.normalize(vectors - vectors.mean(0), dim=1)
    cosines = unit @ unit.T
    answers = model.answers_of_all(packed(sequences())).exp()
    assert answers[:, 0].argmax(1).tolist() == LABELS.tolist()  # each is its own nearest
    for row in range(7):
        near = cosines[row].topk(3)
        shares = torch.zeros(3)
        for cosine, other in zip(near.values, near.indices, strict=True):
            shares[LABELS[other]] += math.exp(cosine / 0.5)
        torch.testing.assert_close(answers[row, 1], (shares / shares.sum()).clamp(1e-6, 1 - 1e-6), rtol=1e-3, atol=1e-5)
    model.train()
    others = cosines - 2 * torch.eye(7)
    found = model(packed(sequences()))["neighbours_1"].argmax(1)  # type: ignore[index]
    assert found.tolist() == LABELS[others.argmax(1)].tolist()
    near = others.topk(3, dim=1)
    votes = (near.values / 0.5).exp()[:, :, None] * F.one_hot(LABELS[near.indices], 3)
    shares = (votes.sum(1) / votes.sum((1, 2))[:, None]).clamp(1e-6, 1 - 1e-6)
    training = model.answers_of_all(packed(sequences())).exp()[:, 1]
    torch.testing.assert_close(training, shares, rtol=1e-3, atol=1e-5)


def test_nearest_neighbours_of_several_classes() -> None:
    model = make("knn", neighbours=[7])
    targets = F.one_hot(LABELS, 3).float()
    targets[:, 1] = 1
    model.fit([(packed(sequences()), targets)])
    probs = model.eval()(packed(sequences())).sigmoid()  # type: ignore[union-attr]
    assert (probs[:, 1] > 0.999).all()
    assert (probs[LABELS == 0, 0] > 0.5).all()


def test_a_file_that_cannot_be_read_is_no_neighbour() -> None:
    model = make("knn", neighbours=[5])
    assert isinstance(model, NearestNeighbours)
    model.fit([(packed(sequences()[:2]), LABELS[:2])])
    assert int(model.known) == 2
    probs = model.eval()(packed(sequences())).exp()  # type: ignore[union-attr]
    assert (probs[:, 2] < 1e-5).all()
    torch.testing.assert_close(probs.sum(1), torch.ones(7), rtol=1e-4, atol=1e-5)


def test_prototypes_by_hand() -> None:
    model = fitted("prototypes", temperature=0.1).eval()
    vectors = torch.stack([part.mean(0) for part in sequences()])
    unit = F.normalize(vectors - vectors.mean(0), dim=1)
    means = F.normalize(torch.stack([unit[k == LABELS].mean(0) for k in range(3)]), dim=1)
    torch.testing.assert_close(model(packed(sequences())), unit @ means.T / 0.1, rtol=1e-4, atol=1e-4)
    lacking = make("prototypes", temperature=0.1)
    lacking.fit([(packed(sequences()[:2]), LABELS[:2])])
    assert (lacking.eval()(packed(sequences()))[:, 2] == -10).all()


def test_on_videos() -> None:
    """The same heads on a network that is run over the clips, which is not trained."""
    options = {"network": "slow_fusion", "network_options": {"width": 4}, "clip": 4, "num_frames": 4, "size": 32}
    model = create_model("probe", num_classes=3, **options, head="attentive", tokens=True, layer="net.5")
    assert isinstance(model, GradientProbe)
    clips = torch.rand(2, 3, 4, 32, 32)
    logits = model.train()(clips)
    assert isinstance(logits, dict)
    torch.stack(list(logits.values())).square().sum().backward()
    assert all(p.grad is None for p in model.network.parameters())  # type: ignore[union-attr]
    assert all(p.grad is not None for p in model.heads.parameters())
    assert not model.network.training  # type: ignore[union-attr]
    assert model.read(clips)[0].shape[:2] == model.read(clips)[1].shape
    assert model.eval()(clips).shape == (2, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head": "nearest"}, "expected linear, attentive, knn"),
        ({"lr_factors": []}, "model.lr_factors: got [], expected numbers"),
        ({"decay_factors": [1.0, 1.0]}, "each once"),
        ({"head": "knn", "neighbours": [0]}, "model.neighbours: got [0]"),
        ({"head": "attentive", "probe_heads": 3}, "expected a divisor of the width of the tokens, 8"),
        ({"dropout": 1.0}, "model.dropout: got 1.0"),
    ],
)
def test_mistakes(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        create_model("probe", num_classes=3, in_features=8, **options)
    assert message in str(caught.value)
    with pytest.raises(ConfigError, match=r"got features of shape \(1, 2, 5\)"):
        make("linear")(torch.zeros(1, 2, 5))

"""Two streams: what each sees, how they are joined, and the training of one after the other."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import vidtrain
from vidtrain import create_model
from vidtrain.errors import ConfigError
from vidtrain.models.inspect.summary import summarise
from vidtrain.models.two_stream import TwoStream
from vidtrain.tasks.classification.loss import ClassificationLoss

FRAMES = 6


def build(**options: Any) -> TwoStream:
    torch.manual_seed(0)
    return create_model("two_stream_tiny", **{"num_classes": 5, "num_frames": FRAMES, "fusion": "average", **options})


def pair(batch: int = 3, frames: int = FRAMES, size: int = 32) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    rgb = torch.randn(batch, 3, frames, size, size, generator=generator)
    return {"rgb": rgb, "flow": torch.rand(batch, 2, frames - 1, size, size, generator=generator) * 2 - 1}


# ---------------------------------------------------------------- what the streams see


def test_the_temporal_stream_sees_u_and_v_of_each_field_in_turn() -> None:
    model, x = build().eval(), pair()
    seen = []
    model.flow.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        model(x)
    assert seen[0].shape == (3, 2 * (FRAMES - 1), 32, 32)
    for field in range(FRAMES - 1):
        assert torch.equal(seen[0][:, 2 * field], x["flow"][:, 0, field])
        assert torch.equal(seen[0][:, 2 * field + 1], x["flow"][:, 1, field])


@pytest.mark.parametrize("segments", [1, 2, 3, 6])
def test_the_spatial_stream_sees_a_frame_of_each_part(segments: int) -> None:
    x = pair(64)
    x["rgb"] = torch.arange(FRAMES).float().view(1, 1, -1, 1, 1).expand(64, 3, -1, 32, 32)
    model, seen = build(segments=segments), []
    model.rgb.register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs[0][:, 0, 0, 0].unflatten(0, (segments, -1)))
    )
    with torch.no_grad():
        model.train()(x)
        model.eval()(x)
    length = FRAMES // segments
    for part in range(segments):
        assert set(seen[0][part].tolist()) == set(range(part * length, (part + 1) * length))
        assert set(seen[1][part].tolist()) == {part * length + length // 2}


# ---------------------------------------------------------------- fusion


@pytest.mark.parametrize("share", [0.5, 0.3, 0.0, 1.0])
def test_the_softmax_of_the_average_is_the_average_of_the_softmaxes(share: float) -> None:
    model, x = build(rgb_share=share).eval(), pair()
    with torch.no_grad():
        streams = model.head.each(model.forward_features(x))
        expected = share * streams["rgb"].softmax(1) + (1 - share) * streams["flow"].softmax(1)
        torch.testing.assert_close(model(x).softmax(1), expected)


@pytest.mark.parametrize("options", [{}, {"fusion": "concat", "schedule": "streams_first"}])
def test_a_stream_answers_alone(options: dict[str, Any]) -> None:
    model, x = build(**options).eval(), pair()
    other = {**x, "flow": torch.randn_like(x["flow"])}
    both = model(x)
    model.answer_by("rgb")
    rgb = model(x)
    torch.testing.assert_close(model(other), rgb, rtol=0, atol=0)
    model.answer_by("flow")
    assert not torch.equal(model(other), model(x))
    average = (rgb.softmax(1) + model(x).softmax(1)) / 2
    torch.testing.assert_close(average, both.softmax(1))
    with pytest.raises(ConfigError, match=r"stream: got 'rgbb' \(did you mean rgb\?\), expected rgb, flow"):
        model.answer_by("rgbb")
    with pytest.raises(ConfigError, match=r"one classifier for both streams; train with model\.fusion=average"):
        build(fusion="concat", schedule="joint").answer_by("rgb")


def test_concat_is_a_linear_layer_on_both_features() -> None:
    model, x = build(fusion="concat").eval(), pair()
    with torch.no_grad():
        features = model.forward_features(x)
        rgb = model.pool(model.rgb(x["rgb"][:, :, FRAMES // 2])).flatten(1)
        torch.testing.assert_close(features[:, :128], rgb)
        torch.testing.assert_close(model(x), features @ model.head.weight.T + model.head.bias)


@pytest.mark.parametrize("fusion", ["average", "concat"])
def test_joint_training_gives_one_loss_for_all_parameters(fusion: str) -> None:
    model = build(fusion=fusion)
    model.begin_epoch(9, 10)
    logits = model(pair())
    ClassificationLoss().loss(logits, torch.tensor([0, 1, 2])).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("fusion", ["average", "concat"])
@pytest.mark.parametrize("schedule", ["joint", "streams_first"])
def test_renewed_heads(fusion: str, schedule: str) -> None:
    model = build(fusion=fusion, schedule=schedule)
    model.reset_head(9)
    assert {m.out_features for m in model.modules() if isinstance(m, nn.Linear)} == {9}
    assert model.eval()(pair()).shape == (3, 9)


# ---------------------------------------------------------------- streams first


def test_the_streams_learn_alone_and_then_the_fusion_on_frozen_features() -> None:
    model, x, labels = build(fusion="concat", schedule="streams_first"), pair(), torch.tensor([0, 1, 2])
    criterion, optimizer = (
        ClassificationLoss(),
        torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1),
    )

    def epoch(number: int) -> dict[str, torch.Tensor]:
        before = {key: value.clone() for key, value in model.state_dict().items()}
        model.begin_epoch(number, 4)
        model.train()
        criterion.loss(model(x), labels).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}

    for number in (0, 1, 2):
        changed = epoch(number)
        assert {key.split(".")[0] for key in changed} == {"rgb", "flow", "streams"}
        assert any("running_mean" in key for key in changed)
        model.eval()  # a validation scores the average of the streams
        with torch.no_grad():
            streams = model.streams.each(model.forward_features(x))
            expected = (streams["rgb"].softmax(1) + streams["flow"].softmax(1)) / 2
            torch.testing.assert_close(model(x).softmax(1), expected)
    assert epoch(3) == {"head.weight", "head.bias", "fusing"}
    assert not model.rgb.training
    assert model.training


def test_each_stream_has_the_gradient_of_its_own_loss() -> None:
    model, x, labels = build(schedule="streams_first"), pair(), torch.tensor([0, 1, 2])
    model.train()
    torch.manual_seed(3)  # the random frame
    outputs = model(x)
    assert set(outputs) == {"rgb", "flow"}
    ClassificationLoss().loss(outputs, labels).backward()
    alone = build(schedule="streams_first").train()
    torch.manual_seed(3)
    nn.functional.cross_entropy(alone(x)["flow"], labels).backward()
    assert all(
        torch.equal(p.grad, q.grad) for p, q in zip(model.flow.parameters(), alone.flow.parameters(), strict=True)
    )
    assert all(p.grad is None or not p.grad.any() for p in alone.rgb.parameters())


def test_the_fusion_begins_with_the_mean_of_the_streams_and_a_resume_keeps_it() -> None:
    model, x = build(fusion="concat", schedule="streams_first"), pair()
    model.begin_epoch(3, 4)
    model.eval()
    with torch.no_grad():
        streams = model.streams.each(model.forward_features(x))
        torch.testing.assert_close(model(x), (streams["rgb"] + streams["flow"]) / 2)
        model.head.bias.add_(1.0)  # trained a little
    resumed = build(fusion="concat", schedule="streams_first")
    resumed.load_state_dict(model.state_dict())
    assert torch.equal(resumed.eval()(x), model(x))  # a test knows from the weights which classifier counts
    resumed.begin_epoch(3, 4)
    assert torch.equal(resumed.head.bias, model.head.bias)
    assert not any(p.requires_grad for p in resumed.rgb.parameters())
    assert resumed.head.weight.requires_grad


def test_with_the_average_the_streams_learn_in_every_epoch() -> None:
    model = build(schedule="streams_first")
    model.begin_epoch(3, 4)
    assert set(model.train()(pair())) == {"rgb", "flow"}
    assert model.eval()(pair()).shape == (3, 5)


@pytest.mark.parametrize(("fusion_epochs", "epochs", "first"), [(0.25, 8, 6), (0.1, 4, 3), (3, 8, 5)])
def test_when_the_fusion_begins(fusion_epochs: float, epochs: int, first: int) -> None:
    model = build(fusion="concat", schedule="streams_first", fusion_epochs=fusion_epochs)
    for epoch in range(epochs):
        model.begin_epoch(epoch, epochs)
        assert model.frozen == (epoch >= first)


# ---------------------------------------------------------------- the loss


def test_several_logits_cost_the_sum_and_hit_by_their_mean() -> None:
    one, other = torch.tensor([[4.0, 0.0, 0.0], [0.0, 1.0, 0.0]]), torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 3.0]])
    labels, criterion = torch.tensor([0, 2]), ClassificationLoss()
    both = {"rgb": one, "flow": other}
    torch.testing.assert_close(
        criterion.loss(both, labels), criterion.loss(one, labels) + criterion.loss(other, labels)
    )
    assert criterion.hits(both, labels).tolist() == [True, True]
    assert criterion.hits({**both, "logits": other}, labels).tolist() == [False, True]


@pytest.mark.parametrize("options", [{"mixup": 1.0}, {"cutmix": 1.0}])
def test_rgb_and_flow_are_mixed_with_the_same_shares(options: dict[str, float]) -> None:
    torch.manual_seed(0)
    value = torch.arange(4.0).view(4, 1, 1, 1, 1)
    x = {"rgb": value.expand(4, 3, 6, 16, 16).clone(), "flow": 10 * value.expand(4, 2, 5, 16, 16)}
    mixed, targets = ClassificationLoss(**options).mix(x, torch.arange(4), 4)
    assert type(mixed["rgb"]) is torch.Tensor
    assert mixed["rgb"].shape == x["rgb"].shape
    torch.testing.assert_close(mixed["flow"][:, 0, 0], 10 * mixed["rgb"][:, 0, 0])
    assert not torch.equal(mixed["rgb"], x["rgb"])
    torch.testing.assert_close(mixed["rgb"].mean((1, 2, 3, 4)), targets @ torch.arange(4.0))


# ---------------------------------------------------------------- shapes, options, graphs


def test_inputs_that_do_not_fit() -> None:
    model = build()
    with pytest.raises(ConfigError, match=r"expected a dict of rgb .* train and test with flow=dis or flow=cache"):
        model(torch.zeros(1, 3, FRAMES, 32, 32))
    with pytest.raises(
        ConfigError, match=r"clips of 8 frames, but the model was built for 6: set sampler\.num_frames=6"
    ):
        model(pair(frames=8))
    for change in ({"flow": torch.zeros(3, 2, FRAMES, 32, 32)}, {"rgb": torch.zeros(3, 1, FRAMES, 32, 32)}):
        with pytest.raises(ConfigError, match=r"two_stream: got rgb of shape .* and flow of shape"):
            model({**pair(), **change})
    with pytest.raises(ConfigError, match="and flow of shape None"):
        model({"rgb": pair()["rgb"]})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fusion": "svm"}, r"model\.fusion: got 'svm', expected average, concat"),
        ({"schedule": "stream_first"}, r"model\.schedule: got 'stream_first' \(did you mean streams_first\?\)"),
        ({"num_frames": 1}, r"model\.num_frames: got 1, expected 2 or more"),
        ({"segments": 7}, r"model\.segments: got 7, expected at most sampler\.num_frames=6"),
        ({"rgb_share": 1.5}, r"model\.rgb_share: got 1\.5, expected 0 to 1"),
        ({"fusion_epochs": 0}, r"model\.fusion_epochs: got 0, expected a share"),
        ({"fusion_epochs": 1.5}, r"model\.fusion_epochs: got 1\.5"),
    ],
)
def test_options_that_cannot_be_used(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(**options)


def test_no_epoch_left_for_the_streams() -> None:
    model = build(fusion="concat", schedule="streams_first", fusion_epochs=3)
    with pytest.raises(ConfigError, match=r"fusion_epochs=3 of trainer\.epochs=3 leaves none to the streams"):
        model.begin_epoch(0, 3)


@pytest.mark.parametrize("fusion", ["average", pytest.param("concat", marks=pytest.mark.slow)])
def test_exported_and_compiled_in_one_graph(fusion: str) -> None:
    model, x = build(fusion=fusion, segments=2).eval(), pair()
    exported = torch.export.export(model, (x,)).module()
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(exported(x), model(x))
        torch.testing.assert_close(compiled(x), model(x))


def test_the_summary_shows_both_inputs() -> None:
    summary = summarise(vidtrain.create_model("two_stream_tiny", num_classes=4, num_frames=8), 8, 32)
    assert [(row.label, row.path, row.size) for row in summary.rows[:2]] == [
        ("Input", "rgb", (3, 8, 32, 32)),
        ("Input", "flow", (2, 7, 32, 32)),
    ]
    by_path = {row.path: row for row in summary.rows}
    assert by_path["rgb.net.0"].field == (1, 3, 3)
    assert by_path["flow.net.0"].field == (7, 3, 3)
    assert by_path["flow.net.0"].size == (16, 16, 16)

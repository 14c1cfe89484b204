"""tune=probe on every model: a head on the frozen network, which a checkpoint is read back into."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.models.test_every_model import THIN, build, clips
from tests.models.test_tuning import moved, step
from tests.sampled import sampled
from vidtrain.errors import CheckpointError, ConfigError
from vidtrain.models.layers.feature_tap import FeatureTap, last_positions
from vidtrain.models.layers.layer_outputs import channels_second
from vidtrain.models.probe import FeatureProbe
from vidtrain.models.settings import PoolingName, TuneConfig, TuneName
from vidtrain.models.tuning import as_stored, tune, with_probe

QUICK = ("c3d", "csn_tiny", "tsm_tiny", "timm_frames", "two_stream_tiny", "feature_rnn_tiny", "hiera_tiny")
EVERY = sampled([name for name in THIN if name != "probe"], QUICK)
CLASSES = 5


def probe(name: str, **options: Any) -> tuple[FeatureProbe, TuneConfig]:
    chosen = TuneConfig(TuneName.probe, **options)
    model = build(name)
    x = clips(name)
    rgb = x["rgb"] if isinstance(x, dict) else x
    found = with_probe(model, chosen, num_classes=CLASSES, clip=(rgb.shape[2], rgb.shape[3]))
    assert isinstance(found, FeatureProbe)
    return found, chosen


def taken(model: nn.Module, name: str) -> Tensor:
    with torch.no_grad():
        output: Tensor = model.eval()(clips(name))
    return output


@pytest.mark.parametrize("pooling", list(PoolingName))
@pytest.mark.parametrize("name", EVERY)
def test_on_every_model(name: str, pooling: PoolingName) -> None:
    model, options = probe(name, pooling=pooling, heads=1)
    model.fit([(clips(name), torch.tensor([0, 4]))])
    assert model.mean.any() or name.startswith("st_lstm")  # whose last layer with positions starts at zero
    said = tune(model, options)
    attends = pooling is PoolingName.attentive
    assert said.endswith(f": {'a query and ' * attends}a linear layer on {options.layer}")
    assert {key for key, p in model.named_parameters() if p.requires_grad} == {
        key for key, _ in model.named_parameters() if key.startswith("heads.")
    }
    changed = moved(model, step(model, name))
    assert changed  # buffers included: the network's statistics stand still
    assert all(key.startswith("heads.") for key in changed), changed
    other = as_stored(partial(build, name), dict(vars(options)), CLASSES, model.state_dict())
    other.load_state_dict(model.state_dict())
    assert torch.equal(taken(other, name), taken(model, name))


def test_mean_is_the_layer_averaged_and_centred() -> None:
    model, options = probe("slow_tiny", layer="layer3")
    batch = clips("slow_tiny")
    model.fit([(batch, torch.tensor([0, 4]))])
    plain = build("slow_tiny").eval()
    with torch.no_grad():
        vectors = FeatureTap(plain, "layer3")(batch)
        head = model.get_submodule("heads.0.head")
        expected = head((vectors - vectors.mean(0)) / vectors.std(0, correction=0).clamp_min(1e-6))
    torch.testing.assert_close(taken(model, "slow_tiny"), expected, rtol=1e-3, atol=1e-5)
    assert options.layer == "layer3"


def test_attention_reads_positions_where_they_are() -> None:
    """Tokens in another order are the same to it; a clip that is another one in a single frame is not."""
    model, options = probe("slow_tiny", pooling=PoolingName.attentive, heads=2)
    assert (options.layer or "").startswith("layer4")
    read = model.network
    assert read is not None
    assert read.tokens
    with torch.no_grad():
        tokens = read(clips("slow_tiny"))
    assert tokens.ndim == 3
    assert tokens.shape[1] > 1
    for weights in model.parameters():
        nn.init.normal_(weights.data, std=0.5) if weights.requires_grad else None
    batch = clips("slow_tiny")
    first = taken(model, "slow_tiny")
    batch[:, :, 0] += 3
    with torch.no_grad():
        assert not torch.allclose(model.eval()(batch), first, atol=1e-3)


def test_the_last_layer_with_positions() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Conv3d(3, 4, 3), nn.BatchNorm3d(4))
            self.again = nn.Identity()
            self.pool = nn.AdaptiveAvgPool3d(1)
            self.head = nn.Linear(4, 5)

        def forward(self, x: Tensor) -> Tensor:
            x = self.again(self.again(self.body(x)))
            out: Tensor = self.head(self.pool(x).flatten(1))
            return out

    assert last_positions(Net(), torch.zeros(1, 3, 4, 8, 8)) == "body.1"
    with pytest.raises(ConfigError, match="no layer with several positions"):
        last_positions(Net().eval(), torch.zeros(1, 3, 3, 3, 3))


def test_tokens_before_a_layer_that_works_in_place() -> None:
    net = nn.Sequential(nn.Conv3d(3, 4, 1), nn.ReLU(inplace=True))
    tap, x = FeatureTap(net, "0", tokens=True), torch.randn(2, 3, 2, 4, 4)
    torch.testing.assert_close(tap(x), net[0](x).flatten(2).transpose(1, 2))
    assert last_positions(net, x) == "1"


def test_a_layer_norm_of_torch_has_its_channels_last() -> None:
    x = torch.rand(2, 4, 5, 6, 8)  # (B, T, H, W, C), as in video Swin
    assert channels_second(nn.LayerNorm(8), x).shape == (2, 8, 4, 5, 6)
    assert FeatureTap(build("swin3d_t"), "norm")(clips("swin3d_t")).shape[1] == build("swin3d_t").num_features


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("slow_tiny", {"layer": "layer9"}, "layer=layer9: .* has none .did you mean layer"),
        ("slow_tiny", {"pooling": PoolingName.attentive, "heads": 7}, "tune.heads: got 7, expected a divisor"),
        (
            "slow_tiny",
            {"pooling": PoolingName.attentive, "layer": "features"},
            "tokens=true: this layer gives one vector",
        ),
    ],
)
def test_mistakes(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        probe(name, **options)


def test_a_probe_of_a_probe() -> None:
    model, _ = probe("slow_tiny")
    with pytest.raises(ConfigError, match="is a head on a frozen network itself: take tune=full"):
        with_probe(model, TuneConfig(TuneName.probe), num_classes=CLASSES, clip=(8, 32))


@pytest.mark.parametrize(
    "damage",
    [
        {"layer": None},
        {"layer": ["a"]},
        {"pooling": "max"},
        {"pooling": []},
        {"heads": "4"},
        {"heads": 0},
        {"heads": True},
    ],
    ids=str,
)
def test_a_strangers_section(damage: dict[str, Any]) -> None:
    model, options = probe("slow_tiny")
    sound = {**vars(options)}
    with pytest.raises(CheckpointError, match="the file lacks its layer"):
        as_stored(partial(build, "slow_tiny"), {**sound, **damage}, CLASSES, model.state_dict())
    for mean in (None, torch.tensor(3.0), torch.zeros(0), torch.zeros(2, 2), [1.0]):
        with pytest.raises(CheckpointError, match="the file lacks its layer"):
            as_stored(partial(build, "slow_tiny"), sound, CLASSES, {"mean": mean})  # type: ignore[dict-item]
    for other in (None, [], {}, {"name": "full"}, {"name": ["probe"]}):
        assert type(as_stored(partial(build, "slow_tiny"), other, CLASSES, {})) is type(build("slow_tiny"))

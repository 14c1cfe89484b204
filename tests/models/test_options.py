"""Options that a family shares: a factory lists them as its own."""

from __future__ import annotations

import inspect
import typing
from dataclasses import dataclass
from typing import Any

import pytest

import vidtrain
from vidtrain.errors import ConfigError
from vidtrain.ranges import takes


@dataclass(frozen=True, kw_only=True)
class Shared:
    size: int
    depth: int = 3
    names: list[str] | None = None


@takes(Shared, without=("names",), depth=5)
def made(*, kind: str = "plain", **options: Any) -> tuple[str, Shared]:
    """Made."""
    return kind, Shared(names=["x"], **options)


def test_a_factory_lists_what_it_shares() -> None:
    parameters = inspect.signature(made).parameters
    assert {name: p.default for name, p in parameters.items()} == {
        "size": inspect.Parameter.empty,
        "depth": 5,
        "kind": "plain",
    }
    assert {p.kind for p in parameters.values()} == {inspect.Parameter.KEYWORD_ONLY}
    hints = typing.get_type_hints(made)
    assert (hints["size"], hints["kind"], made.__doc__) == (int, str, "Made.")
    assert made(size=1) == ("plain", Shared(size=1, depth=5, names=["x"]))
    assert made(size=1, depth=2, kind="other") == ("other", Shared(size=1, depth=2, names=["x"]))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("vivit_fe", {"widht": 3}, r"no key 'model\.widht' \(did you mean width\?\).*temporal_depth"),
        ("timesformer", {"tubelet": 2}, r"no key 'model\.tubelet'"),
        ("convlstm_dilated", {"stem": 8}, r"model\.stem=8: expected list\[int\], got int"),
        (
            "feature_rnn_tiny",
            {"network_options": [1]},
            r"model\.network_options=\[1\]: expected a mapping \| None, got",
        ),
        ("feature_rnn_tiny", {"network_options": "zzz"}, r"model\.network_options='zzz': expected a mapping \| None"),
        ("feature_rnn_tiny", {"network_options": 0}, r"model\.network_options=0: expected a mapping \| None, got int"),
        ("slow_r50", {"nonlocal_scale": "yes"}, r"model\.nonlocal_scale='yes': expected bool, got str"),
    ],
)
def test_a_mistake_in_a_shared_option_is_found(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        vidtrain.create_model(name, **options)

"""Loading published weights into a model, with an account of what was done:

report = vidtrain.load_weights(model, "SLOWFAST_8x8_R50.pyth")
info = vidtrain.describe_weights("SLOWFAST_8x8_R50.pyth")
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vidtrain.errors import CheckpointError, one_of
from vidtrain.models.layers.position_tables import fit_tables
from vidtrain.models.layers.transformer import Attention
from vidtrain.models.weights.expected_clips import NOTHING, Expects
from vidtrain.models.weights.layout import OTHER_SHAPES, Fit, Layout, Shapes, State, shapes_of
from vidtrain.models.weights.read import Weights, read_weights
from vidtrain.models.weights.recognise import COUNTER, LAYOUTS, recognise
from vidtrain.models.weights.vit_names import filled_biases, head_notes

_OWN = "vidtrain"


@dataclass(frozen=True)
class LoadReport:
    """What became of a file."""

    source: str
    layout: str
    loaded: int
    """Tensors of the model that now hold the file's values."""
    head: str | None
    """Why the last layer kept its fresh weights; None where it was loaded too."""
    left_out: tuple[tuple[str, str], ...]
    """(the file's key, why) of everything that was not loaded."""
    notes: tuple[str, ...] = ()
    """What the weights need that the model does not say, such as a stride of another size."""
    expects: Expects = NOTHING
    """The clips that the file was made for."""

    def to_text(self) -> str:
        """One line, then one for the head, for what was skipped, for the clips it expects and for each note."""
        lines = [f"{self.source}: {self.layout} weights, {self.loaded} tensors loaded"]
        if self.head:
            lines.append(f"classification head re-initialised: {self.head}")
        for why in dict.fromkeys(why for _, why in self.left_out):
            keys = [key for key, reason in self.left_out if reason == why]
            lines.append(f"skipped ({why}): {one_of(keys, 4)}")
        if self.expects.known():
            lines.append(f"expects {self.expects.to_text()}")
        return "\n".join([*lines, *self.notes])


@dataclass(frozen=True)
class WeightsInfo:
    """What a file of weights is."""

    source: str
    layout: str | None
    """None: of no layout known here."""
    model: str | None
    """The model of the catalogue that takes it; None: there is none."""
    options: dict[str, Any]
    """Options of that model other than its YAML's."""
    num_classes: int | None
    """Outputs of its last layer; None where it has none."""
    tensors: int
    parameters: int
    """Elements of all its tensors, running statistics included and counters excluded."""
    first_keys: tuple[str, ...]
    expects: Expects = NOTHING
    """The clips that it was made for."""
    class_names: tuple[str, ...] = ()
    """Of its outputs; () where it names none."""
    others: tuple[Fit, ...] = ()
    """Other nets that have the very same tensors."""
    notes: tuple[str, ...] = ()
    """What loading it into its model would say; filled in by whoever has built that."""

    def to_text(self) -> str:
        """A few aligned lines for a terminal."""
        rows = [
            ("file", self.source),
            ("layout", self.layout or f"not known here; its first keys: {', '.join(self.first_keys)}"),
            ("model", f"model={self.model}" if self.model else "none of the catalogue takes it"),
            ("options", " ".join(f"model.{key}={_shown(value)}" for key, value in self.options.items())),
            ("classes", "no last layer" if self.num_classes is None else str(self.num_classes) + self._named()),
            ("size", f"{self.tensors} tensors, {self.parameters:,} values"),
            ("expects", self.expects.to_text()),
            *(("note", note) for note in self.notes),
        ]
        return "\n".join(f"{name:8} {text}" for name, text in rows if text)

    def _named(self) -> str:
        return f": {one_of(self.class_names, 5)}" if self.class_names else ", without names"


def load_weights(
    model: nn.Module, source: str | Path | Mapping[str, torch.Tensor] | Weights, name: str | None = None
) -> LoadReport:
    """Load a published file, or a state dict under its names, into a model of the catalogue.

    A last layer for another number of classes keeps the model's fresh one. Everything else has to fit to the tensor;
    otherwise nothing is changed.

    Args:
        name: of the model in the catalogue, for what the report says of clips; None: the one that fits.

    Raises:
        CheckpointError: unreadable, of an unknown layout, or of another net than `model`.
    """
    weights = source if isinstance(source, Weights) else read_weights(source)
    state, layout, own_names = recognise(weights, model)
    zoo = layout.name if layout else _OWN
    try:
        ours = state if layout is None or own_names else layout.translate(state, model)
        ours, notes = fit_tables(ours, model)
        ours, more = filled_biases(ours, model.state_dict())
        said = {} if layout is None else _said(layout, weights, shapes_of(state), model)
    except CheckpointError as error:
        raise CheckpointError(f"{weights.source}: {zoo} weights: {error}") from error
    except OTHER_SHAPES as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise CheckpointError(f"{weights.source}: {zoo} weights, some missing or of odd shapes ({reason})") from error
    own = model.state_dict()
    head = _head_trouble(ours, own, model)
    kept = {key for key in own if head and key.startswith(f"{model.head_name}.")}
    trouble = _trouble(ours, own, kept)
    if trouble:
        shapes = shapes_of(state)
        guess = layout or next((layout for layout in LAYOUTS if layout.matches(shapes)), None)
        fit = guess.fit(shapes) if guess else None
        raise CheckpointError(
            f"{weights.source}: its {zoo} weights do not fit this {type(model).__name__}: {trouble}"
            f"{_advice(ours, own, fit)}"
        )
    taken = {key: ours[key] for key in own if key in ours and key not in kept}
    model.load_state_dict(taken, strict=False)
    left_out = [*weights.left_out, *((key, "another last layer") for key in kept if key in ours)]
    left_out += [(key, "a counter of training batches") for key in ours if key not in own]
    known = None if layout is None else _found(layout, weights, shapes_of(state), name)
    if layout is not None and not own_names:
        notes += [*more, *layout.notes(state, model)]
    if layout is not None and weights.config is None and not any("model.heads=" in note for note in notes):
        notes += head_notes(model)
    # what the file's own configuration settles is no assumption
    notes = [note for note in notes if not ("assumed" in note and any(f".{key}=" in note for key in said))]
    expects = NOTHING if known is None else known[1]
    return LoadReport(weights.source, zoo, len(taken), head, tuple(left_out), tuple(notes), expects)


def _said(layout: Layout, weights: Weights, shapes: Shapes, model: nn.Module) -> dict[str, Any]:
    """The options of the net that the file's own configuration states.

    Raises:
        CheckpointError: it has other attention heads than `model`, which no tensor would show.
    """
    fit = layout.fit(shapes)
    said = {} if fit is None else layout.stated(weights.said, fit[0])[0]
    attention = next((module for module in model.modules() if isinstance(module, Attention)), None)
    if attention is not None and said.get("heads", attention.heads) != attention.heads:
        raise CheckpointError(
            f"its configuration says {said['heads']} attention heads, this model has {attention.heads}: "
            f"model.heads={said['heads']}"
        )
    return said


def describe_weights(source: str | Path | Mapping[str, torch.Tensor] | Weights, name: str | None = None) -> WeightsInfo:
    """What a file is and which model of the catalogue takes it; nothing is built.

    Args:
        name: of the model that the user means, where several have the same tensors.

    Raises:
        CheckpointError: unreadable.
    """
    weights = source if isinstance(source, Weights) else read_weights(source)
    state, layout, _ = recognise(weights, None)
    found = _found(layout, weights, shapes_of(state), name) if layout else None
    (model, options), expects = found or ((None, {}), NOTHING)
    known = layout.name if layout else None
    if layout is None and weights.config is not None:
        known, model, options = f"{_OWN} checkpoint", *_configured(weights.config)
    return WeightsInfo(
        source=weights.source,
        layout=known,
        model=model,
        options={key: value for key, value in options.items() if key != "num_classes"},
        num_classes=options.get("num_classes", len(weights.class_names) or None),
        tensors=len(state),
        parameters=sum(tensor.numel() for key, tensor in state.items() if not key.endswith(COUNTER)),
        first_keys=tuple(list(state)[:4]),
        expects=expects,
        class_names=weights.class_names,
        others=tuple(layout.others((model, options))) if layout and model else (),
    )


def _found(layout: Layout, weights: Weights, shapes: Shapes, name: str | None) -> tuple[Fit, Expects] | None:
    """The net of a file and its clips: as the tensors show, and above that as the file itself says."""
    fit = layout.fit(shapes)
    if fit is None:
        return None
    if weights.config is not None and not weights.said:  # a checkpoint, whose clips are in its configuration
        return fit, NOTHING
    model, options = next((other for other in layout.others(fit) if other[0] == name), fit)
    said, clips = layout.stated(weights.said, model)
    options |= said
    if weights.config is not None:  # the clips stand there, the usual ones of such a net say nothing
        return (model, options), clips
    return (model, options), layout.expects(name or model, options).at(options) | clips


# ---------------------------------------------------------------- which layout


def _configured(config: Mapping[str, Any]) -> tuple[str | None, dict[str, Any]]:
    node = config.get("model")
    if not isinstance(node, Mapping):
        return None, {}
    options = {str(key): value for key, value in node.items() if key != "_target_"}
    return str(node.get("_target_", "")).rpartition(".")[2] or None, options


# ---------------------------------------------------------------- whether it fits


def _head_trouble(ours: State, own: State, model: nn.Module) -> str | None:
    """Why the file's last layer cannot be used, where that is nothing to worry about."""
    weight = f"{model.head_name}.weight"
    head = [key for key in own if key.startswith(f"{model.head_name}.")]
    if not any(key in ours for key in head):
        return "the file has none"
    got, wanted = ours.get(weight), own[weight]
    if got is not None and got.shape[1:] == wanted.shape[1:] and got.shape[0] != wanted.shape[0]:
        return f"checkpoint has {got.shape[0]} classes, model has {wanted.shape[0]}"
    return None


def _trouble(ours: State, own: State, kept: set[str]) -> str:
    """What does not fit, with the first keys of each kind; '' where all does."""
    missing = [key for key in own if key not in ours and key not in kept and not key.endswith(COUNTER)]
    unexpected = [key for key in ours if key not in own and not key.endswith(COUNTER)]
    wrong = [
        f"{key} is {tuple(ours[key].shape)}, here {tuple(own[key].shape)}"
        for key in own
        if key in ours and key not in kept and ours[key].shape != own[key].shape
    ]
    kinds = (("missing", missing), ("unexpected", unexpected), ("of another shape", wrong))
    return "; ".join(f"{len(found)} {kind} ({one_of(found, 2)})" for kind, found in kinds if found)


def _advice(ours: State, own: State, fit: Fit | None) -> str:
    if fit is not None:
        name, options = fit
        given = "".join(f", {key}={value!r}" for key, value in options.items())
        on_the_line = "".join(f" model.{k}={_shown(v)}" for k, v in options.items() if k != "num_classes")
        return f"; they fit create_model({name!r}{given}), on the command line model={name}{on_the_line}"
    if any(ours[key].ndim == 4 and own[key].ndim == 5 for key in own if key in ours):
        return "; they are those of a 2D net: start from it with model.inflate_from"
    return ""


def _shown(value: Any) -> str:
    """As Hydra's command line takes it."""
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(_shown, value))}]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)

"""What in a video a network decides by: the answer of `vidtrain explain`, and of a Predictor's explain."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vidtrain.commands.input_videos import Inputs
from vidtrain.commands.scoring import Scorer, scorer_of
from vidtrain.data.clips.dataset import EvalViews
from vidtrain.data.jobs.progress import ProgressBar
from vidtrain.data.manifest.manifest import Manifest
from vidtrain.engine.precision import Precision
from vidtrain.engine.preprocess import ModelRunner
from vidtrain.engine.settings import PrecisionName
from vidtrain.errors import ConfigError, VideoError, did_you_mean, one_of
from vidtrain.explain.deletion import Deletion
from vidtrain.explain.methods import EvidenceMap, MapOptions, evidence_map
from vidtrain.explain.score import ClassScore
from vidtrain.export.network import check_has_layers
from vidtrain.reports.explanation import frame_scores, write_overlay, write_strip
from vidtrain.runs.atomic import prepare_folder, whole_file, write_json
from vidtrain.tasks.classification.task import Classification
from vidtrain.types import Frames, Indices

if TYPE_CHECKING:
    from vidtrain.commands.predictor import Predictor


@dataclass(frozen=True)
class Explanation:
    """Which parts of a clip of a video speak for a class.

    target: the class. probability: that the clip has it. predicted: the class of the whole video.
    clip: which of `clips` it is, from 0. indices, seconds: of the clip's frames in the video, (T,).
    frames: what the network saw, uint8 (T, H, W, 3). values: of the map, float32 (T, H, W) in [0, 1], the largest 1.
    method: gradcam, rollout or occlusion; layer: of Grad-CAM. deletion: what the map is worth, see Deletion.
    """

    path: str
    target: str
    probability: float
    predicted: str
    clip: int
    clips: int
    indices: Indices
    seconds: npt.NDArray[np.float64]
    frames: Frames
    values: npt.NDArray[np.float32]
    method: str
    layer: str | None
    deletion: Deletion

    @property
    def frame_scores(self) -> npt.NDArray[np.float32]:
        """(T,): how much of the map falls on each frame, 1 for the most."""
        return frame_scores(self.values)

    def save(self, folder: str | Path) -> None:
        """Write overlay.mp4, strip.png, map.npy (`values`) and explanation.json (the rest) to a folder."""
        folder = prepare_folder(Path(folder), "output")
        heading = f"{self.target} {self.probability:.3f}   {self._made_by}   {Path(self.path).name}"
        write_strip(folder / "strip.png", self.frames, self.values, self.seconds, heading)
        write_overlay(folder / "overlay.mp4", self.frames, self.values, self.seconds)
        with whole_file(folder / "map.npy") as file:
            np.save(file, self.values)
        write_json(folder / "explanation.json", self._facts())

    @property
    def _made_by(self) -> str:
        return self.method if self.layer is None else f"{self.method} of {self.layer}"

    def _facts(self) -> dict[str, Any]:
        names = ("path", "target", "probability", "predicted", "clip", "clips", "method", "layer")
        return {
            **{name: getattr(self, name) for name in names},
            "frames": self.indices.tolist(),
            "seconds": [round(s, 4) for s in self.seconds.tolist()],
            "frame_scores": [round(s, 4) for s in self.frame_scores.tolist()],
            "deletion": asdict(self.deletion),
        }

    def lines(self) -> list[str]:
        """What it says, for a terminal."""
        order = np.argsort(-self.frame_scores, kind="stable")[:3]
        most = ", ".join(dict.fromkeys(f"{self.seconds[n]:.2f} s" for n in sorted(order)))  # a frame may be repeated
        other = "" if self.predicted == self.target else f"; the video is classified as {self.predicted}"
        where = f"clip {self.clip} of {self.clips}, {self.seconds[0]:.2f} s to {self.seconds[-1]:.2f} s"
        lines = [f"{self.path}: {self.target} {self.probability:.4f} ({where}){other}"]
        if not self.values.any():
            return [*lines, f"  {self._made_by}: nothing in this clip speaks for {self.target}"]
        lines.append(f"  {self._made_by}; most of it at {most}")
        note = "" if self.deletion.faithful else ": the class does not depend on what the map marks, do not rely on it"
        return [*lines, f"  {self.deletion}{note}"]


def explain(
    predictor: Predictor,
    video: Any,
    *,
    target: str | None = None,
    options: MapOptions | None = None,
    clip: int | None = None,
    fps: float | None = None,
    **views: Any,
) -> Explanation:
    """Which parts of a video speak for a class, in float32: see docs/explain.md. It is a method of Predictor.

    Args:
        video: one, as in `predict`. target: a class; None: the one that the video is classified as.
        options: the method and what belongs to it; None: the method that suits the network.
        clip: its number; None: the clip with the highest probability of the class.
        fps, views: see `predict`, which takes protocol, clips, crops, hop and batch_size.

    Raises:
        VideoError: it cannot be read, or the network's output is not finite.
        ConfigError: no such class, clip or layer; a method that does not fit.
    """
    task = predictor.task
    if not isinstance(task, Classification):
        raise ConfigError(f"{type(task).__name__} gives no classes to explain")
    check_has_layers(predictor.model)
    with Inputs(video, fps) as inputs:
        if not inputs.single:
            raise ConfigError(f"explain takes one video, got {len(inputs.paths)}: call it for each")
        seen = predictor.views(views.pop("protocol", None), views, inputs)
        precision = Precision(PrecisionName.fp32, predictor.device)
        scorer = scorer_of(predictor.config, seen, precision, 0, inputs.reader)
        network = scorer.network(predictor.model.eval())
        shown = _shown_clip(network, task, scorer, inputs.paths[0], target, clip)
        temperature = task.calibration.temperature or 1.0
        score = ClassScore(predictor.model, network, shown.number, task.multi_label, temperature)
        found = _mapped(score, network.ready(shown.inputs), options or MapOptions())
    return Explanation(
        path=inputs.names[0],
        target=task.class_names[shown.number],
        probability=shown.probability,
        predicted=task.class_names[shown.predicted],
        clip=shown.clip,
        clips=shown.clips,
        indices=shown.indices,
        seconds=shown.seconds,
        frames=shown.inputs["rgb"][0, 0].numpy(),
        values=found.values.cpu().numpy(),
        method=str(found.method),
        layer=found.layer,
        deletion=found.deletion,
    )


@dataclass(frozen=True)
class _ShownClip:
    """inputs: of one view, as a Batch has them. number: of the class that is explained; the rest as in Explanation."""

    inputs: dict[str, Tensor]
    number: int
    predicted: int
    probability: float
    clip: int
    clips: int
    indices: Indices
    seconds: npt.NDArray[np.float64]


def _shown_clip(
    network: ModelRunner, task: Classification, scorer: Scorer, path: str, target: str | None, clip: int | None
) -> _ShownClip:
    """The view of a video in which the class has the highest probability, of one clip or of all."""
    views = EvalViews(Manifest.of([path], [-1]), scorer.parts, scorer.config.eval)
    with views.reader.open(path) as video:
        indices, crops = views.indices(video, 0), len(views.cuts.all(video.info))
        if clip is not None and not 0 <= clip < len(indices):
            raise ConfigError(f"clip={clip}: {path} has {len(indices)} clips, the last is clip={len(indices) - 1}")
        size = views.batch_size
        step = max(1, size // crops)
        starts = range(0, len(indices), step)
        logits = torch.cat([_logits(network, views.read(video, 0, indices[at : at + step]), size) for at in starts])
        probs = task.columns(logits[:, None], torch.full((len(logits),), -1), "")["probs"]
        mean = task.columns(logits[None], torch.tensor([-1]), scorer.average)["probs"][0]
        if not probs.isfinite().all():
            raise VideoError(path, scorer.not_finite)
        predicted = int(mean.argmax())
        number = predicted if target is None else class_number(task.class_names, target)
        first, end = (0, len(probs)) if clip is None else (clip * crops, (clip + 1) * crops)
        best = first + int(probs[first:end, number].argmax())
        chosen, crop = divmod(best, crops)
        read = views.read(video, 0, indices[chosen : chosen + 1])
        times, rate = video.info.times, video.info.fps
    shown = indices[chosen]
    return _ShownClip(
        inputs={name: torch.from_numpy(value[crop][None, None]) for name, value in read.items()},
        number=number,
        predicted=predicted,
        probability=float(probs[best, number]),
        clip=chosen,
        clips=len(indices),
        indices=shown,
        seconds=np.asarray(shown / rate if times is None else times[shown], np.float64),
    )


def _mapped(score: ClassScore, inputs: dict[str, Tensor], options: MapOptions) -> EvidenceMap:
    """With a bar while occlusion works."""
    with ExitStack() as stack:
        bars: list[ProgressBar] = []

        def step(boxes: int) -> None:
            if not bars:
                bars.append(stack.enter_context(ProgressBar(boxes, "occluding", unit="window")))
            bars[0].step()

        return evidence_map(score, inputs, options, step)


def class_number(class_names: list[str], name: str) -> int:
    """Raises ConfigError for a name that is none of the classes."""
    if name not in class_names:
        hint = did_you_mean(name, class_names)
        raise ConfigError(f"target={name}: the network has no such class{hint}; it has: {one_of(class_names)}")
    return class_names.index(name)


@torch.inference_mode()
def _logits(network: ModelRunner, views: dict[str, Frames], batch_size: int) -> Tensor:
    """(N, K) on the CPU, of N views."""
    found = []
    for at in range(0, len(views["rgb"]), batch_size):
        part = {name: torch.from_numpy(value[at : at + batch_size])[None] for name, value in views.items()}
        found.append(network(network.ready(part)).float().cpu())
    return torch.cat(found)

"""A trained network with all it needs to be asked about videos: what `vidtrain predict` and vidtrain.load share.

clf = vidtrain.load("best.pt")
clf.predict("clip.mp4").label
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from vidtrain import build
from vidtrain.commands.calibrating import note_other_protocol
from vidtrain.commands.explanation import explain
from vidtrain.commands.input_videos import Inputs
from vidtrain.commands.scoring import scorer_of
from vidtrain.commands.video_prediction import Prediction
from vidtrain.data.clips.loader import choose_workers
from vidtrain.data.manifest.manifest import Manifest
from vidtrain.data.readers.arrays import ArrayReader
from vidtrain.data.settings import EvalConfig, EvalProtocol
from vidtrain.engine.evaluator import predict_videos
from vidtrain.engine.extract import ViewFeatures
from vidtrain.engine.precision import Precision, choose_device
from vidtrain.engine.preprocess import ModelRunner, model_inputs
from vidtrain.errors import ConfigError, DataError, VideoError, one_of
from vidtrain.export.network import check_has_layers
from vidtrain.hub_folder import checkpoint_file
from vidtrain.models.layers.feature_tap import FeatureTap
from vidtrain.models.weights.expected_clips import Expects
from vidtrain.options.checkpoint_config import changed_eval
from vidtrain.options.schema import TrainConfig
from vidtrain.published import Subject, clips_of
from vidtrain.tasks.classification.metrics import best_classes
from vidtrain.tasks.classification.task import Classification
from vidtrain.tasks.segments.task import Segments
from vidtrain.tasks.task import Predictions, Predicts
from vidtrain.types import BadVideo

log = logging.getLogger("vidtrain")


class Predictor:
    """A network that is asked about videos by the clips, crops and averaging that it was tested with.

    Attributes:
        model: the network, in eval mode. class_names: of its outputs, in their order. config: the run's, typed.
    """

    def __init__(
        self,
        config: TrainConfig,
        model: nn.Module,
        class_names: Sequence[str],
        device: torch.device,
        *,
        content: Mapping[str, Any] = MappingProxyType({}),
        source: str = "",
    ) -> None:
        """content: of the checkpoint, of which multi_label and calibration count. source: the file it comes from.

        Raises:
            ConfigError: it reads other things than videos.
        """
        if getattr(model, "in_features", None) is not None:
            raise ConfigError("predict reads videos, this checkpoint features: vidtrain extract, then vidtrain eval")
        build.check_flow(model, config.flow)
        self.config = config
        self.model = model.to(device).eval()
        self.class_names = list(class_names)
        multi_label, calibration = bool(content.get("multi_label")), content.get("calibration")
        self.task = build.build_task(config.task, class_names, multi_label=multi_label, calibration=calibration)
        if isinstance(self.task, Classification):
            note_other_protocol(self.task.calibration, self._protocol)
        self.device = device
        self.source = source

    def __repr__(self) -> str:
        name = str(self.config.model.get("_target_")).rpartition(".")[2]
        classes = f"{len(self.class_names)} classes ({one_of(self.class_names, 3)})"
        return f"<vidtrain {name} from {self.source}: {classes}; {self._protocol}; on {self.device}>"

    @property
    def _protocol(self) -> str:
        return build.protocol(self.config.sampler, self.config.transform, self.config.eval)

    def to(self, device: str | torch.device) -> Predictor:
        """Move the network: "cpu", "cuda", "cuda:1", "mps" or "auto". Returns itself."""
        self.device = choose_device(str(device))
        self.model.to(self.device)
        return self

    @property
    def preprocessing(self) -> Expects:
        """The clips that the network was trained on: num_frames, stride or fps, resize, size, mean, std."""
        return clips_of(self.config)

    def predict(
        self,
        videos: Any,
        *,
        top: int = 5,
        fps: float | None = None,
        protocol: str | None = None,
        clips: int | None = None,
        crops: int | None = None,
        hop: float | str | None = None,
        batch_size: int | None = None,
        workers: int | None = None,
    ) -> Any:
        """The most probable classes of a video, or of each of several, with the numbers of `vidtrain predict`.

        Args:
            videos: the path of a video; frames, uint8 (T, H, W, 3), as an array or a tensor; or an open binary file:
                one Prediction. A list of these, a folder or a glob: a list of them, in which a video that cannot be
                read has `error` set, unless it is so with all.
            top: how many classes.
            fps: frames per second of arrays, where the clips depend on it.
            protocol: a choice of conf/eval, such as "pyslowfast", in place of the run's.
            clips, crops, hop, batch_size: see `vidtrain eval --help`, eval.*; None: those of the run or the protocol.
            workers: decoding processes; None: as many as trainer.num_workers says, none for one video and for arrays.

        Raises:
            VideoError: the one video cannot be read, or the network's output is not finite.
            DataError: none of several can; there is none.
            ConfigError: a value that its argument cannot have.
        """
        if isinstance(self.task, Segments):
            raise ConfigError("this network was trained with task=segments: clf.timeline(video) says what happens when")
        if not isinstance(self.task, Classification):
            raise ConfigError(f"{type(self.task).__name__} gives no classes: see vidtrain predict")
        if top < 1:
            raise ConfigError(f"top={top}: must be at least 1")
        given = {"clips": clips, "crops": crops, "hop": hop, "batch_size": batch_size}
        calibration = self.task.calibration

        def prediction(name: str, columns: Mapping[str, Tensor]) -> Prediction:
            probs = columns["probs"]
            values, classes = best_classes(probs, top)
            names = [self.class_names[n] for n in classes.tolist()]
            rejected = bool(calibration.rejects(probs))
            return Prediction(name, list(zip(names, values.tolist(), strict=True)), probs, rejected)

        with Inputs(videos, fps) as inputs:
            views = self.views(protocol, given, inputs)
            found, bad = self._each(inputs, views, self.model, self.task, workers, prediction)
        if bad and inputs.single:
            raise VideoError(bad[0].path, bad[0].reason)
        if bad:
            where = f"{len(bad)} of {len(inputs.paths)} videos have no prediction; the first: "
            if len(bad) == len(inputs.paths):
                raise DataError(f"{where}{bad[0].path}: {bad[0].reason}")
            log.warning("%s%s: %s", where, bad[0].path, bad[0].reason)
        reasons = {video.path: video.reason for video in bad}
        whole = [found.get(row) or Prediction(name, error=reasons[name]) for row, name in enumerate(inputs.names)]
        return whole[0] if inputs.single else whole

    def features(
        self,
        videos: Any,
        *,
        layer: str | None = None,
        fps: float | None = None,
        protocol: str | None = None,
        clips: int | None = None,
        crops: int | None = None,
        hop: float | str | None = None,
        batch_size: int | None = None,
        workers: int | None = None,
    ) -> Any:
        """What a layer makes of each view of a video: float32 (views, D), or a list of these for several videos.

        Args:
            layer: "features" (what the classification head reads), "embed" where the network has it, or the name of a
                module, such as "layer3", averaged over the space and time that are left; None: as `vidtrain extract`.
            videos and all else: see `predict`.

        Raises:
            VideoError: a video cannot be read, or the layer's output is not finite.
            ConfigError: no such layer; a network that reads flow.
        """
        check_has_layers(self.model)
        if model_inputs(self.model) != ("rgb",):
            raise ConfigError(f"features are those of RGB: {type(self.model).__name__} reads optical flow, too")
        given = {"clips": clips, "crops": crops, "hop": hop, "batch_size": batch_size}
        with Inputs(videos, fps) as inputs:
            views, tap = self.views(protocol, given, inputs), FeatureTap(self.model, layer)
            found, bad = self._each(inputs, views, tap, ViewFeatures(), workers, lambda _, columns: columns["features"])
        if bad:
            raise VideoError(bad[0].path, bad[0].reason)
        whole = [found[row] for row in range(len(inputs.names))]
        return whole[0] if inputs.single else whole

    def timeline(
        self, videos: Any, *, hop: float | str | None = None, workers: int | None = None, **segments: Any
    ) -> Any:
        """What happens in a video when: a VideoTimeline, or a list of these for a list, a folder or a glob.

        Args:
            videos: the path of a video of any length, a list of paths, a folder or a glob.
            hop: from a window to the next, source frames (16) or seconds ("0.5s"); None: a quarter of a window.
            workers: see `predict`.
            segments: smoothing and so on, see `vidtrain predict --help`; task=segments brings those of its test.

        Raises:
            ConfigError: a value that its argument cannot have; a network that reads flow, or gives no classes.
            VideoError: the one video cannot be read; of several, each has its `error`.
        """
        from vidtrain.commands.timeline import Slider, segments_config

        slider = Slider(self, segments_config(segments, self.task), hop=hop)
        with Inputs(videos, None) as inputs:
            if inputs.reader is not None:
                raise ConfigError("timeline reads files: write the array to a video first")
            if workers is None and inputs.single:
                workers = 0
            found = {video.path: video for video in slider.timelines(inputs.paths, workers=workers)}
        whole = [found[path] for path in inputs.paths]
        if inputs.single and whole[0].error is not None:
            raise VideoError(whole[0].path, whole[0].error)
        return whole[0] if inputs.single else whole

    explain = explain

    def predictions(
        self,
        manifest: Manifest,
        views: EvalConfig,
        *,
        workers: int | None = None,
        arrays: ArrayReader | None = None,
        model: nn.Module | None = None,
        task: Predicts | None = None,
    ) -> Iterator[Predictions]:
        """What the task answers for each video, as it is found; `bad` also has those whose output is not finite.

        Args:
            workers: see `predict`.
            arrays: the videos of the manifest that are in memory.
            model, task: asked in place of the predictor's own.
        """
        if workers is None:
            config = self.config.trainer.num_workers
            workers = 0 if len(manifest) == 1 or arrays else choose_workers(config, self.device)
        precision = Precision(self.config.trainer.precision, self.device)
        scorer = scorer_of(self.config, views, precision, workers, arrays)
        network: ModelRunner = scorer.network((self.model if model is None else model).eval())
        batches = scorer.batches(manifest, views)
        asked, size = task or self.task, views.batch_size
        for found in predict_videos(asked, network, batches, views_per_forward=size, average=scorer.average):
            found.bad += [BadVideo(manifest.paths[row], scorer.not_finite) for row in found.not_finite]
            yield found

    def _each(
        self,
        inputs: Inputs,
        views: EvalConfig,
        model: nn.Module,
        task: Predicts,
        workers: int | None,
        made: Callable[[str, Mapping[str, Tensor]], Any],
    ) -> tuple[dict[int, Any], list[BadVideo]]:
        """What is made of the columns of each video, by its number, and the others by their names."""
        manifest = Manifest.of(inputs.paths, [-1] * len(inputs.paths))
        found, bad = {}, []
        name_of = dict(zip(inputs.paths, inputs.names, strict=True))
        for part in self.predictions(manifest, views, workers=workers, arrays=inputs.reader, model=model, task=task):
            bad += [BadVideo(name_of[video.path], video.reason) for video in part.bad]
            for number, row in enumerate(part.videos.tolist()):
                columns = {key: column[number] for key, column in part.columns.items()}
                found[row] = made(inputs.names[row], columns)
        return found, bad

    def views(self, protocol: str | None, given: Mapping[str, Any], inputs: Inputs) -> EvalConfig:
        """The run's views with a choice of conf/eval and the arguments that were given on top."""
        own = {key: value for key, value in given.items() if value is not None}
        views = changed_eval(self.config.eval, protocol, own)
        timed = self.config.sampler.fps is not None or views.protocol is not EvalProtocol.vidtrain
        if inputs.rateless and (timed or isinstance(views.hop, str)):
            raise ConfigError("fps is not set: the clips depend on the rate of the array; give fps=...")
        return views


def load(
    path: str | os.PathLike[str],
    model: str | None = None,
    *,
    class_names: str | Sequence[str] | None = None,
    device: str | torch.device = "auto",
    trust: Sequence[str] = (),
    **options: Any,
) -> Predictor:
    """A trained network, ready to be asked about videos.

    Args:
        path: a checkpoint, the folder of a run, whose best.pt it is, runs/DATA/MODEL, of the newest run, or a folder
            that `vidtrain publish` has written; with `model` a published file.
        model: the network of the catalogue that the published file is of; it is asked by the clips that it was
            published with. options: those of the network that the file does not show, and num_frames and size.
        class_names: of a published file that does not hold them: a list, "kinetics400", or a file of names.
        device: "auto" (a GPU where there is one), "cpu", "cuda", "cuda:1", "mps".
        trust: modules outside vidtrain that the checkpoint's configuration may call.

    Raises:
        CheckpointError: no checkpoint, or one that cannot be used.
        ConfigError: no such device; the network reads no videos.
    """
    source = os.fspath(path)
    if model is not None:
        subject = Subject.of_file(source, model, options)
    elif options or class_names is not None:
        key = next(iter(options), "class_names")
        raise ConfigError(f"{key}=... goes with a published file and model=NAME; a checkpoint brings its own")
    else:
        source = checkpoint_file(path)
        subject = Subject.of_checkpoint(source, trust=trust, device=str(device))
        device = subject.config.trainer.device
    with torch.random.fork_rng(devices=[]):  # building it draws weights, which the file's replace
        network, names = subject.classifier(class_names)
    return Predictor(subject.config, network, names, choose_device(str(device)), content=subject.content, source=source)

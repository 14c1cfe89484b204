"""The network that made a folder of features, asked about other videos: what `vidtrain extract` would write of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from vidtrain import build
from vidtrain.commands import extract
from vidtrain.data.clips.loader import choose_workers
from vidtrain.data.clips.stream import ClipStream, VideoEnd
from vidtrain.data.clips.workers import Workers
from vidtrain.data.features.files import Features, Video
from vidtrain.data.features.index import seconds_of_clips
from vidtrain.data.manifest.manifest import FeatureInfo, VideoData
from vidtrain.data.readers.timeline import Seconds, Timeline
from vidtrain.engine.extract import encode
from vidtrain.engine.precision import Precision, choose_device
from vidtrain.engine.preprocess import ModelRunner, Preprocess
from vidtrain.errors import ConfigError
from vidtrain.hub_folder import checkpoint_file, load_trained
from vidtrain.options.checkpoint_config import with_values
from vidtrain.options.invocation import Invocation


@dataclass(frozen=True, eq=False)
class EncodedVideo:
    """What the network makes of a video.

    row: its number among those that were asked about. features: (clips, D), or of tokens (clips, P, D), of the
    folder's type. times: float64 (clips, 2), from when to when each clip goes. seconds: the length of the video.
    error: why there is nothing of it, None otherwise.
    """

    row: int
    features: Features
    times: Seconds
    seconds: float = 0.0
    error: str | None = None


class Encoder:
    """Args:
        call: of the command, whose sections a checkpoint brings; trainer, decoder and eval.batch_size count.
        info: of the folder.
        folder: for messages, the option with its value: index=FOLDER.
        checkpoint: the .pt file; None: the one that the folder names.
        class_names: of the folder.

    Attributes:
        device: that it runs on.

    Raises:
        ConfigError: these are not the settings or weights that made the features; the folder names no checkpoint.
    """

    def __init__(
        self,
        call: Invocation[Any],
        info: FeatureInfo,
        folder: str,
        *,
        class_names: Sequence[str],
        checkpoint: str | None = None,
        trust: Sequence[str] = (),
    ) -> None:
        made, file = info.made_by, checkpoint or info.checkpoint
        if file is None:
            raise ConfigError(f"{folder}: names no checkpoint that made it: give checkpoint=FILE")
        file = checkpoint_file(file)
        wanted = extract.ExtractCommandConfig(
            checkpoint=file,
            output="",
            layer=str(made.get("layer")),
            tokens=info.tokens is not None,
            hop=made.get("hop"),
            clips=made.get("clips"),
            dtype=extract.FeatureType(made.get("dtype")),
            trust=list(trust),
        )
        content = load_trained(file)
        as_made = replace(with_values(call, made, ("sampler", "transform")), options=wanted)
        config, _ = extract.configuration(as_made, content)
        self.device = choose_device(config.trainer.device)
        precision = Precision(config.trainer.precision, self.device)
        network = extract.tapped_network(wanted, config, content, VideoData(tuple(class_names), {}), len(class_names))
        now = extract.settings_of(wanted, config, network, precision)
        for key in [*now, *made]:
            if now.get(key) != made.get(key):
                raise ConfigError(
                    f"{folder}: was made with {key}={made.get(key)}, checkpoint={file} has "
                    f"{now.get(key)}: give the checkpoint and the options that made it"
                )
        self._config, self._hop, self._spread = config, wanted.hop, extract.spread_clips(wanted, config)
        self._dtype: torch.dtype = getattr(torch, wanted.dtype)
        preprocess = Preprocess(config.transform.mean, config.transform.std, self.device)
        self._network = ModelRunner(network.to(self.device), preprocess, precision)

    def videos(self, paths: Sequence[str]) -> Iterator[EncodedVideo]:
        """Each of them once, as it is finished."""
        config = self._config
        parts = build.make_parts(config.decoder, config.sampler, config.transform)
        manifest, size = extract.manifest_of_videos([Video(path) for path in paths]), config.eval.batch_size
        clips = ClipStream(manifest, parts, hop=self._hop, clips=self._spread, batch_size=size)
        workers = 0 if len(paths) == 1 else choose_workers(config.trainer.num_workers, self.device)
        pinned = self.device.type == "cuda"
        batches = clips.loader(Workers(workers, pinned, config.trainer.data_timeout))
        found: dict[int, list[Features]] = {}
        for batch, vectors in encode(self._network, batches, self._dtype):
            for row in batch.restarted:
                found.pop(row, None)
            for row, vector in zip(batch.videos.tolist(), vectors.numpy(), strict=True):
                found.setdefault(row, []).append(vector)
            for end in batch.ends:
                yield self._finished(end, found.pop(end.video))
            for row, bad in batch.bad:
                found.pop(row, None)
                yield EncodedVideo(row, np.empty((0, 0)), np.empty((0, 2)), error=bad.reason)

    def _finished(self, end: VideoEnd, vectors: list[Features]) -> EncodedVideo:
        line = Timeline(end.frames, end.fps, end.times)
        times = seconds_of_clips(line, self._config.sampler, hop=self._hop, clips=self._spread)
        return EncodedVideo(end.video, np.stack(vectors), times, line.end)

"""vidtrain explain: which parts of a video speak for a class, as a map over its frames."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from omegaconf import MISSING

from vidtrain import published
from vidtrain.commands.input_videos import find_inputs, refuse_bad
from vidtrain.commands.predictor import Predictor
from vidtrain.engine.precision import choose_device
from vidtrain.errors import ConfigError, VideoError
from vidtrain.explain.methods import MapOptions, Method
from vidtrain.explain.score import Fill
from vidtrain.options.invocation import Invocation
from vidtrain.options.schema import FlowSection, NetworkOptions
from vidtrain.ranges import number
from vidtrain.runs.atomic import prepare_folder
from vidtrain.terminal import print_line
from vidtrain.types import BadVideo, FilePath


@dataclass
class ExplainConfig(NetworkOptions, FlowSection):
    input: FilePath = MISSING
    """A video, a folder of videos, or a glob in quotes: input='clips/*.mp4'."""
    target: str | None = None
    """The class whose evidence is shown; null: the one that the video is classified as."""
    method: Method = Method.auto
    """rollout (transformers), gradcam, occlusion (any network, slow); auto: the first that proves true on the clip."""
    layer: str | None = None
    """gradcam: the module whose maps are used, such as layer4; null: the last one with maps that are fine enough."""
    window: list[int] | None = number(None, least=1)
    """occlusion: frames and pixels of the box that is taken away, [4,16]; null: a quarter of the clip each way."""
    fill: Fill = Fill.mean
    """What is put in place of what is taken away: mean, the clip's colour; still: each pixel's mean over time."""
    clip: int | None = number(None, least=0)
    """Which of the video's clips (eval.clips, eval.hop), from 0; null: that with the target's highest probability."""
    output: FilePath = "explain"
    """Folder for the results, a folder in it for each video: strip.png, overlay.mp4, map.npy, explanation.json."""


def run(call: Invocation[ExplainConfig]) -> None:
    """Explain every readable video; those that cannot be read are errors at the end."""
    call = published.folder_as_checkpoint(call)
    options = call.options
    if options.window is not None and len(options.window) != 2:
        raise ConfigError(f"window={options.window}: expected two numbers, frames and pixels: window=[4,16]")
    subject = published.Subject.of(call)
    config = subject.config
    paths = find_inputs(options.input)
    output = prepare_folder(Path(options.output), "output")
    device = choose_device(config.trainer.device)
    model, names = subject.classifier(options.class_names)
    predictor = Predictor(config, model, names, device, content=subject.content)
    window = None if options.window is None else (options.window[0], options.window[1])
    how = MapOptions(options.method, options.layer, window, options.fill, config.eval.batch_size)

    bad: list[BadVideo] = []
    for path, folder in zip(paths, _folders(paths), strict=True):
        try:
            found = predictor.explain(path, target=options.target, options=how, clip=options.clip)
        except VideoError as error:
            bad.append(BadVideo(error.path, error.reason))
            continue
        found.save(output / folder)
        for line in found.lines():
            print_line(line)
        print_line(f"  {output / folder / 'strip.png'}, overlay.mp4")
    refuse_bad(bad, len(paths))


def _folders(paths: Sequence[str]) -> list[str]:
    """A name for each video: that of its file without the suffix, and a number where several share it."""
    stems = [Path(path).stem for path in paths]
    total = Counter(stems)
    taken = {stem for stem in stems if total[stem] == 1}
    found = []
    for stem in stems:
        name = stem
        if total[stem] > 1:
            name = next(numbered for n in count(1) if (numbered := f"{stem}_{n}") not in taken)
            taken.add(name)
        found.append(name)
    return found

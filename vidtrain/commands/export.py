"""vidtrain export: a trained network as a file that runs without PyTorch, kept if it gives what the network gives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from omegaconf import MISSING
from torch import nn

from vidtrain import build, published
from vidtrain.commands.export_clips import ExportClips
from vidtrain.commands.export_files import ExportFormat, Exporting, ExportSource, check_packages
from vidtrain.commands.publish import portable
from vidtrain.data.settings import SampleMode
from vidtrain.engine.preprocess import model_inputs
from vidtrain.errors import ConfigError, one_of
from vidtrain.export.contract import EXPORTED
from vidtrain.live.streaming_models import why_no_state
from vidtrain.options.given_options import refuse_unread
from vidtrain.options.invocation import Invocation, plain
from vidtrain.options.schema import DataSection, FlowSection, NetworkOptions, SplitName, TrainConfig
from vidtrain.ranges import LONGEST, number
from vidtrain.runs.atomic import named_when_full, prepare_folder
from vidtrain.runs.sole_writer import sole_writer
from vidtrain.types import FilePath, Text

_SECTIONS: Final = ("task", "model", "data", "decoder", "flow")
"""Of a run's configuration, beside those of its clips: what a question needs. The rest is of its training."""


@dataclass
class ExportConfig(NetworkOptions, DataSection, FlowSection):
    format: Text = "onnx"
    """onnx, pt2 (torch.export), openvino or executorch; several: format=onnx,openvino."""
    output: FilePath = MISSING
    """Folder for model.onnx and so on, export.json with what was measured, and run_onnx.py or run_stream.py."""
    input: FilePath | None = None
    """Videos on whose clips the files are compared with the network, as in predict; null: those of split."""
    split: SplitName = SplitName.val
    """Whose clips are compared and calibrated on, and whose accuracy is measured: train, val or test."""
    clips: int = number(32, least=2, most=4096)
    """Clips that are compared."""
    stream: bool = False
    """Networks with a state: model.onnx takes one frame and the state, and gives the next state, for live streams."""
    tolerance: float = number(1e-4, above=0)
    """A file whose logits differ by more than this share of their standard deviation is not kept."""
    int8: bool = False
    """Also write model_int8.onnx, whose convolutions and matrix products compute in 8-bit integers."""
    int8_clips: int = number(128, least=1, most=4096)
    """Clips that int8 takes its ranges from."""
    bench: bool = False
    """Measure accuracy, and the time of a clip, of the network and of each file, on this machine."""
    seconds: float = number(5.0, above=0, most=LONGEST)
    """bench: time of each measurement."""

    def formats(self) -> list[ExportFormat]:
        """Raises ConfigError for a word that is none."""
        words = [word.strip() for word in self.format.split(",")]
        if unknown := [word for word in words if word not in list(ExportFormat)]:
            raise ConfigError(f"format={self.format}: no format '{unknown[0]}'; allowed: {one_of(ExportFormat)}")
        if self.int8 and ExportFormat.onnx not in words:
            raise ConfigError(f"int8=true quantises the ONNX file: format={self.format},onnx")
        if self.stream and (self.int8 or words != ["onnx"]):
            got = f"format={self.format} int8={str(self.int8).lower()}"
            raise ConfigError(f"{got}: stream=true writes an ONNX file in float32 alone: format=onnx int8=false")
        return [one for one in ExportFormat if one in words]


def run(call: Invocation[ExportConfig]) -> None:
    """Write the files, each once it gives what the network gives; print what was measured and how they are run."""
    call = published.folder_as_checkpoint(call)
    options = call.options
    wanted = options.formats()
    if options.input is not None:
        refuse_unread(("data", "split"), f"input={options.input} names the videos, the dataset is not read")
    check_packages(wanted, int8=options.int8)
    subject = published.Subject.of(call)
    if EXPORTED in subject.content:
        raise ConfigError(f"checkpoint={options.checkpoint}: is an exported file: export the checkpoint it came from")
    clips = ExportClips(subject.config, str(options.split), options.input)
    model, names = subject.classifier(options.class_names, clips.class_names)
    if "features" in model_inputs(model):
        raise ConfigError(f"{type(model).__name__} reads features, not frames: there is no file to ask about a video")
    build.check_flow(model, subject.config.flow)
    if options.stream:
        _check_streams(model, subject.config)
    content = _content(subject, names, options)
    with _output(Path(options.output)) as folder:
        exporting = Exporting(ExportSource(subject.config, model, content), clips, folder, options.tolerance)
        if options.stream:
            exporting.write_stream(compared=options.clips)
        else:
            exporting.write(wanted, compared=options.clips, int8=options.int8_clips if options.int8 else None)
        if options.int8 or options.bench:
            exporting.measure(seconds=options.seconds if options.bench else None)
        exporting.finish()


@contextmanager
def _output(folder: Path) -> Iterator[Path]:
    """The folder of the files, of this process alone; one that is new goes again where no file was kept."""
    new = not folder.exists()
    prepare_folder(folder, "output")
    try:
        with sole_writer(folder, "output", stays=False), named_when_full(folder):
            yield folder
    finally:
        if new:
            with suppress(OSError):  # there is something in it
                folder.rmdir()


def _check_streams(model: nn.Module, config: TrainConfig) -> None:
    """Raise ConfigError for a network without a state, and for clips whose frames do not follow each other."""
    reason = why_no_state(model, config.transform.size)
    if reason is None and (config.sampler.mode is SampleMode.segments or config.sampler.window is not None):
        reason = "sampler.mode=segments and sampler.window spread a clip over its video"
    if reason is not None:
        raise ConfigError(f"stream=true: {reason}; stream=false exports whole clips")


def _content(subject: published.Subject, names: Sequence[str], options: ExportConfig) -> dict[str, Any]:
    """What stands in the files: as in a published folder, with the clips that this command was given."""
    config: TrainConfig = subject.config
    known = subject.content or {"config": plain(config)}
    source = str(options.checkpoint or config.model.get("weights"))
    kept = portable(known["config"], source, options.trust)
    clips = {name: plain(getattr(config, name)) for name in ("sampler", "transform", "eval")}
    return {
        "config": {name: kept[name] for name in _SECTIONS if name in kept} | clips,
        "class_names": list(names),
        "multi_label": bool(known.get("multi_label")),
        "calibration": known.get("calibration"),
        "source": Path(source).name,
    }

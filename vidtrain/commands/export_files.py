"""The work of `vidtrain export`: each file is written, asked about real clips, and kept if it gives the same."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from vidtrain import build
from vidtrain.commands.export_clips import ExportClips
from vidtrain.data.settings import EvalProtocol
from vidtrain.errors import VidtrainError
from vidtrain.export import formats
from vidtrain.export.contract import contract_text
from vidtrain.export.int8 import write_int8
from vidtrain.export.network import Deployable, DeployableStream, ExportedNetwork, OriginalNetwork, required
from vidtrain.export.onnx_file import open_onnx, open_stream, write_onnx
from vidtrain.export.parity import Parity, compare
from vidtrain.export.stream import OriginalStream, SteppedNetwork, compare_streams
from vidtrain.export.timing import latencies
from vidtrain.export.trace import trace, trace_stream
from vidtrain.live.streaming_models import samples_at_once
from vidtrain.options.schema import TrainConfig
from vidtrain.ranges import Choice
from vidtrain.reports.table import counted, table
from vidtrain.runs.atomic import settle, whole_file, write_json
from vidtrain.tasks.classification.task import Classification
from vidtrain.tasks.segments.task import Segments
from vidtrain.terminal import printable, said_when_slow

REPORT: Final = "export.json"
SCRIPT, STREAM_SCRIPT = "run_onnx.py", "run_stream.py"
_ONNX, _INT8 = "model.onnx", "model_int8.onnx"
_UNPROVED: Final = ".export"
_MB: Final = 1e6


class ExportFormat(Choice):
    onnx = "onnx"
    pt2 = "pt2"
    openvino = "openvino"
    executorch = "executorch"


_PACKAGES: Final[dict[str, tuple[str, ...]]] = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("onnx", "onnxscript", "openvino"),
    "executorch": ("executorch.exir", "executorch.runtime"),
    "int8": ("onnx", "onnxruntime.quantization"),
}


def check_packages(wanted: Sequence[ExportFormat], *, int8: bool) -> None:
    """Raise ConfigError, before anything is read, for a package that is not there."""
    for name in (*wanted, *(["int8"] if int8 else [])):
        what = "int8=true" if name == "int8" else f"format={name}"
        extra = str(name) if name in ("openvino", "executorch") else "export"
        for package in _PACKAGES.get(str(name), ()):
            required(package, what, extra)


@dataclass(frozen=True)
class ExportSource:
    """What is exported. content: plain values as a checkpoint has them, see `contract_text`."""

    config: TrainConfig
    model: nn.Module
    content: Mapping[str, Any]


class Exporting:
    """The files of one command.

    Attributes:
        networks: the network itself under "eager", and each file that was kept, by its format.
        report: what export.json gets.
    """

    def __init__(self, subject: ExportSource, clips: ExportClips, folder: Path, tolerance: float) -> None:
        config, content = subject.config, subject.content
        self._subject, self._source, self._folder, self._tolerance = subject, clips, folder, tolerance
        transform, frames = config.transform, config.sampler.num_frames
        self._multi_label, self._classes = bool(content["multi_label"]), len(content["class_names"])
        kept = {key: content[key] for key in ("multi_label", "calibration")}
        self._task = build.build_task(config.task, content["class_names"], **kept)
        probs = {
            "multi_label": self._multi_label,
            "background": isinstance(self._task, Segments) and not self._task.multi_label,
        }
        network = Deployable(subject.model.cpu(), transform.mean, transform.std, **probs)
        self._network = network.eval()
        side = transform.size
        shapes = {"rgb": (frames, side, side, 3), "flow": (frames - 1, side, side, 2)}
        self._shapes = {name: shapes[name] for name in network.inputs}
        self._background = probs["background"]
        self._one: dict[str, Tensor] = {}
        self.networks: dict[str, nn.Module] = {"eager": OriginalNetwork(network)}
        self.report: dict[str, Any] = {
            "source": content["source"],
            "model": str(config.model.get("_target_")).rpartition(".")[2],
            "protocol": build.protocol(config.sampler, config.transform, config.eval),
            "inputs": {name: list(shape) for name, shape in self._shapes.items()},
            "torch": torch.__version__,
            "files": {},
        }

    # ------------------------------------------------------------ writing

    def write(self, wanted: Sequence[ExportFormat], *, compared: int, int8: int | None) -> None:
        """Write what is wanted.

        Args:
            compared: clips on which each file is compared. int8: clips for the ranges of the int8 file; None: no such.

        Raises:
            VidtrainError: there is no program of the network, or a file gives something else than the network.
        """
        with said_when_slow(f"reading {compared} clips to compare on"):
            clips = self._source.read(compared)
        self._one = {name: value[:1] for name, value in clips.items()}
        self._introduce()
        with said_when_slow("tracing the network with torch.export"):
            program = trace(self._network, self._shapes)
        text = contract_text(self._subject.content, self._shapes, background=self._background)
        with self._unproved() as made:
            if {ExportFormat.onnx, ExportFormat.openvino} & {*wanted}:
                with said_when_slow(f"writing {_ONNX}: a minute or more for large networks"):
                    write_onnx(program, made / _ONNX, text, self._network.inputs)
            for one in wanted:
                with said_when_slow(f"format={one}: writing the file and opening it"):
                    file, opened = self._written(one, program, made, text)
                self._keep(str(one), file, opened, self._compared(str(one), opened, clips))
            if int8 is not None:
                with said_when_slow(f"int8=true: reading {int8} clips and measuring ranges"):
                    ranges = self._source.read(int8)
                    write_int8(made / _ONNX, made / _INT8, ranges, text)
                file, opened = made / _INT8, open_onnx(made / _INT8, self._shapes, self._classes)
                self._keep("int8", file, opened, self._compared("int8", opened, clips), tolerance=None)
                self.report["files"]["int8"]["calibration_clips"] = len(ranges["rgb"])
            if ExportFormat.onnx not in wanted:
                for file in made.glob(f"{_ONNX}*"):
                    file.unlink()

    def write_stream(self, *, compared: int) -> None:
        """Write model.onnx that takes the frames of a stream step by step, and goes on from a state.

        Raises:
            VidtrainError: as `write`; ConfigError: frames of a clip that are no whole number of steps.
        """
        step = samples_at_once(self._network.model) * getattr(self._network.model, "period", 1)
        original = OriginalStream(self._network, step)
        frames, side, *_ = self._shapes["rgb"]
        original.check_frames(frames)
        self._shapes = {"rgb": (step, side, side, 3)}
        self.report["inputs"] = {"rgb": [step, side, side, 3]}
        with said_when_slow(f"reading {compared} clips to compare on"):
            clips = self._source.read(compared)
        self._one = {"rgb": clips["rgb"][:1, :step]}
        self._introduce()
        network = DeployableStream(self._network, self._one["rgb"])
        state = network.described()
        text = contract_text(self._subject.content, self._shapes, background=self._background, state=state)
        self.networks["eager"] = original
        with self._unproved() as made:
            file = made / _ONNX
            with said_when_slow(f"writing {_ONNX}: a minute or more for large networks"):
                write_onnx(trace_stream(network, self._one["rgb"]), file, text, self._network.inputs, state)
            opened = open_stream(file, self._shapes, self._classes, state)
            with said_when_slow(f"comparing its answers to {len(clips['rgb'])} clips with the network's"):
                parity = compare_streams(original, opened, clips, multi_label=self._multi_label)
            self._keep("onnx", file, opened, parity)

    @contextmanager
    def _unproved(self) -> Iterator[Path]:
        """A folder for files until they have proved to be right, when they move to the output. That of a killed export
        goes."""
        made = self._folder / _UNPROVED
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir()
        try:
            yield made
            files = sorted(made.iterdir())
            for file in files:  # or a file that comes with another, of its weights, could stand beside that of before
                (self._folder / file.name).unlink(missing_ok=True)
            for file in files:
                settle(file, self._folder / file.name)
        finally:
            shutil.rmtree(made, ignore_errors=True)

    def _introduce(self) -> None:
        print(f"{self.report['model']}: {self.report['protocol']}, {self._classes} classes", flush=True)

    def _written(
        self, one: ExportFormat, program: torch.export.ExportedProgram, made: Path, text: str
    ) -> tuple[Path, ExportedNetwork]:
        """The file, and the network that is read back from it."""
        shapes = self._shapes
        if one is ExportFormat.onnx:
            return made / _ONNX, open_onnx(made / _ONNX, shapes, self._classes)
        if one is ExportFormat.pt2:
            formats.write_pt2(program, file := made / "model.pt2", text)
            return file, formats.open_pt2(file, shapes)
        if one is ExportFormat.openvino:
            formats.write_openvino(made / _ONNX, file := made / "model.xml", text)
            return file, formats.open_openvino(file, shapes)
        formats.write_executorch(program, file := made / "model.pte", text)
        return file, formats.open_executorch(file, shapes)

    def _compared(self, name: str, opened: ExportedNetwork, clips: Mapping[str, Tensor]) -> Parity:
        count = len(clips[self._network.inputs[0]])
        with said_when_slow(f"format={name}: comparing its answers to {count} clips with the network's"):
            return compare(self.networks["eager"], opened, clips, multi_label=self._multi_label)

    def _keep(self, name: str, file: Path, opened: nn.Module, found: Parity, **given: float | None) -> None:
        """Report. given: tolerance, where it is another one than the command's; None: any."""
        tolerance = given.get("tolerance", self._tolerance)
        if tolerance is not None and not found.within(tolerance):
            raise VidtrainError(
                f"format={name}: the file is not kept, its answers are not the network's: {found} "
                f"(tolerance={tolerance:g})"
            )
        size = sum(part.stat().st_size for part in _with_weights(file))
        self.networks[name], parity = opened, {**asdict(found), "relative": found.relative}
        self.report["files"][name] = {"file": file.name, "bytes": size, "parity": parity}
        print(printable(f"{self._folder / file.name}: {size / _MB:.2f} MB; {found}"), flush=True)

    # ------------------------------------------------------------ measuring

    def measure(self, *, seconds: float | None) -> None:
        """Print accuracy on the split where there is one, and, unless `seconds` is None, the time of a clip."""
        content = self._subject.content
        data = self._source.labelled(content["class_names"])
        rows: dict[str, dict[str, float]] = {name: {} for name in self.networks}
        primary, title = "", ""
        task = self._task
        if data is not None and isinstance(task, Classification):  # other tasks' scores are of more than single clips
            primary, title = task.primary, f"{self._source.split} {task.titles[task.primary]}"
            for name, network in self.networks.items():
                with said_when_slow(f"{name}: scoring split {self._source.split}"):
                    rows[name][primary] = self._source.score(task, network, data)
        if seconds is not None:
            with said_when_slow(f"bench=true: measuring for {seconds * len(self.networks):g} seconds"):
                measured = latencies(self.networks, self._one, seconds=seconds)
            for name, (half, most) in measured.items():
                rows[name] |= {"ms_p50": half, "ms_p95": most}
        threads = torch.get_num_threads()
        self.report |= {"measured": rows, "threads": threads, "measured_on": self._source.split}
        columns = [(primary, title, "{:.4f}"), ("ms_p50", "ms p50", "{:.2f}"), ("ms_p95", "ms p95", "{:.2f}")]
        sizes = {"eager": _bytes(self._network), **{key: one["bytes"] for key, one in self.report["files"].items()}}
        cells = []
        for name, row in rows.items():
            shown = (form.format(row[key]) if key in row else "" for key, _, form in columns)
            cells.append([name, *shown, f"{sizes[name] / _MB:.2f}"])
        print(table(["", *(title for _, title, _ in columns), "MB"], cells))
        if seconds is not None:
            of = f"{counted(self._shapes['rgb'][0], 'frame')} of a stream" if self._streams else "one clip"
            print(f"ms: {of} at a time, {counted(threads, 'thread')} of this CPU, decoding not included")

    @property
    def _streams(self) -> bool:
        return isinstance(self.networks["eager"], SteppedNetwork)

    def finish(self) -> None:
        """Write the report, and with an ONNX file the script that runs it; print how."""
        write_json(self._folder / REPORT, self.report)
        if ExportFormat.onnx not in self.networks:
            return
        file, slides = self._folder / _ONNX, isinstance(self._task, Segments)
        script, asked = (STREAM_SCRIPT, "0") if self._streams else (SCRIPT, "clip.mp4")
        print(printable(f"vidtrain predict checkpoint={file} input={asked}{' timeline=true' * slides}"))
        if self._streams or self._classifies_alone:
            with whole_file(self._folder / script) as out:
                out.write(Path(formats.__file__).with_name(script).read_bytes())
            example = "rtsp://camera" if self._streams else asked
            print(printable(f"python {self._folder / script} {example}   (with numpy, av and onnxruntime alone)"))
        sizes = "".join(
            f" --{which}Shapes=" + ",".join(f"{name}:{'x'.join(map(str, (n, *s)))}" for name, s in self._shapes.items())
            for which, n in (("min", 1), ("opt", 8), ("max", 32))
        )
        line = f"trtexec --onnx={file} --saveEngine={file.with_suffix('.plan')}{sizes * (not self._streams)}"
        print(printable(f"TensorRT (not tested): {line}"))

    @property
    def _classifies_alone(self) -> bool:
        """Whether run_onnx.py does: it knows RGB, whole videos and vidtrain's own clips."""
        views = self._subject.config.eval
        usual = views.protocol is EvalProtocol.vidtrain and views.hop is None and not views.max_views
        return usual and "flow" not in self._shapes and isinstance(self._task, Classification)


def _with_weights(file: Path) -> Iterable[Path]:
    """A file and the one beside it with its weights: OpenVINO's .bin, a large ONNX file's .data."""
    return [part for part in (file, file.with_suffix(".bin"), file.with_name(f"{file.name}.data")) if part.is_file()]


def _bytes(network: nn.Module) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())

"""vidtrain data flow: optical flow of all videos of a dataset, computed once and kept in a folder."""

from __future__ import annotations

from pathlib import Path

from vidtrain import build
from vidtrain.commands.dataset_videos import keeping, listed, load, override
from vidtrain.commands.jobs import part_of, part_summary, workers_of
from vidtrain.data.flow.cache import FlowMade, make_flow, make_flow_part
from vidtrain.data.flow.methods import FlowMethod, OpenCVFlow, RaftFlow
from vidtrain.data.jobs.journal import REPORT
from vidtrain.data.prepare.prepare import readable
from vidtrain.data.settings import FlowCacheConfig, FlowMethodName
from vidtrain.engine.precision import choose_device
from vidtrain.errors import ConfigError
from vidtrain.options.invocation import Invocation
from vidtrain.options.schema import DataCommandConfig
from vidtrain.terminal import printable_lines


def run(call: Invocation[DataCommandConfig]) -> None:
    """Compute the flow of the dataset and say how to train with it."""
    options = call.options
    settings = options.of(FlowCacheConfig)
    workers = workers_of(options)
    raft = options.method is FlowMethodName.raft
    method: FlowMethod
    if raft and not isinstance(workers, int):
        raise ConfigError("jobs=ray: method=raft computes in one process: give each GPU a part, jobs.part=1/4")
    if raft:
        method = RaftFlow(str(settings.model), settings.weights, str(choose_device(settings.device)))
    else:
        method = OpenCVFlow(str(options.method))
    files = load(options).files()
    output = Path("flow" if options.output is None else options.output).absolute()
    reader, part = build.build_reader(options.decoder), part_of(options.jobs)
    processes = None if raft else workers
    with keeping("videos", output):
        if part is not None:
            made = make_flow_part(files, output, settings, method, reader, part, workers=processes)
            print(part_summary(part, made, output))
        else:
            print(summary(make_flow(files, output, settings, method, reader, workers=processes), output))


def summary(done: FlowMade, output: Path) -> str:
    """What was done, what was not, and what to do with it."""
    count = done.made + done.kept
    lines = [f"flow of {count} videos is in {output} ({done.made} now, {done.kept} before), {readable(done.bytes)}"]
    lines += listed("bad", done.bad)
    lines.append(f"report: {output / REPORT}")
    root = override("flow.root", output)
    lines.append(f"train with it: vidtrain train model=two_stream flow=cache {root}, and the same data")
    return printable_lines(lines)

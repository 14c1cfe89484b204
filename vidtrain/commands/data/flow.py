"""vidtrain data flow: optical flow of all videos of a data set, computed once and kept in a folder."""

from __future__ import annotations

import sys
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from vidtrain import build
from vidtrain.commands.videos import listed, load, num_workers, override, printable
from vidtrain.data.flow.cache import FlowMade, make_flow
from vidtrain.data.flow.methods import FlowMethod, OpenCVFlow, RaftFlow
from vidtrain.data.jobs.journal import REPORT
from vidtrain.data.prepare.prepare import readable
from vidtrain.data.settings import FlowCacheConfig, FlowMethodName
from vidtrain.engine.precision import choose_device


def run(cfg: DictConfig) -> None:
    """Compute the flow of the data set and say how to train with it."""
    settings = OmegaConf.to_object(cfg.flow)
    assert isinstance(settings, FlowCacheConfig)
    workers = num_workers(cfg)
    raft = cfg.method is FlowMethodName.raft
    method: FlowMethod
    if raft:
        method = RaftFlow(settings.model.value, settings.weights, str(choose_device(settings.device)))
    else:
        method = OpenCVFlow(cfg.method.value)
    data = load(cfg)
    output = Path("flow" if cfg.output is None else cfg.output).absolute()
    try:
        done = make_flow(
            data, output, settings, method, build.build_reader(cfg.decoder), workers=None if raft else workers
        )
    except KeyboardInterrupt:
        print(f"finished videos are kept in {output}; the same command goes on from there", file=sys.stderr)
        raise
    print(summary(done, output))


def summary(done: FlowMade, output: Path) -> str:
    """What was done, what was not, and what to do with it."""
    count = done.made + done.kept
    lines = [f"flow of {count} videos is in {output} ({done.made} now, {done.kept} before), {readable(done.bytes)}"]
    lines += listed("bad", done.bad)
    lines.append(f"report: {output / REPORT}")
    root = override("flow.root", output)
    lines.append(f"train with it: vidtrain train model=two_stream flow=cache {root}, and the same data")
    return printable(lines)

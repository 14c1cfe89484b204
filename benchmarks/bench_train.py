"""Training steps of vidtrain beside the loop of torchvision's video reference and PyTorchVideo's models, in one run.

    python benchmarks/bench_train.py                               # a GPU, batch 32: about 15 minutes
    python benchmarks/bench_train.py --device cpu --batch 2        # the CPU: small networks and clips, about 6 minutes
    python benchmarks/bench_train.py --write benchmarks/train.md --json train.json

a  vidtrain: the step of `vidtrain train` (vidtrain.engine.step), from uint8 clips: normalised on the device,
   convolutions channels last where that pays, fused SGD, bf16 or what --precision says, no value read back; with
   --compile also through torch.compile (--compile auto keeps the faster of the two).
b  the reference: the same network with the loop that torchvision's references/video_classification documents: float32
   clips, normalised before by the loader's processes (which is not timed), contiguous; float16 autocast with GradScaler
   on a GPU, float32 on the CPU; SGD; loss, top-1 and top-5 read back after each step.
c  PyTorchVideo's network of that name, where it has one, in the loop of b.

--cpu-time counts the processor's time instead, which other programs add little to: one thread, OMP_NUM_THREADS=1.
Pinned memory for all. The contestants take turns in each round, so that what else the machine does slows all of
them; figures are medians over the rounds of the seconds a step took. Before, a and b must have the same loss on the
same clips. MFU is 3 x 2 x GMAC x clips/s over the fastest product of square matrices in that precision here.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

import vidtrain
from vidtrain.build import build_optimizer
from vidtrain.engine.devices.memory_format import benefits_from_channels_last, to_channels_last
from vidtrain.engine.precision import Precision
from vidtrain.engine.preprocess import ModelRunner, Preprocess
from vidtrain.engine.settings import CompileMode, PrecisionName
from vidtrain.engine.speed.bench import matmul_ceiling
from vidtrain.engine.speed.compiling import choose_compile
from vidtrain.engine.speed.timing import Step, random_batch, synchronise
from vidtrain.models.catalogue import catalogue
from vidtrain.models.inspect.summary import cost
from vidtrain.reports.bench import device_name
from vidtrain.reports.table import table
from vidtrain.tasks.classification.task import Classification
from vidtrain.types import Batch

CLASSES = 400
TASK = Classification([str(n) for n in range(CLASSES)])
MEAN, STD = (0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989)
PEERS = {  # name of ours: function of pytorchvideo.models.hub, whether it takes slow and fast frames apart
    "i3d_r50": ("i3d_r50", False),
    "slow_r50": ("slow_r50", False),
    "c2d_r50": ("c2d_r50", False),
    "r2plus1d_r50": ("r2plus1d_r50", False),
    "csn_r101": ("csn_r101", False),
    "slowfast_r50": ("slowfast_r50", True),
    "slowfast_r101": ("slowfast_r101", True),
    "x3d_s": ("x3d_s", False),
    "x3d_m": ("x3d_m", False),
}
ON_GPU = ("r3d_18", "i3d_r50", "slowfast_r50", "x3d_m", "mvit_v2_s", "videomae_vit_b")
ON_CPU = ("r3d_18", "x3d_s", "slow_tiny", "r2plus1d_tiny", "videomae_tiny")
TITLE = "# Training steps, beside the public peers"
SMALL = {"r3d_18": (8, 112)}  # frames and side on the CPU; the others as the catalogue has them


@dataclass(frozen=True)
class Result:
    """How one contestant did with one network."""

    model: str
    clip: str
    gmac: float
    who: str
    precision: str
    clips_per_second: float
    times_reference: float | None
    mfu: float | None
    note: str = ""


class Reference:
    """The documented loop of torchvision's video reference, one iteration."""

    def __init__(self, model: nn.Module, device: torch.device, prepare: Callable[[Tensor], Any] = lambda clips: clips):
        self.model = model.to(device).train()
        self.device = device
        self.prepare = prepare
        self.criterion = nn.CrossEntropyLoss()
        self.optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
        self.scaler = torch.amp.GradScaler("cuda") if device.type == "cuda" else None

    def __call__(self, video: Tensor, target: Tensor) -> None:
        video, target = video.to(self.device), target.to(self.device)
        with torch.autocast(self.device.type, dtype=torch.float16, enabled=self.scaler is not None):
            output = self.model(self.prepare(video))
            loss = self.criterion(output, target)
        self.optimizer.zero_grad()
        if self.scaler is not None:
            self.scaler.scale(loss).backward()
            self.scaler.step(self.optimizer)
            self.scaler.update()
        else:
            loss.backward()
            self.optimizer.step()
        found = output.topk(5).indices == target[:, None]
        for value in (loss, found[:, 0].float().mean(), found.any(1).float().mean()):
            value.item()


def normalised(views: Tensor) -> Tensor:
    """uint8 (B, 1, T, H, W, 3) -> what the reference's loader hands over: float32 (B, 3, T, H, W), contiguous."""
    clips = views[:, 0].permute(0, 4, 1, 2, 3).float() / 255
    mean, std = (torch.tensor(values).view(3, 1, 1, 1) for values in (MEAN, STD))
    return ((clips - mean) / std).contiguous()


def vidtrain_step(model: nn.Module, precision: Precision, layout: str = "auto") -> Step:
    model = model.to(precision.device)
    if layout == "channels_last" or (layout == "auto" and benefits_from_channels_last(model, precision.device)):
        to_channels_last(model)
    node = {"_target_": "torch.optim.SGD", "lr": 0.01, "momentum": 0.9, "weight_decay": 1e-4, "fused": True}
    network = ModelRunner(model, Preprocess(MEAN, STD, precision.device), precision)
    return Step(network, build_optimizer(node, model), TASK)


def peer(name: str, device: torch.device) -> Reference | None:
    """PyTorchVideo's network in the loop of the reference; None where it has none or is not installed."""
    try:
        from pytorchvideo.models import hub
    except ImportError:
        return None
    if name not in PEERS:
        return None
    function, two_rates = PEERS[name]
    slow_and_fast = (lambda clips: [clips[:, :, ::4], clips]) if two_rates else (lambda clips: clips)
    return Reference(getattr(hub, function)(pretrained=False), device, slow_and_fast)


def check_losses(model: nn.Module, precision: Precision, batch: Batch, video: Tensor) -> str:
    """Both must see the same: their losses in training mode, without dropout, to the precision's tolerance."""
    losses = []
    for number in range(2):
        net = copy.deepcopy(model).eval()
        for part in net.modules():
            part.training = isinstance(part, _BatchNorm)  # not what draws random numbers
        if number == 0:
            step = vidtrain_step(net, precision).training
            net.eval()
            for part in net.modules():
                part.training = isinstance(part, _BatchNorm)
            sums = step.gradient([batch])
            assert sums is not None
            losses.append(float(sums[0] / sums[2]))
        else:
            net = net.to(precision.device)
            with torch.no_grad(), torch.autocast("cuda", torch.float16, enabled=precision.device.type == "cuda"):
                output = net(video.to(precision.device))
            losses.append(nn.functional.cross_entropy(output.float(), batch.targets.to(output.device)).item())
    tolerance = 1e-4 if precision.name == "fp32" and precision.device.type == "cpu" else 2e-2
    ours, theirs = losses
    if not abs(ours - theirs) <= tolerance * abs(theirs):
        raise SystemExit(f"losses differ: {ours} and {theirs}: the contestants do not do the same")
    return f"{ours:.4f} and {theirs:.4f}"


def bench(name: str, options: argparse.Namespace, device: torch.device, ceilings: dict[str, float]) -> list[Result]:
    frames, side = catalogue()[name].clip
    if device.type == "cpu":
        frames, side = SMALL.get(name, (frames, side))
    torch.manual_seed(0)
    model = vidtrain.create_model(name, num_classes=CLASSES, num_frames=frames, size=side)
    gmac = cost(model, frames, side)[1] / 1e9
    batch = random_batch(options.batch, frames, side, TASK, pin_memory=device.type == "cuda")
    video = normalised(batch.inputs["rgb"])
    video = video.pin_memory() if device.type == "cuda" else video
    calls: dict[tuple[str, str], Callable[[], None]] = {}
    notes: dict[tuple[str, str], str] = {}
    for precision_name in options.precision:
        precision = Precision(PrecisionName(precision_name), device)
        print(f"{name}, {precision.name}: losses {check_losses(model, precision, batch, video)}", flush=True)
        modes = {"off": ("off",), "on": ("off", "on"), "auto": ("auto",)}[options.compile]
        for layout, mode in product(options.layouts, modes):
            step = vidtrain_step(copy.deepcopy(model), precision, layout)
            words = ["vidtrain", *([layout] * (layout != "auto")), *([f"compile={mode}"] * (mode != "off"))]
            key = ", ".join(words), precision.name
            calls[key] = partial(step, batch)
            if mode != "off":
                try:
                    notes[key] = choose_compile(CompileMode(mode), step.training, batch, batches=10**9)
                except torch.OutOfMemoryError:
                    continue  # the rounds will find it too, and leave it out
                print(notes[key], flush=True)
    theirs = "fp16" if device.type == "cuda" else "fp32"
    reference = Reference(copy.deepcopy(model), device)
    calls["reference", theirs] = partial(reference, video, batch.targets)
    if other := peer(name, device):
        try:
            other(video, batch.targets)
        except RuntimeError as error:  # its heads are made for one size of clip
            print(f"PyTorchVideo's {name} is skipped: {str(error).splitlines()[0]}")
        else:
            calls["PyTorchVideo", theirs] = partial(other, video, batch.targets)
    clock = time.process_time if options.cpu_time else time.perf_counter
    seconds = take_turns(calls, options.rounds, device, clock)
    rate = {key: options.batch / statistics.median(times) for key, times in seconds.items() if times}
    base = rate.get(("reference", theirs))
    clip = f"{frames} x {side} x {side}"
    results = []
    for (who, used), clips in rate.items():
        mfu = None if options.cpu_time else 6e9 * gmac * clips / ceilings[used]
        times = None if base is None else clips / base
        results.append(Result(name, clip, gmac, who, used, clips, times, mfu, notes.get((who, used), "")))
    return results


def take_turns(
    calls: dict[tuple[str, str], Callable[[], None]], rounds: int, device: torch.device, clock: Callable[[], float]
) -> dict[tuple[str, str], list[float]]:
    """Seconds of a step of each; the first rounds warm up. One that lacks the memory is skipped, and reported."""
    warm_up, repeats = (3, 5) if device.type == "cuda" else (1, 1)
    seconds: dict[tuple[str, str], list[float]] = {key: [] for key in calls}
    broken = set()
    for number in range(warm_up + rounds):
        for key, call in calls.items():
            if key in broken:
                continue
            synchronise(device)
            began = clock()
            try:
                for _ in range(repeats):
                    call()
                synchronise(device)
            except torch.OutOfMemoryError:
                broken.add(key)
                seconds[key] = []
                print(f"{key}: out of memory, skipped")
                continue
            if number >= warm_up:
                seconds[key].append((clock() - began) / repeats)
    return seconds


HEAD = ("model", "clip", "GMAC", "who", "precision", "clips/s", "times reference", "MFU %")


def cells(result: Result) -> tuple[str, ...]:
    chosen = ": compiled" if ": compiled (" in result.note else ": as it is" if "left as it is" in result.note else ""
    return (
        result.model,
        result.clip,
        f"{result.gmac:.2f}",
        result.who + chosen,
        result.precision,
        f"{result.clips_per_second:.3g}",
        "-" if result.times_reference is None else f"{result.times_reference:.2f}",
        "-" if result.mfu is None else f"{100 * result.mfu:.1f}",
    )


def facts(
    options: argparse.Namespace, device: torch.device, ceilings: dict[str, float], minutes: float
) -> dict[str, Any]:
    versions = {"python": platform.python_version()}
    for package in ("torch", "torchvision", "pytorchvideo"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "command": " ".join(["python benchmarks/bench_train.py", *sys.argv[1:]]),
        "date": time.strftime("%Y-%m-%d"),
        "device": device_name(device),
        "batch": options.batch,
        "rounds": options.rounds,
        "minutes": round(minutes, 1),
        "versions": versions,
        "matmul_tflops": {name: rate / 1e12 for name, rate in ceilings.items()},
    }


def markdown(results: list[Result], told: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in told["versions"].items())
    ceilings = ", ".join(f"{name} {rate:.3g}" for name, rate in told["matmul_tflops"].items())
    rows = [HEAD, tuple("---" for _ in HEAD), *map(cells, results)]
    took = "processor time" if "--cpu-time" in told["command"] else "wall clock"
    lines = [
        f"## {told['device']}",
        "",
        f"`{told['command']}`, {told['date']}, {told['minutes']:g} minutes, {took}.",
        f"{versions}. Batch {told['batch']}; medians of {told['rounds']} rounds in which the contestants take turns.",
        "The script's head says what each contestant does.",
        "",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
        f"Fastest products of square matrices, in TFLOP/s of wall clock: {ceilings}. MFU is measured against them.",
    ]
    return "\n".join(lines) + "\n"


def with_section(document: str, section: str) -> str:
    """The document with this section in place of the one of the same heading, or at its end."""
    head, *others = document.rstrip().split("\n## ") if document else [TITLE]
    heading, _, body = section.strip().removeprefix("## ").partition("\n")
    kept = [other for other in others if other.partition("\n")[0] != heading]
    return "\n## ".join(part.rstrip() + "\n" for part in (head, *kept, f"{heading}\n{body}"))


def parse() -> argparse.Namespace:
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    on_gpu = torch.cuda.is_available()
    parser.add_argument("--device", default="cuda" if on_gpu else "cpu")
    parser.add_argument("--models", nargs="+", help="names of vidtrain's catalogue")
    parser.add_argument("--batch", type=int, help="clips (default 32 on a GPU, 2 on the CPU)")
    parser.add_argument("--rounds", type=int, help="default 20 on a GPU, 5 on the CPU")
    parser.add_argument("--precision", nargs="+", choices=["fp32", "bf16", "fp16"], help="of vidtrain's step")
    layouts = ["auto", "channels_last", "contiguous"]
    parser.add_argument("--layouts", nargs="+", choices=layouts, default=["auto"], help="of vidtrain's weights")
    parser.add_argument("--compile", choices=["off", "on", "auto"], help="default auto on a GPU, off on the CPU")
    parser.add_argument("--cpu-time", action="store_true", help="processor time: for a CPU that does other things too")
    parser.add_argument(
        "--write", type=Path, help="put the table into this Markdown file, as the section of this device"
    )
    parser.add_argument("--json", type=Path, help="write the numbers to this file")
    options = parser.parse_args()
    on_gpu = torch.device(options.device).type == "cuda"
    options.models = options.models or (ON_GPU if on_gpu else ON_CPU)
    options.batch = options.batch or (32 if on_gpu else 2)
    options.rounds = options.rounds or (20 if on_gpu else 5)
    options.precision = options.precision or (["bf16"] if on_gpu else ["fp32", "bf16"])
    options.compile = options.compile or ("auto" if on_gpu else "off")
    return options


def main() -> None:
    options = parse()
    device = torch.device(options.device)
    torch.backends.cudnn.benchmark = True  # the reference sets it too
    began = time.time()
    theirs = "fp16" if device.type == "cuda" else "fp32"
    ceilings = {name: matmul_ceiling(name, device, seconds=1.0) for name in {*options.precision, theirs}}
    results: list[Result] = []
    for name in options.models:
        results += bench(name, options, device, ceilings)
        print(table(HEAD, [cells(result) for result in results if result.model == name]) + "\n", flush=True)
        torch._dynamo.reset()
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
    told = facts(options, device, ceilings, (time.time() - began) / 60)
    text = markdown(results, told)
    print(text)
    if options.write:
        options.write.parent.mkdir(parents=True, exist_ok=True)
        old = options.write.read_text(encoding="utf-8") if options.write.is_file() else ""
        options.write.write_text(with_section(old, text), encoding="utf-8")
    if options.json:
        content = {**told, "results": [asdict(result) for result in results]}
        options.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

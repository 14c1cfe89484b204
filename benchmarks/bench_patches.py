"""Patches of a video transformer cut by a matrix product, beside the 3D convolution with the same weights.

    python benchmarks/bench_patches.py                     # a minute on one core
    python benchmarks/bench_patches.py --threads 2 --rounds 9

Forward and backward of the layer and what follows it (tokens last), on clips in the order in memory that training gives
them: channels last, as frames are decoded. The two take turns; medians of CPU time.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from torch import nn

from vidtrain.models.layers.transformer import PatchConv3d

CASES = {
    "ViT-S, 16 x 112 x 112": (384, (2, 16, 16), (8, 3, 16, 112, 112)),
    "ViT-B, 16 x 224 x 224": (768, (2, 16, 16), (4, 3, 16, 224, 224)),
}


def main() -> None:
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"torch {torch.__version__}, {options.threads} threads, medians of {options.rounds} rounds, CPU ms")
    print("| clips | arithmetic | Conv3d | product | x | largest difference |\n| --- | --- | --- | --- | --- | --- |")
    for title, (width, kernel, shape) in CASES.items():
        for bf16 in (False, True):
            patches, conv = PatchConv3d(3, width, kernel), nn.Conv3d(3, width, kernel, stride=kernel)
            conv.load_state_dict(patches.state_dict())
            clips = torch.randn(shape).contiguous(memory_format=torch.channels_last_3d)
            times: dict[nn.Module, list[float]] = {conv: [], patches: []}
            for _ in range(options.rounds + 1):
                for layer, spent in times.items():
                    began = time.process_time()
                    _step(layer, clips, bf16=bf16)
                    spent.append(1e3 * (time.process_time() - began))
            ours, theirs = (statistics.median(times[layer][1:]) for layer in (patches, conv))
            with torch.no_grad():
                apart = (patches(clips) - conv(clips)).abs().max().item()
            name = "bf16" if bf16 else "fp32"
            print(f"| {title} | {name} | {theirs:.0f} | {ours:.0f} | {theirs / ours:.2f} | {apart:.1e} |", flush=True)


def _step(layer: nn.Module, clips: torch.Tensor, *, bf16: bool) -> None:
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        tokens = layer(clips).flatten(2).transpose(1, 2)
    tokens.float().square().mean().backward()


if __name__ == "__main__":
    main()

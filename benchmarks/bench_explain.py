"""Are the maps of `vidtrain explain` faithful? A table by model and method, from the folders of finished runs.

    vidtrain train experiment=motion_32 data.root=data/motion_36 model=tsm_tiny run_dir=runs/tsm_tiny ...
    python benchmarks/bench_explain.py runs/tsm_tiny runs/convlstm_tiny --write FILE.md

Of each run some test videos that one clip is enough to classify rightly are explained by every method that is defined
for the network. What the map marks most, a fifth of the clip's pixels, is taken away; so is as much elsewhere
(vidtrain/explain/deletion.py).
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
from collections.abc import Iterator
from pathlib import Path

import torch

import vidtrain
from vidtrain import build
from vidtrain.commands.predictor import Predictor
from vidtrain.errors import ConfigError
from vidtrain.explain.deletion import SHARE, Deletion
from vidtrain.explain.methods import MapOptions, Method
from vidtrain.explain.score import Fill

METHODS = (Method.gradcam, Method.rollout, Method.occlusion)


def main() -> None:
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="folders of finished runs")
    parser.add_argument("--videos", type=int, default=16, help="of each run (default 16)")
    parser.add_argument("--write", type=Path, help="write the table to this Markdown file, above its notes")
    options = parser.parse_args()
    rows = []
    for folder in options.runs:
        for row in _rows(folder, options.videos):
            print(" | ".join(row), flush=True)
            rows.append(row)
    text = _markdown(rows)
    if options.write:
        old = options.write.read_text(encoding="utf-8") if options.write.is_file() else ""
        _, heading, notes = old.partition("\n## Notes\n")
        options.write.write_text(text + heading + notes, encoding="utf-8")


def _rows(folder: Path, videos: int) -> Iterator[list[str]]:
    clf = vidtrain.load(folder, device="cpu")
    top1 = json.loads((folder / "result.json").read_text(encoding="utf-8"))["test"]["top1"]
    name = str(clf.config.model["_target_"]).rpartition(".")[2]
    paths = _classified(clf, videos)
    for method in METHODS:
        for fill in Fill:
            try:
                found = [clf.explain(path, options=MapOptions(method, fill=fill), clips=1) for path in paths]
            except ConfigError:
                continue  # the method is not defined for this network
            layer = found[0].layer
            how = str(method) if layer is None else f"{method}, {layer}"
            yield [name, f"{top1:.3f}", how, str(fill), *_means([one.deletion for one in found])]


def _classified(clf: Predictor, count: int) -> list[str]:
    """Paths of test videos whose one clip has its own class as the most probable one."""
    manifest = build.build_data(clf.config.data).splits["test"]
    found = []
    for row in torch.randperm(len(manifest), generator=torch.Generator().manual_seed(0)).tolist():
        if clf.predict(manifest.paths[row], clips=1).label == clf.class_names[manifest.labels[row]]:
            found.append(manifest.paths[row])
        if len(found) == count:
            break
    return found


def _means(found: list[Deletion]) -> list[str]:
    count = len(found)
    means = [sum(getattr(d, name) for d in found) / count for name in ("whole", "without_marked", "without_random")]
    return [*(f"{mean:.3f}" for mean in means), f"{sum(d.faithful for d in found)}/{count}"]


def _markdown(rows: list[list[str]]) -> str:
    header = ["model", "test top-1", "method", "fill", "whole clip", "without marked", "without random", "faithful"]
    table = "\n".join("| " + " | ".join(line) + " |" for line in [header, ["---"] * len(header), *rows])
    return (
        "# Are the maps faithful?\n\n"
        f"Mean probability of the class: of the whole clip, without the {SHARE:.0%} of its pixels that the map marks "
        "most, and without as much elsewhere (the same mask, shifted round the clip, 8 times). faithful: videos in "
        "which the first loses more. On the built-in motion dataset, where only the order of frames distinguishes the "
        "classes; only videos that are classified rightly count. fill: what stands in place of what is taken away, in "
        "the deletion and in occlusion: the clip's mean colour, or each pixel's mean over time, which takes away "
        f"motion alone.\n\n{table}\n\n"
        f"{datetime.date.today().isoformat()}, {platform.processor() or platform.machine()}, {os.cpu_count()} cores, "
        f"python {platform.python_version()}, torch {torch.__version__.partition('+')[0]}.\n\n"
        "Again: `python benchmarks/bench_explain.py RUN_FOLDERS --write FILE.md`\n"
    )


if __name__ == "__main__":
    main()

"""Of labels that were made wrong on purpose, how many `vidtrain label_errors` lists first: benchmarks/label_errors.md.

    python benchmarks/bench_label_errors.py --write benchmarks/label_errors.md

Takes the training videos of data=motion, gives a share of them another class at random, trains a small network on each
of several folds and has the list made. Words after -- are options of the trainings.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import platform
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from vidtrain import build

FIRST = 0.08  # of the list
OPTIONS = ["experiment=demo", "trainer.num_workers=0", "logger=jsonl", "eval.clips=4"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=64, help="of motion; 8 videos each")
    parser.add_argument("--folds", type=int, default=4)
    parser.add_argument("--flipped", type=float, default=0.05, help="share of the labels that are made wrong")
    parser.add_argument("--seed", type=int, default=0, help="of the wrong labels")
    parser.add_argument("--folder", type=Path, help="for data and runs; default: a temporary one")
    parser.add_argument("--write", type=Path, help="Markdown file")
    parser.add_argument("options", nargs="*")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        wrong = write_list(folder, given.scenes, given.flipped, given.seed)
        train(folder, given.folds, [*OPTIONS, *given.options])
        text = report(folder, wrong, given)
    print(text)
    if given.write:
        given.write.write_text(text + "\n", encoding="utf-8")


def write_list(folder: Path, scenes: int, flipped: float, seed: int) -> set[str]:
    """Make the dataset and FOLDER/list.csv, in which some labels are wrong; returns the paths of these."""
    own = {"train_scenes": scenes, "val_scenes": 1, "test_scenes": 1, "size": 64}
    data = build.build_data(
        {"_target_": "vidtrain.data.motion.motion.motion", "root": str(folder.absolute() / "motion"), **own}
    )
    train, names, generator = data.splits["train"], data.class_names, random.Random(seed)
    rows = list(zip(train.paths, train.labels.tolist(), strict=True))
    wrong = set(generator.sample(range(len(rows)), round(flipped * len(rows))))
    with (folder / "list.csv").open("w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file)
        for number, (path, label) in enumerate(rows):
            other = (label + generator.randrange(1, len(names))) % len(names)
            lines.writerow([path, names[other if number in wrong else label]])
    return {rows[number][0] for number in wrong}


def train(folder: Path, folds: int, options: list[str]) -> None:
    """A run per fold; the videos of a scene are in one of them."""
    own = [f"data.root={folder.absolute()}", f"data.train={folder.absolute() / 'list.csv'}"]
    own += [f"data.folds={folds}", f"data.fold={','.join(map(str, range(folds)))}", r"data.group_by=\d+\.mp4"]
    sweep = f"hydra.sweep.dir={folder.absolute() / 'sweep'}"
    command = [sys.executable, "-m", "vidtrain", "train", "-m", *options, "data=list", *own, sweep]
    subprocess.run(command, check=True)
    subprocess.run([sys.executable, "-m", "vidtrain", "label_errors", str(folder / "sweep")], check=True)


def report(folder: Path, wrong: set[str], given: argparse.Namespace) -> str:
    """Of the wrong labels, the share at the start of the list."""
    with (folder / "sweep" / "suspects.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    first = rows[: int(FIRST * len(rows))]
    found = sum(row["file"] in wrong for row in first)
    issues = [row for row in rows if row["issue"] == "yes"]
    right = sum(row["file"] in wrong for row in issues)
    share = f"{found} of {len(wrong)} ({found / len(wrong):.0%})"
    table = (folder / "sweep" / "table.txt").read_text(encoding="utf-8").split("\n\n")[-1]
    return f"""# Labels made wrong on purpose

{len(wrong)} of {len(rows)} training videos of `motion` ({given.flipped:.0%}) were given another class at random.
`vidtrain label_errors` ranks all by the predictions of {given.folds} folds, each of a network that had not seen them.

| | |
| --- | --- |
| wrong labels in the first {FIRST:.0%} of the list ({len(first)} videos) | {share} |
| labels that confident learning takes for wrong | {len(issues)}, of which {right} are |

The networks, tested on labels of which {given.flipped:.0%} are wrong:

```
{table.strip()}
```

`python benchmarks/bench_label_errors.py --scenes {given.scenes} --folds {given.folds} --flipped {given.flipped} \
--seed {given.seed}{" -- " + " ".join(given.options) if given.options else ""}`

{datetime.date.today()}, {platform.machine()}, python {platform.python_version()}, torch {torch.__version__}."""


if __name__ == "__main__":
    main()

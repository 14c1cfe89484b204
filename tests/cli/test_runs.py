"""train, eval and predict on real files, from the command line to what they leave on disk."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests import warm
from tests.cli.conftest import NUMBERS_ONLY, Call, environment, error_line
from vidtrain import load_model
from vidtrain.engine.checkpoints.checkpoint import load_checkpoint, save_checkpoint


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def test_a_run_leaves_what_it_promises(trained: Path) -> None:
    result = json.loads((trained / "result.json").read_text())
    assert result["test"]["scored"] == result["test"]["listed"] == 8
    assert "8x1 clips at 32 px (short side 32), 2x1 views" in result["test"]["protocol"]
    kinds = [json.loads(line)["kind"] for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert kinds == ["train", "train", "train_epoch", "val"] * 2
    for name in ("best.pt", "last.pt", "train.log", "config.json", ".hydra/overrides.yaml"):
        assert (trained / name).is_file(), name


def test_tensorboard_shows_scalars_clips_and_confusion(trained: Path) -> None:
    events = EventAccumulator(str(trained / "tensorboard")).Reload()
    shown = {"train/loss", "train/lr", "train/grad_norm", "train/data_wait_share", "val/top1", "final/test/top1"}
    assert shown <= set(events.Tags()["scalars"])
    assert all(event.value > 0 for event in events.Scalars("train/grad_norm"))
    result = json.loads((trained / "result.json").read_text())
    assert events.Scalars("final/test/top1")[0].value == pytest.approx(result["test"]["top1"])
    assert set(events.Tags()["images"]) == {"clips", "clips/video", "confusion"}


def test_a_checkpoint_describes_itself(trained: Path) -> None:
    model, content = load_model(trained / "best.pt")
    assert not model.training
    assert content["class_names"][0] == "move_left"
    assert content["config"]["transform"]["size"] == 32
    assert {"vidtrain", "torch", "torchvision", "av", "python"} <= set(content["versions"])


def test_eval_equals_the_test_after_training_from_any_folder(trained: Path, call: Call, tmp_path: Path) -> None:
    out = call("eval", f"checkpoint={trained / 'best.pt'}", f"output={tmp_path / 'out'}").stdout
    assert "scored 8 of 8" in out
    assert rows_of(tmp_path / "out" / "predictions.csv") == rows_of(trained / "test" / "predictions.csv")
    paths = [row["file"] for row in rows_of(tmp_path / "out" / "predictions.csv")]
    assert all(Path(p).is_absolute() for p in paths)
    assert len(set(paths)) == 8


def test_eval_takes_changes(trained: Path, call: Call, tmp_path: Path) -> None:
    checkpoint = f"checkpoint={trained / 'best.pt'}"
    out = call("eval", checkpoint, "eval.clips=3", "eval.crops=3", "split=val", f"output={tmp_path / 'out'}").stdout
    assert "3x3 views" in out
    assert json.loads((tmp_path / "out" / "result.json").read_text())["split"] == "val"
    line = error_line(call("eval", checkpoint, "eval.clisp=3", check=2))
    assert "no key 'eval.clisp' (did you mean clips?); the checkpoint's eval has: protocol, average, clips, " in line
    line = error_line(call("eval", checkpoint, "eval.num_clips=3", check=2))
    assert "no key 'eval.num_clips' (did you mean eval.clips?)" in line
    assert "eval.clips: Value 'x'" in error_line(call("eval", checkpoint, "eval.clips=x", check=2))
    assert "eval.crops=2: allowed are 1" in error_line(call("eval", checkpoint, "eval.crops=2", check=2))


def test_predict_equals_eval_on_the_same_file(trained: Path, call: Call) -> None:
    scored = rows_of(trained / "test" / "predictions.csv")
    one = scored[3]
    done = call("predict", f"checkpoint={trained / 'best.pt'}", f"input={one['file']}", "top=3", "output=p.csv")
    assert done.stdout.startswith(f"{one['file']}: {one['top1']} {float(one['prob1']):.4f}, {one['top2']} ")
    assert len(done.stdout.split(",")) == 3
    again = rows_of(Path("p.csv"))[0]
    assert (again["top1"], again["label"]) == (one["top1"], "")
    assert float(again["prob1"]) == pytest.approx(float(one["prob1"]), abs=2e-6)  # written with six digits


def test_predict_reads_folders_and_globs_and_reports_what_it_cannot_read(
    trained: Path, call: Call, tmp_path: Path
) -> None:
    source = Path(rows_of(trained / "test" / "predictions.csv")[0]["file"])
    folder = tmp_path / "my clips"
    folder.mkdir()
    for name in ("a.mp4", "имя é (1).mp4", "-b.mp4"):
        shutil.copy(source, folder / name)
    checkpoint = f"checkpoint={trained / 'best.pt'}"
    assert len(call("predict", checkpoint, f"input='{folder}'").stdout.splitlines()) == 3
    (folder / "broken.mp4").write_bytes(source.read_bytes()[:200])
    (folder / "empty.mp4").touch()
    done = call("predict", checkpoint, f"input='{folder}/*.mp4'", check=2)
    assert len(done.stdout.splitlines()) == 3
    assert "2 of 5 videos could not be read" in done.stderr
    assert "empty.mp4" in done.stderr
    assert "broken.mp4" in error_line(call("predict", checkpoint, f"input='{folder}/broken.mp4'", check=2))
    assert "no such file" in error_line(call("predict", checkpoint, "input=none.mp4", check=2))


def test_untrusted_code_in_a_checkpoint_is_refused(trained: Path, call: Call, tmp_path: Path) -> None:
    content = load_checkpoint(trained / "best.pt")
    for target in ("os.system", "torch.hub.load", "vidtrain.build.import_module", "vidtrain.models.c3d.torch.hub.load"):
        content["config"]["model"] = {"_target_": target}
        save_checkpoint(tmp_path / "evil.pt", content)
        line = error_line(call("eval", "checkpoint=evil.pt", check=2))
        assert f"model._target_={target}" in line, line


def test_weights_of_another_model_are_refused(trained: Path, call: Call, tmp_path: Path) -> None:
    content = load_checkpoint(trained / "best.pt")
    content["config"]["model"]["width"] = 4
    save_checkpoint(tmp_path / "other.pt", content)
    line = error_line(call("predict", "checkpoint=other.pt", "input=x.mp4", check=2))
    assert "no such file" in line
    (tmp_path / "x.mp4").touch()
    assert "its weights are not those of" in error_line(call("predict", "checkpoint=other.pt", "input=x.mp4", check=2))


def test_classes_are_matched_by_name(trained: Path, call: Call, tmp_path: Path) -> None:
    for row in rows_of(trained / "test" / "predictions.csv"):
        folder = tmp_path / "mine" / "test" / row["label"]
        folder.mkdir(parents=True)
        shutil.copy(row["file"], folder)
        shutil.copytree(folder, tmp_path / "mine" / "train" / row["label"])
    shutil.rmtree(tmp_path / "mine" / "train" / "grow")  # class numbers shift; names decide
    shutil.rmtree(tmp_path / "mine" / "test" / "grow")
    mine = ["data=folder", f"data.root={tmp_path / 'mine'}", "data.val_fraction=0", "output=out"]
    call("eval", f"checkpoint={trained / 'best.pt'}", *mine)
    before = {r["label"]: r["prob1"] for r in rows_of(trained / "test" / "predictions.csv")}
    after = {r["label"]: r["prob1"] for r in rows_of(tmp_path / "out" / "predictions.csv")}
    before.pop("grow")
    assert after == before
    (tmp_path / "mine" / "train" / "turn_cw").rename(tmp_path / "mine" / "train" / "dance")
    (tmp_path / "mine" / "test" / "turn_cw").rename(tmp_path / "mine" / "test" / "dance")
    line = error_line(call("eval", f"checkpoint={trained / 'best.pt'}", *mine, check=2))
    assert "classes that the checkpoint does not know: dance" in line


def test_a_sweep_ends_in_a_table_also_when_a_run_fails(
    tiny: list[str], trained: Path, call: Call, tmp_path: Path
) -> None:
    root = next(o for o in tiny if o.startswith("data.root=")).removeprefix("data.root=")
    (tmp_path / "set a, (${x})").symlink_to(root)
    odd = "data.root=set a, (${x})"
    done = call("train", "-m", *tiny, odd, "trainer.epochs=1", "model.width=4,0,6", "hydra.sweep.dir=s", check=2)
    lines = (tmp_path / "s" / "table.txt").read_text().splitlines()
    assert lines[0].split()[0] == "model.width"
    assert [line.split()[0] for line in lines[2:]] == ["4", "0", "6"]
    assert "failed" in lines[3]
    assert all("8/8" in line for line in (lines[2], lines[4]))
    assert "1 of the runs failed" in done.stderr
    folders = sorted(p.name for p in (tmp_path / "s").iterdir() if p.is_dir())  # names that need no quotes
    assert folders == ["0_model.width-4", "1_model.width-0", "2_model.width-6"]
    assert load_checkpoint("s/2_model.width-6/best.pt")["config"]["data"]["root"] == str(tmp_path / "set a, (${x})")


def test_bad_videos_are_replaced_in_training_and_named_in_testing(call: Call, trained: Path, tmp_path: Path) -> None:
    files = [Path(row["file"]) for row in rows_of(trained / "test" / "predictions.csv")]
    for split, count in (("train", 8), ("test", 4)):
        for number, file in enumerate(files[:count]):
            folder = tmp_path / "mine" / split / "ab"[number % 2]
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, folder / f"{number}.mp4")
    broken = {split: tmp_path / "mine" / split / "a" / "0.mp4" for split in ("train", "test")}
    for file in broken.values():
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 3])
    run = ["train", "data=folder", "data.root=mine", "data.val_fraction=0", *SMALL, "run_dir=r"]
    assert "more than data.max_bad_fraction allows" in error_line_at_end(call(*run, check=2).stderr)
    assert not Path("r").exists()
    done = call(*run, "data.max_bad_fraction=0.2")
    assert f"unreadable video replaced: {broken['train']}" in done.stderr
    result = json.loads(Path("r/result.json").read_text())
    assert list(result["bad"]) == [str(broken["train"])]
    assert (result["test"]["scored"], result["test"]["listed"], result["test"]["unreadable"]) == (3, 4, 1)
    assert [row["path"] for row in rows_of(Path("r/test/not_scored.csv"))] == [str(broken["test"])]


SMALL = [
    *["sampler.num_frames=8", "sampler.stride=1", "transform.size=32", "transform.resize=32", "trainer.epochs=1"],
    *["trainer.batch_size=4", "trainer.num_workers=0", "eval.clips=2", "schedule.warmup_epochs=0"],
    *NUMBERS_ONLY,
]


def error_line_at_end(stderr: str) -> str:
    line = stderr.strip().splitlines()[-1]
    assert line.startswith("vidtrain: error: "), stderr
    return line


def test_inspect_prints_the_layers(call: Call) -> None:
    out = call("inspect", "model=slow_fusion", "model.net=lecture", "sampler.num_frames=20", "transform.size=64").stdout
    assert "3 x 20 x 64 x 64" in out
    assert "Conv3D(3x3x3, 3->12)" in out
    assert "GMAC" in out


@pytest.mark.slow
def test_torchrun_starts_it(tiny: list[str], tmp_path: Path) -> None:
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node=1"]
    command = [*torchrun, "-m", "vidtrain", "train", *tiny, "run_dir=r", "trainer.epochs=1"]
    done = warm.run(command, cwd=tmp_path, timeout=120)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "r" / "best.pt").is_file()


def test_weights_only_loading_suffices(trained: Path) -> None:
    assert "optimizer" in torch.load(trained / "last.pt", weights_only=True)
    assert "optimizer" not in torch.load(trained / "best.pt", weights_only=True)


def test_a_reader_that_has_gone_is_no_error(trained: Path, tmp_path: Path) -> None:
    """vidtrain eval ... | head -1: Hydra says nothing of it, and the exit code is 0."""
    command = ["-m", "vidtrain", "eval", f"checkpoint={trained / 'best.pt'}", "output=out"]
    process = warm.Python(
        command, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    stderr = process.stderr.read()
    assert (process.wait(120), stderr) == (0, "")

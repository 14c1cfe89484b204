"""Paths are taken as the shell gives them: through Hydra's real parser, its sweeps, and into the files of a run."""

from __future__ import annotations

import inspect
import os
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from tests.cli.conftest import Call, error_line
from vidtrain.commands.dataset_videos import override
from vidtrain.commands.run_dir import sweep_folder
from vidtrain.engine.checkpoints.checkpoint import load_checkpoint
from vidtrain.errors import ConfigError
from vidtrain.models.settings import START_KEYS
from vidtrain.options import path_options
from vidtrain.options.commands import COMMANDS
from vidtrain.options.instantiate import locate
from vidtrain.options.option_texts import conf_dir, fields
from vidtrain.options.path_options import (
    annotation,
    expand_home,
    expand_homes,
    literal,
    name_positional,
    quote_paths,
    unquoted,
)

NAMES = [
    *["clip (1).mp4", "喧嘩.mp4", "a,b.mp4", "x=1.mp4", "it's.mp4", 'say "hi".mp4', "`ls`.mp4", "$HOME.mp4", "50%.mp4"],
    *[
        "{a}.mp4",
        "{a:1}",
        "[a].mp4",
        "[a]",
        "a#b.mp4",
        "a:b",
        "a: b",
        "C:\\x\\y.mp4",
        "back\\",
        "\\'",
        "-b.mp4",
        "--help",
    ],
    *[" led.mp4", "trail ", "two\nlines.mp4", "\ttab.mp4", "${x}.mp4", "\\${x}", "a${", "$${x}'\\", "bytes\udce9.mp4"],
    *[
        "null",
        "true",
        "123",
        "1e5",
        "inf",
        "0x1f",
        "1_000",
        "~",
        "~no-such-user.mp4",
        "@x",
        "!x",
        "&x",
        "*x|",
        "e\u0301.mp4",
        "'",
    ],
    *[
        "???",
        "choice(a,b)",
        "glob(*)",
        "range(1,3)",
        "sort(b,a)",
        "runs/sweeps/D/0_optimizer.lr=0.1/best.pt",
        "a=b=c",
        "=a",
    ],
]
_PARSER = OverridesParser.create()


def read_back(argument: str, others: dict[str, Any] | None = None) -> str:
    """What the program gets of an argument, by the way of Hydra's parser and OmegaConf."""
    parsed = _PARSER.parse_override(argument)
    assert not parsed.is_sweep_override()
    config = OmegaConf.create(others or {})
    OmegaConf.update(config, "key", parsed.value(), force_add=True)
    value = config.key
    assert isinstance(value, str), value
    return value


_SPECIAL = [
    "\\",
    "'",
    '"',
    "$",
    "${",
    "}",
    "\\${",
    "\\'",
    "(",
    ")",
    "[",
    "]",
    ",",
    "=",
    ":",
    "~",
    "#",
    "%",
    " ",
    "\n",
    "\t",
]


@given(st.lists(st.one_of(st.sampled_from(_SPECIAL), st.characters(exclude_characters="\0")), min_size=1).map("".join))
@example("${x}\\'")
@example("null")
@example("\udce9")
def test_any_text_arrives_as_it_is(path: str) -> None:
    if not path.strip() or re.fullmatch(r"(['\"]).*\1", path, re.DOTALL):
        return
    for prefix in ("", "+", "++"):
        [argument] = quote_paths([f"{prefix}input={path}"], "predict")
        assert argument.startswith(f"{prefix}input=")
        assert read_back(argument) == ("./???" if path == "???" else path)
    [handed_on] = BasicSweeper.split_arguments(_PARSER.parse_overrides([argument]), None)[0][0]  # to a run of a sweep
    assert read_back(handed_on) == ("./???" if path == "???" else path)


@pytest.mark.parametrize("path", NAMES)
def test_names(path: str) -> None:
    [argument] = quote_paths([f"input={path}"], "predict")
    assert read_back(argument) == ("./???" if path == "???" else path)


def test_what_needs_no_quotes_gets_none() -> None:
    plain = ["checkpoint=runs/a-b/best.pt", "input=/x/a.b_c.mp4", "output=./x:y", "top=3", "trust=[a,b]"]
    assert quote_paths(plain, "predict") == plain


def test_hydras_own_quotes_stay_with_their_interpolations() -> None:
    given = ["input='a b'", 'output="${oc.env:HOME}/it\'s"', "checkpoint='a,b'"]
    assert quote_paths(given, "predict") == given
    assert quote_paths(["input='a' 'b'"], "predict") == [r"input='\'a\' \'b\''"]  # but this is not one quoted text


def test_interpolations_need_no_quotes_where_no_file_has_their_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLIPS", "/clips")
    for text, value in (
        ("${oc.env:CLIPS}/a (1).mp4", "/clips/a (1).mp4"),
        ("${oc.env:NONE,/tmp}/${oc.env:CLIPS}", "/tmp//clips"),
        ("${a.b}/val", "there/val"),
        ("$x.mp4", "$x.mp4"),
        ("${x}/a.mp4", "${x}/a.mp4"),
        ("${oc.env:CLIPS}/${", "${oc.env:CLIPS}/${"),
    ):
        assert read_back(quote_paths([f"input={text}"], "predict")[0], {"a": {"b": "there"}}) == value
    (tmp_path / "${a.b}").mkdir()
    assert read_back(quote_paths(["input=${a.b}"], "predict")[0]) == "${a.b}"


def test_null_is_null_where_the_option_may_be_null() -> None:
    assert quote_paths(["output=null", "resume=auto", "run_dir=null"], "train") == [
        "output=null",
        "resume=auto",
        "run_dir=null",
    ]
    assert quote_paths(["input=null", "checkpoint=null"], "predict") == ["input='null'", "checkpoint=null"]
    assert quote_paths(["checkpoint=null"], "extract") == ["checkpoint=null"]
    assert quote_paths(["data.train=null", "data.root=null"], "train") == ["data.train=null", "data.root='null'"]


def test_other_options_and_deletions_are_left_alone() -> None:
    others = [
        "~data.root",
        "~data.root=x,y",
        "model=a,b",
        "data.split=1",
        "trainer.epochs=(",
        "data",
        "model.width=1,2",
    ]
    assert quote_paths(others, "train") == others


@pytest.mark.parametrize("value", ["", " "])
def test_an_empty_path_is_refused(value: str) -> None:
    with pytest.raises(ConfigError, match=rf"data.root={value}: no path after the equals sign \(an unset variable"):
        quote_paths([f"data.root={value}"], "train")
    with pytest.raises(ConfigError, match="or null for none"):
        quote_paths([f"output={value}"], "predict")


def test_a_sweep_is_one_only_with_m(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def values(argument: str) -> list[str]:
        [quoted] = quote_paths([argument], "train", multirun=True)
        jobs = BasicSweeper.split_arguments(_PARSER.parse_overrides([quoted]), None)[0]
        return [read_back(job[0]) for job in jobs]

    assert values("data.root=a,b") == ["a", "b"]
    assert values("data.root=/x/ucf 101, it's,(c=1),'d,e',${f}") == ["/x/ucf 101", "it's", "(c=1)", "d,e", "${f}"]
    assert values("data.root=choice(a,b)") == ["a", "b"]
    assert values("data.root='a,b'") == ["a,b"]
    assert values("data.root=one (1)") == ["one (1)"]
    (tmp_path / "a,b").mkdir()
    assert values("data.root=a,b") == ["a,b"]
    (tmp_path / "choice(a,b)").mkdir()
    assert values("data.root=choice(a,b)") == ["choice(a,b)"]
    (tmp_path / "a,b" / "l,1.csv").touch()
    [_, train] = quote_paths(["data.root=a,b", "data.train=l,1.csv"], "train", multirun=True)
    assert read_back(train) == "l,1.csv"  # found below data.root, as it will be when it is read
    with pytest.raises(ConfigError, match="a,,b: a value of this sweep is empty"):
        values("data.root=a,,b")


def test_a_regular_expression_is_taken_as_it_is(tmp_path: Path) -> None:
    for text in (r"(v_\w+_g\d{1,2})_c", r"[^/]+?(?=_a|_b)$", "'x", "a, b", "${f}"):
        for multirun in (False, True):
            [quoted] = quote_paths(["data=folder", f"data.group_by={text}"], "train", multirun=multirun)[1:]
            [job] = BasicSweeper.split_arguments(_PARSER.parse_overrides([quoted]), None)[0]
            assert read_back(job[0]) == text
    assert quote_paths(["data.group_by=null"], "train") == ["data.group_by=null"]


# ---------------------------------------------------------------- which options are paths


def _about_a_path(text: str) -> bool:
    return bool(re.search(r"\b(file|folder|path|CSV|JSON|list of|table)\b", text, re.IGNORECASE))


# options with a text that speaks of a file or a folder and that hold another thing
NO_PATHS = {
    *["check.timeout", "prepare.timeout", "prepare.format", "check.full", "check.group_by", "split"],
    *["trainer.keep_last", "trainer.profile", "logger.tensorboard", "flow.source", "flow.model"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_typed_option_about_a_path_is_one(command: str) -> None:
    for key, kind, _, text in fields(command):
        named = re.search(r"(^|[._])(path|file|dir|folder|root|output|input|weights|checkpoint|probes)$", key)
        if key not in NO_PATHS and ("str" in kind or "Path" in kind) and (named or _about_a_path(text)):
            assert annotation(command, key) is not None, f"{key}: {text}"


COLUMNS = {"path_column", "columns", "separator", "header"}  # of a list: words in it, not where it is


@pytest.mark.parametrize("file", sorted((conf_dir() / "data").glob("*.yaml")), ids=lambda file: file.stem)
def test_every_option_of_a_data_set_about_a_file_is_a_path(file: Path) -> None:
    for line in file.read_text().splitlines():
        found = re.fullmatch(r"(\w+): (\S+) +# (.*)", line)
        if not found or (found.group(2) not in ("null", "???") and found.group(1) != "root"):
            continue
        key, text = found.group(1), found.group(3)
        about = re.match(r"(file|folder|list|CSV|table|JSON|answers|classes|names|categories|\"c000)", text)
        if key not in COLUMNS and (about or key == "root"):
            assert annotation("train", f"data.{key}", {"data": [file.stem]}) is not None, line
    assert annotation("train", "data.root", {"data": [file.stem]}) is not None
    for key in COLUMNS | {"split_seed", "max_bad_fraction"}:
        assert annotation("train", f"data.{key}", {"data": [file.stem]}) is None
    expression = "Regex | None" if file.stem in ("folder", "index", "list", "segments", "shards", "table") else None
    assert annotation("train", "data.group_by", {"data": [file.stem]}) == expression  # as the shell gives it, too


def test_options_of_models() -> None:
    for key in (f"model.{key}" for key in set(START_KEYS) - {"pretrained"}):
        assert annotation("train", key) is not None
    for key in ("model.pretrained", "model.width", "model.network", "model", "data", "decoder.device"):
        assert annotation("train", key) is None


def test_every_path_of_a_data_sets_function_is_found() -> None:
    targets = path_options._targets("data", None, None)
    assert len(targets) >= 15
    for target in targets:
        for key, parameter in inspect.signature(locate(target, "data")).parameters.items():
            if "Path" in str(parameter.annotation):
                assert path_options._options(target)[key] == parameter.annotation, target


@pytest.mark.parametrize("head", ["def clips(", "class Clips:\n    def __init__(self, "])
def test_options_of_an_own_data_set(head: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "pack_of_paths").mkdir()
    code = f"import no_such_module\n{head}root, answers: 'Path', labels: list[str], weights: bool): ...\n"
    code += "clips = Clips\n" if "class" in head else ""
    (tmp_path / "pack_of_paths" / "sets.py").write_text(code)  # it is read, not imported
    (tmp_path / "conf" / "data").mkdir(parents=True)
    (tmp_path / "conf" / "data" / "own.yaml").write_text("_target_: pack_of_paths.sets.clips\nroot: ???\n")
    given = ["data=own", "data.root=a b,c", "data.answers=1,2", "data.labels=[a,b]"]
    quoted = quote_paths(given, "train", config_dir=tmp_path / "conf")
    assert quoted == ["data=own", "data.root='a b,c'", "data.answers='1,2'", "data.labels=[a,b]"]
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "own.yaml").write_text("_target_: pack_of_paths.sets.clips\n")
    given = ["model=own", "model.weights=true"]
    assert quote_paths(given, "train", config_dir=tmp_path / "conf") == given


# ---------------------------------------------------------------- ~


def test_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    home = str(tmp_path / "home")
    assert [expand_home(p) for p in ("~/a b", "~", "~no-such-user/x", "a~")] == [
        f"{home}/a b",
        home,
        "~no-such-user/x",
        "a~",
    ]
    (tmp_path / "~").mkdir()
    assert expand_home("~") == "~"
    plain = {"data": {"_target_": "vidtrain.data.formats.lists.lists", "root": "~/x", "train": "~/t", "columns": "~/c"}}
    assert expand_homes(plain, "train") == {"data.root": f"{home}/x", "data.train": f"{home}/t"}
    assert expand_homes({"run_dir": "~/r", "trainer": {"device": "~/x"}}, "train") == {"run_dir": f"{home}/r"}


def test_tilde_on_the_command_line_and_in_a_users_yaml(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("a", "b"):
        (tmp_path / "my (set)" / name).mkdir(parents=True)
        for number in range(8):
            (tmp_path / "my (set)" / name / f"{number}.mp4").touch()
    expected = f"root: {tmp_path}/my (set)"
    for value in ("~/my (set)", "'~/my (set)'"):
        assert expected in call("data", "info", "data=folder", f"data.root={value}").stdout
    (tmp_path / "conf" / "data").mkdir(parents=True)
    text = "_target_: vidtrain.data.formats.folder.folder\nroot: ~/my (set)\n"
    (tmp_path / "conf" / "data" / "mine.yaml").write_text(text)
    assert expected in call("data", "info", "--config-dir=~/conf", "data=mine").stdout


# ---------------------------------------------------------------- through the program


ODD = ["clip (1).mp4", "a,b=it's 喧嘩.mp4", "[${x}]", "null"]


def test_predict_takes_any_name(trained: Path, call: Call, tmp_path: Path) -> None:
    clip = next(line.split(",")[1] for line in (trained / "test" / "predictions.csv").read_text().splitlines()[1:])
    folder = tmp_path / "0_optimizer.lr=0.1 ${x}"
    folder.mkdir()
    shutil.copy(trained / "best.pt", folder)
    for name in ODD:
        shutil.copy(clip, tmp_path / name)
        done = call("predict", f"checkpoint={folder.name}/best.pt", f"input={name}", f"output=of {name}.csv")
        assert done.stdout.startswith(f"{name}: ")
        assert (tmp_path / f"of {name}.csv").is_file()


def test_a_mistake_names_the_path_as_it_was_given(trained: Path, call: Call) -> None:
    for name in ("no (1).mp4", "no${x}.mp4", "~no-such-user.mp4"):
        line = error_line(call("predict", f"checkpoint={trained / 'best.pt'}", f"input={name}", check=2))
        assert line.startswith(f"input={name}: no such file")
    assert error_line(call("predict", "checkpoint=a=1 (2).pt", "input=x", check=2)).startswith("a=1 (2).pt: no such")


def test_a_run_and_a_test_of_it_in_odd_folders(tiny: list[str], trained: Path, call: Call, tmp_path: Path) -> None:
    root = Path(next(o for o in tiny if o.startswith("data.root=")).removeprefix("data.root="))
    shutil.copytree(root, tmp_path / "set, ${x} [1]=it's")
    given = [*tiny, "data.root=set, ${x} [1]=it's", "run_dir=run, [1]=it's", "trainer.epochs=1", "trainer.test=false"]
    call("train", *given)
    call("eval", "checkpoint=run, [1]=it's/best.pt", "output=[out]")
    assert "set, ${x} [1]=it's" in (tmp_path / "[out]" / "predictions.csv").read_text()
    run = tmp_path / "run, [1]=it's"
    stored = load_checkpoint(run / "best.pt")["config"]["data"]["root"]
    assert stored == str(tmp_path / "set, ${x} [1]=it's")
    assert "finished already" in call("train", *given, "resume=run, [1]=it's").stderr
    again = _PARSER.parse_overrides(list(OmegaConf.load(run / ".hydra" / "overrides.yaml")))
    assert {o.key_or_group: o.value() for o in again}["run_dir"] == "run, [1]=it's"
    line = error_line(call("train", "run_dir=${x}", check=2))
    assert line == "run_dir=${x}: a run folder cannot have ${ in its name"


@pytest.mark.parametrize(
    ("number", "varied", "expected"),
    [
        (0, "optimizer.lr=0.1", "0_optimizer.lr-0.1"),
        (3, "model=c3d_optimizer.lr=1e-3", "3_model-c3d_optimizer.lr-1e-3"),
        (1, "++model.width=4_+x=2", "1_model.width-4_x-2"),
        (2, "data.root='/a b/喧=(1)'", "2_data.root-a-b-1"),
        (0, "", "0"),
    ],
)
def test_names_of_the_folders_of_a_sweep(number: int, varied: str, expected: str) -> None:
    assert sweep_folder(number, varied) == expected


@given(st.integers(0, 10**6), st.text())
@settings(max_examples=settings().max_examples // 3)
def test_names_of_a_sweep_are_safe_short_and_unique(number: int, varied: str) -> None:
    name = sweep_folder(number, varied)
    assert re.fullmatch(r"\d+(_[A-Za-z0-9._-]*[A-Za-z0-9])?", name)
    assert len(os.fsencode(name)) <= 255
    assert name.split("_")[0] == str(number)
    assert quote_paths([f"checkpoint={name}/best.pt"], "predict") == [f"checkpoint={name}/best.pt"]


@pytest.mark.parametrize("path", [n for n in NAMES if not n.startswith("~")])
def test_what_we_print_to_be_pasted_is_read_back(path: str) -> None:
    [argument] = shlex.split(override("data.root", Path("/x") / path))
    assert read_back(quote_paths([argument], "train")[0]) == str(Path("/x") / path)


def test_a_working_folder_that_hydra_cannot_have(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "w${x}").mkdir()
    monkeypatch.chdir(tmp_path / "w${x}")
    assert "w${x}: Hydra reads the ${ in this folder's name" in error_line(call("train", check=2))
    call("inspect", "model=slow_fusion", "output=m.md")  # the others do not mind


def test_hydras_own_folders_keep_their_interpolations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    as_they_are = ["hydra.sweep.dir=s", "hydra.sweep.dir=runs/${now:%Y-%m-%d}", "hydra.run.dir='a b/${now:%Y}'"]
    assert quote_paths(as_they_are, "train") == as_they_are
    [argument] = quote_paths(["hydra.sweep.dir=~/s (1)/${oc.env:HOME}"], "train")
    assert read_back(argument) == f"{tmp_path}/s (1)/{tmp_path}"


def test_values_are_shown_without_quotes() -> None:
    for path in ("a b", "it's", "a,b", "plain"):
        [argument] = quote_paths([f"data.root={path}"], "train")
        assert unquoted(argument.removeprefix("data.root=")) == path
    assert unquoted("[1,2]") == "[1,2]"


def test_literal_is_undone_by_omegaconf() -> None:
    config: Any = OmegaConf.create({"x": 1, "path": literal(r"a\${x}\\${x}$${")})
    assert config.path == r"a\${x}\\${x}$${"


def test_a_word_without_a_key_is_the_path_that_a_command_is_about(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x=1").mkdir()
    assert name_positional(["clips", "device=cpu"], "init") == ["input=clips", "device=cpu"]
    assert name_positional(["device=cpu", "x=1"], "init") == ["input=x=1", "device=cpu"]  # such a folder is there
    for as_given in (["input=a", "output=b"], ["y=1", "hydra.verbose=true"], []):  # Hydra says that there is no key y
        assert name_positional(as_given, "init") == as_given
    assert name_positional(["model=c3d", "clips"], "train") == ["model=c3d", "clips"]
    for words in (["a", "b"], ["a", "input=b"]):
        with pytest.raises(ConfigError, match=r"give one|one path"):
            name_positional(words, "init")
    monkeypatch.setattr(path_options, "annotation", lambda *_: "list[FilePath]")
    [argument] = name_positional(["a", "b, c", "it's ${d}", "[1]"], "init")
    assert list(OmegaConf.create({"key": _PARSER.parse_override(argument).value()}).key) == [
        "a",
        "b, c",
        "it's ${d}",
        "[1]",
    ]

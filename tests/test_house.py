"""Who may import whom: the house's rules, read from the source."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from vidtrain.data.formats._files.text_files import without_gc

PACKAGE = Path(__file__).parents[1] / "vidtrain"
SHELL = (
    "hydra",
    "omegaconf",
    "vidtrain.options.schema",
    "vidtrain.shell.cli",
    "vidtrain.commands",
    "vidtrain.build",
    "vidtrain.options.instantiate",
    "vidtrain.options.checkpoint_config",
)
FORBIDDEN = {
    "models": (*SHELL, "vidtrain.data", "vidtrain.engine", "vidtrain.tasks", "vidtrain.reports"),
    "data": (*SHELL, "vidtrain.models", "vidtrain.engine", "vidtrain.tasks", "vidtrain.reports"),
    "engine": (*SHELL, "vidtrain.data", "vidtrain.models", "vidtrain.reports", "vidtrain.tasks.classification"),
    "explain": (*SHELL, "vidtrain.data", "vidtrain.engine", "vidtrain.tasks", "vidtrain.reports"),
    "tasks": (*SHELL, "vidtrain.data", "vidtrain.models", "vidtrain.engine"),
    "types.py": (*SHELL, "vidtrain.data", "vidtrain.models", "vidtrain.engine", "vidtrain.reports"),
    "errors.py": (*SHELL, "torch", "numpy", "vidtrain.data", "vidtrain.models", "vidtrain.engine"),
}


@cache
@without_gc  # it would look through the half a million nodes again and again
def sources() -> dict[Path, list[ast.AST]]:
    """The nodes of each file, the module first."""
    return {file: [*ast.walk(ast.parse(file.read_text(encoding="utf-8")))] for file in PACKAGE.rglob("*.py")}


def parsed(file: Path) -> ast.Module:
    module = sources()[file][0]
    assert isinstance(module, ast.Module)
    return module


@cache
def imports(file: Path) -> frozenset[str]:
    found = set()
    for node in sources()[file]:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: a relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(found)


@pytest.mark.parametrize("part", FORBIDDEN)
def test_imports(part: str) -> None:
    place = PACKAGE / part
    files = [place] if place.is_file() else sorted(place.rglob("*.py"))
    assert files
    for file in files:
        for name in imports(file):
            for forbidden in FORBIDDEN[part]:
                assert name != forbidden, f"{file} imports {name}"
                assert not name.startswith(forbidden + "."), f"{file} imports {name}"


def test_an_architecture_does_not_know_where_weights_come_from() -> None:
    """weights -> architectures -> layers, never back."""
    models = PACKAGE / "models"
    for file in [*models.glob("*.py"), *(models / "layers").glob("*.py")]:
        names = {name for name in imports(file) if name.startswith("vidtrain.models.")}
        above = ("vidtrain.models.weights.",) if file.parent == models else ("vidtrain.models.",)
        wrong = [n for n in names if n.startswith(above) and not n.startswith("vidtrain.models.layers.")]
        assert not wrong, f"{file} imports {wrong}"


ROOT_FILES = 1  # of data/ at one level
DATA_ROOMS, DATA_ARROWS = 11, 26


def folders_imported() -> dict[str, set[str]]:
    """Folder of the package -> the folders that its own files import. What lies at the root is shared by all."""
    found: dict[str, set[str]] = {}
    for file in PACKAGE.rglob("*.py"):
        here = ".".join(file.relative_to(PACKAGE).parent.parts)
        for name in imports(file):
            parts = name.split(".")[1:] if name.startswith("vidtrain.") else []
            depth = next((n for n in range(len(parts), 0, -1) if (PACKAGE / Path(*parts[:n])).is_dir()), 0)
            there = ".".join(parts[:depth])
            if here and there and here != there:
                found.setdefault(here, set()).add(there)
    return found


def test_no_circle_of_folders() -> None:
    graph = folders_imported()
    assert graph["commands"] >= {"engine", "data.manifest", "options"}
    done: set[str] = set()

    def visit(folder: str, above: tuple[str, ...]) -> None:
        assert folder not in above, f"a circle: {' -> '.join((*above[above.index(folder) :], folder))}"
        if folder not in done:
            for below in sorted(graph.get(folder, ())):
                visit(below, (*above, folder))
            done.add(folder)

    for folder in sorted(graph):
        visit(folder, ())


def test_the_rooms_of_the_data() -> None:
    """A folder with all below it is one room, and a file beside them; an arrow, that one imports another."""
    data = PACKAGE / "data"
    found: dict[str, set[str]] = {}
    for file in data.rglob("*.py"):
        here = file.relative_to(data).parts[0].removesuffix(".py")
        names = (name.split(".") for name in imports(file))
        found.setdefault(here, set()).update(parts[2] for parts in names if parts[:2] == ["vidtrain", "data"])
    del found["__init__"]
    assert found["clips"] >= {"flow", "manifest", "readers"}
    assert len(found) <= DATA_ROOMS, sorted(found)
    arrows = sorted((here, there) for here, others in found.items() for there in others - {here})
    assert len(arrows) <= DATA_ARROWS, arrows


def test_a_stranger_finds_the_parts_of_the_data() -> None:
    assert len([file for file in (PACKAGE / "data").glob("*.py") if file.name != "__init__.py"]) <= ROOT_FILES
    for folder in PACKAGE.rglob("*/"):
        if any(folder.glob("*.py")):
            text = (folder / "__init__.py").read_text(encoding="utf-8")
            assert ast.get_docstring(ast.parse(text)), f"{folder}/__init__.py says in a line what may be in it"


def test_the_loop_knows_no_classes() -> None:
    words = re.compile(
        r"(?<![a-z])(num_classes|class_names|classes|labels?|label_smoothing|multi_label|softmax|sigmoid|logits?|top-?\d|"
        r"hits?|accuracy|confusion|mixup|cutmix)(?![a-z])",
        re.IGNORECASE,
    )
    for file in (PACKAGE / "engine").rglob("*.py"):
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            assert not words.search(line), f"{file}:{number}: {line.strip()}"


def files_imported_by(file: Path) -> set[Path]:
    """The files of the same folder that a file imports, also those for its annotations only."""
    names = (name.split(".") for name in imports(file))
    home = ["vidtrain", *file.relative_to(PACKAGE).parent.parts]
    found = {file.parent / f"{n[len(home)]}.py" for n in names if n[: len(home)] == home and len(n) > len(home)}
    return {other for other in found if other.is_file()}


def test_no_circle_of_files_in_the_loop() -> None:
    folder = PACKAGE / "engine"
    graph = {file: files_imported_by(file) for file in folder.glob("*.py")}
    assert folder / "step.py" in graph[folder / "training_state.py"]
    while leaves := [file for file, below in graph.items() if not below]:
        for leaf in leaves:
            del graph[leaf]
        graph = {file: below & graph.keys() for file, below in graph.items()}
    assert not graph, sorted(graph)


def parameters_of(file: str, name: str) -> int:
    """How many __init__ of a class takes, self not counted."""
    tree = parsed(PACKAGE / file)
    body = next(node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)
    init = next(node for node in body if isinstance(node, ast.FunctionDef) and node.name == "__init__")
    return len(init.args.args) + len(init.args.kwonlyargs) - 1


def test_no_part_of_the_loop_takes_more_than_six() -> None:
    for file, name in (("step.py", "TrainingStep"), ("trainer.py", "Trainer"), ("preprocess.py", "ModelRunner")):
        assert parameters_of(f"engine/{file}", name) <= 6, name


OPTIONAL = (
    *("timm", "cv2", "pyarrow", "onnx", "onnxruntime", "onnxscript", "openvino", "executorch", "torchcodec", "wandb"),
    *("mlflow", "trackio", "fsspec", "s3fs", "aiohttp", "optuna", "cmaes", "ray", "joblib", "submitit", "sklearn"),
    *("huggingface_hub", "transformers", "hydra_plugins"),
)
"""Packages that `pip install vidtrain` does not bring: those of the extras, and what tests compare with."""


def test_optional_packages_are_imported_where_they_are_used() -> None:
    """Not at the top of a file, or a command ends in a traceback where the package is missing."""
    # copied beside an exported file, and imported by nobody
    scripts = [PACKAGE / "export" / name for name in ("run_onnx.py", "run_stream.py")]
    assert all("import onnxruntime" in script.read_text(encoding="utf-8") for script in scripts)
    for file in PACKAGE.rglob("*.py"):
        assert not {"vidtrain.export.run_onnx", "vidtrain.export.run_stream"} & set(imports(file)), file
        for node in parsed(file).body if file not in scripts else ():
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            assert not {name.partition(".")[0] for name in names} & set(OPTIONAL), file


def test_one_name_one_class() -> None:
    found: dict[str, list[str]] = {}
    for file in PACKAGE.rglob("*.py"):
        for node in parsed(file).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found.setdefault(node.name, []).append(str(file.relative_to(PACKAGE)))
    same = {name: sorted(files) for name, files in found.items() if len(files) > 1}
    assert same == {}


def test_files_fit_a_head() -> None:
    long = {str(f): n for f in PACKAGE.rglob("*.py") if (n := len(f.read_text().splitlines())) > 350}
    assert not long, long


def test_the_map_names_files_that_are_there() -> None:
    text = (PACKAGE.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = {name for name in re.findall(r"`([\w./]+\.py)`", text) if "NAME" not in name and "ZOO" not in name}
    known = {
        str(file.relative_to(PACKAGE.parent)) for file in PACKAGE.parent.rglob("*.py") if ".venv" not in file.parts
    }
    lost = sorted(name for name in named if not any(f"/{path}".endswith(f"/{name}") for path in known))
    assert len(named) > 20
    assert not lost


COMPOSED = ("options", "shell", "commands/resuming.py", "commands/run_dir.py", "commands/sweep.py")
RAW_SIGNATURES = 12  # one of them is setup of a plugin of Hydra, as Hydra calls it
FEW = {"TrainLoader", "TrainClips", "EvalViews", "ClipStream", "TrainSequences", "EvalSequences", "eval_loader"}


@cache
def functions() -> list[tuple[str, str, list[ast.arg]]]:
    """(file, name, parameters) of every function of the package; of a class's __init__ the name is the class's."""
    found = []
    for file, nodes in sorted(sources().items()):
        owners = {id(part): node.name for node in nodes if isinstance(node, ast.ClassDef) for part in node.body}
        for node in nodes:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                name = owners.get(id(node), node.name) if node.name == "__init__" else node.name
                parameters = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                place = str(file.relative_to(PACKAGE))
                found.append((place, name, [p for p in parameters if p.arg not in ("self", "cls")]))
    return found


def is_raw(parameter: ast.arg) -> bool:
    """A configuration as Hydra composed it, or one that nobody has said the type of."""
    kind = "" if parameter.annotation is None else ast.unparse(parameter.annotation)
    return "DictConfig" in kind or (parameter.arg in ("cfg", "config", "node") and kind in ("", "Any"))


def test_a_composed_configuration_stays_at_the_door() -> None:
    """options/invocation.py makes objects of it; below, nobody knows omegaconf or takes an untyped configuration."""
    for file in PACKAGE.rglob("*.py"):
        if not str(file.relative_to(PACKAGE)).startswith(COMPOSED):
            taken = [name for name in imports(file) if name.split(".")[0] == "omegaconf"]
            assert set(taken) <= {"omegaconf.MISSING"}, f"{file} imports {taken}"  # MISSING: a dataclass's default
    raw = [(file, name) for file, name, parameters in functions() if any(map(is_raw, parameters))]
    assert not [file for file, _ in raw if not file.startswith(COMPOSED)]
    assert 5 < len(raw) <= RAW_SIGNATURES, raw


def test_parts_of_the_data_take_options_whole() -> None:
    seen = {name: len(parameters) for _, name, parameters in functions() if name in FEW}
    assert seen.keys() == FEW
    assert max(seen.values()) <= 6, seen


def test_a_closed_set_of_options_is_one_enum() -> None:
    """No Literal beside it, and none that is no str."""
    for file in [
        PACKAGE / "data" / "settings.py",
        PACKAGE / "engine" / "settings.py",
        PACKAGE / "options" / "schema.py",
    ]:
        text = file.read_text(encoding="utf-8")
        assert "Literal" not in text
        assert "(Enum)" not in text

"""Who may import whom: the house's rules, read from the source."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "vidtrain"
SHELL = (
    "hydra",
    "omegaconf",
    "vidtrain.options.schema",
    "vidtrain.shell.cli",
    "vidtrain.commands",
    "vidtrain.build",
    "vidtrain.options.instantiate",
    "vidtrain.options.stored",
)
FORBIDDEN = {
    "models": (*SHELL, "vidtrain.data", "vidtrain.engine", "vidtrain.reports"),
    "data": (*SHELL, "vidtrain.models", "vidtrain.engine", "vidtrain.reports"),
    "engine": (*SHELL, "vidtrain.data", "vidtrain.models", "vidtrain.reports"),
    "metrics.py": (*SHELL, "vidtrain.data", "vidtrain.models", "vidtrain.engine", "vidtrain.reports"),
    "types.py": (*SHELL, "vidtrain.data", "vidtrain.models", "vidtrain.engine", "vidtrain.reports"),
    "errors.py": (*SHELL, "torch", "numpy", "vidtrain.data", "vidtrain.models", "vidtrain.engine"),
}


def imports(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: a relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


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


def test_files_fit_a_head() -> None:
    long = {str(f): n for f in PACKAGE.rglob("*.py") if (n := len(f.read_text().splitlines())) > 350}
    assert not long, long

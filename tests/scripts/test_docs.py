"""The site's pages: made from the options as they are, none missing, none lost; the site builds without a warning."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from vidtrain.options.commands import COMMANDS
from vidtrain.options.option_texts import conf_dir, fields, leaves

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def pages() -> ModuleType:
    spec = importlib.util.spec_from_file_location("pages", ROOT / "scripts" / "docs" / "pages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rows(page: str) -> dict[str, tuple[str, str]]:
    """Option -> (default, text) of the tables of a page."""
    return {m[1]: (m[2], m[3]) for m in re.finditer(r"^\| `([\w.]+)` \| `` (.*?) `` \| (.*) \|$", page, re.MULTILINE)}


@pytest.mark.parametrize("command", COMMANDS)
def test_the_page_of_a_command_has_every_typed_option_with_default_and_text(command: str, pages: ModuleType) -> None:
    found = rows(pages.command_page(command))
    wanted = {key: (default, doc) for key, kind, default, doc in fields(command) if doc or kind != "Any"}
    assert found.keys() == wanted.keys()
    for key, (default, doc) in found.items():
        assert default == wanted[key][0].replace("|", "\\|"), key
        assert len(doc) > 10, key


def test_the_pages_of_groups_have_every_choice_and_every_option(pages: ModuleType) -> None:
    for group in ("model", "data", "sampler", "eval", "optimizer", "decoder"):
        page = pages.group_page(group)
        sections = dict(zip(*[iter(re.split(r"^## \w+=(\S+)\n", page, flags=re.MULTILINE)[1:])] * 2, strict=True))
        assert sections.keys() == {file.stem for file in (conf_dir() / group).glob("*.yaml")}
        for name, text in sections.items():
            content = yaml.safe_load((conf_dir() / group / f"{name}.yaml").read_text())
            keys = {f"{group}.{key}" for key, _ in leaves(content) if not key.startswith(("defaults", "_target_"))}
            assert keys <= rows(text).keys(), (name, keys - rows(text).keys())


def test_recipes_are_all_on_their_page(pages: ModuleType) -> None:
    page = pages.recipes_page()
    listed = re.findall(r"^\| \[(\w+)\]", page, re.MULTILINE)
    assert sorted(listed) == sorted(file.stem for file in (conf_dir() / "experiment").glob("*.yaml"))
    assert "| top-1 77.0 (10x3, PySlowFast) |" in page


def test_every_page_has_its_place(pages: ModuleType) -> None:
    files = {str(file.relative_to(ROOT / "docs")) for file in (ROOT / "docs").rglob("*.md")} | pages.generated().keys()
    order = pages.navigation(files)
    placed = [p for entry in order for value in entry.values() for p in ([value] if isinstance(value, str) else value)]
    assert sorted(placed) == sorted(files)
    assert pages.navigation({*files, "new.md"})[1]["Guides"][-1] == "new.md"


def test_links_of_the_guides_are_there_in_a_clone() -> None:
    found = [
        (file, link)
        for file in [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "benchmarks").glob("*.md")]
        for link in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", file.read_text(encoding="utf-8"))
    ]
    assert len(found) > 50
    assert [(file.name, link) for file, link in found if not (file.parent / link).exists()] == []


def test_what_markdown_would_read_is_escaped(pages: ModuleType) -> None:
    assert pages._cell("a|b <c> *d* [e] f_g\nh") == r"a\|b &lt;c> \*d\* \[e\] f\_g h"
    assert pages.links("[r](../conf/experiment)", "index.md") == "[r](recipes.md)"
    assert pages.links("[x](../benchmarks/data.md) [y](docs/a.md#b) [z](vidtrain/a/b.py)", "changelog.md") == (
        "[x](benchmarks/data.md) [y](a.md#b) `z`"
    )


FAQ = (ROOT / "docs" / "faq.md").read_text(encoding="utf-8")
OF_OTHERS = (  # of Python, torch, the shell, Hydra
    *("vidtrain: command not found", "libcudart...: cannot open shared object file", "pip install 'vidtrain[...]'"),
    *("no kernel image is available for execution on the device", "mismatched input", "no viable alternative"),
    *("Could not override", "Key ... is not in struct"),
)


def test_the_errors_of_the_faq_are_those_of_the_program() -> None:
    """Word for word."""
    source = " ".join(" ".join(f.read_text().split()) for f in (ROOT / "vidtrain").rglob("*.py"))
    source = re.sub(r'" f?"', "", source)
    quoted = re.findall(r"^\*\*(.+?)\*\*", FAQ, re.MULTILINE)
    messages = [m for q in quoted for m in re.findall(r"`([^`]+)`", q) if m not in OF_OTHERS and " " in m]
    assert len(messages) > 5
    lost = [message for message in messages if message.rstrip(":") not in source]
    assert not lost, lost


@pytest.mark.slow
def test_the_site_builds_strictly_and_fetches_nothing(tmp_path: Path) -> None:
    pytest.importorskip("material", reason="needs mkdocs-material")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path / "site"]
    env = {"NO_MKDOCS_2_WARNING": "1", "PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stderr
    for file in (tmp_path / "site").rglob("*.html"):
        fetched = re.findall(r'<(?:script|img|iframe)[^>]*\bsrc="(\w+:[^"]+)"', file.read_text())
        fetched += re.findall(r'<link[^>]*rel="(?:stylesheet|preconnect)"[^>]*href="(\w+:[^"]+)"', file.read_text())
        assert fetched == [], file
    assert "optimizer.lr" in (tmp_path / "site" / "reference" / "group_optimizer" / "index.html").read_text()

"""Hooks of mkdocs: pages made from the source, and the order of all of them.

    make docs

The reference of every command and group is read from the dataclasses and YAML files of the options, as --help is, the
page of recipes from the heads of conf/experiment. Nothing of it is in docs/, so that nothing of it can be out of date.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

from vidtrain.options.commands import ACTIONS, COMMANDS
from vidtrain.options.option_texts import conf_dir, fields, group_options

ROOT: Final = Path(__file__).parents[2]
ORDER: Final = {
    "Guides": "own_clips fine_tune few_labels timeline live features flow sweeps cluster faq",
    "Data": "data segments",
    "Training": "training recipes speed",
    "Testing": "testing compare report explain",
    "Models": "models",
    "Shipping": "publish export python",
    "Coming from elsewhere": "migration comparison",
}
_GROUPS: Final = tuple(dict.fromkeys(group for row in COMMANDS.values() for group in row.groups.split()))


def command_page(name: str) -> str:
    """Markdown: what a command does, its groups, every typed option with default and text."""
    row = COMMANDS[name]
    lines = [f"# vidtrain {name}", "", f"{row.about[0].upper()}{row.about[1:]}.", "", f"    {row.example}", ""]
    if row.groups:
        links = ", ".join(f"[{group}](group_{group}.md)" for group in row.groups.split())
        lines += [f"Groups, chosen by `GROUP=CHOICE`: {links}.", ""]
    if name == "data":
        lines += ["| action | |", "| --- | --- |"]
        lines += [f"| `vidtrain data {key}` | {_cell(action.about)} |" for key, action in ACTIONS.items()] + [""]
    rows = [(key, default, doc) for key, annotation, default, doc in fields(name) if doc or annotation != "Any"]
    return "\n".join([*lines, *_table(rows)])


def group_page(group: str) -> str:
    """Markdown: the choices of a group, each with the head of its file and its options."""
    lines = [f"# {group}=", ""]
    for file in sorted((conf_dir() / group).glob("*.yaml")):
        lines += [f"## {group}={file.stem}", "", *_head(file), ""]
        if group not in ("experiment", "debug"):
            options = group_options(group, file.stem)
            rows = [
                (f"{group}.{key}", default, doc) for key, (default, doc) in options.items() if "_target_" not in key
            ]
            lines += [*_table(rows), ""] if rows else []
        else:
            body = file.read_text(encoding="utf-8").split("\ndefaults:", 1)
            lines += [f"    {line}" for line in f"defaults:{body[1]}".splitlines()] if len(body) == 2 else []
            lines.append("")
    return "\n".join(lines)


def recipes_page() -> str:
    """Markdown: a row per recipe of conf/experiment."""
    lines = (ROOT / "scripts" / "docs" / "recipes_head.md").read_text(encoding="utf-8").splitlines()
    sections = {"Small datasets": "", "Kinetics-400": "kinetics_", "Something-Something V2": "ssv2_"}
    files = sorted((conf_dir() / "experiment").glob("*.yaml"))
    for title, start in sections.items():
        others = tuple(filter(None, sections.values()))
        chosen = [f for f in files if (f.stem.startswith(start) if start else not f.stem.startswith(others))]
        lines += ["", f"## {title}", "", "| `experiment=` | what | score |", "| --- | --- | --- |"]
        for file in chosen:
            text = " ".join(line.strip() for line in _head(file) if line and not line.startswith("    "))
            score = re.search(r"(?:Published|Expected|Score|Results): (.+?)(?:\. |\.$|; |$)", text)
            what = re.split(r"(?<!et al)\. ", text)[0].rstrip(".")
            link = f"[{file.stem}](reference/group_experiment.md#experiment{file.stem})"
            lines.append(f"| {link} | {what} | {score[1] if score else ''} |")
    return "\n".join(lines)


def generated() -> dict[str, str]:
    """Path below docs/ -> Markdown of every page that is made."""
    pages = {f"reference/{name}.md": command_page(name) for name in COMMANDS}
    pages |= {f"reference/group_{group}.md": group_page(group) for group in _GROUPS}
    pages["recipes.md"] = recipes_page()
    for file in sorted((ROOT / "benchmarks").glob("*.md")):
        pages[f"benchmarks/{file.name}"] = file.read_text(encoding="utf-8")
    pages["changelog.md"] = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    pages["contributing.md"] = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    pages["security.md"] = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    return pages


def navigation(pages: set[str]) -> list[dict[str, Any]]:
    """Sections of pages in reading order; a page that ORDER does not name stands last among the guides."""
    named = {f"{name}.md" for names in ORDER.values() for name in names.split()}
    top = {page for page in pages if "/" not in page}
    rest = sorted(top - named - {"index.md", "changelog.md", "contributing.md", "security.md"})
    nav: list[dict[str, Any]] = [{"Start": "index.md"}]
    for title, names in ORDER.items():
        found = [f"{name}.md" for name in names.split() if f"{name}.md" in pages]
        found += rest if title == "Guides" else []
        if found:
            nav.append({title: list(found)})
    nav.append(
        {"Options": [f"reference/{name}.md" for name in COMMANDS] + [f"reference/group_{g}.md" for g in _GROUPS]}
    )
    nav.append({"Measured": sorted(page for page in pages if page.startswith("benchmarks/"))})
    return [*nav, {"Project": ["changelog.md", "contributing.md", "security.md"]}]


def links(markdown: str, page: str) -> str:
    """Links from docs/ and the root into the site's own pages, and those to sources as plain text."""
    here = "../" if "/" in page else ""
    text = markdown.replace("](../benchmarks/", f"]({here}benchmarks/").replace("](benchmarks/", f"]({here}benchmarks/")
    text = text.replace("](../docs/", f"]({here}").replace("](docs/", f"]({here}")
    text = text.replace("](../conf/experiment)", f"]({here}recipes.md)")
    return re.sub(r"\[([^\]]+)\]\((?:\.\./)*[\w/]+\.(?:py|json|csv)\)", r"`\1`", text)


def _head(file: Path) -> list[str]:
    """The comment at the top of a YAML file as Markdown: what is indented in it is a command."""
    found = []
    for line in file.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        if line.startswith("# @"):
            continue
        text = line.removeprefix("#").removeprefix(" ")
        command = text.startswith("  ")
        if command and found and not found[-1].startswith("    "):
            found.append("")
        if not command and found and found[-1].startswith("    "):
            found.append("")
        found.append(f"    {text.strip()}" if command else _cell(text))
    return found


def _table(rows: list[tuple[str, str, str]]) -> list[str]:
    lines = ["| option | default | |", "| --- | --- | --- |"]
    return [*lines, *(f"| `{key}` | {_code(default)} | {_cell(doc)} |" for key, default, doc in rows)]


def _code(text: str) -> str:
    return "`` " + text.replace("|", "\\|") + " ``"


def _cell(text: str) -> str:
    """One line of a table: no line ends, and nothing that Markdown or HTML would read as its own."""
    plain = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([|*_\[\]`])", r"\\\1", plain)


# ---------------------------------------------------------------- what mkdocs calls


def on_files(files: Any, config: Any) -> Any:
    """Adds the pages that are made, and lays down the order."""
    from mkdocs.structure.files import File

    for path, text in generated().items():
        files.append(File.generated(config, path, content=text))
    config.nav = navigation({file.src_uri for file in files.documentation_pages()})
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    return links(markdown, page.file.src_uri)

"""The table of models: complete, and docs/models.md is what `vidtrain inspect` writes."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest
import torch

import vidtrain
from vidtrain.commands.inspect import catalogue_rows
from vidtrain.models.catalogue import Entry, Family, catalogue, factory
from vidtrain.models.inspect.summary import cost, summarise
from vidtrain.models.x3d import x3d_m
from vidtrain.options.option_texts import conf_dir
from vidtrain.options.presets import model_section
from vidtrain.reports.catalogue import CatalogueRow, to_markdown, to_text

DOCS = Path(__file__).parents[2] / "docs" / "models.md"


def module_of(name: str) -> str:
    return str(model_section(name)["_target_"]).rpartition(".")[0]


def test_every_model_has_an_entry_in_its_own_file() -> None:
    assert sorted(catalogue()) == vidtrain.list_models()
    for name, entry in catalogue().items():
        assert import_module(module_of(name)).ENTRIES[name] is entry


def test_a_models_name_stands_in_no_third_file() -> None:
    """Its own file and its YAML; and those of published weights and configurations, which say whose they are."""
    package, names = DOCS.parents[1] / "vidtrain", set(catalogue()) - {"probe"}  # also a word of tune=
    foreign = {package / "models" / "weights", package / "options" / "foreign"}
    used = {
        (name, file.name)
        for file in package.rglob("*.py")
        if foreign.isdisjoint(file.parents)
        for name in names & set(re.findall(r'"(\w+)"', file.read_text(encoding="utf-8")))
    }
    own = {(name, Path(str(import_module(module_of(name)).__file__)).name) for name in names}
    first = {("r3d_18", "init_choices.py"), ("slow_fusion", "init_choices.py")}  # what `vidtrain init` chooses
    assert used - own - first == {("c3d", "feature_rnn.py"), ("c3d", "probe.py"), ("c3d", "build.py")}  # defaults
    assert own <= used


def test_factories() -> None:
    assert factory("x3d_m") is x3d_m
    assert factory("x3d_tiny") is None
    assert factory("resnet18") is None


@pytest.mark.parametrize("name", catalogue())
def test_an_accuracy_says_how_it_was_measured(name: str) -> None:
    entry = catalogue()[name]
    assert (entry.accuracy is None) == (entry.protocol == "")
    assert entry.accuracy is None or 40 < entry.accuracy < 95
    assert entry.paper


def test_the_document_has_the_facts_of_every_model() -> None:
    """Without counting, which takes longer: see the next test."""
    lines = DOCS.read_text(encoding="utf-8").splitlines()
    rows = {
        cells[1].strip(): [c.strip() for c in cells] for cells in (line.split("|") for line in lines) if len(cells) > 8
    }
    assert list(rows)[2:] == list(catalogue())
    for name, entry in catalogue().items():
        expected = CatalogueRow(name, entry, 0, 0).cells()
        got = rows[name][1:-1]
        for column in (0, 1, 3, 5, 6, 7):  # all but parameters and GMAC
            assert got[column] == expected[column], name


def test_every_number_says_how_to_test_so() -> None:
    """Who published it has a row of options, or is said to be none of the code bases; all named presets are there."""
    text = to_markdown([])
    options = {cells[1].strip() for line in text.splitlines() if len(cells := line.split("|")) == 4}
    rest = text.rpartition("\nThe numbers of ")[2].split(" come from ")[0]
    for name, entry in catalogue().items():
        source = entry.protocol.rpartition(", ")[2]
        assert source in options or source in rest or source in ("", "the paper", "from scratch"), name
    assert DOCS.read_text(encoding="utf-8").startswith(text)
    presets = {file.stem for file in (conf_dir() / "eval").glob("*.yaml")}
    named = set(re.findall(r"eval=(\w+)", text))
    for file in Path(vidtrain.__file__).parent.glob("models/weights/*.py"):
        named |= set(re.findall(r'protocol="(\w+)"', file.read_text(encoding="utf-8")))
    assert "pyslowfast" in named
    assert named <= presets


@pytest.mark.slow
def test_the_document_is_up_to_date() -> None:
    text = to_markdown(catalogue_rows(400))
    assert DOCS.read_text(encoding="utf-8") == text, "run: vidtrain inspect output=docs/models.md"


def test_a_row() -> None:
    row = CatalogueRow("net", Entry(Family.CONV3D, "Doe 2020", (8, 224), 70.5, "8x8, 10x3"), 24_327_632, 32_697_909_248)
    assert row.cells() == ("net", "3D convolution", "24.328", "8 x 224 x 224", "32.70", "Doe 2020", "70.5", "8x8, 10x3")
    other = CatalogueRow("small", Entry(Family.CONV3D, "Doe 2020", (8, 32)), 1000, 5_000_000)
    assert other.cells()[2:] == ("0.001", "8 x 32 x 32", "0.005", "Doe 2020", "-", "-")
    assert "| net | 3D convolution | 24.328 |" in to_markdown([row, other])
    assert to_text([row, other]).splitlines()[2].startswith("net    3D convolution")


def test_the_cost_is_the_summarys() -> None:
    for name, options in (
        ("slow_fusion", {}),
        ("tsm_tiny", {}),
        ("s3d_tiny", {"width": 8}),
        ("i3d_tiny", {"in_channels": 2, "width": 8}),
        ("inflated", {"backbone": "lecture"}),
    ):
        model = vidtrain.create_model(name, num_classes=4, **options)
        summary = summarise(model, 8, 32)
        assert cost(model, 8, 32) == (summary.params, summary.macs)
        assert summary.rows[0].size == (options.get("in_channels", 3), 8, 32, 32)
        with torch.no_grad():  # the model itself is as it was
            model(torch.zeros(2, options.get("in_channels", 3), 8, 32, 32))

"""The documentation site: its generated reference pages are complete, and its navigation holds every page."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from docs.site_builder import links, page_folder, reference_pages

import ser_bench
from ser_bench.cli.app import app
from ser_bench.config import Config, leaves, model_schemas
from ser_bench.evaluation.metrics import METRICS

ROOT = Path(__file__).resolve().parents[2]


def sections(page: str) -> dict[str, str]:
    """Return heading (without backticks) → the text up to the next heading of any level."""
    parts = re.split(r"^#+ (.+)$", page, flags=re.MULTILINE)
    return dict(zip((heading.replace("`", "") for heading in parts[1::2]), parts[2::2], strict=True))


def rows(text: str) -> dict[str, list[str]]:
    """Return the first cell of each row of the tables → its other cells."""
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return {row[0].strip("`"): row[1:] for row in cells}


def commands(declared: typer.Typer, name: str) -> dict[str, Any]:
    """Every command by its words, from what is declared, and not from the groups that the generator walks."""
    own = {f"{name} {c.name or c.callback.__name__}": c for c in declared.registered_commands if c.callback}
    ready = {words: typer.main.get_command_from_info(c, pretty_exceptions_short=True, rich_markup_mode=None)
             for words, c in own.items()}  # fmt: skip
    for group in declared.registered_groups:
        assert group.typer_instance is not None
        ready |= commands(group.typer_instance, f"{name} {group.name}")
    return ready


def navigation(entry: Any) -> Iterator[str]:
    if isinstance(entry, str):
        yield entry
    else:
        for value in entry.values() if isinstance(entry, dict) else entry:
            yield from navigation(value)


def test_the_configuration_reference_has_every_key_with_role_type_and_default() -> None:
    page = reference_pages.configuration_page()
    shared, by_section = rows(page), sections(page)
    for leaf in leaves(Config):
        if leaf.group != "model":
            assert shared[leaf.path][2] == leaf.role.value, leaf.path
            assert all(shared[leaf.path]), f"{leaf.path} has no type, no default or no docstring: {shared[leaf.path]}"
    for name, schema in model_schemas().items():
        keys = rows(by_section[f"model={name}"])
        for leaf in leaves(schema, "model."):
            if leaf.path != "model.name":
                assert keys[leaf.path][2] == leaf.role.value, f"{name}: {leaf.path}"
                assert all(keys[leaf.path]), f"{name}: {leaf.path} has no type, no default or no docstring"


def test_the_configuration_reference_quotes_docstrings_and_values_of_the_yaml_files() -> None:
    page = rows(reference_pages.configuration_page())
    assert page["split.test_corpus"][3].startswith("Only `cross_corpus`: the test corpus")
    assert page["split.folds"][1] == "`${corpus.folds}`"
    assert page["head.epochs"][3].startswith("Passes over the training rows")  # of the parent class
    assert page["features.pitch.floor_hz"][:2] == ["number", "`75.0`"]
    assert page["corpus.labels"][0] == "`native`, `basic6`"
    assert page["llm.budget_usd"][0] == "number or `null`"


def test_the_command_line_reference_has_every_command_and_option() -> None:
    page = sections(reference_pages.command_line_page())
    found = commands(app, "ser-bench")
    assert len(found) >= 14
    for name, command in found.items():
        assert name in page, name
        for parameter in command.params:
            words = parameter.opts if parameter.param_type_name == "option" else []
            assert all(f"`{word}" in page[name] for word in words), f"{name}: {words}"
        if command.epilog:
            assert "ser-bench" in page[name]
    assert "130" in page["Exit status"]


def test_the_api_reference_has_every_name_with_its_docstring() -> None:
    page = reference_pages.api_page()
    by_section = sections(page)
    for name in ser_bench.__all__:
        assert any(heading.split("(")[0] == name for heading in by_section), name
    assert "`overrides`: as on the command line" in page
    assert "LoadedPredictor.predict" in by_section and "ComparisonResult.table" in by_section


def test_the_metrics_reference_has_every_metric_with_formula_and_example() -> None:
    page = sections(reference_pages.metrics_page())
    for metric in METRICS.values():
        shown = [text for heading, text in page.items() if heading.startswith(f"{metric.title} (test/{metric.name}")]
        assert len(shown) == 1 and ">>>" in shown[0], metric.name


def test_special_characters_of_docstrings_are_shown_as_they_are() -> None:
    assert reference_pages.as_markdown("<label> a*b*c `x|<y>` [..., C]") == r"&lt;label> a\*b\*c `x|<y>` \[..., C]"
    assert reference_pages.table_cell("a|b `c|d`\n  e") == r"a\|b `c|d` e"


def test_the_navigation_holds_every_page_once() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2]  # safe_load reads no Python tag
    named = list(navigation(yaml.safe_load(text)))
    assert len(named) == len(set(named))
    assert set(named) == {str(path) for path in page_folder.PAGES} | set(page_folder.GENERATED)


def test_pages_are_found_at_the_paths_that_they_have_in_the_repository(tmp_path: Path) -> None:
    page_folder.write_pages(tmp_path)
    assert (tmp_path / "docs" / "metrics.md").read_bytes() == (ROOT / "docs" / "metrics.md").read_bytes()
    assert "| `size=eighth|quarter|half|paper` |" in (tmp_path / "docs" / "cnn.md").read_text(encoding="utf-8")
    assert (tmp_path / "docs" / "images" / "report_demo.png").exists()
    assert all((tmp_path / name).stat().st_size > 500 for name in page_folder.GENERATED)
    (tmp_path / "docs" / "removed.md").write_text("# An old page\n", encoding="utf-8")
    page_folder.write_pages(tmp_path)
    assert not (tmp_path / "docs" / "removed.md").exists()


def test_links_that_lead_nowhere_and_files_from_the_network_are_problems(tmp_path: Path) -> None:
    (tmp_path / "other.html").write_text('<h2 id="there">x</h2>', encoding="utf-8")
    (tmp_path / "page.html").write_text(
        '<a href="other.html#there">1</a> <a href="https://example.org">2</a> <a href="#gone">3</a>'
        '<a href="other.html#gone">4</a> <a href="docs/">5</a> <img src="no.png"> <script src="https://cdn/x.js"></script>',
        encoding="utf-8",
    )
    assert links.problems(tmp_path) == [
        "page.html: #gone leads nowhere",
        "page.html: other.html#gone leads nowhere",
        "page.html: docs/ leads nowhere",
        "page.html: no.png leads nowhere",
        "page.html: loads https://cdn/x.js",
    ]


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("zensical") is None, reason="needs the extra docs")
def test_the_site_builds_without_warnings_and_needs_no_network(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "docs.site_builder", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = sorted((tmp_path / "site").rglob("*.html"))
    assert len(pages) > len(page_folder.PAGES)
    assert not links.problems(tmp_path / "site")
    assert "calibration" in (tmp_path / "site" / "search.js").read_text(encoding="utf-8")

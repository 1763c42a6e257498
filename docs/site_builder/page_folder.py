"""The folder from which the site is built: the pages of the repository, at their own paths, and the generated ones.

The folder has the layout of the repository. So a relative link of a page (`../README.md`) is right in the site as well
as on a website that shows the repository.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

from docs.site_builder import notebook_page, reference_pages

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    *(Path(name) for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "experiments/README.md")),
    *sorted(path.relative_to(ROOT) for path in (ROOT / "docs").rglob("*.md")),
]
"""The pages of the repository that the site shows, relative to its folder."""
CODE = re.compile(r"`[^`]*`")
LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")
GENERATED: dict[str, Callable[[], str]] = {
    "docs/reference/configuration.md": reference_pages.configuration_page,
    "docs/reference/command_line.md": reference_pages.command_line_page,
    "docs/reference/python.md": reference_pages.api_page,
    "docs/reference/metrics.md": reference_pages.metrics_page,
    "examples/quickstart.md": lambda: notebook_page.notebook_page(ROOT / "examples" / "quickstart.ipynb"),
}
"""Path of a generated page → the function that returns it."""


def write_theme(folder: Path) -> None:
    """Copy the changes to the theme to this folder, which is emptied first."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(Path(__file__).parent / "theme", folder)


def write_pages(folder: Path) -> None:
    """Write all pages, and the images and other files that they link to, to this folder, which is emptied first."""
    shutil.rmtree(folder, ignore_errors=True)
    for path in [*PAGES, *sorted({file for page in PAGES for file in linked_files(page)})]:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".md":
            text = (ROOT / path).read_text(encoding="utf-8")
            (folder / path).write_text(without_escaped_bars(text), encoding="utf-8")
        else:
            shutil.copyfile(ROOT / path, folder / path)
    for name, page in GENERATED.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(page(), encoding="utf-8")


def without_escaped_bars(text: str) -> str:
    r"""Return a page with `|` for `\|` in the code of tables. GitHub needs the backslash; the builder shows it."""
    lines = text.splitlines(keepends=True)
    return "".join(
        CODE.sub(lambda code: code[0].replace(r"\|", "|"), line) if line[0] == "|" else line for line in lines
    )


def linked_files(page: Path) -> set[Path]:
    """Return the files of the repository that a page links to and that are no pages, relative to the repository."""
    targets = LINK.findall((ROOT / page).read_text(encoding="utf-8"))
    paths = {(ROOT / page.parent / target).resolve() for target in targets if "://" not in target}
    return {path.relative_to(ROOT) for path in paths if path.suffix != ".md" and path.is_file()}

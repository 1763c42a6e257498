"""The page that shows a Jupyter notebook: its text and its code. Outputs are not kept in the repository."""

from __future__ import annotations

import json
from pathlib import Path


def notebook_page(notebook: Path) -> str:
    """Return a notebook as Markdown, with a link to the file beside the page."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    blocks = []
    for cell in cells:
        text = "".join(cell["source"]).strip()
        blocks.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
    title, *others = blocks
    download = f"This page shows the notebook [{notebook.name}]({notebook.name}) without the outputs of its cells."
    return "\n\n".join([title, download, *others]) + "\n"

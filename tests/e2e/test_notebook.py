"""The notebook in examples/: it is stored without outputs, and its cells run and show what their texts say."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "examples" / "quickstart.ipynb"


def outputs_of(notebook: nbformat.NotebookNode, beginning: str) -> str:
    """Return all texts that the cell shows whose source contains `beginning`, HTML included."""
    [cell] = [cell for cell in notebook.cells if cell.cell_type == "code" and beginning in cell.source]
    texts = [output.get("text", "") + "".join(map(str, output.get("data", {}).values())) for output in cell.outputs]
    return "\n".join(texts)


def test_the_notebook_is_stored_without_outputs_and_without_paths_of_a_machine() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code and all(cell.outputs == [] and cell.execution_count is None for cell in code)
    assert not re.search(r"(?:/home/|/root/|/work/|/tmp/|/Users/|[A-Z]:\\\\)", NOTEBOOK.read_text(encoding="utf-8"))


@pytest.mark.slow
def test_the_notebook_runs_and_shows_what_its_texts_say(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SER_BENCH_CACHE", str(cache))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(tmp_path)}}).execute()

    assert "144 clips, 12 speakers" in outputs_of(notebook, "majority = sb.run(")
    assert "SYNTHETIC" in outputs_of(notebook, "majority = sb.run(")
    table = outputs_of(notebook, "sb.runs_table(")
    assert "majority" in table and "egemaps" in table and table.count("FINISHED") >= 2 and "clean" in table
    shown = outputs_of(notebook, "result = sb.compare(")
    assert "<table" in shown and "SYNTHETIC" in shown
    assert "egemaps has the highest UAR" in outputs_of(notebook, "result.verdict")
    assert "p_holm" in outputs_of(notebook, "result.table")
    assert "<html" in (tmp_path / "report.html").read_text(encoding="utf-8")
    predicted = outputs_of(notebook, "sb.load_predictor(")
    assert "label" in predicted and "<table" in predicted
    card = outputs_of(notebook, "model_card.md")
    assert card.startswith("# Model card: egemaps") and "SYNTHETIC" in card and str(tmp_path) not in card
    assert (tmp_path / "mlruns" / "mlflow.db").exists()

"""Audit of imported predictions: what depends on the training is not checked, because nothing is known of it."""

from __future__ import annotations

from collections.abc import Sequence

from ser_bench.audit.finding import IMPORTED, Finding

ABOUT_THE_FILES = frozenset({"predictions", "scores", "artifacts"})
"""Questions whose answer does not depend on the training."""
NOT_CHECKED = "not checked: the training of imported predictions is not known"


def with_unknown_training(findings: Sequence[Finding], origin: str) -> list[Finding]:
    """Return the findings about files and scores, and every other question as not checked.

    The split says which clips the model should have been trained on, and not which ones it was trained on.

    Args:
        findings: of a run with imported predictions, as if the rows of the split had been the training.
        origin: name and digest of the imported file.
    """
    stated = Finding(
        IMPORTED, f"the predictions come from the file {origin}, and what the model was trained on is unknown"
    )
    return [stated] + [
        finding if finding.name in ABOUT_THE_FILES else Finding(finding.name, NOT_CHECKED) for finding in findings
    ]

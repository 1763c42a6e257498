"""What leaked: computed anew from a run's stored split, predictions and predictor, and from the corpus' features.

- `finding`: an answer, and the verdict of all answers;
- `overlap`: what of the test rows was in training; `scaler`: standardisation; `checkpoint`: the choice of the epoch;
- `combiner`: the regression of a fusion; `inherited`: what a fusion has from its members;
- `stored`: the same for a run in the store, with or without its audio.

Nothing here asks a run what it thinks of itself: a run is convicted by its rows, its arrays and its curves.
"""

from ser_bench.audit.finding import Audit, Finding
from ser_bench.audit.run_audit import audit_and_log, audit_run, audit_stored

__all__ = ["Audit", "Finding", "audit_and_log", "audit_run", "audit_stored"]

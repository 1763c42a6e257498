"""Leakage audit: recomputed from a run's stored split, predictions and predictor, and from the features of its corpus.

- `finding`: a finding, and the verdict of all findings;
- `overlap`: rows shared by test and training;
- `training_rows`, `scaler`, `checkpoint`, `combiner`: use of test rows in fitting;
- `scores`, `repeated_predictions`, `validation`: what is computed again must be what the run stored and logged;
- `inherited`: findings that a fusion inherits from its members; `stored_member`: its members, restored;
- `outdated_features`: whether the features of a stored run can be computed again;
- `run_audit`: the audit of a stored run, with or without its audio.
"""

from ser_bench.audit.finding import Audit, Finding, outcome_in_words
from ser_bench.audit.outdated_features import outdated_features
from ser_bench.audit.run_audit import audit_and_log, audit_run, audit_stored

__all__ = ["Audit", "Finding", "audit_and_log", "audit_run", "audit_stored", "outcome_in_words", "outdated_features"]

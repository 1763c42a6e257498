"""`model=imported`: predictions that were made outside this package, read from a file.

- `prediction_table`: a CSV, Parquet or JSON file as records;
- `foreign_answers`: what the records say about clips: labels or probabilities, truth, latency and cost;
- `imported_predictions`: the predictor, its configuration keys, and the check against the clips of a split.
"""

from ser_bench.predictors.imported.imported_predictions import ImportedConfig, ImportedPredictions

__all__ = ["ImportedConfig", "ImportedPredictions"]

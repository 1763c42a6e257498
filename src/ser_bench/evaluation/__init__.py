"""Evaluation of predictions.

- `metrics`: every metric, defined once over a table of confusion counts, and their registry;
- `vote_metrics`: soft-label metrics, which compare predictions with the votes of listeners;
- `run_scores`: all scores of a run with their intervals;
- `calibration`: one temperature per run, fitted on held-out predictions;
- `statistics`: confidence intervals and significance tests by speaker;
- `classification_report`: precision, recall and F1 of every class as text and JSON;
- `heard_intensity`: predicted levels of intensity beside the intensity that listeners heard;
- `contributions`: what each member adds to a fusion; `sentence_ceiling`: the best result without the voice;
- `run_figures`: confusion matrix and learning curves of a run.
"""

from ser_bench.evaluation import vote_metrics as _registers_soft_label_metrics  # noqa: F401

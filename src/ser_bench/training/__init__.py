"""Training of networks: the Lightning loop, its data, its recipe, and what it reports.

- `lightning_loop`: seeded, resumable training with early stopping; `recipe`: loss, optimiser and schedule;
- `row_data`: rows in memory as batches; `epoch_report`: metrics and progress of each epoch;
- `fixed_epochs`: training of a light network over vectors; `standardizer`: standardisation by training rows.
"""

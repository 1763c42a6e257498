"""Training of networks.

- `lightning_loop`: training with Lightning, with early stopping, which can be resumed; `recipe`: loss and optimiser;
- `row_data`: rows in memory as batches; `epoch_report`: metrics and progress of each epoch;
- `fixed_epochs`: training of light networks for a fixed number of epochs;
- `standardizer`: standardisation by the training rows.
"""

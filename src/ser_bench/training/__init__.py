"""Training of networks.

- `lightning_loop`: training with Lightning, with early stopping, which can be resumed; `recipe`: loss and optimiser;
- `row_data`: rows in memory as batches; `epoch_report`: metrics and progress of each epoch;
- `fixed_epochs`: training of light networks for a fixed number of epochs;
- `divergence`: the check that stops a training whose loss or weights are not finite;
- `checkpoint_io`: checkpoints on disk;
- `standardizer`: standardisation by the training rows.
"""

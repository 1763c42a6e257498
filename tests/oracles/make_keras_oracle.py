"""Build the paper's table in Keras and write what it computes to `keras_oracle.json`; run by hand, not by CI.

    python3.11 -m venv /tmp/keras && /tmp/keras/bin/pip install 'keras==3.15.1' 'tensorflow-cpu==2.21.0'
    /tmp/keras/bin/python tests/oracles/make_keras_oracle.py

Takes about a minute and 2 GB of memory. For both networks at full width: every layer's output length and parameters,
the totals, and the logits of four inputs under `seeded_weights`. For a narrow one: the losses of five Adam
steps, and the running statistics after them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import seeded_weights as seeded

FULL = {"channels": [512, 512, 256, 256, 128], "hidden": 512}
NARROW = {"channels": [8, 8, 6, 6, 4], "hidden": 8}
KERNELS, POOLS, DROPOUT_AFTER, CLASSES = [5, 5, 5, 3, 3], [5, 5, 5, 5, 3], [2, 4, 5], 6
STEPS, BATCH = 5, 16


def build(inputs: int, channels: list[int], hidden: int, dropout: float) -> keras.Model:
    layers: list[Any] = [keras.Input((inputs, 1))]
    for block, (width, size, pool) in enumerate(zip(channels, KERNELS, POOLS, strict=True), start=1):
        layers.append(keras.layers.Conv1D(width, size, padding="same", activation="relu", name=f"conv{block}"))
        layers.append(keras.layers.BatchNormalization(name=f"norm{block}"))
        layers.append(keras.layers.MaxPooling1D(pool, strides=2, padding="same", name=f"pool{block}"))
        if block in DROPOUT_AFTER:
            layers.append(keras.layers.Dropout(dropout, name=f"dropout{block}"))
    layers.append(keras.layers.Flatten(name="flatten"))
    layers.append(keras.layers.Dense(hidden, activation="relu", name="dense1"))
    layers.append(keras.layers.BatchNormalization(name="norm_dense1"))
    layers.append(keras.layers.Dense(CLASSES, name="dense2"))
    return keras.Sequential(layers)


def seed(model: keras.Model) -> None:
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv1D | keras.layers.Dense):
            bias = seeded.uniform(f"{layer.name}/bias", layer.bias.shape, -0.1, 0.1)
            layer.set_weights([seeded.kernel(f"{layer.name}/kernel", layer.kernel.shape), bias])
        elif isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights(seeded.batch_norm(layer.name, layer.gamma.shape[0]))


def describe(inputs: int) -> dict[str, Any]:
    model = build(inputs, **FULL, dropout=0.2)
    seed(model)
    x = seeded.inputs(inputs)
    return {
        "layers": [[type(la).__name__, list(la.output.shape[1:]), la.count_params()] for la in model.layers],
        "total": model.count_params(),
        "trainable": sum(int(np.prod(w.shape)) for w in model.trainable_weights),
        "weights": seeded.digest([*model.get_weights(), x]),
        "logits": model(x[..., None], training=False).numpy().tolist(),
    }


def train(inputs: int) -> dict[str, Any]:
    model = build(inputs, **NARROW, dropout=0.0)
    seed(model)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(learning_rate=1e-3), loss=loss)
    losses = []
    for step in range(STEPS):
        x = seeded.uniform(f"batch{step}", (BATCH, inputs), -2.0, 2.0)
        y = np.arange(BATCH) % CLASSES
        losses.append(float(model.train_on_batch(x[..., None], y, return_dict=True)["loss"]))
        model.reset_metrics()
    norms = [model.get_layer(name) for name in ("norm1", "norm_dense1")]
    return {
        "losses": losses,
        "means": [norm.moving_mean.numpy().tolist() for norm in norms],
        "variances": [norm.moving_variance.numpy().tolist() for norm in norms],
    }


def main() -> None:
    oracle = {
        "made_with": f"keras {keras.__version__}, backend {keras.backend.backend()}",
        "cnn": describe(2376),
        "cnn_text": describe(2760),
        "steps": train(300),
    }
    path = Path(__file__).with_name("keras_oracle.json")
    path.write_text(json.dumps(oracle) + "\n")
    print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()

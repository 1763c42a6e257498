"""Layer table of a network: output shapes and parameters, as in the paper's Figure 1."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ser_bench.config import Config
from ser_bench.errors import ConfigError
from ser_bench.predictors.capabilities import HasNetwork
from ser_bench.predictors.cnn.paper_network import FlattenTimeMajor, KerasBatchNorm, SameConv, SameMaxPool
from ser_bench.predictors.crnn.crnn_network import AttentivePooling
from ser_bench.predictors.network_modules import count_parameters
from ser_bench.predictors.registry import has_capability, names, predictor_class

KERAS_NAMES: dict[type[nn.Module], str] = {
    SameConv: "Conv1D",
    KerasBatchNorm: "BatchNormalization",
    SameMaxPool: "MaxPooling1D",
    nn.Dropout: "Dropout",
    FlattenTimeMajor: "Flatten",
    nn.Linear: "Dense",
    nn.Conv2d: "Conv2D",
    nn.BatchNorm2d: "BatchNormalization",
    nn.Dropout2d: "SpatialDropout2D",
    nn.GRU: "Bidirectional GRU",
    AttentivePooling: "AttentivePooling",
}
"""A ReLU has no line: Keras counts it to the layer before."""


@dataclass(frozen=True)
class LayerRow:
    """One line of the table.

    Attributes:
        layer: Keras's name of the layer.
        output: shape without the batch axis, in Keras's order (length, channels), or (time, bands, channels).
        parameters: all of them, running means and variances included.
    """

    layer: str
    output: tuple[int, ...]
    parameters: int


@dataclass(frozen=True)
class LayerTable:
    """The layers in order, and the totals as Keras counts them."""

    layers: tuple[LayerRow, ...]
    total: int
    trainable: int


def layer_table(cfg: Config, labels_count: int) -> LayerTable:
    """Return the layers of the network that `cfg` describes, from one forward pass.

    Raises:
        ConfigError: the chosen predictor is not a network.
    """
    if not has_capability(cfg.model.name, HasNetwork):
        networks = ", ".join(name for name in names() if has_capability(name, HasNetwork))
        raise ConfigError(f"model={cfg.model.name} is not a network; networks are {networks}")
    rows: list[LayerRow] = []

    def note(module: nn.Module, _: tuple[Tensor, ...], output: Tensor | tuple[Tensor, ...]) -> None:
        out = output if isinstance(output, Tensor) else output[0]
        # Keras counts time (and bands), then channels; the paper's feature maps have one row only.
        shape = tuple(out.permute(0, 2, 3, 1).squeeze(1).shape if out.dim() == 4 else out.shape)[1:]
        rows.append(LayerRow(KERAS_NAMES[type(module)], shape, count_parameters(module)[0]))

    with torch.device("meta"):  # shapes without memory: the widest network is listed at once
        network, shape = predictor_class(cfg.model.name).untrained_network(cfg, labels_count)
        for layer in _layers(network.eval()):
            layer.register_forward_hook(note)
        network(torch.zeros(1, *shape))
    total, trainable = count_parameters(network)
    return LayerTable(tuple(rows), total, trainable)


def _layers(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the modules that have a line in the table; what they contain has none."""
    if type(module) in KERAS_NAMES:
        yield module
        return
    for child in module.children():
        yield from _layers(child)


def table_record(table: LayerTable) -> dict[str, Any]:
    """Return the table as JSON-able values."""
    layers = [{"layer": row.layer, "output": list(row.output), "parameters": row.parameters} for row in table.layers]
    return {"layers": layers, "total": table.total, "trainable": table.trainable}


def format_table(table: LayerTable) -> str:
    """Aligned text: layer, output shape, parameters, and the totals below."""
    lines = [("Layer", "Output shape", "Parameters")]
    lines += [(row.layer, "(" + ", ".join(map(str, row.output)) + ")", f"{row.parameters:,}") for row in table.layers]
    totals = [("Total", table.total), ("Trainable", table.trainable), ("Not trainable", table.total - table.trainable)]
    lines += [(name, "", f"{count:,}") for name, count in totals]
    widths = [max(len(line[column]) for line in lines) for column in range(3)]
    text = [f"{layer:<{widths[0]}}  {shape:<{widths[1]}}  {count:>{widths[2]}}" for layer, shape, count in lines]
    rule = "-" * len(text[0])
    return "\n".join([text[0], rule, *text[1 : -len(totals)], rule, *text[-len(totals) :]])

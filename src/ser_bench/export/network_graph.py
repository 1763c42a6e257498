"""A trained network (`HasNetwork`) as an ONNX graph: raw features in, probabilities out."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from ser_bench.export.graph_nodes import OPSET
from ser_bench.predictors import HasNetwork
from ser_bench.types import FloatArray

if TYPE_CHECKING:
    import onnx

FEATURES, PROBABILITIES = "features", "probabilities"


def network_graph(predictor: HasNetwork) -> onnx.ModelProto:
    """Return the graph of a network, its standardisation included, as PyTorch's exporter writes it.

    Its input "features" is [N, …] float32, its output "probabilities" [N, C] float32, not calibrated.

    Raises:
        SerBenchError: the network is not trained.
    """
    import torch

    module, example = predictor.torch_module()
    with _quiet():
        program = torch.onnx.export(
            module.eval(),
            (torch.from_numpy(example),),
            dynamo=True,
            input_names=[FEATURES],
            output_names=[PROBABILITIES],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None  # with dynamo=True a program is returned
    model: onnx.ModelProto = program.model_proto
    return model


def example_features(predictor: HasNetwork, rows: int, seed: int) -> FloatArray:
    """Return random features [rows, …] float32: around the mean training row, with the deviations of training."""
    _, (mean, above) = predictor.torch_module()
    drawn = np.random.default_rng(seed).normal(size=(rows, *mean.shape))
    features: FloatArray = (mean + (above - mean) * drawn).astype(np.float32)
    return features


def expected_probabilities(predictor: HasNetwork, features: FloatArray) -> FloatArray:
    """Return what the PyTorch module answers to features [N, …]: [N, C]."""
    import torch

    module, _ = predictor.torch_module()
    with torch.inference_mode():
        probabilities: FloatArray = module(torch.from_numpy(features)).numpy()
    return probabilities


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's lines about packages that are not needed."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)

"""A stored head (`predictors/heads`) as nodes of an ONNX graph, in single precision."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ser_bench.errors import ConfigError
from ser_bench.export.graph_nodes import GraphNodes
from ser_bench.predictors.heads.head import FORMAT, HEAD_FILE, SCALER_FILE
from ser_bench.predictors.stored_model import read_description, reading

Arrays = Mapping[str, npt.NDArray[Any]]


def add_head(graph: GraphNodes, vectors: str, folder: Path) -> str:
    """Add standardisation, principal axes and classifiers, and return the probabilities [N, C].

    Args:
        graph: receives the nodes.
        vectors: name of the vectors [N, D].
        folder: what `Head.save` wrote.

    Raises:
        ConfigError: the head has a classifier that cannot be exported.
        SerBenchError: a file cannot be read.
    """
    from safetensors.numpy import load_file

    description = read_description(folder / HEAD_FILE, FORMAT)
    with reading(folder):
        members: dict[str, Mapping[str, Any]] = description["members"]
        unknown = sorted(set(members) - set(CLASSIFIER_NODES))
        if unknown:
            raise ConfigError(
                f"head.members has {', '.join(unknown)}, which cannot be exported; {', '.join(CLASSIFIER_NODES)} can"
            )
        scaler = load_file(folder / SCALER_FILE)
        centred = graph.add("Sub", vectors, graph.constant(scaler["mean"]))
        x = graph.add("Div", centred, graph.constant(scaler["std"]))
        if "axes" in scaler:
            x = graph.add("MatMul", x, graph.constant(scaler["axes"]))
        answers = [
            CLASSIFIER_NODES[name](graph, x, load_file(folder / f"member_{name}.safetensors"), settings)
            for name, settings in members.items()
        ]
    return _mean_of(graph, answers)


def _logistic(graph: GraphNodes, x: str, arrays: Arrays, settings: Mapping[str, Any]) -> str:
    return _softmax(graph, graph.linear(x, arrays["coefficients"], arrays["intercepts"]))


def _hidden_layer(graph: GraphNodes, x: str, arrays: Arrays, settings: Mapping[str, Any]) -> str:
    answers = []
    for number in range(len(arrays["hidden_weights"])):
        hidden = graph.linear(x, arrays["hidden_weights"][number], arrays["hidden_biases"][number])
        scores = graph.linear(
            graph.add("Relu", hidden), arrays["out_weights"][number], arrays["out_biases"][number]
        )
        answers.append(_softmax(graph, scores))
    return _mean_of(graph, answers)


def _support_vectors(graph: GraphNodes, x: str, arrays: Arrays, settings: Mapping[str, Any]) -> str:
    """exp(−gamma · ‖x − v‖²), with ‖x − v‖² = ‖x‖² + ‖v‖² − 2 x · v, times the weights of the support vectors."""
    vectors = arrays["vectors"].astype(np.float64)
    products = graph.linear(x, -2.0 * vectors, np.square(vectors).sum(axis=1))
    distances = graph.add("Add", products, graph.sum(graph.square(x), axis=1, keepdims=True))
    scaled = graph.add("Mul", graph.add("Relu", distances), graph.constant(-float(settings["gamma"])))
    temperature = float(settings["temperature"])
    return _softmax(
        graph,
        graph.linear(
            graph.add("Exp", scaled), temperature * arrays["weights"].T, temperature * arrays["intercepts"]
        ),
    )


CLASSIFIER_NODES = {"logistic": _logistic, "mlp": _hidden_layer, "svm": _support_vectors}
"""Name of a classifier → the function that adds it to a graph."""


def _softmax(graph: GraphNodes, scores: str) -> str:
    return graph.add("Softmax", scores, axis=-1)


def _mean_of(graph: GraphNodes, answers: list[str]) -> str:
    return answers[0] if len(answers) == 1 else graph.add("Mean", *answers)

"""A Whisper probe as one ONNX graph: samples → log-mel → encoder blocks → pooling → head → probabilities.

The spectrogram is computed in the graph: frames of 400 samples every 160, times a windowed discrete Fourier transform
as a matrix. Blocks after the last layer that the head reads are left out. All clips of a batch have the same length.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ser_bench.asr import whisper_weights
from ser_bench.config import model_config
from ser_bench.errors import ConfigError
from ser_bench.export.graph_nodes import FLOAT, HALF, GraphNodes
from ser_bench.export.head_graph import add_head
from ser_bench.features.encoders.whisper_states import KEY, MAX_SAMPLES, MIN_SAMPLES, SAMPLE_RATE_HZ
from ser_bench.inference.predictor_files import PredictorFiles
from ser_bench.predictors.embeddings.whisper_probe import POOLING_FILE, Pooling, WhisperProbeConfig, chosen
from ser_bench.predictors.stored_model import reading

if TYPE_CHECKING:
    import onnx

WINDOW, HOP = 400, 160
"""Samples of a frame of the spectrogram, and between two frames: 25 ms and 10 ms."""
POWER_FLOOR = 1e-10
DYNAMIC_RANGE = 8.0
"""Powers more than 10⁸ times below the loudest band of a clip are raised to that."""
NORM_EPSILON = 1e-5
SMALLEST_VARIANCE = 1e-6
"""As in `AttentivePooling`."""
SAMPLES, PROBABILITIES = "samples", "probabilities"
Weights = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class ProbeGraph:
    """A model, and the names of the matrix products of its encoders, which can be quantised."""

    model: onnx.ModelProto = field(repr=False)
    products: tuple[str, ...]


def probe_graph(files: PredictorFiles) -> ProbeGraph:
    """Return the graph of a trained Whisper probe.

    Its input "samples" is [N, T] float32 at 16 kHz, full scale ±1. Samples after 30 s are not used, and fewer than 400
    are padded with zeros. Its output "probabilities" is [N, C] float32, not calibrated.

    Raises:
        ConfigError: the run adapts to speakers, or the head cannot be exported.
        WeightsError: the weights of an encoder are not available.
        SerBenchError: a file of the predictor cannot be read.
    """
    if files.cfg.adapt.name != "none":
        raise ConfigError(
            f"run {files.run_id} ({files.name}) has adapt={files.cfg.adapt.name}, and a graph cannot enrol speakers; "
            "export a run with adapt=none"
        )
    from ser_bench.features.encoders.whisper_encoder import PREFIX, WhisperEncoder, read_variables

    cfg = model_config(files.cfg, WhisperProbeConfig)
    graph = GraphNodes()
    spectrograms: dict[int, str] = {}
    products: list[str] = []
    vectors = []
    framed = _frames(graph, SAMPLES)
    for number, encoder in enumerate(cfg.encoders):
        path = whisper_weights.home(encoder, KEY) / whisper_weights.MODEL_FILE
        network = WhisperEncoder(path)
        blocks, mels = network.blocks, network.mels
        weights = {name.removeprefix(PREFIX): array for name, array in read_variables(path).items()}
        layers = chosen(cfg.layers, blocks + 1)
        if mels not in spectrograms:
            spectrograms[mels] = _log_mel(graph, framed, mels)
        nodes = _EncoderNodes(graph, weights, network.heads, f"encoder_{number}", products)
        states = nodes.states(spectrograms[mels], layers, blocks)
        if cfg.pooling is Pooling.attentive:
            if len(layers) != 1:
                raise ConfigError(f"model.pooling=attentive reads one layer, not {len(layers)}; the run is damaged")
            vectors += _attentive(graph, states[0], files.folder / POOLING_FILE.format(number))
        else:
            vectors += [part for state in states for part in _statistics(graph, state)]
    joined = graph.add("Concat", *vectors, axis=-1) if len(vectors) > 1 else vectors[0]
    answer = add_head(graph, joined, files.folder)
    graph.add("Identity", answer, name=PROBABILITIES)
    model = graph.model(
        {SAMPLES: ("batch", "time")},
        {PROBABILITIES: ("batch", len(files.labels))},
        f"Run {files.run_id}: samples at {SAMPLE_RATE_HZ} Hz to probabilities of {', '.join(files.labels)}.",
    )
    return ProbeGraph(model, tuple(products))


def _frames(graph: GraphNodes, samples: str) -> str:
    """Return overlapping frames [N, F, 400] of samples [N, T], F = T // 160, centred, mirrored at both ends."""
    zero, hop = graph.constant(np.array([0])), graph.constant(np.array([HOP]))
    cut = graph.slice(samples, zero, graph.constant(np.array([MAX_SAMPLES])), axis=1)
    shortest = graph.constant(np.array([MIN_SAMPLES]))
    missing = graph.add("Max", graph.add("Sub", shortest, graph.length(cut, 1)), zero)
    none = graph.constant(np.array([0, 0, 0]))
    long_enough = graph.add("Pad", cut, graph.add("Concat", none, missing, axis=0))
    half = WINDOW // 2
    mirrored = graph.add("Pad", long_enough, graph.constant(np.array([0, half, 0, half])), mode="reflect")
    count = graph.add("Div", graph.length(long_enough, 1), hop)
    # A frame is two hops and a half: rows of one hop, joined with the next and half of the one after.
    end = graph.add("Mul", graph.add("Add", count, graph.constant(np.array([2]))), hop)
    rows = graph.add("Reshape", graph.slice(mirrored, zero, end, axis=1), graph.constant(np.array([0, -1, HOP])))
    parts = []
    for shift in range(3):
        first = graph.constant(np.array([shift]))
        part = graph.slice(rows, first, graph.add("Add", count, first), axis=1)
        width = min(HOP, WINDOW - shift * HOP)
        parts.append(part if width == HOP else graph.slice(part, zero, graph.constant(np.array([width])), axis=2))
    return graph.add("Concat", *parts, axis=2)


def _log_mel(graph: GraphNodes, framed: str, mels: int) -> str:
    """Return the log-mel spectrogram [N, F, mels] of frames, as faster-whisper computes it."""
    from faster_whisper.feature_extractor import FeatureExtractor

    window = np.hanning(WINDOW + 1)[:-1].astype(np.float32).astype(np.float64)
    angles = -2.0 * np.pi * np.outer(np.arange(WINDOW), np.arange(WINDOW // 2 + 1)) / WINDOW
    real, imaginary = (
        graph.add("MatMul", framed, graph.constant(window[:, None] * wave(angles))) for wave in (np.cos, np.sin)
    )
    power = graph.add("Add", graph.square(real), graph.square(imaginary))
    filters = FeatureExtractor.get_mel_filters(SAMPLE_RATE_HZ, WINDOW, n_mels=mels).astype(np.float32)
    mel = graph.add("Max", graph.add("MatMul", power, graph.constant(filters.T)), graph.constant(POWER_FLOOR))
    decades = graph.add("Mul", graph.add("Log", mel), graph.constant(1.0 / np.log(10.0)))
    loudest = graph.add("ReduceMax", decades, graph.constant(np.array([1, 2])), keepdims=1)
    limited = graph.add("Max", decades, graph.add("Sub", loudest, graph.constant(DYNAMIC_RANGE)))
    return graph.add("Mul", graph.add("Add", limited, graph.constant(4.0)), graph.constant(0.25))


class _EncoderNodes:
    """Adds an encoder to a graph.

    Args:
        graph: receives the nodes.
        weights: arrays by name, as in CTranslate2's file without "encoder/".
        heads: of the attention.
        name: prefix of the names of the matrix products.
        products: receives these names.
    """

    def __init__(self, graph: GraphNodes, weights: Weights, heads: int, name: str, products: list[str]) -> None:
        self._graph = graph
        self._weights = weights
        self._heads = heads
        self._name = name
        self._products = products
        self._width = weights["conv1/weight"].shape[0]

    def states(self, log_mel: str, layers: list[int], blocks: int) -> list[str]:
        """Return the chosen states [N, P, width] of a log-mel spectrogram [N, F, mels], P = ceil(F / 2).

        Args:
            log_mel: name of the spectrogram.
            layers: indices of blocks, ascending; `blocks` stands for the normalised output.
            blocks: number of blocks.
        """
        graph = self._graph
        x = graph.add("Transpose", log_mel, perm=[0, 2, 1])
        x = graph.add("Gelu", self._convolved(x, "conv1", 1))
        x = graph.add("Transpose", graph.add("Gelu", self._convolved(x, "conv2", 2)), perm=[0, 2, 1])
        zero = graph.constant(np.array([0]))
        positions = graph.constant(self._weights["position_encodings/encodings"])
        x = graph.add("Add", x, graph.slice(positions, zero, graph.length(x, 1), axis=0))
        states = {}
        for number in range(min(blocks, max(layers) + 1)):
            x = states[number] = self._block(x, f"layer_{number}")
        if blocks in layers:
            states[blocks] = self._normed(x, "layer_norm")
        return [states[layer] for layer in layers]

    def _block(self, x: str, name: str) -> str:
        graph = self._graph
        attention, dense = f"{name}/self_attention", f"{name}/ffn"
        joined = self._linear(self._normed(x, f"{attention}/layer_norm"), f"{attention}/linear_0")
        sizes = graph.constant(np.full(3, self._width))
        first = graph.add("Split", joined, sizes, outputs=3, axis=-1)
        query, key, value = (
            self._by_head(part, perm)
            for part, perm in zip(
                (first, f"{first}.1", f"{first}.2"), ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]), strict=True
            )
        )
        scale = graph.constant((self._width // self._heads) ** -0.5)
        scores = graph.add("MatMul", graph.add("Mul", query, scale), key)
        mixed = graph.add("MatMul", graph.add("Softmax", scores, axis=-1), value)
        merged = graph.add(
            "Reshape", graph.add("Transpose", mixed, perm=[0, 2, 1, 3]), graph.constant(np.array([0, 0, self._width]))
        )
        x = graph.add("Add", x, self._linear(merged, f"{attention}/linear_1"))
        hidden = graph.add("Gelu", self._linear(self._normed(x, f"{dense}/layer_norm"), f"{dense}/linear_0"))
        return graph.add("Add", x, self._linear(hidden, f"{dense}/linear_1"))

    def _by_head(self, x: str, perm: list[int]) -> str:
        shape = self._graph.constant(np.array([0, 0, self._heads, self._width // self._heads]))
        return self._graph.add("Transpose", self._graph.add("Reshape", x, shape), perm=perm)

    def _convolved(self, x: str, name: str, stride: int) -> str:
        weight, bias = (self._graph.constant(self._weights[f"{name}/{part}"]) for part in ("weight", "bias"))
        return self._graph.add("Conv", x, weight, bias, kernel_shape=[3], strides=[stride], pads=[1, 1])

    def _normed(self, x: str, name: str) -> str:
        gamma, beta = (self._graph.constant(self._weights[f"{name}/{part}"]) for part in ("gamma", "beta"))
        return self._graph.add("LayerNormalization", x, gamma, beta, axis=-1, epsilon=NORM_EPSILON)

    def _linear(self, x: str, name: str) -> str:
        product = f"{self._name}/{name}"
        self._products.append(product)
        return self._graph.linear(x, self._weights[f"{name}/weight"], self._weights[f"{name}/bias"], product)


def _statistics(graph: GraphNodes, states: str) -> list[str]:
    """Return mean and population standard deviation [N, width] over time of states [N, P, width]."""
    mean = graph.mean(states, axis=1, keepdims=True)
    variance = graph.mean(graph.square(graph.add("Sub", states, mean)), axis=1)
    return [graph.add("Squeeze", mean, graph.constant(np.array([1]))), graph.add("Sqrt", variance)]


def _attentive(graph: GraphNodes, states: str, path: Path) -> list[str]:
    """Return the weighted means and deviations [N, width] of states, by what `TrainedPooling.save` wrote."""
    from safetensors.numpy import load_file

    # The pooling was trained on states in half precision.
    rounded = graph.add("Cast", graph.add("Cast", states, to=HALF), to=FLOAT)
    vectors = []
    with reading(path):
        arrays = load_file(path)
        mean, deviation = graph.constant(arrays["frame_mean"]), graph.constant(arrays["frame_std"])
        x = graph.add("Div", graph.add("Sub", rounded, mean), deviation)
        for number in sorted({int(name.partition(".")[0]) for name in arrays if name[0].isdigit()}):
            inner, outer = (
                (arrays[f"{number}.score.{layer}.weight"], arrays[f"{number}.score.{layer}.bias"]) for layer in (0, 2)
            )
            scores = graph.linear(graph.add("Tanh", graph.linear(x, *inner)), *outer)
            weights = graph.add("Softmax", scores, axis=1)
            average = graph.sum(graph.add("Mul", weights, x), axis=1, keepdims=True)
            squares = graph.square(graph.add("Sub", x, average))
            variance = graph.sum(graph.add("Mul", weights, squares), axis=1)
            vectors += [
                graph.add("Squeeze", average, graph.constant(np.array([1]))),
                graph.add("Sqrt", graph.add("Max", variance, graph.constant(SMALLEST_VARIANCE))),
            ]
    return vectors


from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ser_bench.errors import ConfigError
from ser_bench.predictors.cnn.paper_network import FlattenTimeMajor, KerasBatchNorm, PaperCNN, SameMaxPool
from ser_bench.predictors.layer_table import format_table, layer_table
from ser_bench.predictors.network_modules import FeaturesToProbabilities, count_parameters
from tests.oracles import seeded_weights as seeded
from tests.support.fake_inputs import compose_config

ORACLE = json.loads((Path(seeded.__file__).with_name("keras_oracle.json")).read_text())
SHAPE: dict[str, Any] = {"kernels": [5, 5, 5, 3, 3], "pools": [5, 5, 5, 5, 3], "dropout_after": [2, 4, 5]}
FULL = {"channels": [512, 512, 256, 256, 128], "hidden": 512}
NARROW = {"channels": [8, 8, 6, 6, 4], "hidden": 8}


def seed(network: PaperCNN) -> list[seeded.Array]:
    """Give the network the weights of the oracle; returns them in Keras's layout and order."""
    drawn: list[seeded.Array] = []
    for name, layer in network.layers.named_children():
        if isinstance(layer, nn.Conv1d | nn.Linear):
            shape = tuple(layer.weight.shape)
            kernel = seeded.kernel(f"{name}/kernel", shape[::-1])
            bias = seeded.uniform(f"{name}/bias", shape[:1], -0.1, 0.1)
            layer.weight.data = torch.from_numpy(kernel.transpose().copy())
            layer.bias.data = torch.from_numpy(bias)  # type: ignore[union-attr]
            drawn += [kernel, bias]
        elif isinstance(layer, KerasBatchNorm):
            values = seeded.batch_norm(name, layer.num_features)
            tensors = (layer.weight, layer.bias, layer.running_mean, layer.running_var)
            for tensor, value in zip(tensors, values, strict=True):
                tensor.data.copy_(torch.from_numpy(value))  # type: ignore[union-attr]
            drawn += values
    return drawn


def pool_by_hand(x: np.ndarray, size: int, stride: int) -> np.ndarray:
    """'same' pooling of one signal, window by window."""
    length = len(x)
    count = -(-length // stride)
    total = max((count - 1) * stride + size - length, 0)
    padded = np.concatenate([np.full(total // 2, -np.inf), x, np.full(total - total // 2, -np.inf)])
    return np.array([padded[i * stride : i * stride + size].max() for i in range(count)])


@pytest.mark.parametrize("length", [2376, 297, 10, 9, 5, 2, 1])
@pytest.mark.parametrize(("size", "stride"), [(5, 2), (3, 2), (2, 2), (4, 3), (2, 1), (3, 1), (1, 3)])
def test_pooling_pads_as_keras_does(length: int, size: int, stride: int) -> None:
    x = np.random.default_rng(length).normal(size=length) - 5  # all below 0: padding with zeros would show
    pooled = SameMaxPool(size, stride)(torch.from_numpy(x).view(1, 1, 1, length))
    np.testing.assert_array_equal(pooled.numpy().ravel(), pool_by_hand(x, size, stride))


def test_flatten_puts_channels_of_one_frame_together() -> None:
    x = torch.arange(6.0).view(1, 2, 1, 3)  # 2 channels, 3 frames
    assert FlattenTimeMajor()(x).tolist() == [[0, 3, 1, 4, 2, 5]]


@pytest.mark.parametrize(("name", "inputs", "lengths"), [
    ("cnn", 2376, [2376, 1188, 594, 297, 149, 75]),
    ("cnn_text", 2760, [2760, 1380, 690, 345, 173, 87]),
])  # fmt: skip
def test_layers_are_those_of_the_paper_and_of_keras(name: str, inputs: int, lengths: list[int]) -> None:
    table = layer_table(compose_config("experiment=none", "size=paper", f"model={name}"), 6)
    expected = ORACLE[name]
    assert [[row.layer, list(row.output), row.parameters] for row in table.layers] == expected["layers"]
    assert (table.total, table.trainable) == (expected["total"], expected["trainable"])
    pools = [row.output[0] for row in table.layers if row.layer == "MaxPooling1D"]
    assert [table.layers[0].output[0], *pools] == lengths


def test_totals_are_the_papers() -> None:
    assert (ORACLE["cnn"]["total"], ORACLE["cnn"]["trainable"]) == (7_192_710, 7_188_358)
    assert (ORACLE["cnn_text"]["total"], ORACLE["cnn_text"]["trainable"]) == (7_979_142, 7_974_790)
    text = format_table(layer_table(compose_config("experiment=none", "size=paper", "model=cnn"), 6))
    assert "7,192,710" in text and "7,188,358" in text and len({len(line) for line in text.splitlines()}) == 1


def test_the_crnns_layers_add_up_and_stay_below_a_million() -> None:
    table = layer_table(compose_config("experiment=none", "model=crnn"), 6)
    assert sum(row.parameters for row in table.layers) == table.total
    assert table.trainable < 1_000_000
    assert table.layers[0].layer == "Conv2D" and table.layers[0].output == (110, 32, 24)
    assert (table.layers[-1].layer, table.layers[-1].output) == ("Dense", (6,))


def test_a_predictor_without_layers_has_no_table() -> None:
    with pytest.raises(ConfigError, match="cnn_text, crnn"):
        layer_table(compose_config("experiment=none", "model=llm"), 6)


@pytest.mark.parametrize(("name", "inputs"), [("cnn", 2376), ("cnn_text", 2760)])
def test_logits_equal_those_of_keras(name: str, inputs: int) -> None:
    network = PaperCNN(inputs, 6, **FULL, **SHAPE, dropout=0.2).eval()
    x = seeded.inputs(inputs)
    assert seeded.digest([*seed(network), x]) == ORACLE[name]["weights"], "weights are not drawn as the oracle's were"
    with torch.inference_mode():
        difference = np.abs(network(torch.from_numpy(x)).numpy() - np.array(ORACLE[name]["logits"])).max()
    print(f"{name}: largest difference from Keras {difference:.1e}")
    assert difference < 1e-4


def test_five_training_steps_equal_those_of_keras() -> None:
    network = PaperCNN(300, 6, **NARROW, **SHAPE, dropout=0.0).train()
    seed(network)
    adam = torch.optim.Adam(network.parameters(), lr=1e-3, eps=1e-7)
    losses = []
    for step in range(5):
        x = torch.from_numpy(seeded.uniform(f"batch{step}", (16, 300), -2.0, 2.0))
        adam.zero_grad()
        loss = nn.functional.cross_entropy(network(x), torch.arange(16) % 6)
        loss.backward()
        adam.step()
        losses.append(loss.item())
    np.testing.assert_allclose(losses, ORACLE["steps"]["losses"], atol=1e-3)
    norms = [network.layers.get_submodule(name) for name in ("norm1", "norm_dense1")]
    for norm, mean, variance in zip(norms, ORACLE["steps"]["means"], ORACLE["steps"]["variances"], strict=True):
        np.testing.assert_allclose(norm.running_mean, mean, atol=1e-4)
        np.testing.assert_allclose(norm.running_var, variance, rtol=1e-4)


def test_running_variance_is_that_of_the_population() -> None:
    norm = KerasBatchNorm(1, 0.99).train()
    norm(torch.tensor([[0.0], [2.0]]))  # population variance 1, sample variance 2
    assert norm.running_var is not None and norm.running_var.item() == pytest.approx(0.99 * 1 + 0.01 * 1)


def test_initial_weights_are_glorot_uniform_with_zero_biases() -> None:
    torch.manual_seed(0)
    network = PaperCNN(300, 6, **NARROW, **SHAPE)
    conv, dense = network.layers.get_submodule("conv2"), network.layers.get_submodule("dense1")
    for layer, fans in ((conv, 5 * (8 + 8)), (dense, 40 + 8)):
        limit = (6 / fans) ** 0.5
        assert 0.9 * limit < layer.weight.abs().max() <= limit
        assert layer.bias.abs().max() == 0


def test_even_kernels_keep_the_length() -> None:
    network = PaperCNN(21, 3, [2, 2], 4, [4, 2], [3, 3])
    assert network(torch.zeros(2, 21)).shape == (2, 3)


@pytest.mark.parametrize("wrong", [{"kernels": [5]}, {"channels": []}, {"dropout_after": [6]}, {"dropout_after": [0]}])
def test_lists_that_describe_no_network_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        PaperCNN(300, 6, **(NARROW | SHAPE | wrong))


def test_exported_module_takes_any_batch_size() -> None:
    network = PaperCNN(40, 3, [4, 4], 8, [5, 3], [5, 3], 2, [2], 0.2).eval()
    assert count_parameters(network)[0] > count_parameters(network)[1]
    module = FeaturesToProbabilities(network, np.full(40, 2, np.float32), np.full(40, 3, np.float32)).eval()
    example = torch.randn(2, 40)
    exported = torch.export.export(module, (example,), dynamic_shapes=({0: torch.export.Dim("rows")},)).module()
    for rows in (1, 2, 7):
        x = torch.randn(rows, 40)
        torch.testing.assert_close(exported(x), torch.softmax(network((x - 2) / 3), dim=1))

"""Whisper's encoder in PyTorch, with the states of all layers, from the weights that the recogniser uses.

CTranslate2 returns the last layer only, and emotion is recognised best from the middle layers (docs/whisper_probe.md).
The weights of all layers are read from CTranslate2's file. docs/whisper_probe.md states how closely the last layer
agrees with CTranslate2's.

Whisper pads every clip to 30 s. Here a clip is not padded to 30 s, but only to the longest clip of its batch, and the
padding is masked, so the states of a clip do not depend on the other clips of the batch.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from ser_bench.errors import WeightsError
from ser_bench.types import FloatArray

FILE_VERSION = 6
"""Version of CTranslate2's binary format; see `ModelSpec._serialize` in python/ctranslate2/specs/model_spec.py."""
TYPES: dict[int, type[np.generic]] = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}
PREFIX = "encoder/"
Variable = npt.NDArray[Any]


class WhisperEncoder:
    """A frozen encoder.

    Args:
        path: model.bin of a Whisper model in CTranslate2's format, with weights in float32 or float16.
        device: where the encoder computes, always in float32.

    Raises:
        WeightsError: if the file is not such a model.
    """

    def __init__(self, path: Path, device: str = "cpu") -> None:
        stored = read_variables(path)
        try:
            self.heads = int(stored.pop(f"{PREFIX}num_heads"))
            self._weights = {
                name.removeprefix(PREFIX): torch.from_numpy(_floats(name, array)).to(device)
                for name, array in stored.items()
                if name.startswith(PREFIX)
            }
            self.mels = int(self._weights["conv1/weight"].shape[1])
            self.width = int(self._weights["conv1/weight"].shape[0])
        except KeyError as error:
            raise WeightsError(
                f"{path}: has no {error}; it is not a Whisper model of CTranslate2 in float32 or float16 (convert it "
                "with ct2-transformers-converter --quantization float16)"
            ) from error
        blocks = {name.split("/")[0] for name in self._weights if name.startswith("layer_") and "/ffn/" in name}
        self.blocks = len(blocks)
        self._device = device

    @torch.inference_mode()
    def __call__(self, mel: FloatArray, frames: list[int]) -> list[Tensor]:
        """Return the hidden states of log-mel spectrograms [B, mels, T], padded with zeros after `frames` frames.

        Returns:
            One tensor [B, ceil(T / 2), width] per block, and last the normalised output. The positions of a clip from
            ceil(frames / 2) on are padding.
        """
        lengths = torch.tensor(frames, device=self._device)
        x = torch.from_numpy(mel).to(self._device)
        inside = torch.arange(x.shape[2], device=self._device) < lengths[:, None]
        x = functional.gelu(self._convolved(x, "conv1", 1)) * inside[:, None]
        x = functional.gelu(self._convolved(x, "conv2", 2)).transpose(1, 2)
        x = x + self._weights["position_encodings/encodings"][: x.shape[1]]
        mask = (torch.arange(x.shape[1], device=self._device) < ((lengths + 1) // 2)[:, None])[:, None, None, :]
        states = []
        for number in range(self.blocks):
            x = self._block(x, f"layer_{number}", None if len(set(frames)) == 1 else mask)
            states.append(x)
        return [*states, self._normed(x, "layer_norm")]

    def _block(self, x: Tensor, name: str, mask: Tensor | None) -> Tensor:
        batch, positions, width = x.shape
        attention, dense = f"{name}/self_attention", f"{name}/ffn"
        joined = self._linear(self._normed(x, f"{attention}/layer_norm"), f"{attention}/linear_0")
        query, key, value = (
            part.view(batch, positions, self.heads, -1).transpose(1, 2) for part in joined.chunk(3, dim=-1)
        )
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        x = x + self._linear(mixed.transpose(1, 2).reshape(batch, positions, width), f"{attention}/linear_1")
        hidden = functional.gelu(self._linear(self._normed(x, f"{dense}/layer_norm"), f"{dense}/linear_0"))
        return x + self._linear(hidden, f"{dense}/linear_1")

    def _convolved(self, x: Tensor, name: str, stride: int) -> Tensor:
        weights = self._weights
        return functional.conv1d(x, weights[f"{name}/weight"], weights[f"{name}/bias"], stride=stride, padding=1)

    def _normed(self, x: Tensor, name: str) -> Tensor:
        return functional.layer_norm(x, x.shape[-1:], self._weights[f"{name}/gamma"], self._weights[f"{name}/beta"])

    def _linear(self, x: Tensor, name: str) -> Tensor:
        return functional.linear(x, self._weights[f"{name}/weight"], self._weights[f"{name}/bias"])


def _floats(name: str, array: Variable) -> FloatArray:
    if array.dtype not in (np.float16, np.float32):
        raise KeyError(f"{name} in float16 but in {array.dtype}")
    return array.astype(np.float32)


def read_variables(path: Path) -> dict[str, Variable]:
    """Return name → array of all variables in a CTranslate2 model.bin. No code is executed.

    Raises:
        WeightsError: if the file cannot be read, is truncated, or has another version of the format.
    """
    try:
        with path.open("rb") as file:
            version = _number(file, "<I")
            if version != FILE_VERSION:
                raise WeightsError(
                    f"{path}: CTranslate2 format {version} is not supported, only format {FILE_VERSION}; "
                    "convert the model again with ct2-transformers-converter"
                )
            _name(file)
            _number(file, "<I")  # revision of the specification
            return dict(_variable(file) for _ in range(_number(file, "<I")))
    except (OSError, KeyError, ValueError, struct.error) as error:
        raise WeightsError(f"{path}: not a readable CTranslate2 model ({error})") from error


def _variable(file: BinaryIO) -> tuple[str, Variable]:
    name = _name(file)
    shape = tuple(_number(file, "<I") for _ in range(_number(file, "<B")))
    kind = TYPES[_number(file, "<B")]
    content = file.read(_number(file, "<I"))
    return name, np.frombuffer(content, kind).reshape(shape)


def _name(file: BinaryIO) -> str:
    return file.read(_number(file, "<H")).rstrip(b"\0").decode()


def _number(file: BinaryIO, kind: str) -> int:
    return int(struct.unpack(kind, file.read(struct.calcsize(kind)))[0])

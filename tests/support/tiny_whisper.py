"""A Whisper encoder of a few thousand random weights, in CTranslate2's file format."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

MELS, WIDTH, HEADS, BLOCKS, POSITIONS = 80, 16, 2, 3, 1_500
KINDS = {"float32": 0, "int8": 1, "int16": 2, "float16": 4}


def write_tiny(folder: Path, seed: int = 0, quantised: bool = False) -> Path:
    """Write `folder/model.bin`; returns the folder."""
    rng = np.random.default_rng(seed)
    shapes: dict[str, tuple[int, ...]] = {
        "conv1/weight": (WIDTH, MELS, 3),
        "conv1/bias": (WIDTH,),
        "conv2/weight": (WIDTH, WIDTH, 3),
        "conv2/bias": (WIDTH,),
        "position_encodings/encodings": (POSITIONS, WIDTH),
    }
    for i in range(BLOCKS):
        shapes |= _norm(f"layer_{i}/self_attention/layer_norm") | _norm(f"layer_{i}/ffn/layer_norm")
        shapes |= _linear(f"layer_{i}/self_attention/linear_0", 3 * WIDTH, WIDTH)
        shapes |= _linear(f"layer_{i}/self_attention/linear_1", WIDTH, WIDTH)
        shapes |= _linear(f"layer_{i}/ffn/linear_0", 4 * WIDTH, WIDTH)
        shapes |= _linear(f"layer_{i}/ffn/linear_1", WIDTH, 4 * WIDTH)
    shapes |= _norm("layer_norm")
    arrays = {f"encoder/{name}": rng.normal(scale=0.3, size=shape).astype(np.float16) for name, shape in shapes.items()}
    if quantised:
        arrays["encoder/layer_0/ffn/linear_0/weight"] = np.ones((4 * WIDTH, WIDTH), np.int8)
    arrays["encoder/num_heads"] = np.array(HEADS, np.int16)
    arrays["decoder/num_heads"] = np.array(HEADS, np.int16)
    folder.mkdir(parents=True, exist_ok=True)
    parts = [struct.pack("<I", 6), _text("WhisperSpec"), struct.pack("<II", 3, len(arrays))]
    for name, array in arrays.items():
        shape = struct.pack(f"<B{array.ndim}I", array.ndim, *array.shape)
        parts += [_text(name), shape, struct.pack("<BI", KINDS[array.dtype.name], array.nbytes), array.tobytes()]
    (folder / "model.bin").write_bytes(b"".join([*parts, struct.pack("<I", 0)]))
    return folder


def _norm(name: str) -> dict[str, tuple[int, ...]]:
    return {f"{name}/gamma": (WIDTH,), f"{name}/beta": (WIDTH,)}


def _linear(name: str, out: int, inputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}/weight": (out, inputs), f"{name}/bias": (out,)}


def _text(text: str) -> bytes:
    return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"

"""Weights and inputs that two frameworks can draw alike, so that 29 MB of them need not be committed.

Only `Generator.random` is used: its stream has not changed since NumPy introduced it. `digest` notices if it does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]


def uniform(name: str, shape: tuple[int, ...], low: float, high: float) -> Array:
    """Float32 values in [low, high), depending on the name and the shape alone."""
    rng = np.random.Generator(np.random.PCG64(list(name.encode())))
    return (low + (high - low) * rng.random(shape)).astype(np.float32)


def kernel(name: str, shape: tuple[int, ...]) -> Array:
    """A kernel in Keras's layout (…, in, out), in Glorot's range so that activations keep their size."""
    receptive = int(np.prod(shape[:-2], dtype=int))
    limit = (6.0 / (receptive * (shape[-2] + shape[-1]))) ** 0.5
    return uniform(name, shape, -limit, limit)


def batch_norm(name: str, width: int) -> tuple[Array, Array, Array, Array]:
    """(gamma, beta, running mean, running variance), none of them at its initial value."""
    return (
        uniform(f"{name}/gamma", (width,), 0.5, 1.5),
        uniform(f"{name}/beta", (width,), -0.5, 0.5),
        uniform(f"{name}/mean", (width,), -0.5, 0.5),
        uniform(f"{name}/variance", (width,), 0.5, 1.5),
    )


def inputs(length: int) -> Array:
    """Four input vectors [4, length] of different loudness."""
    return uniform("inputs", (4, length), -1.0, 1.0) * np.array([[0.5], [1.0], [2.0], [4.0]], dtype=np.float32)


def digest(arrays: Iterable[Array]) -> str:
    """Hexadecimal BLAKE2b-128 of the arrays' bytes, in order."""
    state = hashlib.blake2b(digest_size=16)
    for array in arrays:
        state.update(np.ascontiguousarray(array).tobytes())
    return state.hexdigest()

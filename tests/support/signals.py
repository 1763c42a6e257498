"""Synthetic signals with the spectral properties of speech."""

from __future__ import annotations

import numpy as np

from ser_bench.types import FloatArray

RATE_HZ = 22_050


def voice_like(samples: int = 55_125, seed: int = 0) -> FloatArray:
    """Bursts of a harmonic tone with varying F0, with low noise; the last sixth is digital silence."""
    rng = np.random.default_rng(seed)
    t = np.arange(samples) / RATE_HZ
    phase = 2 * np.pi * np.cumsum(150 + 40 * np.sin(2 * np.pi * 1.3 * t)) / RATE_HZ
    tone = sum(np.sin(k * phase) / k for k in range(1, 30))
    signal = 0.2 * tone * (np.sin(2 * np.pi * 2 * t) > -0.3) + 1e-3 * rng.standard_normal(samples)
    signal[samples * 5 // 6 :] = 0
    return signal.astype(np.float32)

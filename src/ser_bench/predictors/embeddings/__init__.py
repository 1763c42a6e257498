"""Probes: fixed vectors of a clip under a light classifier (`predictors/heads`).

- `probe`: what all of them share; `egemaps`, `whisper_probe`, `ssl_probe`: where their vectors come from;
- `speaker_adaptation`: standardisation by the speaker; `attentive_pooling`, `layer_weights`: learnt pooling;
- `finetuning`: training of the encoder itself.
"""

from ser_bench.predictors.embeddings.egemaps import Egemaps
from ser_bench.predictors.embeddings.ssl_probe import SslProbe, SslProbeConfig
from ser_bench.predictors.embeddings.whisper_probe import WhisperProbe, WhisperProbeConfig

__all__ = ["Egemaps", "SslProbe", "SslProbeConfig", "WhisperProbe", "WhisperProbeConfig"]

"""Probes: fixed vectors of a clip under a light classifier (`predictors/heads`).

- `probe`: what all of them share; `egemaps`, `whisper_probe`, `ssl_probe`: where their vectors come from;
- `speaker_adaptation`: standardisation by the speaker; `attentive_pooling`, `layer_weights`: learnt pooling;
- `finetuning`: training of the encoder itself.
"""

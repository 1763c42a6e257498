"""Frozen speech encoders: hidden states of a clip, pooled over time and cached on disk.

- `whisper_encoder`: Whisper's encoder with all of its layers; `whisper_states`: its states, pooled;
- `huggingface_encoder`: any wav2vec 2.0, HuBERT or WavLM model.
"""

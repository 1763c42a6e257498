"""Frozen speech encoders: hidden states of clips, summarised over time and cached on disk.

- `whisper_encoder`: the network of Whisper's encoder; `whisper_states`: its states of clips;
- `huggingface_encoder`: any wav2vec 2.0, HuBERT or WavLM model, and its states of clips;
- `pooling`: batches of clips and statistics over time, for both.
"""

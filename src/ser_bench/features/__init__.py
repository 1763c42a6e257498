"""Features of clips, computed when a predictor requests them, and cached on disk.

- `feature_store`: the interface for predictors; the other modules compute the features;
- `paper_features`: the paper's feature vectors of rows; `paper_vector`: the definition of a vector; `augmentation`: the
  variants of a clip;
- `prosody` (with pitch), `egemaps_functionals`, `log_mel`: other acoustic features;
- `encoders`: hidden states of frozen speech encoders; `text_embedding`: embeddings of transcripts;
- `fingerprint`: detects copies of a recording, for the audit;
- `torchaudio_cpu`, `numba_cache`: workarounds for the import of torchaudio and librosa.
"""

"""Features of clips, computed when a predictor asks for them and cached on disk.

- `feature_store`: what a predictor may ask for; the other modules compute it;
- `paper_features`, `paper_vector`, `augmentation`: the paper's feature vector and its augmented variants;
- `pitch`, `prosody`, `egemaps_functionals`, `log_mel`: other acoustic features;
- `encoders`: frozen speech encoders; `text_embedding`: embeddings of transcripts;
- `fingerprint`: recognises copies of a recording, for the audit.
"""

"""What predictors are fed: spectral vectors, pitch, and embeddings of transcripts."""

"""Trained predictors applied to new audio: files, bytes, samples, long recordings and streams."""

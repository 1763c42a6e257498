"""The predictor `hf_classifier`: a Hugging Face audio-classification checkpoint as it is; nothing is trained."""

from ser_bench.predictors.hf_classifier.hf_classifier import HfClassifier, HfClassifierConfig

__all__ = ["HfClassifier", "HfClassifierConfig"]

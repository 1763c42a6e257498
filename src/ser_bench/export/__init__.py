"""Trained predictors as ONNX files, which run without PyTorch and without this package.

- `onnx_folder`: writes the folder of a run: the files, their description and a README; checks and measures them;
- `whisper_graph`: a Whisper probe from samples to probabilities; `head_graph`: its classifiers;
- `network_graph`: a PyTorch network from features to probabilities;
- `onnx_predictor`: loads such a folder and predicts.
"""

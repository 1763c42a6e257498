"""The networks over the paper's feature vector.

- `cnn`: the paper's audio-only 1D CNN; `cnn_text`: the same with transcript embeddings; `paper_network`: its layers;
- `mlp`: one hidden layer over the same vector.
"""

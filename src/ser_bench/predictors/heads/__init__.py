"""Light classifiers over fixed vectors [N, D]: standardise by training rows, fit, give probabilities.

    head = heads.Head(cfg.head, classes=len(labels), seed=cfg.seed)
    facts = head.fit(x_train, y_train, x_val, y_val)
    probabilities = head.predict_proba(x)
    head.save(folder); heads.Head.load(folder)

- `logistic`: multinomial logistic regression; `svm`: support vectors with an RBF kernel; `mlp`: one hidden layer.
- `head`: the scaler in front, one or several of these behind, whose probabilities are averaged.

What is stored are numbers (safetensors) and settings (JSON): nothing is executed when a head is read back.
"""

from ser_bench.predictors.heads.head import Head

__all__ = ["Head"]

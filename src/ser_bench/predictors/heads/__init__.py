"""Light classifiers over fixed vectors [N, D]: standardise by the training rows, fit, give probabilities.

    head = Head(cfg.head, classes=len(labels), seed=cfg.seed)
    facts = head.fit(x_train, y_train, x_val, y_val)
    probabilities = head.predict_proba(x)
    head.save(folder)
    head = Head.load(folder)

- `head`: standardisation, principal components, one or several classifiers whose probabilities are averaged;
- `classifier`: the interface of these classifiers;
- `logistic`: multinomial logistic regression; `svm`: support vector machine with an RBF kernel;
- `ordinal`: cumulative logit, for ordered levels;
- `hidden_layer`: networks with one hidden layer (`head=mlp`).

A head is stored as numbers (safetensors) and settings (JSON). Reading it executes no code.
"""

from ser_bench.predictors.heads.head import Head

__all__ = ["Head"]

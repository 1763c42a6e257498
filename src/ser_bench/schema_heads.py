"""Names, types and units of the keys that every predictor over fixed vectors shares: its head, its adaptation."""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING


@dataclass
class HeadConfig:
    """The light classifier over fixed vectors, shared by every predictor that has such."""

    name: str = MISSING
    members: list[str] = field(default_factory=lambda: ["logistic"])
    """Of `logistic`, `svm`, `mlp`; of several the probabilities are averaged."""
    refit: bool = True
    """After the choice on validation rows, fit on training and validation rows together."""
    logistic_c: list[float] = field(default_factory=lambda: [0.01])
    """logistic: inverse strengths of the L2 penalty; the best on validation rows is taken, the first without such."""
    svm_c: list[float] = field(default_factory=lambda: [3.0])
    """svm: penalties of the margin's violations; chosen likewise."""
    svm_gamma: float = 1.0
    """svm: width of the kernel, gamma = svm_gamma / D for vectors of D numbers."""
    hidden: int = 256
    """mlp: units of the hidden layer."""
    dropout: float = 0.5
    """mlp: share of hidden units dropped in training."""
    input_dropout: float = 0.0
    """mlp: share of inputs dropped in training."""
    mixup: float = 0.3
    """mlp: both parameters of the Beta distribution that mixing weights are drawn from; 0: rows are not mixed."""
    label_smoothing: float = 0.1
    """mlp: share of each target spread over all labels."""
    epochs: int = 40
    """mlp: passes over the training rows, always all of them."""
    batch_size: int = 128
    """mlp: rows in a step."""
    learning_rate: float = 1e-3
    """mlp: at the start; it falls to 0 along a cosine."""
    weight_decay: float = 1e-2
    """mlp: of AdamW."""
    seeds: int = 3
    """mlp: networks, whose probabilities are averaged."""

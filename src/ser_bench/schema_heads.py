"""Names, types and units of the keys that every predictor over fixed vectors shares: its head, its adaptation."""

from __future__ import annotations

from dataclasses import dataclass, field

from ser_bench.choices import Pooling


@dataclass
class FixedEpochsConfig:
    """Training of a light network over vectors: of `head=mlp`, and of a fusion's attention."""

    label_smoothing: float = 0.1
    """Share of each target spread over all labels."""
    epochs: int = 20
    """Passes over the training rows, always all of them."""
    batch_size: int = 128
    """Rows in a step."""
    learning_rate: float = 1e-3
    """At the start; it falls to 0 along a cosine."""
    weight_decay: float = 1e-2
    """Of AdamW."""
    seeds: int = 3
    """Networks, whose probabilities are averaged."""


@dataclass
class HeadConfig(FixedEpochsConfig):
    """The light classifier over fixed vectors, shared by every predictor that has such."""

    name: str = "logistic"
    members: list[str] = field(default_factory=lambda: ["logistic"])
    """Of `logistic`, `svm`, `mlp`; of several the probabilities are averaged."""
    refit: bool = True
    """After the choice on validation rows, fit on training and validation rows together."""
    components: int | None = None
    """Principal components of the training rows that the members see; null: all numbers as they are."""
    logistic_c: list[float] = field(default_factory=lambda: [0.01])
    """logistic: inverse strengths of the L2 penalty; the best on validation rows is taken, the first without such."""
    svm_c: list[float] = field(default_factory=lambda: [3.0])
    """svm: penalties of the margin's violations; chosen likewise."""
    svm_gamma: float = 1.0
    """svm: width of the kernel, gamma = svm_gamma / total variance of the training rows."""
    hidden: int = 256
    """mlp: units of the hidden layer."""
    dropout: float = 0.5
    """mlp: share of hidden units dropped in training."""
    input_dropout: float = 0.0
    """mlp: share of inputs dropped in training."""
    mixup: float = 0.3
    """mlp: both parameters of the Beta distribution that mixing weights are drawn from; 0: rows are not mixed."""


@dataclass
class AdaptConfig:
    """What may be learnt of a speaker from clips without labels; for every predictor over fixed vectors."""

    name: str = "none"
    """`none`, or `speaker_stats`: vectors are standardised by the speaker's own mean and deviation."""
    enrol: int | None = None
    """Clips of each new speaker that are set aside to learn from and are not scored; null: all, and all are scored."""
    enrol_emotion: str | None = None
    """Take them from clips of this emotion alone, to see what a one-sided sample does; null: from all."""
    prior: float = 4.0
    """Clips' worth of trust in the statistics of the training speakers, added to those of a new one."""
    seed: int = 0
    """Draws which clips are set aside; fewer of them are always among more of them."""


@dataclass
class AttentivePoolingConfig(FixedEpochsConfig):
    """Attention over time, fitted to training rows; the longer it learns, the better it knows the training speakers."""

    epochs: int = 10
    hidden: int = 64
    """Units of the layer that scores a frame."""
    dropout: float = 0.3
    """Share of pooled numbers dropped in training."""
    seeds: int = 1
    """Attentions, whose pooled vectors stand side by side."""


@dataclass
class WhisperProbeConfig:
    """Frozen Whisper encoders, pooled over time, and a head."""

    name: str = "whisper_probe"
    encoders: list[str] = field(default_factory=lambda: ["tiny.en", "base"])
    """Side by side; each a name of the table of weights without "whisper-", or a folder in CTranslate2's format."""
    layers: list[int] | None = None
    """Blocks counted from 1; -1 is the normalised output. What an encoder has not is left out; null: all layers."""
    device: str = "cpu"
    """Where the encoders compute."""
    pooling: Pooling = Pooling.stats
    """stats: mean and deviation over time; attentive: the same under learnt weights, of one layer an encoder."""
    attention: AttentivePoolingConfig = field(default_factory=AttentivePoolingConfig)
    """attentive: how its weights are learnt."""

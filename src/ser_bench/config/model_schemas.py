"""Keys of the predictors (moved beside their classes in the next steps)."""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING

from ser_bench.config.choices import Combine, Mix, Pooling
from ser_bench.config.schema import FixedEpochsConfig, LogMelConfig, ModelConfig


@dataclass
class CnnConfig(ModelConfig):
    """The 1D CNN: audio alone (`cnn`) or with text embeddings appended to the input (`cnn_text`)."""

    name: str = MISSING
    channels: list[int] = MISSING
    hidden: int = MISSING
    kernels: list[int] = MISSING
    pools: list[int] = MISSING
    pool_stride: int = 2
    dropout_after: list[int] = MISSING
    """Blocks, counted from 1, that a dropout follows."""
    dropout: float = 0.2
    batch_norm_momentum: float = 0.99
    """Share of the old running mean and variance that a step keeps, as Keras counts it."""


@dataclass
class LlmModelConfig(ModelConfig):
    """The language model as a predictor; its service is in the group `llm`."""

    name: str = "llm"


@dataclass
class ControlConfig(ModelConfig):
    """A predictor without settings of its own: `majority`, `prior`, `listeners`, `egemaps`."""

    name: str = MISSING


@dataclass
class TextOnlyConfig(ModelConfig):
    """Logistic regression over the embedding of the transcript."""

    name: str = "text_only"
    C: float = 1.0
    """As scikit-learn calls it: inverse strength of the L2 penalty."""
    max_iter: int = 1000
    """Iterations of L-BFGS at most."""


@dataclass
class FusionConfig(FixedEpochsConfig, ModelConfig):
    """Probabilities, or vectors, of other finished runs, combined."""

    name: str = "fusion"
    members: list[str] = MISSING
    """Two or more: the name of a model, which stands for its newest finished run on the same corpus, labels, partition
    and seed, or the id of a run, or its first letters."""
    combine: Combine = Combine.stack
    C: float = 1.0
    """Only `stack`: inverse strength of the L2 penalty, as scikit-learn calls it."""
    max_iter: int = 1000
    """Only `stack`: iterations of L-BFGS at most."""
    width: int = 128
    """Only `attention`, as are all below and the training: numbers that each member's vector is projected to."""
    dropout: float = 0.5
    """Share of these numbers dropped in training."""
    member_dropout: float = 0.1
    """Probability that a training row goes without a member, for each member; one always stays."""


@dataclass
class MlpConfig(ModelConfig):
    """One hidden layer over the paper's features (`mlp`)."""

    name: str = "mlp"
    hidden: int = 512
    """Units of the hidden layer."""


@dataclass
class CrnnConfig(ModelConfig):
    """Convolutions, a GRU and attention over a log-mel spectrogram (`crnn`)."""

    name: str = MISSING
    channels: list[int] = MISSING
    """Of each 3 × 3 convolution; each halves the bands, and the first three the frames."""
    recurrent: int = 96
    """Units of the GRU in each direction."""
    attention: int = 64
    """Hidden units of the network that weighs frames."""
    conv_dropout: float = 0.1
    """Probability that a whole feature map is dropped."""
    dropout: float = 0.4
    """Probability that a pooled number is dropped."""
    time_masks: int = 2
    """Stretches of time blanked in every training clip."""
    time_mask_frames: int = 24
    """Frames of one at most."""
    band_masks: int = 2
    """Stretches of bands blanked."""
    band_mask_width: int = 8
    """Bands of one at most."""
    mixup: float = 0.3
    """Parameters of the Beta distribution of mixing weights; 0: clips are not mixed."""
    label_smoothing: float = 0.1
    """Share of a training target that is spread over all labels."""
    weight_decay: float = 1e-3
    """Decoupled from the gradient, as AdamW has it."""
    log_mel: LogMelConfig = field(default_factory=LogMelConfig)


@dataclass
class SslProbeConfig(ModelConfig):
    """A self-supervised speech encoder, frozen below a light head (group `head`), or fine-tuned on a GPU."""

    name: str = "ssl_probe"
    encoder: str = MISSING
    """A folder that save_pretrained wrote, or a name on the Hugging Face hub; safetensors only."""
    revision: str | None = None
    """Branch, tag or commit on the hub; null: its main branch."""
    layers: str = "last"
    """last, all, or the number of one layer: 0 is what enters the first transformer layer, 1 what leaves it, …"""
    mix: Mix = Mix.mean
    """Only layers=all. mean: all alike; learnt: weights fitted to the training rows, positive, sum 1."""
    device: str = "cpu"
    """Where the encoder computes: cpu, cuda, cuda:1 …"""
    finetune: bool = False
    """Train the transformer layers too, below one linear layer; the group `head` is then not used."""
    epochs: int = 10
    """finetune: passes over the training rows; always all of them, and the last is kept."""
    batch_size: int = 8
    """finetune: clips in a step."""
    learning_rate: float = 1e-5
    """finetune: of the encoder, at the start; it falls to 0 along a line."""
    head_learning_rate: float = 1e-3
    """finetune: of the linear layer, likewise."""


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
class WhisperProbeConfig(ModelConfig):
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

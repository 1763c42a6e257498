"""Names, types and units of the keys of the networks beside the paper's: `mlp`, `crnn`."""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING


@dataclass
class MlpConfig:
    """One hidden layer over the paper's features (`mlp`)."""

    name: str = "mlp"
    hidden: int = 512
    """Units of the hidden layer."""


@dataclass
class LogMelConfig:
    """Log-mel spectrogram of the first seconds of a clip."""

    sample_rate_hz: int = 16_000
    duration_s: float = 3.5
    """A longer clip is cut, a shorter one zero-padded."""
    frame_length: int = 512
    """Samples."""
    hop_length: int = 256
    """Samples."""
    bands: int = 64


@dataclass
class CrnnConfig:
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

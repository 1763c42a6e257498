"""Names, types and units of every configuration key; the YAML files under `conf/` hold the values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from ser_bench.choices import Combine, Engine, LabelSet, MfccOrder, OnBadClip, Pad, Protocol, Target
from ser_bench.schema_heads import AdaptConfig, FixedEpochsConfig, HeadConfig
from ser_bench.schema_llm import LlmConfig


@dataclass
class SizeConfig:
    """Channel widths of the convolutions and of the dense layer."""

    name: str = MISSING
    channels: list[int] = MISSING
    hidden: int = MISSING


@dataclass
class CnnConfig:
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
class LlmModelConfig:
    """The language model as a predictor; its service is in the group `llm`."""

    name: str = "llm"


@dataclass
class ControlConfig:
    """A predictor without settings of its own: `majority`, `prior`, `listeners`, `egemaps`."""

    name: str = MISSING


@dataclass
class TextOnlyConfig:
    """Logistic regression over the embedding of the transcript."""

    name: str = "text_only"
    C: float = 1.0
    """As scikit-learn calls it: inverse strength of the L2 penalty."""
    max_iter: int = 1000
    """Iterations of L-BFGS at most."""


@dataclass
class FusionConfig(FixedEpochsConfig):
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
class CorpusConfig:
    """One corpus; `root: null` means the folder that `ser-bench corpora prepare` fills."""

    name: str = MISSING
    root: str | None = None
    labels: LabelSet = LabelSet.native
    target: Target = Target.intended
    """What is learnt and scored: `intended`, or `votes` of listeners where the corpus has them."""
    language: str = "en"
    """ISO 639-1 code of what is spoken."""
    folds: int = 5
    """How many folds suit this corpus; `split.folds` reads it."""
    max_duration_s: float = 60.0
    """A longer file is not an utterance: it counts as bad."""
    clips: int = 432
    """Only `demo`: how many clips are generated."""
    seed: int = 0
    """Only `demo`: seed of the generator."""


@dataclass
class SplitConfig:
    """The protocol and the fold."""

    protocol: Protocol = MISSING
    fold: int = 0
    folds: int = 5
    val_fraction: float = 0.1
    """Share of training speakers (or sentences, clips) set aside for validation; `paper` sets none aside."""
    test_fraction: float = 0.2
    """Only `paper`: share of rows tested."""
    list: str | None = None
    """Only `fixed`: name of the published list of speakers."""
    test_corpus: str | None = None
    """Only `cross_corpus`: the corpus that is tested; `corpus` is trained on."""
    test_root: str | None = None
    """Only `cross_corpus`: its folder (or CSV); null is the one that `ser-bench corpora prepare` fills."""
    test_language: str | None = None
    """Only `cross_corpus`: ISO 639-1 code of what is spoken there; null is what its data sheet says."""
    seed: int = 0


@dataclass
class PitchConfig:
    """Praat's autocorrelation method."""

    floor_hz: float = 75.0
    ceiling_hz: float = 600.0


@dataclass
class FeaturesConfig:
    """ZCR | RMS | MFCC of one stretch of audio, and F0 for the prompt."""

    engine: Engine = Engine.torch
    sample_rate_hz: int = 22_050
    duration_s: float = 2.5
    offset_s: float = 0.6
    frame_length: int = 2_048
    """Samples."""
    hop_length: int = 512
    """Samples."""
    n_mfcc: int = 20
    pad: Pad = Pad.audio
    mfcc_order: MfccOrder = MfccOrder.frame
    batch_clips: int = 64
    """Clips held in memory at once while features are computed."""
    device: str = "cpu"
    pitch: PitchConfig = field(default_factory=PitchConfig)


@dataclass
class AugmentConfig:
    """Which variants of a clip exist, and how strong they are."""

    name: str = MISSING
    variants: list[str] = MISSING
    noise_amplitude: float = 0.035
    """Noise has standard deviation noise_amplitude · U(0,1) · max|signal|."""
    pitch_semitones: float = 0.7
    seed: int = 0


@dataclass
class AsrConfig:
    """The recogniser that writes the transcript."""

    name: str = MISSING
    model: str = "tiny.en"
    batch_size: int = 16
    max_frames: int | None = None
    """Mel frames (10 ms each) that a clip is padded to; null is the recogniser's own 3,000."""
    fallback_frames: int | None = None
    """Frames with which a doubtful transcript (empty, cut off, improbable) is heard again; null: never."""
    fallback_logprob: float = -0.5
    """A transcript is improbable where the mean log-probability of its tokens is below this."""
    device: str = "cpu"
    compute_type: str = "int8"


@dataclass
class TextConfig:
    """The embedder of transcripts."""

    name: str = MISSING
    model: str = MISSING
    dim: int = MISSING
    languages: list[str] | None = None
    """Languages it knows; null is any."""
    batch_size: int = 64
    api_key_env: str = "OPENAI_API_KEY"
    base_url: str | None = None


@dataclass
class TrainerConfig:
    """How networks are trained."""

    name: str = MISSING
    max_epochs: int = 30
    batch_size: int = 32
    learning_rate: float = 1e-3
    adam_eps: float = 1e-7
    batch_norm_momentum: float = 0.99
    """Read by the networks as ${trainer.batch_norm_momentum}: a training of few steps needs a shorter memory."""
    patience: int | None = 10
    """Epochs without a better validation loss before training stops; null: never."""
    accelerator: str = "cpu"
    devices: int = 1
    precision: str = "32-true"
    deterministic: bool = True
    threads: int | None = None
    """CPU threads; null: the cores, divided among parallel children."""
    progress: bool = True


@dataclass
class TrackingConfig:
    """The MLflow store."""

    uri: str | None = None
    """null: SQLite in `dir`; else any tracking server."""
    dir: str = "mlruns"
    experiment: str = MISSING
    log_model: bool = True
    trace_share: float = 0.05
    """Share of the requests to a language model that are kept as MLflow traces, prompt and answer; 0: none."""
    timeout_s: float = 10.0
    """How long a tracking server may take to answer before a run gives up, before training."""


@dataclass
class Config:
    """One run."""

    model: Any = MISSING
    size: SizeConfig = MISSING
    corpus: CorpusConfig = MISSING
    split: SplitConfig = MISSING
    features: FeaturesConfig = MISSING
    augment: AugmentConfig = MISSING
    asr: AsrConfig = MISSING
    text: TextConfig = MISSING
    llm: LlmConfig = MISSING
    head: HeadConfig = field(default_factory=HeadConfig)
    adapt: AdaptConfig = field(default_factory=AdaptConfig)
    trainer: TrainerConfig = MISSING
    tracking: TrackingConfig = MISSING
    experiment_name: str = ""
    """Name of the file in `experiments/` that was composed."""
    seed: int = 0
    """Seed of training: weights, order of batches, dropout."""
    shuffle_labels: bool = False
    """Sanity check: training labels are permuted, so every honest predictor falls to chance."""
    force: bool = False
    """Run again although the same run is finished."""
    on_bad_clip: OnBadClip = OnBadClip.stop
    cache_dir: str | None = None
    """Features, transcripts, weights, answers; null: the user's cache folder."""

"""Names, types, units and roles of the configuration keys that all predictors share.

The YAML files under `conf/` hold the values. The keys of one predictor (the group `model`) stand beside its class, in
`predictors/`. A field without `key(...)` is scientific; see `config/keys.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar

from omegaconf import MISSING

from ser_bench.config.choices import (
    AnswerFormat,
    AudioForm,
    CacheMode,
    Engine,
    ExampleChoice,
    LabelCorrection,
    LabelSet,
    LlmApi,
    MfccOrder,
    OnBadClip,
    Pad,
    Protocol,
    ScoredRows,
    Target,
)
from ser_bench.config.keys import KeyRole, key
from ser_bench.errors import ConfigError


@dataclass
class ModelConfig:
    """Base of the keys under `model:`; each predictor adds its own."""

    name: str = MISSING

    @property
    def shown_name(self) -> str:
        """Name in tags and tables: that of the predictor, or of the model that it stands for."""
        return str(self.name)


@dataclass
class SizeConfig:
    """Channel widths of the convolutions and of the dense layer."""

    name: str = key(KeyRole.label)
    """Name of the choice."""
    channels: list[int] = MISSING
    """Of each convolutional block."""
    hidden: int = MISSING
    """Units of the dense layer."""


@dataclass
class CorpusConfig:
    """One corpus."""

    name: str = MISSING
    """Name of the corpus, and by default of the MLflow experiment."""
    root: str | None = key(KeyRole.machine, None, path=True)
    """Folder (or CSV file) of the corpus; null: the folder that `ser-bench corpora prepare` fills."""
    labels: LabelSet = LabelSet.native
    """`native`: the labels of the corpus; `basic6`: of these, the six of CREMA-D."""
    target: Target = key(KeyRole.neutral, Target.intended)
    """The label that is learnt and scored: `intended` emotion; plurality of listeners' `votes`, or the `intensity` that
    the actor was asked for, where the corpus has them. Neutral, because the corpus is then another one by name and
    content (`Corpus.measured`)."""
    language: str = "en"
    """ISO 639-1 code of the spoken language."""
    folds: int = 5
    """Number of folds that suits this corpus; `split.folds` reads it."""
    max_duration_s: float = 60.0
    """A longer file is refused."""
    tables: str = key(KeyRole.scientific, "", added=True)
    """Only `audformat`: names of the tables with the emotion, separated by spaces; "": all that have the column."""
    emotion_column: str = key(KeyRole.scientific, "emotion", added=True)
    """Only `audformat`: column of the emotion."""
    speaker_column: str = key(KeyRole.scientific, "speaker", added=True)
    """Only `audformat`: column of the speaker, in any table."""
    clips: int = 432
    """Only `demo`: number of generated clips."""
    seed: int = 0
    """Only `demo`: seed of the generator."""


@dataclass
class SplitConfig:
    """The protocol and the fold."""

    protocol: Protocol = MISSING
    """What is split."""
    fold: int = key(KeyRole.pooled, 0)
    """Which fold is tested, counted from 0."""
    folds: int = 5
    """Number of folds."""
    val_fraction: float = 0.1
    """Share of training speakers (or sentences, clips) used for validation; `paper` uses none."""
    test_fraction: float = 0.2
    """Only `paper`: share of rows that are test rows."""
    list: str | None = None
    """Only `fixed`: name of the published list of speakers, or `corpus`: the parts that the corpus states."""
    test_corpus: str | None = None
    """Only `cross_corpus`: the test corpus; `corpus` is the training corpus."""
    test_root: str | None = key(KeyRole.machine, None, path=True)
    """Only `cross_corpus`: folder (or CSV file) of the test corpus; null: the one that `corpora prepare` fills."""
    test_language: str | None = None
    """Only `cross_corpus`: ISO 639-1 code of the language of the test corpus; null: that of its data sheet."""
    seed: int = 0
    """Seed of every random choice of the split."""
    scored: ScoredRows = key(KeyRole.scientific, ScoredRows.test, added=True)
    """`validation`: leave out the test rows, score the validation rows, and draw new validation rows from training."""


@dataclass
class PitchConfig:
    """Limits of F0 for Praat's autocorrelation method."""

    floor_hz: float = 75.0
    """Lowest F0 that is searched for."""
    ceiling_hz: float = 600.0
    """Highest F0 that is searched for."""


@dataclass
class LogMelConfig:
    """Log-mel spectrogram of the first seconds of a clip."""

    sample_rate_hz: int = 16_000
    """Audio is resampled to this rate."""
    duration_s: float = 3.5
    """A longer clip is cut, a shorter one is zero-padded."""
    frame_length: int = 512
    """Samples."""
    hop_length: int = 256
    """Samples."""
    bands: int = 64
    """Number of mel bands."""


@dataclass
class FeaturesConfig:
    """The paper's feature vector (ZCR, RMS and MFCC of one stretch of audio), and F0 for the prompt."""

    engine: Engine = Engine.torch
    sample_rate_hz: int = 22_050
    """Audio is resampled to this rate."""
    duration_s: float = 2.5
    """Length of the stretch of audio; a shorter clip is padded."""
    offset_s: float = 0.6
    """Start of the stretch of audio. The seed paper does not give it; 0.6 s is a common choice."""
    frame_length: int = 2_048
    """Samples."""
    hop_length: int = 512
    """Samples."""
    n_mfcc: int = 20
    """Number of MFCCs per frame."""
    pad: Pad = Pad.audio
    mfcc_order: MfccOrder = MfccOrder.frame
    batch_clips: int = key(KeyRole.neutral, 64)
    """Largest number of clips in memory at once while features are computed."""
    device: str = key(KeyRole.machine, "cpu")
    """Device that computes features with `engine=torch`: cpu, cuda, cuda:1 …"""
    pitch: PitchConfig = field(default_factory=PitchConfig)


@dataclass
class AugmentConfig:
    """The variants of a clip and their strength."""

    name: str = key(KeyRole.label)
    """Name of the choice."""
    variants: list[str] = MISSING
    """Variants of each training clip, of `clean`, `noise`, `pitch` and `noise_pitch`."""
    noise_amplitude: float = 0.035
    """Noise has standard deviation noise_amplitude · U(0,1) · max|signal|."""
    pitch_semitones: float = 0.7
    """Shift of the variants `pitch` and `noise_pitch`."""
    seed: int = 0
    """Seed of the noise."""


@dataclass
class AsrConfig:
    """The speech recogniser that writes the transcripts."""

    name: str = MISSING
    """Name of the recogniser."""
    model: str = "tiny.en"
    batch_size: int = key(KeyRole.neutral, 16)
    """Clips that are recognised together."""
    max_frames: int | None = None
    """Mel frames (10 ms each) that a clip is padded to; null: the recogniser's own 3,000."""
    fallback_frames: int | None = None
    """Mel frames of a second attempt at a doubtful transcript (empty, cut off, improbable); null: no second attempt."""
    fallback_logprob: float = -0.5
    """A transcript is improbable where the mean log-probability of its tokens is below this."""
    device: str = key(KeyRole.machine, "cpu")
    """Device of the recogniser."""
    compute_type: str = "int8"
    """Type of the numbers with which CTranslate2 computes."""


@dataclass
class TextConfig:
    """The sentence embedding of transcripts."""

    name: str = MISSING
    """Name of the choice."""
    model: str = MISSING
    """Name of the embedding model."""
    dim: int = MISSING
    """Numbers per embedding."""
    languages: list[str] | None = None
    """Languages that the model knows; null: any."""
    batch_size: int = key(KeyRole.neutral, 64)
    """Transcripts that are embedded together."""
    api_key_env: str = key(KeyRole.neutral, "OPENAI_API_KEY")
    """Name of the environment variable that holds the API key of an embedding service."""
    base_url: str | None = key(KeyRole.neutral, None)
    """Address of an embedding service; null: OpenAI's."""


@dataclass
class FixedEpochsConfig:
    """Training of a light network over vectors: of `head=mlp`, and of a fusion's attention."""

    label_smoothing: float = 0.1
    """Share of each target that is spread over all labels."""
    epochs: int = 20
    """Passes over the training rows; there is no early stopping."""
    batch_size: int = 128
    """Rows per step."""
    learning_rate: float = 1e-3
    """At the start; it falls to 0 along a cosine."""
    weight_decay: float = 1e-2
    """Of AdamW."""
    seeds: int = 3
    """Number of networks, whose probabilities are averaged."""


@dataclass
class HeadConfig(FixedEpochsConfig):
    """The light classifier over fixed vectors, shared by every probe."""

    name: str = key(KeyRole.label, "logistic")
    """Name of the choice."""
    members: list[str] = field(default_factory=lambda: ["logistic"])
    """Of `logistic`, `svm`, `mlp`, `ordinal`; the probabilities of several are averaged."""
    refit: bool = True
    """After the choice on validation rows, fit on training and validation rows together."""
    components: int | None = None
    """Principal components of the training rows that the classifiers receive; null: all numbers as they are."""
    logistic_c: list[float] = field(default_factory=lambda: [0.01])
    """logistic, ordinal: inverse strengths of the L2 penalty; the best on validation rows, the first without any."""
    svm_c: list[float] = field(default_factory=lambda: [3.0])
    """svm: penalties of margin violations; chosen likewise."""
    svm_gamma: float = 1.0
    """svm: width of the kernel, gamma = svm_gamma / total variance of the training rows."""
    hidden: int = 256
    """mlp: units of the hidden layer."""
    dropout: float = 0.5
    """mlp: share of hidden units dropped in training."""
    input_dropout: float = 0.0
    """mlp: share of inputs dropped in training."""
    mixup: float = 0.3
    """mlp: both parameters of the Beta distribution of mixing weights; 0: rows are not mixed."""


@dataclass
class AdaptConfig:
    """Adaptation to a speaker from clips without labels; for every probe."""

    name: str = "none"
    """`none`, or `speaker_stats`: vectors are standardised by the speaker's own mean and standard deviation."""
    enrol: int | None = None
    """Number of enrolment clips of each unseen speaker, which are not scored; null: all clips, and all are scored."""
    enrol_emotion: str | None = None
    """Take enrolment clips of this emotion only, to measure the effect of a one-sided sample; null: of all."""
    prior: float = 4.0
    """Weight of the statistics of the training speakers, in clips, added to those of an unseen speaker."""
    seed: int = 0
    """Draws the enrolment clips; a smaller number of them is a subset of a larger one."""


@dataclass
class LlmConfig:
    """A chat-completions endpoint and how it is asked."""

    name: str = MISSING
    """Name of the choice."""
    model: str = MISSING
    """Name of the model that is asked for."""
    base_url: str | None = None
    """null: OpenAI's, or, for `local`, the server that is started in the process."""
    api_key_env: str | None = key(KeyRole.neutral, "OPENAI_API_KEY")
    """Name of the environment variable that holds the API key; null: no key is needed."""
    key_header: str | None = key(KeyRole.neutral, None)
    """Name of the HTTP header that carries the key (Azure: `api-key`); null: `Authorization`."""
    api_version: str | None = key(KeyRole.scientific, None, added=True)
    """Value of the query parameter `api-version`, which some addresses of Azure need; null: none."""
    api: LlmApi = key(KeyRole.scientific, LlmApi.chat, added=True)
    """`chat`: chat completions; `responses`: the Responses API, for servers that offer nothing else."""
    local: bool = False
    """True: start a llama.cpp server on loopback."""
    gguf: str | None = key(KeyRole.scientific, None, path=True)
    """Only `local`: another model file."""
    context_tokens: int | None = key(KeyRole.neutral, None)
    """Only `local`: tokens for prompt and answer together; null: what the longest prompt of the run needs."""
    option: str = key(KeyRole.label, "", added=True)
    """Name of the choice of `prompting`, which sets prompt, examples, orders and calibration; "" if none is chosen."""
    prompt: str = "paper"
    """Name of the prompt."""
    shots: int = 1
    """Examples of each label, for a prompt that shows some; from training rows only."""
    example_choice: ExampleChoice = key(KeyRole.scientific, ExampleChoice.random, added=True)
    """`random`: the same examples for all clips; `similar`: for each clip those with the most similar prosody."""
    neighbours: int | None = key(KeyRole.scientific, None, added=True)
    """Only `similar`: show this number of nearest clips whatever their labels; null: `shots` of each label."""
    example_pool: int | None = key(KeyRole.scientific, 1_000, added=True)
    """Only `similar`: training clips that are searched, stratified by label and speaker; null: all."""
    shuffle_order: bool = False
    """List the labels in another order for every clip (seeded), against the model's bias for a position in the list."""
    orders: int = key(KeyRole.scientific, 1, added=True)
    """Orders of the labels in which each clip is asked about; the probabilities are averaged."""
    calibration: LabelCorrection = key(KeyRole.scientific, LabelCorrection.none, added=True)
    """Divide the probabilities by those of an empty prompt (`contextual`), or by their mean over unlabelled validation
    clips (`label_bias`)."""
    calibration_clips: int = key(KeyRole.scientific, 60, added=True)
    """Only `label_bias`: number of validation clips, whose labels are not read."""
    answer_format: AnswerFormat = AnswerFormat.auto
    """Response format that constrains the answer; `auto`: the strictest one that the endpoint accepts."""
    temperature: float = 0.0
    """0: the most probable answer; larger values make answers more random."""
    max_tokens: int = 16
    """Of an answer; a prompt that asks for a reason adds the tokens that the reason needs."""
    thinking_tokens: int = key(KeyRole.scientific, 0, added=True)
    """Tokens that a model may spend on thinking, in addition to `max_tokens`; they are paid like those of an answer."""
    reasoning_effort: str | None = key(KeyRole.scientific, None, added=True)
    """How much a reasoning model thinks (minimal, low, medium, high …); null: not sent, so the model's default."""
    unsupported: list[str] = key(KeyRole.scientific, factory=list, added=True)
    """What this model does not accept, and is therefore never sent: temperature, seed, logprobs, reasoning_effort;
    max_tokens (renamed), system (becomes part of the user message)."""
    audio_form: AudioForm = key(KeyRole.scientific, AudioForm.input_audio, added=True)
    """Part of a message that holds a recording: `input_audio` (OpenAI, llama.cpp, vLLM) or `audio_url` (vLLM)."""
    top_logprobs: int = 20
    """Number of alternatives of a token whose log-probabilities are requested."""
    samples: int = 1
    """Answers per clip where the endpoint gives no logprobs; the probabilities are the shares of the labels."""
    timeout_s: float = key(KeyRole.neutral, 60.0)
    """Longest time of one request, seconds."""
    deadline_s: float = key(KeyRole.neutral, 600.0)
    """Longest time of one clip, seconds, retries and waiting included."""
    run_deadline_s: float | None = key(KeyRole.neutral, None)
    """Seconds after which a run sends no more requests; null: never."""
    max_retries: int = key(KeyRole.neutral, 4)
    """How often a request is repeated after an error that may pass."""
    max_concurrency: int = key(KeyRole.neutral, 8)
    """Largest number of requests at the same time."""
    requests_per_minute: float | None = key(KeyRole.neutral, None)
    """null: what the endpoint says in its headers, else no limit."""
    tokens_per_minute: float | None = key(KeyRole.neutral, None)
    """Of prompts and answers; null: as above."""
    limit: int | None = None
    """Ask about this number of test clips only, stratified by label and speaker; null: all."""
    cache: CacheMode = key(KeyRole.neutral, CacheMode.readwrite)
    """Use of stored answers."""
    dry_run: bool = key(KeyRole.neutral, False)
    """True: print clips, tokens, cost and time, and send no request."""
    batch: bool = key(KeyRole.neutral, False)
    """True: ask through the batch API, at half price and within 24 hours. The same command continues after an
    interruption."""
    batch_poll_s: float = key(KeyRole.neutral, 30.0)
    """Only `batch`: seconds between two questions whether the batch has ended."""
    budget_usd: float | None = key(KeyRole.neutral, None)
    """US dollars; a run stops before it could pay more. null: no budget."""
    price_in_usd: float = 0.0
    """US dollars per million prompt tokens."""
    price_out_usd: float = 0.0
    """US dollars per million answer tokens."""
    price_audio_in_usd: float = 0.0
    """US dollars per million audio tokens in a prompt."""
    price_date: str = key(KeyRole.neutral, "")
    """When these prices were looked up."""
    seed: int = 0
    """Seed of the examples, the order of labels, the clips of `limit`, and of the model's sampling."""


@dataclass
class TrainerConfig:
    """Training of the networks."""

    name: str = key(KeyRole.label)
    """Name of the choice."""
    max_epochs: int = 30
    """Largest number of passes over the training rows."""
    batch_size: int = 32
    """Rows per step of the optimiser."""
    learning_rate: float = 1e-3
    """Of the optimiser, Adam or AdamW."""
    adam_eps: float = 1e-7
    """Epsilon of Adam; 1e-7 is the default of Keras."""
    batch_norm_momentum: float = 0.99
    """Read by the networks as ${trainer.batch_norm_momentum}: a training of few steps needs a smaller one."""
    patience: int | None = 10
    """Epochs without a lower validation loss before training stops; null: no early stopping."""
    accelerator: str = key(KeyRole.machine, "cpu")
    """`cpu` or `gpu`, as Lightning names them."""
    devices: int = key(KeyRole.machine, 1)
    """Number of devices; a network is trained on one."""
    precision: str = "32-true"
    """Precision of the numbers, as Lightning names it: 32-true, bf16-mixed …"""
    deterministic: bool = True
    """Use PyTorch's deterministic algorithms."""
    threads: int | None = key(KeyRole.machine, None)
    """CPU threads; null: the cores, divided among parallel children."""
    progress: bool = key(KeyRole.machine, True)
    """On a terminal, show a progress bar; false, or elsewhere: one line per epoch."""


@dataclass
class TrackingConfig:
    """The MLflow store."""

    uri: str | None = key(KeyRole.machine, None, path=True)
    """null: SQLite in `dir`; else any tracking server."""
    dir: str = key(KeyRole.machine, "mlruns", path=True)
    """Folder of the SQLite database and of the files of runs."""
    experiment: str = key(KeyRole.machine)
    """Name of the MLflow experiment."""
    log_model: bool = key(KeyRole.machine, True)
    """Store MLflow models, which other programs can load: a trained network, and every predictor that takes audio."""
    timed_clips: int = key(KeyRole.machine, 10)
    """Test clips on which the time from audio to answer is measured after the run; 0: it is not measured."""
    trace_share: float = key(KeyRole.machine, 0.05)
    """Share of the requests to a language model that are kept as MLflow traces, prompt and answer; 0: none."""
    timeout_s: float = key(KeyRole.machine, 10.0)
    """Seconds that a tracking server may take to answer before a run gives up, before training."""


@dataclass
class Config:
    """One run."""

    model: ModelConfig = MISSING
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
    experiment_name: str = key(KeyRole.neutral, "")
    """Name of the file in `experiments/` that was composed."""
    seed: int = key(KeyRole.pooled, 0)
    """Seed of training: weights, order of batches, dropout."""
    shuffle_labels: bool = False
    """Sanity check: training labels are permuted, so every predictor without leakage falls to chance level."""
    force: bool = key(KeyRole.neutral, False)
    """Run again although the same run is finished."""
    on_bad_clip: OnBadClip = key(KeyRole.neutral, OnBadClip.stop)
    """What to do with a file that cannot be used. Neutral: the corpus digest says which clips were used."""
    cache_dir: str | None = key(KeyRole.machine, None, path=True)
    """Folder of features, transcripts, weights and answers; null: the user's cache folder."""


Model = TypeVar("Model", bound=ModelConfig)


def model_config(cfg: Config, schema: type[Model]) -> Model:
    """Return the group `model` of a run as the dataclass of one predictor.

    Raises:
        ConfigError: the run is configured for another predictor.
    """
    if not isinstance(cfg.model, schema):
        raise ConfigError(f"model={cfg.model.name} has no {schema.__name__}; compose the run with conf/model")
    return cfg.model

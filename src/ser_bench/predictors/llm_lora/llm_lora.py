"""`model=llm_lora`: a language model that learns from the training clips what `model=llm` is only asked.

It reads what the prompts of `model=llm` state: prosody relative to training clips, and the transcript. If it finds the
emotion and the prompted model does not, the prompt fails; if it does not either, the words do not hold the emotion.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ser_bench import weights
from ser_bench.config import Config, ModelConfig, model_config
from ser_bench.errors import ConfigError, SerBenchError
from ser_bench.predictors.base import LightPredictor
from ser_bench.predictors.capabilities import PredictsHeldOut, UsesLicensedParts
from ser_bench.predictors.llm.clip_subset import subset
from ser_bench.predictors.llm.prompting.prosody_norms import ProsodyNorms
from ser_bench.predictors.llm_lora import compact_prompt
from ser_bench.predictors.network_predictor import TRAINING_ROWS_FILE, rows_read
from ser_bench.predictors.registry import Need, register
from ser_bench.predictors.stored_model import reading
from ser_bench.types import EpochLog, Inputs, Predictions, Row
from ser_bench.weights import LicensedPart

if TYPE_CHECKING:
    import torch

    from ser_bench.predictors.llm_lora.base_model import BaseModel
    from ser_bench.predictors.llm_lora.label_network import LabelNetwork, LoraSettings

ADAPTER_FILE = "adapter.safetensors"
BATCH_CLIPS = 32
"""Clips per batch where nothing is trained."""


class VoiceText(Enum):
    """How the text states the prosody: words of five levels, or tenths of a standard deviation."""

    words = "words"
    numbers = "numbers"


@dataclass
class LlmLoraConfig(ModelConfig):
    """A language model with LoRA over prosody in words and transcript; one answer token per label."""

    name: str = "llm_lora"
    base: str = "SmolLM2-135M-Instruct-Q4_1"
    """Language model: a name of `ser-bench weights`, a GGUF file, or a folder with safetensors."""
    voice: VoiceText = VoiceText.words
    """words: pitch much higher …; numbers: pitch +18 …, tenths of a standard deviation."""
    max_tokens: int = 80
    """Longest text, tokens; of a longer one, the transcript is cut at its end."""
    train_clips: int | None = None
    """Number of training clips, stratified by label and spread over the speakers; null: all."""
    layers: int | None = 8
    """Number of last blocks that get LoRA; those below are computed once per clip. null: all blocks."""
    rank: int = 16
    """Rank of LoRA."""
    alpha: float = 32.0
    """LoRA's change of a weight is multiplied by alpha / rank."""
    dropout: float = 0.05
    """Dropout of LoRA's input."""
    targets: list[str] = field(
        default_factory=lambda: ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    )
    """Linear layers of a block that get LoRA, by their names in transformers."""
    warm_up: float = 0.06
    """Share of all steps in which the learning rate rises; then it falls to 0 along half a cosine."""
    weight_decay: float = 0.01
    """Of AdamW."""
    label_smoothing: float = 0.0
    """Share of a training target that is spread over all labels."""


@register(
    "llm_lora",
    LlmLoraConfig,
    groups=("asr", "features", "trainer"),
    needs=(Need.audio, Need.transcript, Need.f0),
)
class LlmLora(LightPredictor, PredictsHeldOut, UsesLicensedParts):
    """Text of a clip → language model with LoRA → logits of the labels at the last token; clean clips only."""

    def __init__(
        self, cfg: Config, labels: tuple[str, ...], inputs: Inputs, work_dir: Path, on_epoch: EpochLog
    ) -> None:
        super().__init__(cfg, labels, inputs, work_dir, on_epoch)
        self._work_dir, self._on_epoch = work_dir, on_epoch
        self._model = model_config(cfg, LlmLoraConfig)
        self._base: BaseModel | None = None
        self._network: LabelNetwork | None = None
        self._norms: ProsodyNorms | None = None
        self._rows_read: tuple[tuple[Row, int], ...] = ()

    @classmethod
    def licensed_parts(cls, cfg: Config) -> list[LicensedPart]:
        """Return the language model."""
        return [weights.licensed_part(model_config(cfg, LlmLoraConfig).base)]

    def fit(self, train: Sequence[Row], val: Sequence[Row], test: Sequence[Row] = ()) -> Mapping[str, float]:
        """Train LoRA and the linear layer on clean training rows; choose the epoch by the validation loss.

        Returns:
            `fit/seconds` (epochs only), `fit/frozen_seconds` (the frozen blocks, once), `fit/epochs`,
            `fit/best_epoch`, `fit/clips`, `fit/longest_tokens`, `params/total` and `params/trainable`.

        Raises:
            ConfigError: a key is not possible, a package or the model is missing, or there are no clean rows.
            InterruptedRunError: Ctrl-C; the same command resumes after the last finished epoch.
        """
        check_keys(self._model)
        import pytorch_lightning as pl

        from ser_bench.training import lightning_loop
        from ser_bench.training.row_data import RowData

        rows, truth = self._chosen(*self._clean(train))
        if self._cfg.shuffle_labels:
            truth = list(np.random.default_rng(self._seed).permutation(truth))
        self._norms = compact_prompt.learn_norms(self._inputs.prosody(rows))
        pl.seed_everything(self._seed, workers=True, verbose=False)
        network = self._new_network(self._model.base)
        device = self._device()
        network.to(device)
        started = time.perf_counter()
        parts = {lightning_loop.VAL: val, lightning_loop.TEST_CURVE: test}
        curves = {
            name: self._dataset(network, part, self._inputs.truth(part), soft=name == lightning_loop.VAL)
            for name, part in parts.items()
            if part
        }
        data = RowData(
            self._dataset(network, rows, truth, soft=not self._cfg.shuffle_labels),
            curves,
            self._cfg.trainer.batch_size,
            self._seed,
        )
        frozen_seconds = time.perf_counter() - started
        result = lightning_loop.train(
            network,
            data,
            len(self._labels),
            self._cfg.trainer,
            self._work_dir,
            self._on_epoch,
            self._recipe(len(rows)),
        )
        self._network = network.cpu().eval()
        self._rows_read = tuple((row, times) for row, times in zip(rows, result.times_read, strict=False) if times)
        longest = data.train.tensors[0].ne(0).any(dim=2).sum(dim=1).max()
        return {
            "fit/seconds": result.seconds,
            "fit/frozen_seconds": frozen_seconds,
            "fit/epochs": result.epochs,
            "fit/best_epoch": result.best_epoch,
            "fit/clips": len(rows),
            "fit/longest_tokens": int(longest),
            "params/total": network.total_parameters,
            "params/trainable": sum(weight.numel() for weight in network.parameters()),
        }

    def predict(self, rows: Sequence[Row]) -> Predictions:
        """Return probabilities of the labels; the latency is that of the language model, not of its inputs.

        Raises:
            SerBenchError: not trained, or its probabilities are not finite.
        """
        import torch
        from tqdm import tqdm

        if self._network is None:
            raise SerBenchError("this llm_lora is not trained; call fit, or load a stored run")
        network, device = self._network, self._device()
        network.to(device)
        probabilities = np.empty((len(rows), len(self._labels)), dtype=np.float32)
        tokens = self._tokens(rows)
        started = time.perf_counter()
        shown = tqdm(total=len(rows), desc="llm_lora", unit="clip", disable=self._hides_progress(len(rows)))
        with shown, torch.inference_mode():
            for start in range(0, len(rows), BATCH_CLIPS):
                part = tokens[start : start + BATCH_CLIPS]
                states = network.states(part, max(map(len, part))).to(device)
                probabilities[start : start + len(part)] = network(states).float().softmax(1).cpu().numpy()
                shown.update(len(part))
        seconds = time.perf_counter() - started
        network.cpu()
        if not np.isfinite(probabilities).all():
            raise SerBenchError(
                "the network of llm_lora gives probabilities that are not finite, because its training diverged; "
                f"lower trainer.learning_rate (it was {self._cfg.trainer.learning_rate:g}) and run again"
            )
        return self._predictions(rows, probabilities, "softmax", seconds)

    def held_out(self, val: Sequence[Row]) -> Predictions:
        """Return the predictions of these rows: they chose the epoch, and no weight was fitted to them."""
        return self.predict(val)

    def texts(self, rows: Sequence[Row]) -> list[str]:
        """Return the texts that the language model reads, before a long transcript is cut."""
        return ["".join(parts) for parts in self._text_parts(rows)]

    def _chosen(self, rows: list[Row], truth: list[str]) -> tuple[list[Row], list[str]]:
        """Return the rows of `model.train_clips` and their labels."""
        limit = self._model.train_clips
        if limit is None or limit >= len(rows):
            return rows, truth
        kept = subset(self._inputs.clips(rows), limit, self._seed)
        pairs = [(row, label) for row, label in zip(rows, truth, strict=True) if row.clip_id in kept]
        return [row for row, _ in pairs], [label for _, label in pairs]

    def _new_network(self, base: str) -> LabelNetwork:
        """Load the language model, and return the network before training."""
        from ser_bench.predictors.llm_lora import base_model
        from ser_bench.predictors.llm_lora.label_network import LabelNetwork

        self._base = base_model.load(base)
        _, answer_tokens = self._base.answer_tokens(self._labels)
        try:
            return LabelNetwork(self._base.model, answer_tokens, self._lora())
        except ValueError as error:
            raise ConfigError(
                f"model.targets={self._model.targets}: model.base={base} has no such linear layers; Llama's are "
                "q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj and down_proj"
            ) from error

    def _lora(self) -> LoraSettings:
        from ser_bench.predictors.llm_lora.label_network import LoraSettings

        m = self._model
        return LoraSettings(m.layers, m.rank, m.alpha, m.dropout, tuple(m.targets))

    def _recipe(self, rows: int) -> Any:
        from ser_bench.predictors.llm_lora.label_network import WarmUpCosine

        return WarmUpCosine(
            label_smoothing=self._model.label_smoothing,
            weight_decay=self._model.weight_decay,
            steps_per_epoch=-(-rows // self._cfg.trainer.batch_size),
            warm_up=self._model.warm_up,
        )

    def _device(self) -> torch.device:
        import torch

        return torch.device("cuda" if self._cfg.trainer.accelerator != "cpu" and torch.cuda.is_available() else "cpu")

    def _dataset(self, network: LabelNetwork, rows: Sequence[Row], truth: Sequence[str], soft: bool) -> Any:
        """Return the states of the frozen blocks [N, L, width] with label indices [N], or with shares of votes [N, C].

        They take 4 · L · width bytes a clip: for SmolLM2-135M and 60 tokens 0.14 MB.
        """
        import torch
        from torch.utils.data import TensorDataset
        from tqdm import tqdm

        tokens = self._tokens(rows)
        longest = max(map(len, tokens))
        states = torch.empty((len(rows), longest, network.width))
        shown = tqdm(total=len(rows), desc="frozen blocks", unit="clip", disable=self._hides_progress(len(rows)))
        with shown:
            for start in range(0, len(rows), BATCH_CLIPS):
                part = tokens[start : start + BATCH_CLIPS]
                states[start : start + len(part)] = network.states(part, longest)
                shown.update(len(part))
        shares = self._inputs.soft_targets(rows, self._labels) if soft else None
        goal = torch.from_numpy(self._label_index(truth) if shares is None else shares)
        return TensorDataset(states, goal)

    def _hides_progress(self, clips: int) -> bool | None:
        """Return True to hide the bar; None hides it where standard error is no terminal."""
        return True if not self._cfg.trainer.progress or clips <= BATCH_CLIPS else None

    def _text_parts(self, rows: Sequence[Row]) -> list[tuple[str, str, str]]:
        """Return the text of each clip before, in and after its transcript; a variant has the text of its clip."""
        assert self._norms is not None
        clean = [Row(row.clip_id) for row in rows]
        numbers = self._model.voice is VoiceText.numbers
        prosody_and_words = zip(self._inputs.prosody(clean), self._inputs.transcripts(clean), strict=True)
        return [
            (
                compact_prompt.before_transcript(compact_prompt.voice_text(prosody, self._norms, numbers)),
                compact_prompt.transcript_text(transcript),
                compact_prompt.AFTER_TRANSCRIPT,
            )
            for prosody, transcript in prosody_and_words
        ]

    def _tokens(self, rows: Sequence[Row]) -> list[list[int]]:
        """Return the tokens of each clip, at most `model.max_tokens`.

        Raises:
            ConfigError: the text without its transcript is longer already.
        """
        assert self._base is not None
        tokens = []
        for before, words, after in self._text_parts(rows):
            first, middle, last = (self._base.token_ids(text) for text in (before, words, after))
            room = self._model.max_tokens - len(first) - len(last)
            if room < 0:
                raise ConfigError(
                    f"model.max_tokens={self._model.max_tokens}: the prosody alone takes {len(first) + len(last)}"
                )
            tokens.append(first + middle[:room] + last)
        return tokens

    def _state(self, folder: Path) -> dict[str, Any]:
        from safetensors.torch import save_file

        if self._network is None or self._norms is None or self._base is None:
            raise SerBenchError("this llm_lora is not trained; call fit before save")
        state = {name: tensor.detach().cpu().contiguous() for name, tensor in self._network.state_dict().items()}
        save_file(state, folder / ADAPTER_FILE)
        if self._rows_read:
            read = {"rows": [row for row, _ in self._rows_read], "times": [times for _, times in self._rows_read]}
            (folder / TRAINING_ROWS_FILE).write_text(json.dumps(read, ensure_ascii=False), encoding="utf-8")
        return {
            "network": asdict(self._model) | {"voice": self._model.voice.value, "base": self._stated_base()},
            "base_sha256": self._base.digest,
            "answers": self._base.answer_tokens(self._labels)[0],
            "norms": self._norms.to_json(),
        }

    def _restore(self, stored: Mapping[str, Any], folder: Path) -> None:
        """Read the adapter; the language model comes from `model.base`, and must be the one trained on."""
        from safetensors.torch import load_file

        with reading(folder):
            state = load_file(folder / ADAPTER_FILE)
            settings = {**stored["network"], "voice": VoiceText(stored["network"]["voice"])}
            self._model = LlmLoraConfig(**settings | {"base": self._model.base})
            self._norms = ProsodyNorms.from_json(stored["norms"])
            self._rows_read = rows_read(folder)
            digest = str(stored["base_sha256"])
        network = self._new_network(self._model.base)
        assert self._base is not None
        if self._base.digest != digest:
            raise SerBenchError(
                f"model.base={self._model.base}: not the language model that this llm_lora was trained on (sha256 "
                f"{digest[:12]}…); set model.base to that one, or train again with force=true"
            )
        with reading(folder):
            network.load_state_dict(state)
        self._network = network.eval()

    def _stated_base(self) -> str:
        """Return the name of the language model, without a folder of the user."""
        return weights.name_without_folder(self._model.base)


def check_keys(model: LlmLoraConfig) -> None:
    """Check the keys before anything is computed.

    Raises:
        ConfigError: one is out of range; the message names it.
    """
    limits: list[tuple[str, bool, str]] = [
        ("train_clips", model.train_clips is None or model.train_clips >= 1, "at least 1, or null for all"),
        ("layers", model.layers is None or model.layers >= 1, "at least 1, or null for all blocks"),
        ("rank", model.rank >= 1, "at least 1"),
        ("alpha", model.alpha > 0, "above 0"),
        ("dropout", 0 <= model.dropout < 1, "at least 0 and below 1"),
        ("warm_up", 0 <= model.warm_up < 1, "at least 0 and below 1"),
        ("weight_decay", model.weight_decay >= 0, "at least 0"),
        ("label_smoothing", 0 <= model.label_smoothing < 1, "at least 0 and below 1"),
        ("targets", bool(model.targets), "at least one name of a linear layer"),
    ]
    for name, good, allowed in limits:
        if not good:
            raise ConfigError(f"model.{name}={getattr(model, name)}: must be {allowed}")

"""Sentence embeddings of transcripts, by MiniLM on this machine or by an OpenAI-compatible service.

A corpus of acted speech has few distinct transcripts. Each text is embedded once, and cached under its words and the
sha256 of the weights.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ser_bench import extras, weights
from ser_bench.cache import Cache, CachedComputation, array_format
from ser_bench.config import TextConfig
from ser_bench.errors import ConfigError, LanguageError, LLMError
from ser_bench.redaction import without_credentials
from ser_bench.types import FloatArray

EMBEDDING_VERSION = 1
"""Increase it when the same text and weights give other numbers than before: older cache entries are then not read."""
SERVICE_TIMEOUT_S = 60.0
SERVICE_RETRIES = 4

Embedder = Callable[[Sequence[str], TextConfig], Iterator[FloatArray]]
"""Texts → arrays [batch, D], in order."""


def embed(texts: Sequence[str], cfg: TextConfig, language: str, cache: Cache) -> FloatArray:
    """Return one vector per text, in order; equal texts have equal vectors.

    Args:
        texts: N transcripts; "" (no words were recognised) is embedded like any other text.
        cfg: the embedder.
        language: ISO 639-1 code of the texts; for two corpora both codes, separated by a space ("en de").
        cache: where the vectors are stored.

    Returns:
        [N, cfg.dim] float32, unit length, not standardised.

    Raises:
        ConfigError: if the embedder does not exist, or its vectors do not have `cfg.dim` numbers.
        LanguageError: if the embedder does not support the language.
        WeightsError: if MiniLM's weights are not available.
        LLMError: if the service refuses the request or cannot be reached.
    """
    embedder, source = _choose(cfg)
    if cfg.languages is not None and not set(language.split()) <= set(cfg.languages):
        raise LanguageError(
            f"text={cfg.name} supports only {', '.join(cfg.languages)}, and the language of the corpus is "
            f"{language!r}: use the multilingual pair, asr.model=base text=openai (transcripts then leave the "
            "machine), or model=cnn, which uses no text"
        )

    def key(text: str) -> str:
        return Cache.key(step="text", version=EMBEDDING_VERSION, text=text, **source)

    def compute(missing: Sequence[str]) -> Generator[tuple[int, FloatArray], None, None]:
        yield from enumerate(vector for batch in embedder(missing, cfg) for vector in batch)

    if not texts:
        return np.zeros((0, cfg.dim), dtype=np.float32)
    computation = CachedComputation(cache, key, compute, array_format(), "text embeddings", "text")
    vectors = np.stack(computation.values(texts)).astype(np.float32)
    if vectors.shape[1] != cfg.dim:
        raise ConfigError(
            f"text.dim={cfg.dim}, but the vectors of text.model={cfg.model} have {vectors.shape[1]} numbers: set "
            f"text.dim={vectors.shape[1]}"
        )
    return vectors


def _choose(cfg: TextConfig) -> tuple[Embedder, dict[str, str | None]]:
    """The embedder, and what identifies its vectors in cache keys."""
    if cfg.name == "minilm":
        if cfg.model not in weights.TABLE:
            raise ConfigError(f"text.model={cfg.model!r} is not available for text=minilm; use all-MiniLM-L6-v2")
        return _minilm, {"model": cfg.model, "sha256": weights.TABLE[cfg.model].sha256}
    if cfg.name == "openai":
        return _openai, {"model": cfg.model, "base_url": cfg.base_url}
    raise ConfigError(f"text={cfg.name!r} is not an embedder; choose minilm or openai")


def _minilm(texts: Sequence[str], cfg: TextConfig) -> Iterator[FloatArray]:
    # transformers imports torchaudio, which can be imported with a CPU-only torch only after this module.
    from ser_bench.features.torchaudio_cpu import torchaudio  # noqa: F401

    extras.require("sentence_transformers", "text=minilm")
    model = _sentence_transformer(weights.fetch(cfg.model))
    for start in range(0, len(texts), cfg.batch_size):
        batch = list(texts[start : start + cfg.batch_size])
        yield np.asarray(
            model.encode(batch, batch_size=cfg.batch_size, show_progress_bar=False, normalize_embeddings=True),
            dtype=np.float32,
        )


@lru_cache(maxsize=1)
def _sentence_transformer(folder: Path) -> Any:
    """The embedder in a folder. It stays in memory, because reading it takes longer than embedding a text."""
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # `CachedComputation` shows one
    return SentenceTransformer(str(folder), device="cpu", local_files_only=True)


def _openai(texts: Sequence[str], cfg: TextConfig) -> Iterator[FloatArray]:
    extras.require("openai", "text=openai")
    # Imported here because the import takes more than a second, and few runs need it.
    import openai

    from ser_bench.openai_client import openai_client

    variable = cfg.api_key_env or None
    if variable and not os.environ.get(variable):
        raise LLMError(
            f"the environment variable {variable} is not set: text=openai needs a key (export {variable}=...). "
            "To embed on this machine instead: text=minilm"
        )
    client = openai_client(cfg.base_url, variable, SERVICE_TIMEOUT_S, SERVICE_RETRIES, group="text")
    for start in range(0, len(texts), cfg.batch_size):
        # The service refuses an empty string; a space stands for a clip in which no words were recognised.
        batch = [text or " " for text in texts[start : start + cfg.batch_size]]
        try:
            answer = client.embeddings.create(model=cfg.model, input=batch, encoding_format="float")
        except openai.OpenAIError as error:
            # Without the service's message, because some servers repeat the key that they refuse.
            reason = getattr(error, "status_code", None) or type(error).__name__
            address = without_credentials(cfg.base_url or "OpenAI")
            raise LLMError(
                f"text=openai: {address} returned no embeddings of {cfg.model} ({reason}). Check {variable}, "
                "text.model and text.base_url, or use text=minilm; finished embeddings are cached"
            ) from None  # the error may contain the key
        vectors = {item.index: item.embedding for item in answer.data}
        if sorted(vectors) != list(range(len(batch))):
            raise LLMError(
                f"text=openai, {cfg.model}: the service returned {len(vectors)} vectors for {len(batch)} texts"
            )
        yield np.asarray([vectors[i] for i in range(len(batch))], dtype=np.float32)

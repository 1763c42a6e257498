"""Transcripts → sentence embeddings: MiniLM on this machine, or OpenAI's service.

A corpus of acted speech has few distinct transcripts: each text is embedded once, and cached by its own words and
the sha256 of the weights.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from tqdm import tqdm

from ser_bench import weights
from ser_bench.cache import Cache
from ser_bench.config import TextConfig
from ser_bench.errors import ConfigError, LanguageError, LLMError
from ser_bench.types import FloatArray

EMBEDDING_VERSION = 1
"""Raised when the same text and weights would give other numbers: old cache entries are then not read."""
SERVICE_TIMEOUT_S = 60.0
SERVICE_RETRIES = 4

Embedder = Callable[[list[str], TextConfig], Iterator[FloatArray]]
"""Texts → [batch, D] arrays, in order."""


def embed(texts: Sequence[str], cfg: TextConfig, language: str, cache: Cache) -> FloatArray:
    """One vector a text, in the order asked; the same text always has the same vector.

    Args:
        texts: N transcripts; "" (nothing was heard) is embedded like any other text.
        cfg: the embedder.
        language: ISO 639-1 code of the texts; of two corpora both ("en de").
        cache: where vectors are kept.

    Returns:
        [N, cfg.dim] float32, unit length, not standardised.

    Raises:
        ConfigError: no such embedder, or its vectors are not `cfg.dim` long.
        LanguageError: the embedder does not know the language.
        WeightsError: MiniLM's weights cannot be had.
        LLMError: the service refuses or cannot be reached.
    """
    embedder, source = _choose(cfg)
    if cfg.languages is not None and not set(language.split()) <= set(cfg.languages):
        raise LanguageError(
            f"text={cfg.name} knows {', '.join(cfg.languages)} only, and the corpus speaks {language!r}: use the "
            "multilingual pair, asr.model=base text=openai (transcripts then leave the machine), or model=cnn, "
            "which reads no text"
        )
    keys = {
        text: Cache.key(step="text", version=EMBEDDING_VERSION, text=text, **source) for text in dict.fromkeys(texts)
    }
    known = {text: vector for text, key in keys.items() if (vector := cache.read_array(key)) is not None}
    missing = [text for text in keys if text not in known]
    if missing:
        for text, vector in zip(missing, _vectors(embedder, missing, cfg), strict=True):
            cache.write_array(keys[text], vector)
            known[text] = vector
    if not texts:
        return np.zeros((0, cfg.dim), dtype=np.float32)
    vectors = np.stack([known[text] for text in texts]).astype(np.float32)
    if vectors.shape[1] != cfg.dim:
        raise ConfigError(f"text.model={cfg.model} gives vectors of {vectors.shape[1]}: set text.dim to that")
    return vectors


def _choose(cfg: TextConfig) -> tuple[Embedder, dict[str, str | None]]:
    """The embedder, and what identifies its vectors in cache keys."""
    if cfg.name == "minilm":
        if cfg.model not in weights.TABLE:
            raise ConfigError(f"text.model={cfg.model!r} is not known to text=minilm; use all-MiniLM-L6-v2")
        return _minilm, {"model": cfg.model, "sha256": weights.TABLE[cfg.model].sha256}
    if cfg.name == "openai":
        return _openai, {"model": cfg.model, "base_url": cfg.base_url}
    raise ConfigError(f"text={cfg.name!r} is not an embedder; choose minilm or openai")


def _vectors(embedder: Embedder, texts: list[str], cfg: TextConfig) -> Iterator[FloatArray]:
    """One [D] vector a text, with a progress bar."""
    with tqdm(total=len(texts), desc="text embeddings", unit="text", disable=None, leave=False) as bar:
        for batch in embedder(texts, cfg):
            bar.update(len(batch))
            yield from batch


def _minilm(texts: list[str], cfg: TextConfig) -> Iterator[FloatArray]:
    folder = weights.fetch(cfg.model)
    # transformers imports torchaudio, which only this module makes importable beside a CPU-only torch.
    from ser_bench.features.torchaudio_cpu import torchaudio  # noqa: F401

    from sentence_transformers import SentenceTransformer  # isort: skip
    from transformers.utils import logging  # isort: skip

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # ours counts texts
    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    for start in range(0, len(texts), cfg.batch_size):
        batch = texts[start : start + cfg.batch_size]
        yield np.asarray(
            model.encode(batch, batch_size=cfg.batch_size, show_progress_bar=False, normalize_embeddings=True),
            dtype=np.float32,
        )


def _openai(texts: list[str], cfg: TextConfig) -> Iterator[FloatArray]:
    import openai

    from ser_bench.openai_client import openai_client

    variable = cfg.api_key_env or None
    if variable and not os.environ.get(variable):
        raise LLMError(
            f"the environment variable {variable} is not set: text=openai needs a key (export {variable}=...). "
            "To embed on this machine instead: text=minilm"
        )
    client = openai_client(cfg.base_url, variable, SERVICE_TIMEOUT_S, SERVICE_RETRIES)
    for start in range(0, len(texts), cfg.batch_size):
        # The service refuses an empty string; a space stands for a clip in which nothing was heard.
        batch = [text or " " for text in texts[start : start + cfg.batch_size]]
        try:
            answer = client.embeddings.create(model=cfg.model, input=batch, encoding_format="float")
        except openai.OpenAIError as error:
            # Not the service's own words: some servers repeat the key that they refuse.
            reason = getattr(error, "status_code", None) or type(error).__name__
            raise LLMError(
                f"text=openai: {cfg.base_url or 'OpenAI'} did not embed with {cfg.model} ({reason}). Check {variable}, "
                "text.model and text.base_url, or use text=minilm; what was embedded before is kept"
            ) from error
        vectors = {item.index: item.embedding for item in answer.data}
        if sorted(vectors) != list(range(len(batch))):
            raise LLMError(f"text=openai, {cfg.model}: {len(vectors)} vectors came for {len(batch)} texts")
        yield np.asarray([vectors[i] for i in range(len(batch))], dtype=np.float32)

"""Names, types and units of the keys under `llm:`; the YAML files in `conf/llm/` hold the values."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import MISSING

from ser_bench.choices import AnswerFormat, CacheMode


@dataclass
class LlmConfig:
    """A chat-completions service and how it is asked."""

    name: str = MISSING
    model: str = MISSING
    base_url: str | None = None
    """null: OpenAI's, or, for `local`, the server that is started in the process."""
    api_key_env: str | None = "OPENAI_API_KEY"
    """Name of the environment variable that holds the key; null: no key is needed."""
    local: bool = False
    """True: start a llama.cpp server on loopback."""
    gguf: str | None = None
    """Only `local`: another model file."""
    context_tokens: int | None = None
    """Only `local`: room for prompt and answer together; null: what the longest prompt of the run needs."""
    prompt: str = "paper"
    shots: int = 1
    """Examples of each label, for a prompt that shows some; from training rows alone."""
    shuffle_order: bool = False
    """List the labels in another order for every clip (seeded), against a model's liking for a place in the list."""
    answer_format: AnswerFormat = AnswerFormat.auto
    """What holds the service to the form of the answer; `auto`: the strictest way that it accepts."""
    temperature: float = 0.0
    max_tokens: int = 16
    """Of an answer; a prompt that asks for a reason adds what that takes."""
    top_logprobs: int = 20
    samples: int = 1
    """How often a clip is asked where the service tells no logprobs: probabilities are then shares of the answers."""
    timeout_s: float = 60.0
    """Seconds that one request may take."""
    deadline_s: float = 600.0
    """Seconds that one clip may take, retries and waiting between them included."""
    run_deadline_s: float | None = None
    """Seconds after which a run asks no more; null: never."""
    max_retries: int = 4
    max_concurrency: int = 8
    requests_per_minute: float | None = None
    """null: what the service says in its headers, else no limit."""
    tokens_per_minute: float | None = None
    """Of prompts and answers; null: as above."""
    limit: int | None = None
    """Ask about this many test clips only, stratified by label and speaker; null: all."""
    cache: CacheMode = CacheMode.readwrite
    dry_run: bool = False
    """True: print clips, tokens, cost and time, and ask nothing."""
    budget_usd: float | None = None
    """US dollars; a run stops before it could pay more. null: no budget."""
    price_in_usd: float = 0.0
    """US dollars per million prompt tokens."""
    price_out_usd: float = 0.0
    """US dollars per million answer tokens."""
    price_audio_in_usd: float = 0.0
    """US dollars per million tokens of sound in a prompt."""
    price_date: str = ""
    seed: int = 0

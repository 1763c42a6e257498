"""The predictor `audio_llm`: `llm` with a model that accepts audio, as a row of its own in comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ser_bench.errors import ConfigError
from ser_bench.predictors.llm.llm import Llm, LlmModelConfig
from ser_bench.predictors.registry import Need, register
from ser_bench.types import Row


@register("audio_llm", LlmModelConfig, groups=("asr", "llm", "features"), needs=(Need.audio, Need.transcript))
class AudioLlm(Llm):
    """Send the recording of every clip to a chat-completions endpoint."""

    def fit(self, train: Sequence[Row], val: Sequence[Row], test: Sequence[Row] = ()) -> Mapping[str, float]:
        """Check that the prompt sends the recording, then prepare as `llm` does.

        Raises:
            ConfigError: the prompt sends no recording, or as in `llm`.
        """
        if not self._prompt.audio:
            raise ConfigError(
                f"model=audio_llm sends recordings, and llm.prompt={self._prompt.name} does not: choose "
                "llm=audio_server (your own server) or llm=gpt4o_audio, or set llm.prompt=audio"
            )
        return super().fit(train, val, test)

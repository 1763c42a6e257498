"""The predictor `llm`: a language model is asked about every clip and answers with one label.

- `llm`: the predictor; `audio_llm`: the same with recordings;
- `llm_predictions`: answers as probabilities and logged figures;
- `prompting/`: what is asked (`prompting/prompts/` holds the prompts); `parsing/`: what an answer means;
- `endpoint`, `local_server`: who is asked; `clip_subset`: which clips are asked about (`llm.limit`);
- `client`: many questions at once, with the answer cache; `request`: one question, with retries; `request_body`: what
  is sent, with the response format;
- `rate_limiter`: requests and tokens per minute; `budget`: prices, and the limit on the cost; `cost_estimate`: tokens,
  cost and time before a run (dry run).
"""

from ser_bench.predictors.llm.audio_llm import AudioLlm
from ser_bench.predictors.llm.llm import Llm, LlmModelConfig

__all__ = ["AudioLlm", "Llm", "LlmModelConfig"]

"""The language model as a predictor.

- `llm`: the predictor; `llm_predictions`: its answers as predictions and figures;
- `prompting/`: what is asked; `parsing/`: what an answer means;
- `endpoint`, `local_server`: who answers; `response_format`: how the answer is constrained;
- `batch`, `request`, `retry`, `rate_limiter`, `budget`: many requests within limits; `cost_estimate`: the dry run.
"""

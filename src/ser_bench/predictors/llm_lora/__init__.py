"""A language model that is fine-tuned with LoRA on prosody in words and transcript.

- `llm_lora`: the predictor and its keys; `compact_prompt`: the text of a clip;
- `base_model`: the language model and its tokenizer, from GGUF or safetensors;
- `label_network`: frozen blocks, LoRA on the last ones, one logit per label; and its optimiser.
"""

from ser_bench.predictors.llm_lora.llm_lora import LlmLora, LlmLoraConfig, VoiceText

__all__ = ["LlmLora", "LlmLoraConfig", "VoiceText"]

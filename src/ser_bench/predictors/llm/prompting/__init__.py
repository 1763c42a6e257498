"""From a clip to the messages that a language model receives.

- `prompts/`: the prompts as text files; `prompt_template`: reads and renders them;
- `prompt_data`: the data of each clip, norms and examples of training rows; `prosody_norms`: prosody in words;
- `question`: one question about one clip; `recording`: the audio of a clip, for models that accept audio.
"""

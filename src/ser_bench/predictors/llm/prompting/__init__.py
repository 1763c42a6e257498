"""From a clip to the messages that a language model receives.

- `prompts/`: the prompts as text files; `prompt_template` reads them and fills them in;
- `prompt_data`: the questions of a run, with norms and examples from training rows;
- `prosody_norms`: prosody in words, relative to norms; `question`: one question, with the recording if it is sent.
"""

"""From the answer of a language model to a label and probabilities.

- `completion`: what counts as a chat completion, and errors that arrive with HTTP 200;
- `answer`: the label, or the reason why there is none;
- `logprobs`: probabilities of the labels from token logprobs;
- `repeated_answers`: probabilities of the labels from several answers to the same question.
"""

"""The language model: prompts, the service that answers, many requests at once, and what an answer means."""

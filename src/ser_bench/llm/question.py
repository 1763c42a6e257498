"""What is asked about one clip, before it is known how the service wants to be asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Message = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Question:
    """One question about one clip.

    Attributes:
        messages: system, examples if any, user; their content is text.
        order: the labels in the order in which they are shown; () where it is that of the corpus.
        sample: 0 for the first time that this is asked, then 1, 2 … where it is asked again for another draw.
    """

    messages: tuple[Message, ...]
    order: tuple[str, ...] = ()
    sample: int = 0

    def identity(self) -> dict[str, Any]:
        """What of it decides the answer, for the cache; what is usual is left out."""
        special = {"order": self.order, "sample": self.sample}
        return {"messages": list(self.messages)} | {name: value for name, value in special.items() if value}

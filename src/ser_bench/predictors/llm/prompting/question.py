"""What is asked about one clip, before it is known how the service wants to be asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ser_bench.predictors.llm.prompting.recording import FORM, Sound

Message = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Question:
    """One question about one clip.

    Attributes:
        messages: system, examples if any, user; their content is text.
        order: the labels in the order in which they are shown; () where it is that of the corpus.
        sample: 0 for the first time that this is asked, then 1, 2 … where it is asked again for another draw.
        sound: the recording itself, for models that hear.
    """

    messages: tuple[Message, ...]
    order: tuple[str, ...] = ()
    sample: int = 0
    sound: Sound | None = None

    def identity(self) -> dict[str, Any]:
        """What of it decides the answer, for the cache; what is usual is left out."""
        sound = "" if self.sound is None else f"{FORM} {self.sound.digest}"
        special = {"order": self.order, "sample": self.sample, "sound": sound}
        return {"messages": list(self.messages)} | {name: value for name, value in special.items() if value}

    def to_send(self) -> list[Message]:
        """The messages with the recording, if any, in the last one.

        Raises:
            BadClipError: the recording cannot be read.
        """
        if self.sound is None:
            return list(self.messages)
        *first, last = self.messages
        return [*first, last | {"content": [{"type": "text", "text": last["content"]}, self.sound.part()]}]

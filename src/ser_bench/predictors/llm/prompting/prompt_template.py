"""Prompts: versioned text files, rendered for one clip at a time.

A file has header lines (`version: 1`), then the sections `[system]` and `[user]`. `$labels` may stand anywhere; what
differs from clip to clip (`$transcript`, `$pitch`, `$voice`) only in the user section, so that the fixed part comes
first and a server can reuse what it computed for it. Other header lines: `examples: yes` shows training clips first,
`answer: emotion, reason` asks for a reason too, `audio: yes` sends the recording itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from string import Template

from ser_bench.errors import ConfigError
from ser_bench.features.pitch import Pitch
from ser_bench.predictors.llm.prompting.question import Message
from ser_bench.types import digest_of

FOLDER = resources.files("ser_bench") / "predictors" / "llm" / "prompting" / "prompts"
SECTION = re.compile(r"^\[(system|user)\]\n", re.MULTILINE)
FIXED = frozenset({"labels"})
PER_CLIP = frozenset({"transcript", "pitch", "voice"})
HEADER = {"examples": ("yes",), "answer": ("emotion, reason",), "audio": ("yes",)}
"""Optional header lines and what they may say."""
NO_VOICE = "no voiced speech in this recording"


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt as it stands in its file.

    Attributes:
        name: stem of the file; what `llm.prompt=` chooses.
        version: stated in the file; raised when its meaning changes.
        system: template of the system message.
        user: template of the user message.
        examples: True where training clips with their emotion are shown first.
        reason: True where the answer holds a reason too.
        audio: True where the recording itself is sent.
    """

    name: str
    version: str
    system: str
    user: str
    examples: bool = False
    reason: bool = False
    audio: bool = False

    @property
    def digest(self) -> str:
        """Digest of both templates and of what else is sent: what decides the wording, whatever the version says."""
        more = [name for name in ("examples", "reason", "audio") if getattr(self, name)]
        return digest_of([self.system, self.user, *more])

    def tells(self, name: str) -> bool:
        """Whether the user message holds this placeholder."""
        return name in Template(self.user).get_identifiers()

    def messages(self, labels: Sequence[str], transcript: str, pitch: Pitch | None, voice: str = "") -> list[Message]:
        """System and user message for one clip; `voice` as `norms.describe` tells it."""
        fixed = {"labels": ", ".join(labels)}
        clip = {"transcript": quote(transcript), "pitch": describe(pitch), "voice": voice}
        return [
            {"role": "system", "content": Template(self.system).substitute(fixed)},
            {"role": "user", "content": Template(self.user).substitute(fixed | clip)},
        ]


def names() -> list[str]:
    """The prompts that `llm.prompt=` can choose."""
    return sorted(file.name.removesuffix(".txt") for file in FOLDER.iterdir() if file.name.endswith(".txt"))


def load(name: str) -> Prompt:
    """The prompt of this name.

    Raises:
        ConfigError: no such prompt, or its file is not well-formed.
    """
    if name not in names():
        raise ConfigError(f"llm.prompt={name}: there is no such prompt; choose one of {', '.join(names())}")
    return parse(name, (FOLDER / f"{name}.txt").read_text(encoding="utf-8"))


def parse(name: str, text: str) -> Prompt:
    """A prompt from the text of its file.

    Raises:
        ConfigError: no version, no system or user section, a placeholder that nothing fills, or one that differs
            from clip to clip in the fixed part.
    """
    header, *parts = SECTION.split(text.replace("\r\n", "\n"))
    sections = dict(zip(parts[::2], (part.strip() for part in parts[1::2]), strict=True))
    said = {name: value.strip() for name, colon, value in (x.partition(":") for x in header.splitlines()) if colon}
    if not said.get("version") or set(sections) != {"system", "user"}:
        raise ConfigError(f"prompt {name}: the file needs a line 'version: …' and the sections [system] and [user]")
    for line, value in said.items():
        if value not in HEADER.get(line, (value,)) or line not in (*HEADER, "version", "purpose"):
            raise ConfigError(f"prompt {name}: '{line}: {value}' means nothing here; see the prompts in the package")
    for section, allowed in (("system", FIXED), ("user", FIXED | PER_CLIP)):
        template = Template(sections[section])
        unknown = set(template.get_identifiers()) - allowed
        if unknown or not template.is_valid():
            raise ConfigError(
                f"prompt {name}: [{section}] may hold {', '.join('$' + key for key in sorted(allowed))} "
                f"and no other placeholder ({', '.join(sorted(unknown)) or 'a lone $'}); write $$ for a dollar sign"
            )
    asks = {"examples": "examples" in said, "reason": "answer" in said, "audio": "audio" in said}
    return Prompt(name, said["version"], sections["system"], sections["user"], **asks)


def quote(transcript: str) -> str:
    """The transcript as a JSON string: one line, no quote that closes it early, no `<|…|>` token of a chat template."""
    return json.dumps(transcript, ensure_ascii=False).replace("<", "\\u003c").replace(">", "\\u003e")


def describe(pitch: Pitch | None) -> str:
    """Pitch in whole Hz: finer steps are below what F0 extraction resolves, and cost tokens."""
    if pitch is None:
        return NO_VOICE
    return (
        f"mean {pitch.mean_hz:.0f}, median {pitch.median_hz:.0f}, standard deviation {pitch.std_hz:.0f}, "
        f"minimum {pitch.min_hz:.0f}, maximum {pitch.max_hz:.0f} Hz"
    )

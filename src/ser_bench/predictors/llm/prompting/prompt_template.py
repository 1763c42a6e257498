"""Prompts: versioned text files in `prompts/`, read and filled in for one clip at a time.

A file consists of header lines and the sections `[system]` and `[user]`. `$labels` may appear in both sections. The
placeholders that differ between clips (`$transcript`, `$pitch`, `$voice`) may appear only in the user section: the
fixed part then comes first, and a server can reuse what it computed for it.

Header lines:

- `version: 1`: required; increased when the meaning of the prompt changes;
- `purpose: …`: a comment;
- `examples: yes`: training clips with their emotion come before the question;
- `answer: emotion, reason`: the answer holds a reason as well;
- `audio: yes`: the recording is sent.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from string import Template

from ser_bench.errors import ConfigError
from ser_bench.features.prosody import Pitch
from ser_bench.predictors.llm.prompting.prosody_norms import NO_VOICE
from ser_bench.predictors.llm.prompting.question import Message
from ser_bench.types import digest_of

FOLDER = resources.files("ser_bench") / "predictors" / "llm" / "prompting" / "prompts"
SECTION = re.compile(r"^\[(system|user)\]\n", re.MULTILINE)
FIXED = frozenset({"labels"})
PER_CLIP = frozenset({"transcript", "pitch", "voice"})
CONTENT_FREE = ("N/A", "", "[MASK]")
"""What stands in the place of a clip's data in prompts that ask about nothing (Zhao et al. 2021)."""
HEADER = {"examples": ("yes",), "answer": ("emotion, reason",), "audio": ("yes",)}
"""Optional header lines and the values that they may have."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """The content of a prompt file.

    Attributes:
        name: stem of the file; the value of `llm.prompt`.
        version: the version stated in the file.
        system: template of the system message.
        user: template of the user message.
        examples: True if training clips with their emotion come before the question.
        reason: True if the answer holds a reason as well.
        audio: True if the recording is sent.
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
        """Digest of both templates and of the options that change what is sent; the version does not enter it."""
        options = [name for name in ("examples", "reason", "audio") if getattr(self, name)]
        return digest_of([self.system, self.user, *options])

    def uses(self, placeholder: str) -> bool:
        """Return True if the user message contains this placeholder."""
        return placeholder in Template(self.user).get_identifiers()

    def messages(self, labels: Sequence[str], transcript: str, pitch: Pitch | None, voice: str = "") -> list[Message]:
        """Return the system and the user message for one clip.

        Args:
            labels: the possible answers, in the order in which the prompt lists them.
            transcript: the words of the clip; inserted as a JSON string.
            pitch: F0 statistics; None for a clip without voiced speech.
            voice: prosody as `prosody_norms.describe` returns it.
        """
        fixed = {"labels": ", ".join(labels)}
        clip = {"transcript": quote(transcript), "pitch": describe_pitch(pitch), "voice": voice}
        return [
            {"role": "system", "content": Template(self.system).substitute(fixed)},
            {"role": "user", "content": Template(self.user).substitute(fixed | clip)},
        ]

    def content_free(self, labels: Sequence[str], text: str) -> Message:
        """Return the user message with this text in place of all data of the clip."""
        data = {"transcript": quote(text), "pitch": text, "voice": text}
        content = Template(self.user).substitute({"labels": ", ".join(labels)} | data)
        return {"role": "user", "content": content}


def names() -> list[str]:
    """Return the possible values of `llm.prompt`."""
    return sorted(file.name.removesuffix(".txt") for file in FOLDER.iterdir() if file.name.endswith(".txt"))


def load(name: str) -> Prompt:
    """Return the prompt of this name.

    Raises:
        ConfigError: if there is no such prompt, or its file is not well-formed.
    """
    if name not in names():
        raise ConfigError(f"llm.prompt={name}: there is no such prompt; choose one of {', '.join(names())}")
    return parse(name, (FOLDER / f"{name}.txt").read_text(encoding="utf-8"))


def parse(name: str, text: str) -> Prompt:
    """Return the prompt that the text of a file describes.

    Raises:
        ConfigError: if the version or a section is missing, a header line or a placeholder is unknown, or the system
            section contains a placeholder that differs between clips.
    """
    header, *parts = SECTION.split(text.replace("\r\n", "\n"))
    sections = dict(zip(parts[::2], (part.strip() for part in parts[1::2]), strict=True))
    lines = (line.partition(":") for line in header.splitlines())
    options = {key: value.strip() for key, colon, value in lines if colon}
    if not options.get("version") or set(sections) != {"system", "user"}:
        raise ConfigError(f"prompt {name}: the file needs a line 'version: …' and the sections [system] and [user]")
    for key, value in options.items():
        if value not in HEADER.get(key, (value,)) or key not in (*HEADER, "version", "purpose"):
            raise ConfigError(
                f"prompt {name}: the header line '{key}: {value}' is unknown; see the prompts in {FOLDER.name}/"
            )
    for section, allowed in (("system", FIXED), ("user", FIXED | PER_CLIP)):
        template = Template(sections[section])
        unknown = set(template.get_identifiers()) - allowed
        if unknown or not template.is_valid():
            raise ConfigError(
                f"prompt {name}: [{section}] may contain {', '.join('$' + key for key in sorted(allowed))} "
                f"and no other placeholder ({', '.join(sorted(unknown)) or 'a lone $'}); write $$ for a dollar sign"
            )
    flags = {"examples": "examples" in options, "reason": "answer" in options, "audio": "audio" in options}
    return Prompt(name, options["version"], sections["system"], sections["user"], **flags)


def quote(transcript: str) -> str:
    """Return the transcript as a JSON string on one line.

    It cannot close its quotation marks early, and `<` and `>` are escaped, so that it holds no token of a chat template
    such as `<|im_end|>`.
    """
    return json.dumps(transcript, ensure_ascii=False).replace("<", "\\u003c").replace(">", "\\u003e")


def describe_pitch(pitch: Pitch | None) -> str:
    """Return the pitch in whole Hz; F0 extraction does not resolve finer steps, and decimals cost tokens."""
    if pitch is None:
        return NO_VOICE
    return (
        f"mean {pitch.mean_hz:.0f}, median {pitch.median_hz:.0f}, standard deviation {pitch.std_hz:.0f}, "
        f"minimum {pitch.min_hz:.0f}, maximum {pitch.max_hz:.0f} Hz"
    )

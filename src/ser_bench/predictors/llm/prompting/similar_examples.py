"""Examples with a similar prosody (`llm.example_choice=similar`): for each clip, the nearest training clips.

Two clips are compared by their z-scores: each measure relative to the norms of the training clips, in standard
deviations, as `prosody_norms.describe` puts them into words. The distance is the root mean square difference over the
measures that both clips have.

- `llm.shots`: that many nearest clips of every label. The labels are balanced, so the examples show what each emotion
  sounds like near this clip, and the number of examples of a label says nothing.
- `llm.neighbours`: the nearest clips whatever their labels. Their labels then vote, as in a classifier by nearest
  neighbours.

The nearest clip comes last, next to the question. A clip of the same speaker is never an example: under protocols in
which the speaker is in the training rows, it would tell who speaks and not which emotion it is. Clip and examples are
measured and described against the same norms: against those of each one's speaker if the training rows hold this
speaker's clips, otherwise against those of all training clips.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ser_bench.errors import ConfigError
from ser_bench.features.prosody import Prosody
from ser_bench.predictors.llm.parsing.model_answer import answer_json
from ser_bench.predictors.llm.prompting.prompt_template import Prompt
from ser_bench.predictors.llm.prompting.prosody_norms import MEASURES, ProsodyNorms, describe, z_scores
from ser_bench.predictors.llm.prompting.question import Message

FIELDS = tuple(measure.field for measure in MEASURES)


@dataclass(frozen=True, slots=True)
class PoolClip:
    """A training clip that may be shown as an example.

    Attributes:
        clip_id: of the clip.
        speaker: of the clip; compared only, never shown.
        label: its emotion.
        transcript: its words.
        prosody: its measures.
    """

    clip_id: str
    speaker: str
    label: str
    transcript: str
    prosody: Prosody


class ExamplePool:
    """The training clips among which examples are searched.

    Args:
        clips: the clips; their order does not matter.
        norms: of the training clips.

    Raises:
        ConfigError: if there is no clip.
    """

    def __init__(self, clips: Sequence[PoolClip], norms: ProsodyNorms) -> None:
        if not clips:
            raise ConfigError("llm.example_choice=similar needs training clips, and there are none")
        self.clips = tuple(sorted(clips, key=lambda clip: clip.clip_id))
        self._norms = {True: norms, False: replace(norms, speakers={})}
        self._z = {known: self._z_of_clips(of) for known, of in self._norms.items()}

    def nearest(
        self, prosody: Prosody, speaker: str, labels: Sequence[str], shots: int, neighbours: int | None
    ) -> list[PoolClip]:
        """Return the examples for one clip, the nearest last; of equal distances the first id is nearer.

        Args:
            prosody: of the clip that is asked about.
            speaker: its speaker, of whom no clip is returned.
            labels: the labels of the run.
            shots: number of clips of each label, if `neighbours` is None.
            neighbours: number of clips whatever their labels.

        Raises:
            ConfigError: if there are too few clips of other speakers.
        """
        by_distance = [self.clips[i] for i in np.argsort(self._distances(prosody, speaker), kind="stable")]
        others = [clip for clip in by_distance if clip.speaker != speaker]
        if neighbours is not None:
            if len(others) < neighbours:
                raise ConfigError(
                    f"llm.neighbours={neighbours}: there are {len(others)} training clips of other speakers to choose "
                    "from; lower llm.neighbours or raise llm.example_pool"
                )
            return others[:neighbours][::-1]
        kept: set[str] = set()
        for label in labels:
            of_label = [clip.clip_id for clip in others if clip.label == label][:shots]
            if len(of_label) < shots:
                raise ConfigError(
                    f"llm.shots={shots}: there are {len(of_label)} training clips of {label!r} and of other speakers "
                    "to choose from; lower llm.shots, raise llm.example_pool, or set llm.neighbours"
                )
            kept.update(of_label)
        return [clip for clip in others if clip.clip_id in kept][::-1]

    def messages(
        self, prompt: Prompt, examples: Sequence[PoolClip], speaker: str, labels: Sequence[str]
    ) -> tuple[Message, ...]:
        """Return a user message and the right answer for every example of a clip of this speaker."""
        norms = self._norms_for(speaker)
        messages: list[Message] = []
        for example in examples:
            voice = describe(example.prosody, example.speaker, norms)
            _, user = prompt.messages(labels, example.transcript, None, voice)
            messages += [user, {"role": "assistant", "content": answer_json(example.label)}]
        return tuple(messages)

    def to_json(self) -> list[dict[str, Any]]:
        """Return plain values."""
        return [asdict(clip) for clip in self.clips]

    @classmethod
    def from_json(cls, value: Sequence[Mapping[str, Any]], norms: ProsodyNorms) -> ExamplePool:
        """Return the pool that `to_json` wrote."""
        return cls([PoolClip(**{**clip, "prosody": Prosody(**clip["prosody"])}) for clip in value], norms)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ExamplePool) and (self.clips, self._norms) == (other.clips, other._norms)

    __hash__ = None  # type: ignore[assignment]

    def _norms_for(self, speaker: str) -> ProsodyNorms:
        return self._norms[speaker in self._norms[True].speakers]

    def _z_of_clips(self, norms: ProsodyNorms) -> npt.NDArray[np.float64]:
        return np.array([_vector(z_scores(clip.prosody, clip.speaker, norms)) for clip in self.clips])

    def _distances(self, prosody: Prosody, speaker: str) -> npt.NDArray[np.float64]:
        """Return [N] distances; infinity for a clip that has no measure in common."""
        own = _vector(z_scores(prosody, speaker, self._norms_for(speaker)))
        squared = np.square(self._z[speaker in self._norms[True].speakers] - own)
        counts = np.isfinite(squared).sum(axis=1)
        means = np.nansum(squared, axis=1) / np.maximum(counts, 1)
        return np.where(counts > 0, np.sqrt(means), np.inf)


def _vector(z: Mapping[str, float]) -> list[float]:
    """Return the z-scores in the order of `FIELDS`; NaN for a measure that is missing."""
    return [z.get(field, float("nan")) for field in FIELDS]

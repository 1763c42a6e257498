"""Published lists of speakers for `split=fixed`, for comparisons with other work on the same test speakers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SpeakerList:
    """One published split by speaker.

    Attributes:
        corpus: name of the corpus.
        source: publication or repository of the list.
        train: training speakers.
        val: validation speakers.
        test: test speakers.
    """

    corpus: str
    source: str
    train: frozenset[str]
    val: frozenset[str]
    test: frozenset[str]


def _speakers(ids: str) -> frozenset[str]:
    return frozenset(ids.split())


_EVAR_VAL = _speakers("1009 1011 1022 1034 1039 1047 1066 1070 1082")
_EVAR_TEST = _speakers("1001 1004 1017 1019 1020 1025 1026 1029 1033 1035 1042 1044 1050 1053 1056 1058 1060 1069 1083")
_CREMAD_SPEAKERS = frozenset(str(speaker) for speaker in range(1001, 1092))

SPEAKER_LISTS: dict[str, SpeakerList] = {
    "evar": SpeakerList(
        corpus="cremad",
        source=(
            "EVAR, nttcslab/eval-audio-repr, evar/metadata/cremad.csv (commit 0a546e68): 63 training, 9 validation, "
            "19 test speakers; the split of the frozen-probe figures of BYOL-A and M2D"
        ),
        train=_CREMAD_SPEAKERS - _EVAR_VAL - _EVAR_TEST,
        val=_EVAR_VAL,
        test=_EVAR_TEST,
    ),
}

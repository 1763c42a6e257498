"""Intensity as the label (`corpus.target=intensity`), and the intensity that listeners heard."""

from __future__ import annotations

import doctest
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ser_bench import config, corpora
from ser_bench.config import Config
from ser_bench.corpora import intensity_levels
from ser_bench.corpora.data_sheet import Fields
from ser_bench.corpora.sheets import sheet_of
from ser_bench.errors import ConfigError, CorpusError
from tests.support.fake_inputs import compose_config

NAMES = (
    *(f"100{speaker}_IEO_ANG_{level}" for speaker in (1, 2) for level in ("LO", "MD", "HI")),
    *("1001_IEO_SAD_LO", "1001_IEO_SAD_HI", "1001_IEO_NEU_XX", "1001_DFA_ANG_XX"),
)
"""Anger at three levels, sadness at two, and two clips without a level."""

RATINGS = """"",A,D,F,H,N,S,fileName,meanAngerResp,meanDisgustResp,meanFearResp,meanHappyResp,meanSadResp
"100001",6,2,0,0,2,0,"1001_IEO_ANG_HI",80,50,-1,-1,-1
"100002",0,0,0,0,5,0,"1001_IEO_ANG_LO",-1,-1,-1,-1,-1
"200001",9,0,0,0,0,0,"1001_IEO_ANG_HI",99,-1,-1,-1,-1
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("intensity") / "AudioWAV"
    folder.mkdir()
    for number, name in enumerate(NAMES):
        tone = np.sin(np.arange(4_000) * (0.1 + 0.01 * number)).astype(np.float32) / 2
        soundfile.write(folder / f"{name}.wav", tone, 16_000)
    return folder


@pytest.fixture
def cfg(root: Path) -> Config:
    words = ("experiment=none", "corpus=cremad", "corpus.target=intensity", "on_bad_clip=skip")
    return compose_config(*words, f"corpus.root={root}", f"cache_dir={root.parent / 'cache'}")


def test_examples_hold() -> None:
    result = doctest.testmod(intensity_levels)
    assert result.attempted >= 4 and result.failed == 0


def test_the_label_is_the_level_of_emotions_that_have_all_levels(cfg: Config) -> None:
    corpus = corpora.load(cfg)
    assert corpus.labels == ("low", "medium", "high") and corpus.is_ordinal
    assert corpus.measured == "cremad-intensity"
    assert {clip.id: clip.emotion for clip in corpus.clips} == {
        name: {"LO": "low", "MD": "medium", "HI": "high"}[name[-2:]] for name in NAMES[:6]
    }
    assert any(
        "6 of 10 clips are used, with the levels low < medium < high; left out are 2 clips without a level and 2 clips "
        "of emotions without all levels (sad)" in line
        for line in corpus.warnings
    )


def test_a_chosen_label_set_is_of_emotions(cfg: Config) -> None:
    """RAVDESS has calm and surprised at two levels; `basic6` leaves them out."""
    fields = [
        Fields(f"{emotion}{level}", emotion, "s", intensity=level)
        for emotion in ("calm", "sad", "surprised") for level in ("normal", "strong")
    ]  # fmt: skip
    kept, levels, _ = intensity_levels.label_by_intensity(sheet_of("ravdess"), [(Path(f.id), f) for f in fields])
    assert len(kept) == 6 and levels == ("normal", "strong")
    assert {clip.sentence for clip in corpora.load(cfg).clips} == {"IEO"}


def test_corpora_without_levels_and_two_corpora_are_refused(cfg: Config) -> None:
    with pytest.raises(ConfigError, match=r"emodb has no intensities.*choose corpus=cremad, ravdess"):
        intensity_levels.levels_of(sheet_of("emodb"), ["", ""])
    with pytest.raises(CorpusError, match="no emotion of this copy was spoken at all of the levels"):
        fields = Fields("1", "sad", "s", intensity="low")
        intensity_levels.label_by_intensity(sheet_of("cremad"), [(Path("1"), fields)])
    both = replace(cfg, split=replace(cfg.split, protocol=config.Protocol.cross_corpus, test_corpus="emodb"))
    with pytest.raises(ConfigError, match=r"corpus\.target=intensity .*split=cross_corpus"):
        corpora.load(both)


def test_the_order_of_levels_in_a_table_is_that_of_a_known_scale() -> None:
    table = sheet_of("table")
    assert intensity_levels.levels_of(table, ["high", "", "low"]) == ("low", "medium", "high")
    assert intensity_levels.levels_of(table, ["strong"]) == ("normal", "strong")
    with pytest.raises(CorpusError, match="the intensities extreme, low are not of one known scale"):
        intensity_levels.levels_of(table, ["low", "extreme"])


def test_heard_intensity_is_the_mean_rating_with_neutral_votes_as_zero(root: Path, tmp_path: Path) -> None:
    cremad = sheet_of("cremad")
    (tmp_path / "tabulatedVotes.csv").write_text(RATINGS)
    (tmp_path / "voice_votes.csv").write_text("fileName,A,D,F,H,N,S\n1001_IEO_ANG_HI,6,2,0,0,2,0\n")
    heard = corpora.heard_intensity_of(cremad, tmp_path)  # the second table has ratings, the first has none
    assert heard == {"1001_IEO_ANG_HI": pytest.approx((6 * 80 + 2 * 50) / 10), "1001_IEO_ANG_LO": 0.0}
    assert corpora.heard_intensity_of(cremad, root) == {}
    assert corpora.heard_intensity_of(sheet_of("ravdess"), root) == {}
    (tmp_path / "tabulatedVotes.csv").write_text(RATINGS.replace("80,50", "80,500"))
    with pytest.raises(CorpusError, match=r"line 2: meanDisgustResp is 500, not a rating from 0 to 100"):
        corpora.heard_intensity_of(cremad, tmp_path)

"""Rows become vectors: in the order asked, once, whatever the cache holds, and as librosa has them."""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from ser_bench.cache import Cache
from ser_bench.config import AugmentConfig, Engine, FeaturesConfig, Pad
from ser_bench.errors import BadClipError, CacheError, ConfigError
from ser_bench.features import paper_features
from ser_bench.types import VARIANTS, Clip, FloatArray, Row
from tests.support.signals import RATE_HZ, voice_like

FEATURES = FeaturesConfig(batch_clips=4)
AUGMENT = AugmentConfig(name="paper", variants=list(VARIANTS))
FRAMES = 108
TOLERANCES = {"zcr": 0.02, "rms": 2e-4, "mfcc": 0.2}
"""Between the engines, on shifted variants, whose phases librosa rounds; MFCC in dB, ZCR off silence.

How it rounds depends on the processor: where speech fades into padding, ZCR has been seen .0107 apart with AVX-512.
"""
TOLERANCES_UNSHIFTED = {"zcr": 0.0, "rms": 1e-6, "mfcc": 5e-3}
SILENCE_RMS = 1e-3

Clips = dict[str, Clip]


def clip_of(path: Path) -> Clip:
    return Clip(path.stem, path, "", "")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Clips:
    """Five clips of unlike lengths at unlike rates, one of which is silent in the section that is used."""
    folder = tmp_path_factory.mktemp("clips")
    for i, (seconds, rate) in enumerate([(3.2, RATE_HZ), (2.0, 16_000), (4.0, 16_000), (1.3, 48_000), (0.5, 16_000)]):
        soundfile.write(folder / f"clip{i}.wav", voice_like(int(seconds * rate), seed=i), rate)
    return {path.stem: clip_of(path) for path in sorted(folder.iterdir())}


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[Row]:
    """Collects the rows that are really computed."""
    seen: list[Row] = []
    work = paper_features._work

    def counting(job: paper_features._Job, *rest: object) -> paper_features._Result:
        seen.extend(Row(clip.id, variant) for clip in job.clips for variant in job.variants)
        return work(job, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(paper_features, "_work", counting)
    return seen


def all_rows(clips: Clips, variants: Sequence[str] = VARIANTS) -> list[Row]:
    return [Row(clip_id, variant) for clip_id in clips for variant in variants]


def extract(rows: Sequence[Row], clips: Clips, cache: Cache, features: FeaturesConfig = FEATURES) -> FloatArray:
    return paper_features.extract(rows, clips, features, AUGMENT, cache)


def assert_engines_agree(rows: Sequence[Row], clips: Clips, cache: Cache, **changes: object) -> None:
    ours = extract(rows, clips, cache, replace(FEATURES, **changes))  # type: ignore[arg-type]
    reference = extract(rows, clips, cache, replace(FEATURES, engine=Engine.librosa, **changes))  # type: ignore[arg-type]
    for row, difference, expected in zip(rows, np.abs(ours - reference), reference, strict=True):
        allowed = TOLERANCES if row.variant.endswith("pitch") else TOLERANCES_UNSHIFTED
        loud = expected[FRAMES : 2 * FRAMES] > SILENCE_RMS
        assert difference[:FRAMES][loud].max(initial=0) <= allowed["zcr"], row
        assert difference[FRAMES : 2 * FRAMES].max() <= allowed["rms"], row
        assert difference[2 * FRAMES :].max() <= allowed["mfcc"], row


def test_the_engines_agree(clips: Clips, cache: Cache) -> None:
    assert_engines_agree(all_rows(clips), clips, cache)


def test_the_engines_agree_with_padded_vectors(clips: Clips, cache: Cache) -> None:
    rows = all_rows(clips)
    ours = extract(rows, clips, cache, replace(FEATURES, pad=Pad.vector))
    reference = extract(rows, clips, cache, replace(FEATURES, pad=Pad.vector, engine=Engine.librosa))
    assert np.abs(ours - reference).max() <= TOLERANCES["mfcc"]
    whole, cut = (ours[rows.index(Row(name))] for name in ("clip0", "clip1"))
    assert whole[-1] and not cut[1_400:].any()


@pytest.mark.corpora
def test_the_engines_agree_on_speech(corpora_root: Path, cache: Cache) -> None:
    names = ["cremad/AudioWAV/1001_DFA_ANG_XX", "cremad/AudioWAV/1076_MTI_SAD_XX", "cremad/AudioWAV/1091_WSI_SAD_XX"]
    paths = [corpora_root / f"{name}.ogg" for name in names]
    paths += sorted((corpora_root / "ravdess/Actor_01").glob("*.flac"))[::30]
    paths += sorted((corpora_root / "emodb/wav").glob("*.ogg"))[::250]
    clips = {path.stem: clip_of(path) for path in paths}
    assert len(clips) >= 7
    assert_engines_agree(all_rows(clips), clips, cache)


def test_rows_come_in_the_order_asked(clips: Clips, cache: Cache) -> None:
    rows = all_rows(clips)
    straight = extract(rows, clips, cache)
    assert straight.shape == (20, paper_features.length(FEATURES)) and straight.dtype == np.float32
    order = [*np.random.default_rng(0).permutation(len(rows)).tolist(), 3, 3]
    for other in (cache, Cache(cache.folder / "another")):
        np.testing.assert_array_equal(extract([rows[i] for i in order], clips, other), straight[order])
    assert extract([], clips, cache).shape == (0, 2_376)


@pytest.mark.parametrize("batch_clips", [1, 3, 64])
def test_chunks_do_not_change_numbers(
    clips: Clips, cache: Cache, monkeypatch: pytest.MonkeyPatch, batch_clips: int
) -> None:
    """As on a GPU, where a chunk holds many clips, of unlike lengths under pad=vector."""
    rows = all_rows(clips)
    expected = {pad: extract(rows, clips, cache, replace(FEATURES, pad=pad)) for pad in Pad}
    monkeypatch.setattr(paper_features, "CPU_CHUNK_CLIPS", 64)
    for pad in Pad:
        features = replace(FEATURES, batch_clips=batch_clips, pad=pad)
        chunked = extract(rows, clips, Cache(cache.folder / str(batch_clips)), features)
        np.testing.assert_allclose(chunked, expected[pad], atol=1e-3)


def test_only_missing_rows_are_computed(clips: Clips, cache: Cache, computed: list[Row]) -> None:
    clean = extract(all_rows(clips, ["clean"]), clips, cache)
    assert len(computed) == 5
    every = extract(all_rows(clips), clips, cache)
    assert sorted(computed) == sorted(all_rows(clips))
    np.testing.assert_array_equal(every[::4], clean)
    np.testing.assert_array_equal(extract(all_rows(clips), clips, cache), every)
    assert len(computed) == 20


@pytest.mark.parametrize(
    ("changes", "recomputed"),
    [
        ({"noise_amplitude": 0.05}, {"noise", "noise_pitch"}),
        ({"seed": 1}, {"noise", "noise_pitch"}),
        ({"pitch_semitones": 1.0}, {"pitch", "noise_pitch"}),
    ],
)
def test_a_changed_strength_recomputes_what_it_touches(
    clips: Clips, cache: Cache, computed: list[Row], changes: dict[str, float], recomputed: set[str]
) -> None:
    rows = all_rows({"clip0": clips["clip0"]})
    before = extract(rows, clips, cache)
    computed.clear()
    after = paper_features.extract(rows, clips, FEATURES, replace(AUGMENT, **changes), cache)  # type: ignore[arg-type]
    assert {row.variant for row in computed} == recomputed
    changed = {row.variant for row, a, b in zip(rows, before, after, strict=True) if not np.array_equal(a, b)}
    assert changed == recomputed


@pytest.mark.parametrize(
    ("changes", "recomputed"),
    [
        ({"offset_s": 0.0}, True),
        ({"n_mfcc": 13}, True),
        ({"engine": Engine.librosa}, True),
        ({"batch_clips": 9}, False),
    ],
)
def test_features_that_change_numbers_have_their_own_entries(
    clips: Clips, cache: Cache, computed: list[Row], changes: dict[str, object], recomputed: bool
) -> None:
    extract([Row("clip0")], clips, cache)
    computed.clear()
    extract([Row("clip0")], clips, cache, replace(FEATURES, **changes))  # type: ignore[arg-type]
    assert bool(computed) == recomputed


def test_another_content_under_the_same_name_is_another_entry(
    clips: Clips, cache: Cache, computed: list[Row], tmp_path: Path
) -> None:
    path = tmp_path / "clip0.wav"
    path.write_bytes(clips["clip0"].path.read_bytes())
    first = extract([Row("clip0")], clips, cache)
    np.testing.assert_array_equal(extract([Row("clip0")], {"clip0": clip_of(path)}, cache), first)
    assert len(computed) == 1
    path.write_bytes(clips["clip1"].path.read_bytes())
    assert not np.array_equal(extract([Row("clip0")], {"clip0": clip_of(path)}, cache), first)


def test_twins_share_their_content_but_not_their_noise(clips: Clips, cache: Cache, tmp_path: Path) -> None:
    """CREMA-D has byte-identical clips under different names."""
    twin = tmp_path / "twin.wav"
    twin.write_bytes(clips["clip0"].path.read_bytes())
    both = {"clip0": clips["clip0"], "twin": clip_of(twin)}
    first = extract(all_rows({"clip0": both["clip0"]}), both, cache)
    second = extract([Row("twin", variant) for variant in VARIANTS], both, cache)
    same = [np.array_equal(a, b) for a, b in zip(first, second, strict=True)]
    assert same == [True, False, True, False]


@pytest.mark.parametrize(
    "damage",
    [lambda blob: blob[:-40], lambda blob: b"", lambda blob: blob[:100] + bytes([blob[100] ^ 1]) + blob[101:]],
    ids=["half-written", "empty", "one bit"],
)
def test_a_damaged_entry_is_rebuilt(
    clips: Clips, cache: Cache, computed: list[Row], damage: Callable[[bytes], bytes]
) -> None:
    rows = all_rows(clips, ["clean", "noise"])
    expected = extract(rows, clips, cache)
    victims = sorted(path for path in cache.folder.rglob("*") if path.is_file())[:3]
    for path in victims:
        path.write_bytes(damage(path.read_bytes()))
    computed.clear()
    np.testing.assert_array_equal(extract(rows, clips, cache), expected)
    assert len(computed) == 3
    np.testing.assert_array_equal(extract(rows, clips, cache), expected)
    assert len(computed) == 3


def test_an_entry_of_another_length_is_rebuilt(clips: Clips, cache: Cache) -> None:
    expected = extract([Row("clip0")], clips, cache)
    key = paper_features._key_of(clips, FEATURES, AUGMENT)(Row("clip0"))
    cache.write(key, b"\0" * 12)
    np.testing.assert_array_equal(extract([Row("clip0")], clips, cache), expected)


def _fill_and_sum(folder: Path, clips: Clips) -> float:
    torch.set_num_threads(1)
    return float(extract(all_rows(clips), clips, Cache(folder)).sum(dtype=np.float64))


@pytest.mark.slow
def test_two_processes_fill_one_cache(clips: Clips, tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        sums = pool.starmap(_fill_and_sum, [(tmp_path / "shared", clips)] * 2, chunksize=1)
    assert sums[0] == sums[1] == pytest.approx(_fill_and_sum(tmp_path / "alone", clips), rel=1e-6)
    assert not list((tmp_path / "shared").rglob(".half-*"))


def test_fill_says_how_many_rows_it_computed(clips: Clips, cache: Cache, computed: list[Row]) -> None:
    assert paper_features.fill(all_rows(clips, ["clean"]), clips, FEATURES, AUGMENT, cache) == 5
    assert paper_features.fill(all_rows(clips, ["clean", "noise"]), clips, FEATURES, AUGMENT, cache) == 5
    assert paper_features.fill(all_rows(clips, ["noise"]), clips, FEATURES, AUGMENT, cache) == 0
    assert len(computed) == 10


def test_clips_without_signal_are_counted_and_finite(
    clips: Clips, cache: Cache, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        vectors = extract(all_rows(clips), clips, cache)
    assert "1 of 5 clips contain no signal" in caplog.text and "clip4" in caplog.text
    assert np.isfinite(vectors).all()
    np.testing.assert_allclose(vectors[16], vectors[19], atol=1e-6)
    assert np.abs(vectors[12] - vectors[16]).max() > 1


@pytest.fixture
def three_threads() -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield 3
    torch.set_num_threads(before)


def test_threads_given_to_torch_are_given_back(clips: Clips, cache: Cache, tmp_path: Path, three_threads: int) -> None:
    extract(all_rows(clips, ["clean"]), clips, cache)
    assert torch.get_num_threads() == three_threads
    (tmp_path / "bad.wav").write_bytes(b"")
    with pytest.raises(BadClipError):
        extract([Row("bad")], {"bad": clip_of(tmp_path / "bad.wav")}, cache)
    assert torch.get_num_threads() == three_threads


def test_an_unreadable_clip_stops_with_its_name(clips: Clips, cache: Cache, tmp_path: Path) -> None:
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"RIFF, but nothing else that a WAV holds")
    with pytest.raises(BadClipError, match=r"bad\.wav"):
        extract([*all_rows(clips, ["clean"]), Row("bad")], clips | {"bad": clip_of(bad)}, cache)


def test_a_cache_that_cannot_be_written_is_one_clear_line(clips: Clips, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(CacheError, match="cache_dir="):
        extract([Row("clip0")], clips, Cache(tmp_path / "file"))


def test_a_device_that_is_not_there_is_refused(clips: Clips, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"features\.device=cpu"):
        extract([Row("clip0")], clips, cache, replace(FEATURES, device="cuda"))


def test_an_unknown_variant_is_refused(clips: Clips, cache: Cache) -> None:
    with pytest.raises(ConfigError, match="reverb"):
        paper_features.extract(
            [Row("clip0")], clips, FEATURES, AugmentConfig(name="x", variants=["clean", "reverb"]), cache
        )

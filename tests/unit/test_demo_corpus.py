"""The synthetic demo corpus: reproducible, balanced, learnable across voices, at chance level with shuffled labels.

`pytest -s tests/unit/test_demo_corpus.py` prints the figures that `docs/demo_corpus.md` quotes.
"""

from __future__ import annotations

import hashlib
import multiprocessing
from collections import Counter
from pathlib import Path

import librosa
import numpy as np
import numpy.typing as npt
import parselmouth
import pytest
import soundfile
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import recall_score
from sklearn.model_selection import StratifiedKFold
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ser_bench import corpora
from ser_bench.config import PROJECT_ROOT, Config, CorpusConfig
from ser_bench.corpora.demo_speech import emotion_rules, generator
from ser_bench.corpora.demo_speech.espeak import SpeechSettings, Synthesizer
from ser_bench.corpora.sheets import cremad, demo
from ser_bench.errors import CorpusError

Array = npt.NDArray[np.float64]


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "corpus"
    generator.generate(folder, generator.MAX_CLIPS, 0)
    return folder


@pytest.fixture(scope="module")
def fields(corpus: Path) -> list:  # type: ignore[type-arg]
    return [demo.parse(path.stem) for path in sorted(corpus.glob("*.wav"))]


# Reproducible files


def test_the_same_seed_gives_the_same_bytes_in_another_process(tmp_path: Path) -> None:
    generator.generate(tmp_path / "here", 24, 0)
    child = multiprocessing.get_context("spawn").Process(target=generator.generate, args=(tmp_path / "there", 24, 0))
    child.start()
    child.join()
    assert child.exitcode == 0
    assert digests(tmp_path / "here") == digests(tmp_path / "there")


def test_another_seed_gives_other_bytes(tmp_path: Path) -> None:
    generator.generate(tmp_path / "a", 12, 0)
    generator.generate(tmp_path / "b", 12, 1)
    a, b = digests(tmp_path / "a"), digests(tmp_path / "b")
    assert a.keys() == b.keys()
    assert all(a[name] != b[name] for name in a)


def test_two_processes_may_fill_the_same_folder_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    children = [context.Process(target=generator.generate, args=(tmp_path / "x" / "demo", 12, 0)) for _ in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0, 0]
    assert len(list((tmp_path / "x" / "demo").glob("*.wav"))) == 12
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["demo"]  # no temporary folder is left


def test_an_interrupted_generation_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(generator, "_notice", interrupt)
    with pytest.raises(KeyboardInterrupt):
        generator.generate(tmp_path / "demo", 6, 0)
    assert list(tmp_path.iterdir()) == []


def test_missing_and_damaged_clips_are_generated_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cfg = Config(cache_dir=str(tmp_path), corpus=CorpusConfig(name="demo", clips=12))
    root = corpora.root_of(cfg)
    complete, files = digests(root), sorted(root.glob("*.wav"))
    assert len(files) == 12
    written = files[-1].stat().st_mtime_ns
    for path in files[:5]:
        path.unlink()
    files[5].write_bytes(b"")
    files[6].write_bytes(files[6].read_bytes()[:-100])
    with caplog.at_level("INFO"):
        assert corpora.root_of(cfg) == root
    assert digests(root) == complete
    assert "7 of 12 clips are missing or damaged" in caplog.text
    assert files[-1].stat().st_mtime_ns == written  # intact clips are not replaced, so that their index stays valid
    caplog.clear()
    corpora.root_of(cfg)
    assert not caplog.text


def test_a_folder_with_nothing_but_a_notice_is_filled(tmp_path: Path) -> None:
    cfg = Config(cache_dir=str(tmp_path), corpus=CorpusConfig(name="demo", clips=6))
    for path in corpora.root_of(cfg).glob("*.wav"):
        path.unlink()
    assert len(list(corpora.root_of(cfg).glob("*.wav"))) == 6


@pytest.mark.parametrize("clips", [0, 433])
def test_a_wrong_number_of_clips_names_the_key(tmp_path: Path, clips: int) -> None:
    with pytest.raises(CorpusError, match=r"1 to 432 clips.*corpus\.clips"):
        generator.generate(tmp_path / "demo", clips, 0)


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(CorpusError, match="demo: cannot write the demo corpus"):
        generator.generate(tmp_path / "file" / "demo", 6, 0)


# Contents


def test_the_432_clips_are_balanced(corpus: Path, fields: list) -> None:  # type: ignore[type-arg]
    assert len(fields) == len(list(corpus.glob("*.wav"))) == demo.SHEET.clips == 432
    assert set(Counter((f.speaker, f.emotion) for f in fields).values()) == {6}
    assert Counter(f.emotion for f in fields) == demo.SHEET.clips_per_label
    assert len({f.speaker for f in fields}) == demo.SHEET.speakers == 12
    assert Counter(voice.sex for voice in generator.VOICES.values()) == {"female": 6, "male": 6}
    assert {f.speaker: f.sex for f in fields} == {actor: voice.sex for actor, voice in generator.VOICES.items()}


def test_the_sentences_are_independent_of_the_emotion(fields: list) -> None:  # type: ignore[type-arg]
    assert set(Counter((f.sentence, f.emotion) for f in fields).values()) == {6}
    for actor in generator.VOICES:
        of_actor = [f for f in fields if f.speaker == actor]
        sentences = {e: frozenset(f.sentence for f in of_actor if f.emotion == e) for e in emotion_rules.EMOTIONS}
        assert len(set(sentences.values())) == 1
    speakers = {(f.sentence, f.sex, f.speaker) for f in fields}
    assert Counter((sentence, sex) for sentence, sex, _ in speakers) == {
        (sentence, sex): 3 for sentence in cremad.SENTENCES for sex in ("female", "male")
    }


@pytest.mark.parametrize("clips", [72, 144, 216, 360])
def test_fewer_clips_stay_balanced(clips: int) -> None:
    parsed = [demo.parse(stem) for stem in generator.schedule(clips)]
    assert len({f.id for f in parsed}) == clips
    assert set(Counter((f.speaker, f.emotion) for f in parsed).values()) == {clips // 72}


def test_the_format_is_that_of_cremad_and_the_lengths_are_plausible(corpus: Path) -> None:
    infos = [soundfile.info(path) for path in corpus.glob("*.wav")]
    assert {(i.samplerate, i.channels, i.subtype) for i in infos} == {(16_000, 1, "PCM_16")}
    durations_s = np.array([i.duration for i in infos])
    assert durations_s.min() > 1.27  # CREMA-D's shortest clip
    assert durations_s.max() < 5.01  # and its longest
    assert 2.2 < np.median(durations_s) < 2.9


def test_clips_are_neither_clipped_nor_silent(corpus: Path) -> None:
    for path in corpus.glob("*.wav"):
        samples, rate_hz = soundfile.read(path)
        assert 0.02 < np.abs(samples).max() < 0.999, path.name
        speech, lead = samples[round(0.65 * rate_hz) : round(0.9 * rate_hz)], samples[: round(0.4 * rate_hz)]
        assert speech.std() > 3 * lead.std(), path.name  # a clip starts with silence, and speech has begun by 0.65 s


def test_the_corpus_is_marked_as_synthetic(corpus: Path) -> None:
    assert (corpus / generator.NOTICE).read_text().startswith("SYNTHETIC SPEECH")
    assert demo.SHEET.synthetic
    assert "SYNTHETIC" in demo.SHEET.title


def test_actors_of_cremad_do_not_belong_to_this_corpus() -> None:
    assert demo.parse("9001_DFA_ANG_XX").text == "Don't forget a jacket"
    with pytest.raises(ValueError, match="1001_DFA_ANG_XX"):
        demo.parse("1001_DFA_ANG_XX")


# Rules of the emotions


def test_settings_and_sound_follow_the_cues() -> None:
    neutral = SpeechSettings(rate_wpm=160)
    fast_high = emotion_rules.speech_settings(neutral, emotion_rules.Cues(pitch_st=3.0, rate_log2=0.25, range_log2=0.5))
    assert fast_high.rate_wpm == round(160 * 2**0.25)
    assert fast_high.pitch == round(50 + 3 * emotion_rules.PITCH_STEPS_PER_SEMITONE)
    assert fast_high.range == round(50 * 2**0.5)

    with Synthesizer() as synthesizer:
        spoken, rate_hz = synthesizer.say("The surface is slick", "en-us+m3"), synthesizer.sample_rate_hz

    def sound(cues: emotion_rules.Cues) -> Array:
        return emotion_rules.apply_cues(spoken, rate_hz, cues, np.random.default_rng(0))

    def above_2_khz_db(samples: Array) -> float:
        power = np.abs(np.fft.rfft(samples)) ** 2
        high = np.fft.rfftfreq(len(samples), 1 / rate_hz) > 2_000
        return float(10 * np.log10(power[high].sum() / power[~high].sum()))

    plain = sound(emotion_rules.Cues())
    assert len(plain) == len(spoken)
    assert 20 * np.log10(plain.std()) == pytest.approx(emotion_rules.SPEECH_LEVEL_DBFS, abs=0.1)
    assert 20 * np.log10(sound(emotion_rules.Cues(level_db=-6)).std() / plain.std()) == pytest.approx(-6, abs=0.1)
    assert above_2_khz_db(sound(emotion_rules.Cues(tilt_db=-3))) < above_2_khz_db(plain) - 3
    assert above_2_khz_db(sound(emotion_rules.Cues(breath_db=15))) > above_2_khz_db(plain)


SOURCE_NAMES = {"angry": "anger", "happy": "happiness", "fearful": "fear", "sad": "sadness", "disgust": "disgust"}


def documented_rule(cues: emotion_rules.Cues) -> str:
    """The rule of an emotion as docs/demo_corpus.md states it."""

    def signed(value: float) -> str:
        return f"{value:+g}".replace("-", "−")

    parts = [f"F0 {signed(cues.pitch_st)} st"]
    parts += [f"range × {2**cues.range_log2:.2f}", f"rate × {2**cues.rate_log2:.2f}"]
    parts += [f"level {signed(cues.level_db)} dB", f"tilt {signed(cues.tilt_db)} dB/octave"]
    parts += [f"breath {signed(cues.breath_db)} dB"] if cues.breath_db else []
    parts += [f"slope {signed(cues.slope_st)} st"]
    parts += [f"tremor {cues.tremor_st:g} st"] if cues.tremor_st else []
    parts += [f"pauses +{10 * cues.gap:g} ms"] if cues.gap else []
    return ", ".join(parts)


@pytest.mark.parametrize("emotion", SOURCE_NAMES)
def test_the_documented_rules_are_those_of_the_generator(emotion: str) -> None:
    page = (PROJECT_ROOT / "docs" / "demo_corpus.md").read_text(encoding="utf-8")
    [row] = [line for line in page.splitlines() if line.startswith(f"| {SOURCE_NAMES[emotion]} |")]
    assert row.strip("|").split("|")[2].strip() == documented_rule(emotion_rules.EMOTIONS[emotion])


def test_f0_changes_as_in_the_sources(corpus: Path, statistics: Array, fields: list) -> None:  # type: ignore[type-arg]
    """F0 is higher in joy [BS], fear and anger, and lower in sadness and disgust."""
    median_st = statistics[:, F0_MEDIAN]
    shift = {
        emotion: np.median(
            [
                np.median(median_st[[f.speaker == a and f.emotion == emotion for f in fields]])
                - np.median(median_st[[f.speaker == a and f.emotion == "neutral" for f in fields]])
                for a in generator.VOICES
            ]
        )
        for emotion in emotion_rules.EMOTIONS
    }
    print("F0 against neutral, semitones:", {emotion: round(float(st), 1) for emotion, st in shift.items()})
    assert shift["fearful"] > 4 and shift["happy"] > 4 and shift["angry"] > 1.5
    assert shift["sad"] < -1.5 and shift["disgust"] < -1.5


# Learnable across voices, not trivial, at chance level with shuffled labels

F0_MEDIAN = 40


@pytest.fixture(scope="module")
def statistics(corpus: Path) -> Array:
    """[432, 44]: mean and deviation of 20 MFCCs, F0 median, range and deviation in semitones, length in seconds."""
    return np.array([_statistics(path) for path in sorted(corpus.glob("*.wav"))])


def _statistics(path: Path) -> Array:
    samples, rate_hz = soundfile.read(path)
    mfcc = librosa.feature.mfcc(y=samples, sr=rate_hz, n_mfcc=20)
    track = parselmouth.Sound(samples, rate_hz).to_pitch(pitch_floor=60, pitch_ceiling=600)
    f0_st = 12 * np.log2(track.selected_array["frequency"][track.selected_array["frequency"] > 0])
    spread = np.percentile(f0_st, 90) - np.percentile(f0_st, 10)
    return np.r_[mfcc.mean(axis=1), mfcc.std(axis=1), np.median(f0_st), spread, f0_st.std(), len(samples) / rate_hz]


def _paper_features(path: Path) -> Array:
    """[2376]: the paper's vector over 2.5 s from 0.6 s, computed with librosa."""
    samples, rate_hz = soundfile.read(path)
    window = librosa.resample(samples[round(0.6 * rate_hz) : round(3.1 * rate_hz)], orig_sr=rate_hz, target_sr=22_050)
    window = librosa.util.fix_length(window, size=55_125)
    zcr, rms = librosa.feature.zero_crossing_rate(window)[0], librosa.feature.rms(y=window)[0]
    return np.r_[zcr, rms, librosa.feature.mfcc(y=window, sr=22_050, n_mfcc=20).T.ravel()]


def _uar(classifier: object, features: Array, fields: list, shuffle: bool = False) -> float:  # type: ignore[type-arg]
    """UAR on unseen voices: two folds of six, three of each sex."""
    truth = np.array([f.emotion for f in fields])
    actors = np.array(sorted(generator.VOICES))
    folds = StratifiedKFold(2, shuffle=True, random_state=0).split(actors, [generator.VOICES[a].sex for a in actors])
    predicted = np.empty_like(truth)
    for train, _ in folds:
        in_train = np.isin([f.speaker for f in fields], actors[train])
        labels = truth[in_train]
        if shuffle:
            labels = np.random.default_rng(0).permutation(labels)
        model = make_pipeline(StandardScaler(), classifier).fit(features[in_train], labels)
        predicted[~in_train] = model.predict(features[~in_train])
    return float(recall_score(y_true=truth, y_pred=predicted, average="macro", labels=sorted(emotion_rules.EMOTIONS)))


def test_statistics_are_learnable_across_voices_but_not_trivial(statistics: Array, fields: list) -> None:  # type: ignore[type-arg]
    regression = LogisticRegression(C=0.1, max_iter=2_000)
    uar, shuffled = _uar(regression, statistics, fields), _uar(regression, statistics, fields, shuffle=True)
    print(
        f"logistic regression on MFCC and F0 statistics, unseen voices: UAR {uar:.3f}; shuffled labels {shuffled:.3f}"
    )
    assert 0.5 < uar < 0.95
    assert 0.05 < shuffled < 0.30


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_the_papers_features_are_learnable_across_voices(corpus: Path, fields: list) -> None:  # type: ignore[type-arg]
    features = np.array([_paper_features(path) for path in sorted(corpus.glob("*.wav"))])
    uar = _uar(MLPClassifier((128,), max_iter=20, random_state=0), features, fields)
    print(f"MLP on the paper's 2,376 features, unseen voices: UAR {uar:.3f}")
    assert 0.45 < uar < 0.95

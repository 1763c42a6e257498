"""The model card of a run: every fact is that of the run, warnings stand where they belong, and no path is in it."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ser_bench import predictors, weights
from ser_bench.config import Config, Protocol
from ser_bench.evaluation import metrics
from ser_bench.tracking import model_card_text
from ser_bench.tracking.model_card import MEASURES, licensed_parts
from ser_bench.types import Corpus, Row, Split
from tests.support.stored_runs import LABELS, make_clips, predict
from tests.support.tracked_runs import compose_config

VERDICT = "no leakage found: no clip of the 48 test rows was in training"
RUN_ID = "8b9797dc" * 4


def make_case(folder: Path, *words: str, **changes: object) -> tuple[Config, Corpus, Split]:
    cfg = compose_config(folder, "corpus=emodb", "experiment=none", "split=speaker", "model=majority", *words)
    clips = make_clips(8)
    values = {"name": cfg.corpus.name, "clips": tuple(clips.values()), "labels": LABELS, "language": "de"}
    rows = tuple(Row(clip_id) for clip_id in clips)
    return cfg, Corpus(**(values | changes)), Split(cfg.split.protocol.value, 1, 5, rows[:36], rows[36:48], rows[48:])


def card_of(folder: Path, *words: str, abstain: int = 0, **changes: object) -> str:
    cfg, corpus, split = make_case(folder, *words, **changes)
    tested = {row.clip_id: corpus.by_id[row.clip_id] for row in split.test}
    predictions = predict(tested, skill=0.7, seed=1, abstain=abstain)
    return model_card_text(cfg, corpus, split, predictions, VERDICT, RUN_ID)


def sections(card: str) -> dict[str, str]:
    parts = re.split(r"^##+ (.+)$", card, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_a_card_has_the_data_the_figures_and_the_limits_of_the_run(tmp_path: Path) -> None:
    card = card_of(tmp_path, abstain=2)
    parts = sections(card)
    assert list(parts) == ["Data", "Protocol", "Figures", "Per class", "Groups", "Audit", "Intended use", "Not for",
                           "Licences"]  # fmt: skip
    assert card.startswith("# Model card: majority on emodb: split speaker, fold 1 of 5\n")
    assert "Burkhardt" in parts["Data"] and "96 clips of 8 speakers" in parts["Data"]
    assert "Test: 48 rows (clean), 48 clips, 4 speakers" in parts["Data"]
    assert parts["Protocol"].startswith("\n\n`split=speaker`, fold 1 of 5: no known leakage.")
    assert "speakers who are in no training row" in parts["Protocol"]
    assert "chance level of the UAR: 0.333" in parts["Figures"] and "2 abstentions counted as wrong" in parts["Figures"]
    assert VERDICT in parts["Audit"] and "ser-bench audit 8b9797dc" in parts["Audit"]
    assert "Decisions about people" in parts["Not for"] and "CC BY 4.0" in parts["Licences"]
    assert "SYNTHETIC" not in card and "Shuffled" not in card


def test_the_figures_of_a_card_are_those_of_the_predictions(tmp_path: Path) -> None:
    cfg, corpus, split = make_case(tmp_path)
    tested = {row.clip_id: corpus.by_id[row.clip_id] for row in split.test}
    predictions = predict(tested, skill=0.7, seed=1)
    parts = sections(model_card_text(cfg, corpus, split, predictions, VERDICT, RUN_ID))
    [(value, low, high)] = re.findall(r"\| UAR \| (\S+) \| (\S+) to (\S+) \|", parts["Figures"])
    assert float(value) == pytest.approx(metrics.uar(predictions), abs=6e-4)
    assert float(low) < float(value) < float(high)
    recalls = [float(found) for found in re.findall(r"^\| (?:angry|happy|sad) \| (\S+) ", parts["Per class"], re.M)]
    assert np.mean(recalls) == pytest.approx(metrics.uar(predictions), abs=6e-4)
    women = [i for i, row in enumerate(predictions.rows) if corpus.by_id[row.clip_id].sex == "female"]
    [(of_women, count, speakers)] = re.findall(
        r"\| female \| (\S+) \| \S+ to \S+ \| (\d+) \| (\d+) \|", parts["Groups"]
    )
    assert float(of_women) == pytest.approx(metrics.uar(predictions.take(women)), abs=6e-4)
    assert (int(count), int(speakers)) == (len(women), 2)


def test_generated_speech_and_shuffled_labels_are_named_before_any_figure(tmp_path: Path) -> None:
    card = card_of(tmp_path, "corpus=demo", "shuffle_labels=true", synthetic=True)
    first = card.partition("## Data")[0]
    assert "SYNTHETIC speech" in first and "nothing about people" in first and "Shuffled labels" in first


def test_a_corpus_without_sexes_or_with_one_speaker_has_no_invented_figures(tmp_path: Path) -> None:
    clips = tuple(replace(clip, sex="", speaker="one") for clip in make_clips(8).values())
    parts = sections(card_of(tmp_path, clips=clips))
    assert "does not state the sex" in parts["Groups"]
    assert "n/a (too few speakers)" in parts["Figures"] and "nan" not in parts["Figures"].lower()


def test_under_paper_the_card_says_what_leaks_and_gives_the_figures_of_clean_rows(tmp_path: Path) -> None:
    parts = sections(card_of(tmp_path, "split=paper"))
    assert "not how well it does on new clips or new speakers" in parts["Protocol"]
    assert "| all test rows | UAR |" in parts["Figures"] and "| clean test rows | UAR |" in parts["Figures"]


def test_every_protocol_says_what_its_figures_measure() -> None:
    assert set(MEASURES) == set(Protocol)


@pytest.mark.parametrize(
    ("words", "names", "licences"),
    [
        (["model=cnn_text"], ["whisper-tiny.en", "all-MiniLM-L6-v2"], ["MIT", "Apache-2.0"]),
        (["model=whisper_probe"], ["whisper-tiny.en", "whisper-base"], ["MIT", "MIT"]),
        (["model=ssl_probe"], ["facebook/wav2vec2-base-960h"], [weights.UNKNOWN_LICENCE]),
        (["model=egemaps"], ["openSMILE, software"], ["audEERING's licence allows research, not commercial use"]),
        (["model=llm", "llm=local", "asr=reference"], ["SmolLM2-135M-Instruct-Q4_1"], ["Apache-2.0"]),
        (["model=llm", "llm=gpt4o", "asr=whisper"], ["Whisper tiny.en", "gpt-4o"],
         ["MIT", "a service; the terms of its provider hold"]),
        (["model=cnn"], [], []),
    ],
)  # fmt: skip
def test_weights_and_services_of_a_predictor_are_listed_with_their_licences(
    tmp_path: Path, words: list[str], names: list[str], licences: list[str]
) -> None:
    cfg = compose_config(tmp_path, "experiment=none", *words)
    parts = licensed_parts(cfg, predictors.predictor_class(cfg.model.name).groups)
    assert [part.name for part in parts] == names
    assert [part.licence for part in parts] == licences


def test_no_path_of_the_machine_is_in_a_card(tmp_path: Path) -> None:
    table = tmp_path / "mine.csv"
    for words in (
        [
            "corpus=table",
            "corpus.name=mine",
            f"corpus.root={table}",
            "model=ssl_probe",
            f"model.encoder={tmp_path}/encoder",
        ],
        ["model=llm", "llm=local", f"llm.gguf={tmp_path}/model.gguf", f"asr.model={tmp_path}/whisper"],
        ["model=whisper_probe", f"model.encoders=[{tmp_path}/whisper]"],
    ):
        cfg = compose_config(tmp_path, "experiment=none", "split=speaker", *words)
        _, corpus, split = make_case(tmp_path, name=cfg.corpus.name)
        tested = {row.clip_id: corpus.by_id[row.clip_id] for row in split.test}
        card = model_card_text(cfg, corpus, split, predict(tested, 0.7, 1), VERDICT, RUN_ID)
        assert str(tmp_path) not in card and tmp_path.name not in card
        assert weights.USERS_FOLDER in card


@dataclass(frozen=True)
class Member:
    name: str
    run_id: str


def test_a_fusion_names_its_members_and_a_second_corpus_its_own_licence(tmp_path: Path) -> None:
    cfg, corpus, split = make_case(
        tmp_path, "model=fusion", "split=cross_corpus", "split.test_corpus=ravdess", "adapt=none"
    )
    tested = {row.clip_id: corpus.by_id[row.clip_id] for row in split.test}
    members: list[Any] = [Member("cnn", "1" * 32), Member("text_only", "2" * 32)]
    card = model_card_text(cfg, corpus, split, predict(tested, 0.7, 1), VERDICT, RUN_ID, members)
    parts = sections(card)
    assert f"- Combines: cnn (run {'1' * 32}), text_only (run {'2' * 32})" in card
    assert "licences in their own model cards" in parts["Licences"]
    assert "CC BY-NC-SA 4.0" in parts["Licences"] and "CC BY 4.0" in parts["Licences"]
    assert "another corpus" in parts["Protocol"]


def test_adaptation_and_the_language_model_are_stated(tmp_path: Path) -> None:
    adapted = card_of(tmp_path, "model=egemaps", "adapt=speaker_stats", "adapt.enrol=5")
    assert "reads 5 enrolment clips of each tested speaker, without their labels" in adapted
    assert "`llm=local`, asked for a label; it was not trained" in card_of(tmp_path, "model=llm", "llm=local")

"""The model card of a run: what its predictor was trained and tested on, how well it did, and what it is not for.

The card is Markdown and is logged as the artifact `model_card.md`. It is written from the run's own data, so it states
no more than was measured. It contains no path of the machine; weights in a folder of the user are called so.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from ser_bench import __version__, predictors, splits, weights
from ser_bench.config import Config, Protocol, ScoredRows, Target, TrackingConfig
from ser_bench.corpora import DataSheet, sheet_of
from ser_bench.evaluation import metrics, statistics
from ser_bench.evaluation.classification_report import reasons_text
from ser_bench.evaluation.run_scores import TEST, TEST_CLEAN
from ser_bench.evaluation.statistics import Interval
from ser_bench.predictors import AnswersFromFile, UsesLicensedParts
from ser_bench.tracking import run_description
from ser_bench.tracking.run_writer import log_text
from ser_bench.types import CLEAN, Clip, Corpus, FusionMember, Predictions, Row, Split
from ser_bench.weights import LicensedPart

CARD_FILE = "model_card.md"
SYNTHETIC_WARNING = (
    "**SYNTHETIC speech.** A speech synthesiser spoke these clips, and rules set the emotions. The figures show that "
    "the software works. They say nothing about people, and the predictor is of no use for recordings of people."
)
VALIDATION_SCORED = (
    " They are figures of validation rows (`split.scored=validation`), on which options were compared; they are no "
    "result of a test."
)
SHUFFLED_WARNING = (
    "**Shuffled labels.** The training labels were permuted as a sanity check. The predictor has learnt nothing that "
    "can be used."
)
MEASURES: dict[Protocol, str] = {
    Protocol.speaker: "clips of speakers who are in no training row",
    Protocol.loso: "clips of a speaker who is in no training row",
    Protocol.fixed: "clips of speakers who are in no training row",
    Protocol.speaker_sentence: "clips of speakers and of sentences that are in no training row",
    Protocol.cross_corpus: "clips of another corpus than that of the training",
    Protocol.sentence: "other sentences of the training speakers, so not how well it does on new speakers",
    Protocol.clip: "other clips of the training speakers, so not how well it does on new speakers",
    Protocol.paper: "rows whose clips are in training too, so not how well it does on new clips or new speakers",
}
"""What the test rows of each protocol measure, after "The figures measure how well the predictor does on"."""
SOURCE_OF_LABELS = {
    Target.intended: "as intended",
    Target.votes: "plurality of the votes of listeners",
    Target.intensity: "levels of intensity in ascending order, as the actor was asked for them; they were not measured",
}
NOT_FOR = (
    "Decisions about people: hiring, grading, credit, insurance, policing, border control, diagnosis, or supervision "
    "at work or at school. In the European Union, inferring emotions at work and in education is prohibited, except "
    "for medical or safety reasons (Regulation (EU) 2024/1689, Article 5(1)(f)).",
    "Claims about what a person feels. The labels name how an utterance was acted or heard, and nothing else.",
    "Other languages, other recording conditions, other groups of speakers or spontaneous speech, before it was "
    "measured there.",
)


def model_card_text(
    cfg: Config,
    corpus: Corpus,
    split: Split,
    predictions: Predictions,
    audit_verdict: str,
    run_id: str,
    members: Sequence[FusionMember] = (),
    calibration: str = "",
) -> str:
    """Return the model card of a run as Markdown.

    Args:
        cfg: the configuration of the run.
        corpus: the clips, with speaker and sex.
        split: the rows.
        predictions: of all test rows; none has failed.
        audit_verdict: the result of the audit in one line.
        run_id: MLflow's id.
        members: the runs that a fusion combines.
        calibration: the temperature in words, or why there is none; "" leaves the line out.
    """
    groups = predictors.predictor_class(cfg.model.name).groups
    name = run_description.model_name(cfg, groups)
    title = run_description.title(name, corpus.measured, corpus.synthetic, split.protocol, split.fold, split.folds)
    warnings = [SYNTHETIC_WARNING] * corpus.synthetic + [SHUFFLED_WARNING] * cfg.shuffle_labels
    blocks = [
        [f"# Model card: {title}"],
        *[[warning] for warning in warnings],
        list(_predictor_lines(cfg, groups, run_id, members)),
        ["## Data"],
        list(_data_lines(cfg, corpus, split)),
        ["## Protocol"],
        [_protocol_text(cfg, split)],
        ["## Figures"],
        list(_figure_lines(cfg, corpus, predictions)),
        *([[f"Calibration of the probabilities: {calibration}."]] if calibration else []),
        ["### Per class"],
        list(_class_lines(predictions)),
        ["### Groups"],
        list(_group_lines(predictions, corpus.by_id)),
        ["## Audit"],
        [f"{_sentence(audit_verdict)} `ser-bench audit {run_id[:8]}` repeats the audit; its latest result is in the "
         "tag `audit_verdict` of the run."],
        ["## Intended use"],
        ["Comparing predictors of emotion in speech in research, on the same clips and under the same protocol. "
         + (f"`ser-bench predict {run_id[:8]} FILE` predicts the label of new audio, to look at single cases."
            if not _is_imported(cfg) else "There is no model here that could predict new audio.")],
        ["## Not for"],
        [f"- {text}" for text in NOT_FOR],
        ["## Licences"],
        list(_licence_lines(cfg, groups, members)),
    ]  # fmt: skip
    return "\n\n".join("\n".join(lines) for lines in blocks) + "\n"


def log_model_card(cfg: TrackingConfig, run_id: str, text: str) -> None:
    """Log the text of `model_card_text` as the artifact `model_card.md`.

    Raises:
        TrackingError: the store cannot be written.
    """
    log_text(cfg, run_id, text, CARD_FILE)


def _predictor_lines(cfg: Config, groups: Sequence[str], run_id: str, members: Sequence[FusionMember]) -> Iterator[str]:
    commit = run_description.source_tags()["commit"]
    if _is_imported(cfg):
        origin = predictors.predictor_class(cfg.model.name).origin(cfg)
        yield f"- Predictor: `{cfg.model.shown_name}`, not of ser_bench; its predictions come from {origin}"
        yield "- Training: unknown; the training rows below are those of the split, which it may not have kept to"
    else:
        yield f"- Predictor: `model={cfg.model.name}`, seed {cfg.seed}"
    if "llm" in groups:
        yield f"- Language model: `llm={cfg.llm.name}`, asked for a label; it was not trained in this run"
    if "adapt" in groups and cfg.adapt.name != "none":
        enrolled = "all clips" if cfg.adapt.enrol is None else f"{cfg.adapt.enrol} enrolment clips"
        yield f"- Adaptation: it reads {enrolled} of each tested speaker, without their labels"
    if members:
        yield f"- Combines: {', '.join(f'{member.name} (run {member.run_id})' for member in members)}"
    yield f"- Run: {run_id}; ser_bench {__version__}, commit {commit}"


def _is_imported(cfg: Config) -> bool:
    return predictors.has_capability(cfg.model.name, AnswersFromFile)


def _data_lines(cfg: Config, corpus: Corpus, split: Split) -> Iterator[str]:
    for sheet in _sheets(cfg):
        about = [sheet.title, sheet.citation, f"doi:{sheet.doi}" if sheet.doi else ""]
        yield f"- Corpus `{sheet.name}`: {' '.join(_sentence(text) for text in about if text)}"
    speakers = len({clip.speaker for clip in corpus.clips})
    hours = sum(clip.duration_s for clip in corpus.clips) / 3600
    yield f"- Read: {len(corpus.clips):,} clips of {speakers} speakers, {hours:.2f} hours, language {corpus.language}"
    yield f"- Content: digest {corpus.digest}"
    yield f"- Labels: {', '.join(corpus.labels)}; {SOURCE_OF_LABELS[cfg.corpus.target]}"
    if corpus.skipped:
        yield f"- Left out: {len(corpus.skipped)} files that could not be used; `corpus.json` lists them"
    for name, rows in (("Training", split.train), ("Validation", split.val), ("Test", split.test)):
        yield f"- {name}: {_extent(rows, corpus.by_id)}"


def _extent(rows: Sequence[Row], clips: dict[str, Clip]) -> str:
    ids = {row.clip_id for row in rows}
    variants = ", ".join(dict.fromkeys(row.variant for row in rows))
    speakers = len({clips[clip_id].speaker for clip_id in ids})
    return (
        f"{len(rows):,} rows ({variants}), {_counted(len(ids), 'clip')}, {_counted(speakers, 'speaker')}"
        if rows
        else "no rows"
    )


def _protocol_text(cfg: Config, split: Split) -> str:
    protocol = cfg.split.protocol
    fold = f", fold {split.fold} of {split.folds}" if split.folds > 1 else ""
    return (
        f"`split={protocol.value}`{fold}: {splits.LEAKS[protocol]}. "
        f"The figures measure how well the predictor does on {MEASURES[protocol]}."
        + " This holds if the model was trained on training rows alone." * _is_imported(cfg)
        + VALIDATION_SCORED * (cfg.split.scored is ScoredRows.validation)
    )


def _figure_lines(cfg: Config, corpus: Corpus, predictions: Predictions) -> Iterator[str]:
    tables = [("all test rows", predictions)]
    if cfg.split.protocol is Protocol.paper:
        tables.append(("clean test rows", _chosen(predictions, [row.variant == CLEAN for row in predictions.rows])))
    speakers = {clip.id: clip.speaker for clip in corpus.clips}
    yield f"| {'' if len(tables) == 1 else 'rows | '}metric | value | 95 % interval |"
    yield "|---" * (3 if len(tables) == 1 else 4) + "|"
    for rows, table in tables:
        first = "" if len(tables) == 1 else f"{rows} | "
        counts = statistics.counts_by_speaker(table, speakers)
        for metric, function in (("uar", metrics.uar), ("accuracy", metrics.accuracy), ("macro_f1", metrics.macro_f1)):
            interval = statistics.interval(counts, function)
            yield f"| {first}{metrics.METRICS[metric].title} | {interval.value:.3f} | {_bounds(interval)} |"
        for metric, interval in (statistics.level_intervals(counts) if table.ordinal else {}).items():
            value = "n/a" if math.isnan(interval.value) else f"{interval.value:.3f}"
            yield f"| {first}{metrics.METRICS[metric].title} | {value} | {_bounds(interval)} |"
        for metric, interval in statistics.vote_intervals([table], speakers).items():
            yield f"| {first}{metrics.METRICS[metric].title} | {interval.value:.3f} | {_bounds(interval)} |"
        scores = metrics.score(table, prefix=TEST if rows == "all test rows" else TEST_CLEAN)
        for name in ("log_loss", "ece"):
            values = [value for key, value in scores.items() if key.endswith(f"/{name}")]
            yield from (f"| {first}{metrics.METRICS[name].title} | {value:.3f} | |" for value in values)
    yield ""
    tested = {speakers[row.clip_id] for row in predictions.rows}
    yield (
        f"{len(predictions.rows):,} rows of {_counted(len(tested), 'speaker')}; chance "
        f"level of the UAR: {1 / len(predictions.labels):.3f}. The intervals resample speakers. They do not contain "
        "the variation between seeds and folds."
    )
    if abstained := int(predictions.abstained.sum()):
        yield f"{_counted(abstained, 'abstention')} counted as wrong{reasons_text(predictions)}."


def _class_lines(predictions: Predictions) -> Iterator[str]:
    counts = metrics.confusion(predictions)
    recall, precision = (metrics.METRICS[name].compute(counts) for name in ("recall", "precision"))
    yield "| class | recall | precision | rows |"
    yield "|---|---|---|---|"
    for i, label in enumerate(predictions.labels):
        rows = int(counts[i].sum())
        shown = f"{recall[i]:.3f} | {precision[i]:.3f}" if rows else "n/a | n/a"
        yield f"| {_cell(label)} | {shown} | {rows:,} |"


def _group_lines(predictions: Predictions, clips: dict[str, Clip]) -> Iterator[str]:
    sexes = [clips[row.clip_id].sex for row in predictions.rows]
    if not any(sexes):
        yield "The corpus does not state the sex of its speakers, so there are no figures by group."
        return
    speakers = {clip.id: clip.speaker for clip in clips.values()}
    yield "| sex | UAR | 95 % interval | rows | speakers |"
    yield "|---|---|---|---|---|"
    for sex in sorted(set(sexes), reverse=True):
        group = _chosen(predictions, [other == sex for other in sexes])
        interval = statistics.interval(statistics.counts_by_speaker(group, speakers))
        extent = f"{len(group.rows):,} | {interval.speakers}"
        yield f"| {sex or 'not stated'} | {interval.value:.3f} | {_bounds(interval)} | {extent} |"
    yield ""
    yield "Intervals over few speakers are not reliable, and a difference between groups is not tested."
    yield "Age, origin, accent and health of the speakers were not examined."


def _licence_lines(cfg: Config, groups: Sequence[str], members: Sequence[FusionMember]) -> Iterator[str]:
    for sheet in _sheets(cfg):
        source = f" ({sheet.homepage})" if sheet.homepage else ""
        licence = sheet.licence if sheet.read_table is None else "that of the recordings, which ser_bench does not know"
        yield f"- Corpus `{sheet.name}`{source}: {licence}"
    for part in licensed_parts(cfg, groups):
        yield f"- {part.name}{f' ({part.source})' if part.source else ''}: {part.licence}"
    if members:
        yield "- Members: the licences in their own model cards hold too; runs of older versions have no card"
    yield "- Code of ser_bench: MIT"
    yield ""
    yield "Whether a licence of training data or of pretrained weights binds a trained predictor is not decided here."


def licensed_parts(cfg: Config, groups: Sequence[str]) -> list[LicensedPart]:
    """Return what the predictor of a run uses under a licence of its own: weights, services and feature extractors."""
    parts: list[LicensedPart] = []
    kind = predictors.predictor_class(cfg.model.name)
    if issubclass(kind, UsesLicensedParts):
        parts += kind.licensed_parts(cfg)
    if "asr" in groups and cfg.asr.name == "faster_whisper":
        parts.append(weights.licensed_part(f"whisper-{cfg.asr.model}", cfg.asr.model))
    elif "asr" in groups and cfg.asr.name == "whisper":
        parts.append(LicensedPart(f"Whisper {weights.name_without_folder(cfg.asr.model)}", "openai/whisper", "MIT"))
    if "text" in groups:
        parts.append(_service(cfg.text.model) if cfg.text.name == "openai" else weights.licensed_part(cfg.text.model))
    if "llm" in groups:
        model = cfg.llm.gguf or cfg.llm.model
        parts.append(weights.licensed_part(model) if cfg.llm.local else _service(model))
    return list(dict.fromkeys(parts))


def _service(model: str) -> LicensedPart:
    return LicensedPart(weights.name_without_folder(model), "", "a service; the terms of its provider hold")


def _sheets(cfg: Config) -> list[DataSheet]:
    """Return the data sheet of the corpus; under `cross_corpus`, of the training and of the test corpus."""
    corpora = [(cfg.corpus.name, cfg.corpus.root)]
    if cfg.split.protocol is Protocol.cross_corpus and cfg.split.test_corpus:
        corpora.append((cfg.split.test_corpus, cfg.split.test_root))
    return [sheet_of(name, root) for name, root in corpora]


def _chosen(predictions: Predictions, wanted: Sequence[bool]) -> Predictions:
    return predictions.take([i for i, is_wanted in enumerate(wanted) if is_wanted])


def _bounds(interval: Interval) -> str:
    if not interval.is_informative:
        return "n/a (too few speakers)"
    return f"{interval.low:.3f} to {interval.high:.3f}"


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _sentence(text: str) -> str:
    return text if text.endswith(".") else f"{text}."

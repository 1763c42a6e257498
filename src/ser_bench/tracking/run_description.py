"""What is said of a run before it starts: its name, tags, parameters, and the data it will see."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ser_bench import __version__
from ser_bench.config import Config, to_plain
from ser_bench.redaction import redact
from ser_bench.tracking import code_version
from ser_bench.types import Corpus, Row, Split, digest_of

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput

NOT_IN_METRIC_NAMES = re.compile(r"[^\w.\- :/]")
"""What MLflow refuses in the name of a metric; a label of one's own corpus may hold anything."""


SMALL = 1e-2


def model_name(cfg: Config, groups: Sequence[str]) -> str:
    """The predictor's name; adapted to the speaker it answers another question, and so has another name.

    "whisper_probe+speaker_stats" has no limit on the clips it learns a speaker from, "…_10" ten of them.
    """
    if "adapt" not in groups or cfg.adapt.name == "none":
        return str(cfg.model.name)
    enrolled = "" if cfg.adapt.enrol is None else f"_{cfg.adapt.enrol}"
    emotion = "" if cfg.adapt.enrol_emotion is None else f"_{cfg.adapt.enrol_emotion}"
    return f"{cfg.model.name}+{cfg.adapt.name}{enrolled}{emotion}"


def run_name(model: str, cfg: Config, split: Split) -> str:
    """For example "cnn speaker fold 0", or "cnn paper" where there is one fold."""
    fold = f" fold {split.fold}" if split.folds > 1 else ""
    seed = f" seed {cfg.seed}" if cfg.seed else ""
    return f"{model} {split.protocol}{fold}{seed}{' shuffled labels' if cfg.shuffle_labels else ''}"


def title(model: str, corpus: str, synthetic: bool, protocol: str, fold: int, folds: int) -> str:
    """Heading of pictures and descriptions; a generated corpus is called SYNTHETIC wherever it appears."""
    of = f", fold {fold} of {folds}" if folds > 1 else ""
    return f"{model} on {corpus}{' (SYNTHETIC speech)' if synthetic else ''}: split {protocol}{of}"


def headline(scores: Mapping[str, float]) -> str:
    """The figures that head a run's page: "UAR 0.306 · accuracy 0.306 · … · 72 rows"."""
    shown = {"uar": "UAR", "accuracy": "accuracy", "macro_f1": "macro-F1", "log_loss": "log-loss", "ece": "ECE"}
    parts = [f"{label} {scores[name]:.3f}" for name, label in shown.items() if name in scores]
    return " · ".join([*parts, f"{scores['rows']:,.0f} rows"])


def tags(cfg: Config, corpus: Corpus, split: Split, key: str, groups: Sequence[str]) -> dict[str, str]:
    """What runs are looked up and told apart by. No host, no user, no path."""
    git = code_version.commit()
    return {
        "kind": "run",
        "corpus": corpus.measured,
        "corpus_digest": corpus.digest,
        "labels": " ".join(corpus.labels),
        "language": corpus.language,
        "synthetic": str(corpus.synthetic).lower(),
        "protocol": split.protocol,
        "fold": str(split.fold),
        "folds": str(split.folds),
        "partition": split.partition,
        "rows": split.rows,
        "model": model_name(cfg, groups),
        "size": cfg.size.name,
        "experiment": cfg.experiment_name or "none",
        "seed": str(cfg.seed),
        "shuffle_labels": str(cfg.shuffle_labels).lower(),
        "key": key,
        "key_groups": " ".join(groups),
        "version": __version__,
        **git,
        **source_tags(git["commit"]),
    }


def source_tags(commit: str) -> dict[str, str]:
    """MLflow's own names for where a run came from, which its pages show; without the machine's folders."""
    known = {"mlflow.source.git.commit": commit} if commit != code_version.UNKNOWN else {}
    return {"mlflow.source.type": "LOCAL", "mlflow.source.name": Path(sys.argv[0]).name or "python"} | known


def params(cfg: Config) -> dict[str, str]:
    """The whole composed configuration, one parameter a leaf ("features.pitch.floor_hz"), secrets hidden."""
    return {name: redact(_text(value)) for name, value in _leaves(to_plain(cfg))}


def config_yaml(cfg: Config) -> str:
    """The same as YAML, readable by `StoredRun.config`."""
    from omegaconf import OmegaConf

    return redact(OmegaConf.to_yaml(OmegaConf.create(to_plain(cfg))))


def corpus_json(corpus: Corpus) -> str:
    """What was measured on: counts, labels, warnings, and every file that was skipped with its reason."""
    by_label = {label: sum(clip.emotion == label for clip in corpus.clips) for label in corpus.labels}
    return json.dumps(
        {
            "name": corpus.measured,
            "digest": corpus.digest,
            "synthetic": corpus.synthetic,
            "language": corpus.language,
            "clips": len(corpus.clips),
            "speakers": len({clip.speaker for clip in corpus.clips}),
            "hours": round(sum(clip.duration_s for clip in corpus.clips) / 3600, 4),
            "clips_by_label": by_label,
            "warnings": list(corpus.warnings),
            "skipped": {str(path): reason for path, reason in corpus.skipped.items()},
        },
        indent=1,
        ensure_ascii=False,
    )


def inputs(corpus: Corpus, split: Split) -> list[DatasetInput]:
    """The corpus and the three parts of the split as MLflow data sets: name, digest, size, what each is used for."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    known = {"corpus": corpus.measured, "corpus_digest": corpus.digest, "partition": split.partition}
    where = json.dumps({"tags": known})

    def one(name: str, digest: str, profile: Mapping[str, Any], context: str) -> DatasetInput:
        dataset = Dataset(name=name, digest=digest, source_type="code", source=where, profile=json.dumps(profile))
        return DatasetInput(dataset, [InputTag("mlflow.data.context", context)])

    parts = {"training": split.train, "validation": split.val, "test": split.test}
    whole = one(corpus.measured, corpus.digest, {"clips": len(corpus.clips), "labels": list(corpus.labels)}, "corpus")
    label = f"{corpus.measured} {split.protocol} {split.fold}/{split.folds}"
    return [whole] + [
        one(f"{label} {name}", digest_of(sorted(rows)), _profile(rows), name) for name, rows in parts.items() if rows
    ]


def readable(value: float) -> float:
    """Six decimals, or four digits where it is small: MLflow's pages show every digit that they are given.

    Exact figures are computed from the predictions, never from logged metrics.

    >>> readable(1 / 3), readable(7192710.0), readable(0.00001234567)
    (0.333333, 7192710.0, 1.235e-05)
    """
    return round(value, 6) if abs(value) >= SMALL else float(f"{value:.4g}")


def metric_name(name: str) -> str:
    """The name with what MLflow refuses replaced."""
    return NOT_IN_METRIC_NAMES.sub("_", name)


def _profile(rows: Sequence[Row]) -> dict[str, Any]:
    return {"rows": len(rows), "clips": len({row.clip_id for row in rows})}


def _leaves(node: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    leaves: list[tuple[str, Any]] = []
    for name, value in node.items():
        path = f"{prefix}{name}"
        leaves += _leaves(value, path + ".") if isinstance(value, Mapping) else [(path, value)]
    return leaves


def _text(value: Any) -> str:
    """As one would type it on the command line."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)

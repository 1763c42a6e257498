"""Description of a run before it starts: name, title, tags, code version, parameters, and inputs (data sets)."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ser_bench import __version__
from ser_bench.config import PROJECT_ROOT, Config, flattened, to_plain
from ser_bench.corpora.names import nfc
from ser_bench.evaluation.metrics import METRICS
from ser_bench.redaction import redact
from ser_bench.types import Corpus, Row, Split, digest_of

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput

UNKNOWN = "unknown"
GIT_TIMEOUT_S = 10.0
CODE = ("src", "conf", "experiments", "run.py", "pyproject.toml")
"""Files and folders that can change a result; a run is dirty if one of them was changed since the commit."""


def model_name(cfg: Config, groups: Sequence[str]) -> str:
    """Return the predictor's name, followed by its adaptation to the speakers, if there is one.

    Adapted predictors have a name of their own because they use unlabelled clips of the tested speakers:
    "whisper_probe+speaker_stats" uses all clips of a speaker, "whisper_probe+speaker_stats_10" ten enrolment clips.
    """
    if "adapt" not in groups or cfg.adapt.name == "none":
        return cfg.model.shown_name
    enrolled = "" if cfg.adapt.enrol is None else f"_{cfg.adapt.enrol}"
    emotion = "" if cfg.adapt.enrol_emotion is None else f"_{nfc(cfg.adapt.enrol_emotion)}"
    return f"{cfg.model.name}+{cfg.adapt.name}{enrolled}{emotion}"


def run_name(model: str, cfg: Config, split: Split) -> str:
    """Return the name of a run: "cnn speaker fold 0", or "cnn paper" if there is only one fold."""
    fold = f" fold {split.fold}" if split.folds > 1 else ""
    seed = f" seed {cfg.seed}" if cfg.seed else ""
    return f"{model} {split.protocol}{fold}{seed}{' shuffled labels' if cfg.shuffle_labels else ''}"


def title(model: str, corpus: str, synthetic: bool, protocol: str, fold: int, folds: int) -> str:
    """Return the heading of figures and descriptions, which calls a generated corpus SYNTHETIC."""
    of = f", fold {fold} of {folds}" if folds > 1 else ""
    return f"{model} on {corpus}{' (SYNTHETIC speech)' if synthetic else ''}: split {protocol}{of}"


def headline(scores: Mapping[str, float]) -> str:
    """Return the figures at the top of a run's page: "UAR 0.306 · accuracy 0.306 · … · 72 rows"."""
    of_levels = [name for name, entry in METRICS.items() if entry.of_levels]
    shown = ("uar", *of_levels, "accuracy", "macro_f1", "log_loss", "ece")
    parts = [f"{METRICS[name].title} {scores[name]:.3f}" for name in shown if name in scores]
    return " · ".join([*parts, f"{scores['rows']:,.0f} rows"])


def tags(cfg: Config, corpus: Corpus, split: Split, key: str, groups: Sequence[str]) -> dict[str, str]:
    """Return the tags by which runs are found and grouped. They name no host, no user and no path."""
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
        **source_tags(),
    }


def source_tags() -> dict[str, str]:
    """Return the tags of the code: `commit`, `dirty`, and MLflow's own names for them without the machine's folders."""
    version = code_version()
    git = {"mlflow.source.git.commit": version["commit"]} if version["commit"] != UNKNOWN else {}
    program = Path(sys.argv[0]).name or "python"
    return version | {"mlflow.source.type": "LOCAL", "mlflow.source.name": program} | git


def code_version(root: Path = PROJECT_ROOT) -> dict[str, str]:
    """Return the `commit` (40 hexadecimal digits) of the code and whether it is `dirty` ("true" or "false").

    Both are "unknown" without git, without a checkout, or if `root` is not the top folder of its checkout.
    """
    top = _git(root, "rev-parse", "--show-toplevel")
    # An installed package may lie in a checkout of another project, whose commit does not describe it.
    if top is None or Path(top).resolve() != root.resolve():
        return {"commit": UNKNOWN, "dirty": UNKNOWN}
    head = _git(root, "rev-parse", "HEAD")
    changed = _git(root, "status", "--porcelain", "--", *(name for name in CODE if (root / name).exists()))
    return {"commit": head or UNKNOWN, "dirty": UNKNOWN if changed is None else str(bool(changed)).lower()}


def params(cfg: Config) -> dict[str, str]:
    """Return the composed configuration as one redacted parameter per leaf ("features.pitch.floor_hz")."""
    return {name: redact(_text(value)) for name, value in flattened(to_plain(cfg)).items()}


def config_yaml(cfg: Config) -> str:
    """Return the composed configuration as YAML, which `StoredRun.config` reads."""
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.create(to_plain(cfg)))


def corpus_json(corpus: Corpus) -> str:
    """Return the corpus as JSON: counts, labels, warnings, and every skipped file with the reason."""
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
    """Return the corpus and the parts of the split as MLflow data sets with name, digest, size and use."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    known = {"corpus": corpus.measured, "corpus_digest": corpus.digest, "partition": split.partition}
    where = json.dumps({"tags": known})

    def dataset_input(name: str, digest: str, profile: Mapping[str, Any], context: str) -> DatasetInput:
        dataset = Dataset(name=name, digest=digest, source_type="code", source=where, profile=json.dumps(profile))
        return DatasetInput(dataset, [InputTag("mlflow.data.context", context)])

    parts = {"training": split.train, "validation": split.val, "test": split.test}
    whole = dataset_input(
        corpus.measured, corpus.digest, {"clips": len(corpus.clips), "labels": list(corpus.labels)}, "corpus"
    )
    label = f"{corpus.measured} {split.protocol} {split.fold}/{split.folds}"
    return [whole] + [
        dataset_input(f"{label} {name}", digest_of(sorted(rows)), _profile(rows), name)
        for name, rows in parts.items()
        if rows
    ]


def _profile(rows: Sequence[Row]) -> dict[str, Any]:
    return {"rows": len(rows), "clips": len({row.clip_id for row in rows})}


def _text(value: Any) -> str:
    """Return a value as it is written in an override: null, true, 0.5."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _git(root: Path, *arguments: str) -> str | None:
    """Return the output of a git command, or None if it fails."""
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=GIT_TIMEOUT_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()

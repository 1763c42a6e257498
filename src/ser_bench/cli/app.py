"""`ser-bench`: all that is not a run. Words with an equals sign are Hydra overrides, as in run.py."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ser_bench import __version__
from ser_bench.config import compose
from ser_bench.errors import ConfigError, SerBenchError

if TYPE_CHECKING:
    from ser_bench.types import Clip

EXIT_FAILED, EXIT_LEAK, EXIT_INTERRUPTED = 2, 3, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = _parser()
    args, later = parser.parse_known_args(argv)  # argparse stops collecting words at the first flag between them
    words = next((getattr(args, name) for name in ("paths", "words", "overrides") if hasattr(args, name)), None)
    if later and (words is None or any(word.startswith("-") for word in later)):
        parser.error(f"unrecognized arguments: {' '.join(later)}")
    if words is not None:
        words += later
    command: Callable[[argparse.Namespace], int] = args.command
    try:
        status = command(args)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # whoever reads us has seen enough, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more when it ends
        return EXIT_FAILED
    except SerBenchError as error:
        print(f"error    {error}", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        print("stopped  interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ser-bench",
        description="Compare predictors of emotion in speech. Runs are started with run.py; this is everything else.",
        epilog="example: ser-bench describe model=cnn experiment=paper",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def add(name: str, function: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(command=function)
        return sub

    sub = add("describe", _describe, "layer table of a network: shapes, parameters, totals")
    sub.add_argument("overrides", nargs="*", help="Hydra overrides, e.g. model=cnn experiment=paper")

    sub = add("corpora", _corpora, "list the corpora, download one, or check a copy")
    sub.add_argument("action", choices=["list", "prepare", "verify"])
    sub.add_argument("name", nargs="?", help="corpus (prepare, verify)")
    sub.add_argument("--root", type=Path, help="folder of the copy; default: the cache folder")

    sub = add("weights", _weights, "list the pretrained weights, or fetch them ahead")
    sub.add_argument("action", choices=["list", "fetch"])
    sub.add_argument("names", nargs="*", help="weights to fetch; default: all that the default settings use")

    _add_commands_on_runs(add)

    sub = add("doctor", _doctor, "what is installed, which weights and corpora are here, and how to get the rest")
    sub.add_argument("overrides", nargs="*", help="Hydra overrides")
    return parser


def _add_commands_on_runs(add: Callable[..., argparse.ArgumentParser]) -> None:
    sub = add("compare", _compare, "stored runs side by side: verdict, table, HTML report; needs no model and no audio")
    sub.add_argument(
        "words", nargs="*", metavar="RUN",
        help="run ids (or their first letters), and Hydra overrides; without ids: the latest run of each model",
    )  # fmt: skip
    sub.add_argument("--baseline", help="model that the others are set against; default: the first")
    sub.add_argument("--parent", metavar="RUN", help="all runs of this sweep; the report is logged on it")
    sub.add_argument("--models", metavar="A,B", help="without ids: the latest run of each of these models alone")
    sub.add_argument("--experiment", help="MLflow experiment; default: that of corpus=...")
    sub.add_argument(
        "--tag", action="append", default=[], metavar="NAME=VALUE", help="only runs with this tag; repeatable"
    )
    sub.add_argument("--claimed", type=Path, metavar="YAML", help="figures that others report, shown as claimed")
    sub.add_argument("--out", type=Path, metavar="FOLDER", help="where the files go; default: outputs/compare/<time>")

    sub = add("audit", _audit, "what of a stored run's test rows was in training, and what saw the test rows")
    sub.epilog = "Exit status 3: a leak that the protocol does not announce. corpus.root=FOLDER: where its corpus is."
    sub.add_argument("words", nargs="+", metavar="RUN", help="run ids (or their first letters), and Hydra overrides")
    sub.add_argument("--json", action="store_true", help="JSON in place of text: a list, one object a run")

    sub = add("predict", _predict, "a stored run's model on new audio: label and probabilities")
    sub.add_argument("run", help="run id, or its first letters")
    sub.add_argument("paths", nargs="+", help="audio files, folders of them, and Hydra overrides")
    sub.add_argument("--json", action="store_true", help="JSON in place of a table")


def _describe(args: argparse.Namespace) -> int:
    from ser_bench import corpora
    from ser_bench.corpora import labels
    from ser_bench.predictors import layer_table

    cfg = compose(args.overrides)
    native = corpora.sheet_of(cfg.corpus.name).labels or labels.BASIC6
    print(layer_table.format_table(layer_table.layer_table(cfg, len(labels.choose(native, cfg.corpus.labels)))))
    return 0


def _corpora(args: argparse.Namespace) -> int:
    from ser_bench import corpora

    if args.action == "list":
        for name, sheet in corpora.SHEETS.items():
            kind = "SYNTHETIC, " if sheet.synthetic else ""
            size = f"{sheet.clips:,} clips, {sheet.speakers} speakers" if sheet.clips else "your own clips"
            print(f"{name:9} {sheet.title}: {kind}{size}, language {sheet.language}; {sheet.licence}")
        return 0
    if not args.name:
        raise ConfigError(f"which corpus? ser-bench corpora {args.action} NAME, one of {', '.join(corpora.SHEETS)}")
    if args.action == "prepare":
        corpora.prepare(args.name, args.root)
    inventory = corpora.verify(args.name, args.root)
    print("\n".join(inventory.lines()))
    return 0 if inventory.complete else EXIT_FAILED


def _weights(args: argparse.Namespace) -> int:
    from ser_bench import weights

    if args.action == "fetch":
        for name in args.names or weights.TABLE:
            print(f"{name:32} {weights.fetch(name)}")
        return 0
    for name, entry in weights.TABLE.items():
        found = weights.find(name)
        print(f"{name:32} {entry.licence:12} {found or 'not here: ser-bench weights fetch ' + name}")
    return 0


def _compare(args: argparse.Namespace) -> int:
    import time

    from ser_bench import comparison, tracking
    from ser_bench.comparison import paired, run_groups
    from ser_bench.comparison.claims import DEFAULT_FILE

    tags, models = dict(_tag(word) for word in args.tag), args.models.split(",") if args.models else ()
    later = [word for word in args.words if "=" in word]
    ids = [word for word in args.words if "=" not in word]
    cfg = compose(later).tracking
    if args.parent:
        parent = tracking.load_run(cfg, args.parent).run_id
        found = paired.comparisons_of_sweep(cfg, parent, args.baseline, tags)
    else:
        parent = None
        runs = run_groups.chosen(cfg, args.experiment or cfg.experiment, ids, tags, models)
        found = [paired.compare(runs, args.baseline)]
    document = comparison.Report.of("Predictors side by side", found, args.claimed or DEFAULT_FILE)
    print(comparison.all_as_text(found))
    if not document.comparisons:
        return EXIT_FAILED
    paths = comparison.write(document, args.out or Path("outputs", "compare", time.strftime("%Y-%m-%d_%H-%M-%S")))
    about = {"kind": "comparison", "corpus": document.comparisons[0].corpus}
    run_id = parent or tracking.start_parent(cfg, args.experiment or cfg.experiment, "comparison", about)
    tracking.describe_run(cfg, run_id, document.markdown())
    tracking.log_files(cfg, run_id, paths)
    if parent is None:
        tracking.end_parent(cfg, run_id, "FINISHED")
    print(f"\nreport   {paths[0]}\nrun      {run_id} in MLflow holds the same")
    return 0


def _tag(word: str) -> tuple[str, str]:
    name, equals, value = word.partition("=")
    if not equals:
        raise ConfigError(f"--tag {word!r}: write NAME=VALUE, as in --tag size=eighth")
    return name, value


def _audit(args: argparse.Namespace) -> int:
    from ser_bench.cli import audit_command

    cfg = compose([word for word in args.words if "=" in word])
    passed = audit_command.run(cfg, [word for word in args.words if "=" not in word], args.json)
    return 0 if passed else EXIT_LEAK


def _predict(args: argparse.Namespace) -> int:
    from ser_bench import predictors, stored_predictors, tracking
    from ser_bench.features.feature_store import Features
    from ser_bench.types import clean_rows

    cfg = compose([word for word in args.paths if "=" in word])
    stored = tracking.load_run(cfg.tracking, args.run)
    run_cfg = stored.config()
    run_cfg.cache_dir = cfg.cache_dir
    clips = _clips_of([Path(word) for word in args.paths if "=" not in word], run_cfg.corpus.max_duration_s)
    labels = stored.predictions().labels
    language = run_cfg.corpus.language
    combined = stored_predictors.restore(stored.members(), run_cfg, clips, language, labels, new_audio=True)
    features = Features(run_cfg, clips, language, combined)
    predictor = predictors.load(stored.artifact("predictor"), run_cfg, labels, features)
    predictions = predictor.predict(clean_rows(clips))
    rows = [
        {"file": row.clip_id, "emotion": label or "(abstained)"} | dict(zip(labels, map(float, probs), strict=True))
        for row, label, probs in zip(
            predictions.rows, predictions.predicted, predictions.probabilities.round(4), strict=True
        )
    ]
    print(json.dumps(rows, indent=1) if args.json else _table(rows))
    return 0


def _clips_of(paths: Sequence[Path], max_duration_s: float) -> dict[str, Clip]:
    """Every audio file named, or found below a folder named, as a clip whose id is its path."""
    from ser_bench import audio
    from ser_bench.corpora.catalogue import find
    from ser_bench.types import Clip

    files: list[Path] = []
    for path in paths:
        if not path.exists():
            raise ConfigError(f"{path}: no such file or folder")
        files += find(path) if path.is_dir() else [path]
    if not files:
        raise ConfigError(f"{paths[0]}: no audio file below this folder")
    clips = {}
    for path in files:
        info = audio.probe(path, max_duration_s)
        clips[str(path)] = Clip(str(path), path, "", "", duration_s=info.duration_s, digest=info.digest)
    return clips


def _table(rows: Sequence[dict[str, Any]]) -> str:
    import pandas as pd

    return pd.DataFrame(rows).to_string(index=False, float_format=lambda value: f"{value:.3f}")


def _doctor(args: argparse.Namespace) -> int:
    from ser_bench.cli import doctor

    print(doctor.report(compose(args.overrides)))
    return 0


if __name__ == "__main__":
    sys.exit(main())

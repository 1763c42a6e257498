"""The command line `ser-bench`: its commands, their options and the exit statuses.

Each command imports what it needs when it runs, so that `ser-bench --help` does not wait for PyTorch and MLflow.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ser_bench import __version__
from ser_bench.cli.command_words import CommandWithWords, parse_words, words_after_dashes
from ser_bench.closed_pipes import discard_output
from ser_bench.errors import SerBenchError

EXIT_FAILED, EXIT_LEAK, EXIT_INTERRUPTED = 2, 3, 130
EXIT_STATUSES = (
    "Exit status: 0 success; 2 an error, printed in one line; 3 a leak that the protocol does not announce (audit); "
    "130 interrupted (Ctrl-C)."
)


class ErrorReportingGroup(TyperGroup):
    """The commands of `ser-bench`. Expected errors end in one line and an exit status instead of a traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run the chosen command.

        Raises:
            typer.Exit: with status 2 after a `SerBenchError` and when the reader of standard output has closed it
                (`| head`), with status 130 after Ctrl-C.
        """
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except BrokenPipeError:
            discard_output(sys.stdout)
            raise typer.Exit(EXIT_FAILED) from None
        except SerBenchError as error:
            print(f"error    {error}", file=sys.stderr)
            raise typer.Exit(EXIT_FAILED) from None
        except KeyboardInterrupt:
            print("stopped  interrupted", file=sys.stderr)
            raise typer.Exit(EXIT_INTERRUPTED) from None


app = typer.Typer(
    cls=ErrorReportingGroup,
    help="Compare predictors of emotion in speech. Runs are started with run.py; these commands do everything else.\n\n"
    "Words with an equals sign are Hydra overrides, as in run.py. They may stand anywhere among the other words.",
    epilog=EXIT_STATUSES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich" if sys.stdout.isatty() else None,  # plain text for pipes and files
    context_settings={"help_option_names": ["-h", "--help"]},
)
corpora_app = typer.Typer(help="List the corpora, download a corpus, or check a copy of it.", no_args_is_help=True)
weights_app = typer.Typer(help="List the pretrained weights, or download them before a run.", no_args_is_help=True)
app.add_typer(corpora_app, name="corpora", epilog="Example: ser-bench corpora prepare cremad")
app.add_typer(weights_app, name="weights", epilog="Example: ser-bench weights list")

Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="OVERRIDE", help="Hydra overrides, e.g. model=cnn experiment=paper")
]
RootFolder = Annotated[
    Path | None, typer.Option(metavar="FOLDER", help="Folder of the copy; default: in the cache folder")
]
CorpusName = Annotated[
    str | None,
    typer.Argument(metavar="NAME", help="Name of the corpus; see ser-bench corpora list", show_default=False),
]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status.

    Args:
        argv: the words after the program's name; None: those of this process.
    """
    try:
        app(args=None if argv is None else list(argv), prog_name="ser-bench")
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0 if stop.code is None else EXIT_FAILED
    return 0


def _print_version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def common_options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Take the options that stand before the command."""


@app.command(epilog="Example: ser-bench describe model=cnn experiment=paper")
def describe(overrides: Overrides = None) -> None:
    """Print the layers of a network: output shapes, parameters, totals."""
    from ser_bench import corpora
    from ser_bench.config import compose
    from ser_bench.corpora import labels
    from ser_bench.predictors import layer_table

    cfg = compose(overrides or [])
    native = corpora.sheet_of(cfg.corpus.name).labels or labels.BASIC6
    print(layer_table.format_table(layer_table.layer_table(cfg, len(labels.choose(native, cfg.corpus.labels)))))


@corpora_app.command("list", epilog="Example: ser-bench corpora list")
def corpora_list() -> None:
    """List every corpus with its size, language and licence."""
    from ser_bench.cli import data_commands

    data_commands.list_corpora()


@corpora_app.command("prepare", epilog="Example: ser-bench corpora prepare cremad --root CREMA-D")
def corpora_prepare(name: CorpusName = None, root: RootFolder = None) -> None:
    """Download a corpus, then check that the copy is complete (exit status 2 if it is not)."""
    from ser_bench.cli import data_commands

    if not data_commands.prepare_corpus(name, root):
        raise typer.Exit(EXIT_FAILED)


@corpora_app.command("verify", epilog="Example: ser-bench corpora verify cremad --root CREMA-D/AudioWAV")
def corpora_verify(name: CorpusName = None, root: RootFolder = None) -> None:
    """Check a copy of a corpus against its data sheet (exit status 2 if it is not complete)."""
    from ser_bench.cli import data_commands

    if not data_commands.verify_corpus(name, root):
        raise typer.Exit(EXIT_FAILED)


@weights_app.command("list", epilog="Example: ser-bench weights list")
def weights_list() -> None:
    """List the pretrained weights: licence, and the local folder or the command that downloads them."""
    from ser_bench.cli import data_commands

    data_commands.list_weights()


@weights_app.command("fetch", epilog="Example: ser-bench weights fetch all-MiniLM-L6-v2")
def weights_fetch(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME", help="Weights to download; default: all that the default settings use"),
    ] = None,
) -> None:
    """Download pretrained weights to the cache folder."""
    from ser_bench.cli import data_commands

    data_commands.fetch_weights(names or [])


@app.command(
    cls=CommandWithWords, epilog="Example: ser-bench compare corpus=cremad --tag protocol=speaker --baseline cnn"
)
def compare(
    ctx: typer.Context,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN|OVERRIDE",
            help="Run ids (or their first letters) and Hydra overrides; without ids: the latest run of each model",
        ),
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Model that the others are compared with; default: the first")
    ] = None,
    parent: Annotated[
        str | None, typer.Option(metavar="RUN", help="Compare all runs of this sweep, and log the report on it")
    ] = None,
    models: Annotated[
        str | None, typer.Option(metavar="A,B", help="Without ids: the latest run of each of these models only")
    ] = None,
    experiment: Annotated[
        str | None, typer.Option(metavar="NAME", help="MLflow experiment; default: that of corpus=...")
    ] = None,
    tag: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Only runs with this tag; may be repeated")
    ] = None,
    claimed: Annotated[
        Path | None, typer.Option(metavar="YAML", help="Published figures, shown in the report as claimed")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Folder of the report; default: outputs/compare/<time>")
    ] = None,
) -> None:
    """Compare stored runs: verdict, table and HTML report. Needs no model and no audio."""
    from ser_bench.cli import compare_command

    selection = compare_command.Selection(
        *parse_words(words or [], words_after_dashes(ctx)),
        parent=parent,
        models=models.split(",") if models else (),
        experiment=experiment,
        tags=tag or (),
    )
    if not compare_command.run(selection, baseline, claimed, out):
        raise typer.Exit(EXIT_FAILED)


@app.command(
    cls=CommandWithWords, epilog="Example: ser-bench audit 8b9797dc corpus.root=CREMA-D/AudioWAV. " + EXIT_STATUSES
)
def audit(
    ctx: typer.Context,
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN|OVERRIDE",
            help="Run ids (or their first letters) and Hydra overrides; corpus.root=FOLDER: where the corpus is now",
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: a list with one object per run")] = False,
) -> None:
    """Check stored runs for leakage between training and test rows, and log the result."""
    from ser_bench.cli import audit_command

    if not audit_command.run(*parse_words(words, words_after_dashes(ctx)), as_json):
        raise typer.Exit(EXIT_LEAK)


@app.command(cls=CommandWithWords, epilog="Example: ser-bench predict 8b9797dc clip.wav folder/")
def predict(
    ctx: typer.Context,
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN|FILE|OVERRIDE",
            help="First a run id (or its first letters), then audio files or folders; Hydra overrides anywhere",
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table")] = False,
) -> None:
    """Apply the model of a stored run to new audio: label and probabilities of each file."""
    from ser_bench.cli import predict_command

    predict_command.run(*parse_words(words, words_after_dashes(ctx)), as_json)


@app.command(epilog="Example: ser-bench doctor")
def doctor(overrides: Overrides = None) -> None:
    """Show which packages, weights and corpora are installed, and the commands that get the missing ones."""
    from ser_bench.cli import doctor as installation
    from ser_bench.cli.terminal_tables import print_table
    from ser_bench.config import compose

    print_table(installation.COLUMNS, installation.rows(compose(overrides or [])))

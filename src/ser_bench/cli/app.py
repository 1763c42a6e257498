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
from ser_bench.errors import ConfigError, SerBenchError
from ser_bench.file_access import access_errors
from ser_bench.redaction import redact_error, redact_logs, redact_message

EXIT_UNMET, EXIT_FAILED, EXIT_LEAK, EXIT_DIFFERS, EXIT_INTERRUPTED = 1, 2, 3, 4, 130
EXIT_STATUSES = (
    "Exit status: 0 success; 1 a requirement is not met; 2 an error, which is printed in one line; 3 audit found "
    "leakage that the protocol does not have by design; 4 rerun found other predictions; 130 interrupted (Ctrl-C)."
)


class ErrorReportingGroup(TyperGroup):
    """The commands of `ser-bench`. Expected errors end in one line and an exit status instead of a traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run the chosen command.

        Raises:
            typer.Exit: with status 2 after a `SerBenchError` and when the reader of standard output has closed it
                (`| head`), with status 130 after Ctrl-C.
        """
        redact_logs()
        try:
            with access_errors():
                result = super().invoke(ctx)
                sys.stdout.flush()
                return result
        except BrokenPipeError:
            discard_output(sys.stdout)
            raise typer.Exit(EXIT_FAILED) from None
        except SerBenchError as error:
            print(f"error    {redact_message(str(error))}", file=sys.stderr)
            raise typer.Exit(EXIT_FAILED) from None
        except KeyboardInterrupt:
            print("stopped  interrupted", file=sys.stderr)
            raise typer.Exit(EXIT_INTERRUPTED) from None
        except Exception as error:
            redact_error(error)  # Python prints it with its traceback
            raise


app = typer.Typer(
    cls=ErrorReportingGroup,
    help="Compare predictors of emotion in speech.\n\n"
    "'ser-bench run' starts runs. The other commands read stored runs, corpora and pretrained weights.\n\n"
    "A word KEY=VALUE is an override: it sets one key of the configuration for this command. Overrides "
    "may stand before, between and after the other words. 'ser-bench run --help' lists the keys. No word after -- is "
    "an override or an option. A value with special characters needs quotes: 'corpus.root=\"/data/a,b\"'.",
    epilog=EXIT_STATUSES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich" if sys.stdout.isatty() else None,  # plain text for pipes and files
    context_settings={"help_option_names": ["-h", "--help"]},
)
corpora_app = typer.Typer(help="List, download or check corpora.", no_args_is_help=True)
weights_app = typer.Typer(help="List or download pretrained weights.", no_args_is_help=True)
app.add_typer(corpora_app, name="corpora", epilog="Example: ser-bench corpora prepare cremad")
app.add_typer(weights_app, name="weights", epilog="Example: ser-bench weights list")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="OVERRIDE", help="Overrides KEY=VALUE, for example model=cnn experiment=paper."),
]
RootFolder = Annotated[
    Path | None, typer.Option(metavar="FOLDER", help="Folder of the copy. Default: a folder in the cache folder.")
]
CorpusName = Annotated[
    str | None,
    typer.Argument(
        metavar="NAME", help="Name of the corpus, as 'ser-bench corpora list' shows it.", show_default=False
    ),
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


@app.command(
    add_help_option=False,  # Hydra's help lists all keys and choices
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "allow_interspersed_args": False},
)
def run(ctx: typer.Context) -> None:
    """Start one run, or a sweep of several runs (-m).

    A run trains or asks a predictor, measures it on the test rows, and stores the result. 'ser-bench run --help' lists
    all keys.
    """
    from ser_bench.hydra_program import main as start

    sys.argv = ["ser-bench run", *ctx.args]
    raise typer.Exit(start())


@app.command(cls=CommandWithWords, epilog="Example: ser-bench describe model=cnn experiment=paper")
def describe(overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Print the layers of a network.

    Each line of the table has the shape of the output and the number of parameters of one layer. The last lines have
    the totals.
    """
    from ser_bench import corpora
    from ser_bench.cli.terminal_tables import print_json
    from ser_bench.config import compose
    from ser_bench.corpora import labels
    from ser_bench.predictors import layer_table

    cfg = compose(overrides or [])
    native = corpora.sheet_of(cfg.corpus.name, cfg.corpus.root).labels or labels.BASIC6
    table = layer_table.layer_table(cfg, len(labels.choose(native, cfg.corpus.labels)))
    if as_json:
        print_json(layer_table.table_record(table))
    else:
        print(layer_table.format_table(table))


@corpora_app.command("list", epilog="Example: ser-bench corpora list")
def corpora_list(as_json: AsJson = False) -> None:
    """List every corpus.

    The table has the number of clips and speakers, the language and the licence.
    """
    from ser_bench.cli import data_commands

    data_commands.list_corpora(as_json)


@corpora_app.command("prepare", cls=CommandWithWords, epilog="Example: ser-bench corpora prepare cremad --root CREMA-D")
def corpora_prepare(name: CorpusName = None, root: RootFolder = None) -> None:
    """Download a corpus and check the copy.

    Files that are already in the folder and complete are not downloaded again. The exit status is 2 if the corpus
    cannot be downloaded or the copy is not complete.
    """
    from ser_bench.cli import data_commands

    if not data_commands.prepare_corpus(name, root):
        raise typer.Exit(EXIT_FAILED)


@corpora_app.command(
    "verify", cls=CommandWithWords, epilog="Example: ser-bench corpora verify cremad --root CREMA-D/AudioWAV"
)
def corpora_verify(name: CorpusName = None, root: RootFolder = None) -> None:
    """Check whether a copy of a corpus is complete.

    Every audio file is decoded. Its name, and its content where checksums are known, are compared with the official
    release. The exit status is 2 if files are missing, damaged, different or duplicated.
    """
    from ser_bench.cli import data_commands

    if not data_commands.verify_corpus(name, root):
        raise typer.Exit(EXIT_FAILED)


@weights_app.command("list", epilog="Example: ser-bench weights list")
def weights_list(as_json: AsJson = False) -> None:
    """List the pretrained weights.

    The table has size and licence, and the folder of the weights or the command that downloads them.
    """
    from ser_bench.cli import data_commands

    data_commands.list_weights(as_json)


@weights_app.command("fetch", cls=CommandWithWords, epilog="Example: ser-bench weights fetch all-MiniLM-L6-v2")
def weights_fetch(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME",
            help="Names of the weights, as 'ser-bench weights list' shows them. Default: all but the larger language "
            "models.",
        ),
    ] = None,
) -> None:
    """Download pretrained weights.

    They are stored in the cache folder. Runs that need these weights then work without a network. A download in several
    parts can be interrupted: the next one continues with the parts that are missing.
    """
    from ser_bench.cli import data_commands

    data_commands.fetch_weights(names or [])


@app.command(cls=CommandWithWords, epilog="Example: ser-bench runs --models cnn,cnn_text --tag protocol=speaker")
def runs(
    overrides: Overrides = None,
    models: Annotated[str | None, typer.Option(metavar="A,B", help="Only runs of these models.")] = None,
    experiment: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only runs of this MLflow experiment. Default: all experiments.")
    ] = None,
    tag: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Only runs with this tag; may be repeated.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: a list with one object per run.")] = False,
) -> None:
    """List the stored runs.

    The newest run comes first. The other commands take a run by the letters in the first column.
    """
    from ser_bench.cli import runs_command

    runs_command.list_runs(overrides or [], experiment, models.split(",") if models else (), tag or (), as_json)


@app.command(cls=CommandWithWords, epilog="Example: ser-bench show 8b9797dc")
def show(
    ctx: typer.Context,
    words: Annotated[
        list[str], typer.Argument(metavar="RUN|OVERRIDE", help="A run id (or its first letters), and Hydra overrides.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with all parameters, metrics and tags.")] = False,
) -> None:
    """Print a stored run.

    Its corpus and split, its metrics, the result of its audit, its files, and the command that repeats it.
    """
    from ser_bench.cli import runs_command

    overrides, run_id = _one_run(ctx, words)
    runs_command.show_run(overrides, run_id, as_json)


@app.command(cls=CommandWithWords, epilog="Example: ser-bench rerun 8b9797dc corpus.root=CREMA-D/AudioWAV")
def rerun(
    ctx: typer.Context,
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN|OVERRIDE",
            help="A run id (or its first letters); corpus.root=FOLDER states where the corpus is now.",
        ),
    ],
) -> None:
    """Make a stored run again, and compare the predictions.

    The new run is stored beside the old one. Exit status 4 says that a label or a probability differs in any bit.
    """
    from ser_bench.cli import runs_command

    if not runs_command.rerun(*_one_run(ctx, words)):
        raise typer.Exit(EXIT_DIFFERS)


def _one_run(ctx: typer.Context, words: Sequence[str]) -> tuple[list[str], str]:
    """Return the overrides and the one run id among the words.

    Raises:
        ConfigError: there is no run id, or more than one.
    """
    overrides, ids = parse_words(words, words_after_dashes(ctx))
    if len(ids) != 1:
        raise ConfigError(f"name one run, not {len(ids)}; ser-bench runs lists them")
    return overrides, ids[0]


@app.command(
    cls=CommandWithWords, epilog="Example: ser-bench compare corpus=cremad --tag protocol=speaker --baseline cnn"
)
def compare(
    ctx: typer.Context,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN|OVERRIDE",
            help="RUN: id of a run, or its first letters. Without RUN, the latest run of each model is compared, on "
            "the corpus and the split of the latest run. OVERRIDE: KEY=VALUE; corpus=NAME chooses the corpus.",
        ),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Compare the other models with this one. Default: the one that ran first."),
    ] = None,
    parent: Annotated[
        str | None,
        typer.Option(
            metavar="RUN",
            help="Compare all runs of this sweep, and store the report with it in MLflow. RUN: id of the sweep.",
        ),
    ] = None,
    models: Annotated[
        str | None,
        typer.Option(
            metavar="A,B", help="Compare only these models (names, separated by commas). Has no effect with RUN."
        ),
    ] = None,
    experiment: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Search the runs in this MLflow experiment. Default: that of corpus=NAME, or else of the latest run.",
        ),
    ] = None,
    tag: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="Compare only runs with this MLflow tag, for example protocol=speaker. Can be repeated.",
        ),
    ] = None,
    claimed: Annotated[
        Path | None,
        typer.Option(
            metavar="YAML",
            help="File with figures of publications, which the report shows as claimed. Default: conf/claimed.yaml.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Write the report to this folder. Default: a new folder in outputs/compare/."
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the content of comparison.json instead of the table.")
    ] = False,
) -> None:
    """Compare the predictions of stored runs.

    The command prints a verdict and a table, writes a report (HTML, Markdown and JSON) and stores it in MLflow. It uses
    the stored predictions, so it does not load the models. Audio is used only for the players in the report.
    """
    from ser_bench.cli import compare_command

    selection = compare_command.Selection(
        *parse_words(words or [], words_after_dashes(ctx)),
        parent=parent,
        models=models.split(",") if models else (),
        experiment=experiment,
        tags=tag or (),
    )
    if not compare_command.run(selection, baseline, claimed, out, as_json):
        raise typer.Exit(EXIT_FAILED)


@app.command(
    cls=CommandWithWords,
    epilog="Example: ser-bench require 8b9797dc 'test/uar_low>=.70' leak=none 'gap/sex<=.05'\n\n" + EXIT_STATUSES,
)
def require(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN|REQUIREMENT|OVERRIDE",
            help="RUN: id of a run or of a sweep, or its first letters; several runs are the folds and seeds of one "
            "configuration. REQUIREMENT: a metric of the run, a sign (>= <= > < =) and a number, or leak=none, "
            "leak=announced, 'gap/sex<=NUMBER' (difference of UAR). The shell needs quotes around < and >. OVERRIDE: "
            "KEY=VALUE, for example tracking.dir=FOLDER.",
        ),
    ],
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="Check only the runs of this model, of a sweep with several.")
    ] = None,
    audit_again: Annotated[
        bool, typer.Option("--audit", help="Audit the runs now. Default: only runs without a stored audit.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check whether a stored run meets requirements.

    The command prints every requirement with the actual figure. The exit status is 0 if all are met and 1 if not. Folds
    of a cross-validation are pooled, and seeds are averaged.
    """
    from ser_bench.cli import require_command

    if not require_command.run(words, model, audit_again, as_json):
        raise typer.Exit(EXIT_UNMET)


@app.command(
    cls=CommandWithWords, epilog="Example: ser-bench audit 8b9797dc corpus.root=CREMA-D/AudioWAV\n\n" + EXIT_STATUSES
)
def audit(
    ctx: typer.Context,
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN|OVERRIDE",
            help="RUN: id of a run, or its first letters. Several runs are checked one after the other. OVERRIDE: "
            "KEY=VALUE, for example corpus.root=FOLDER if the corpus is not where it was at the time of the run.",
        ),
    ],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON, a list with one object per run, instead of text.")
    ] = False,
) -> None:
    """Check stored runs for data leakage.

    Leakage means that test data have influenced the predictor, for example because a speaker is in the training and in
    the test rows. The command prints what it found, what it checked and what it could not check, and stores the result
    with the run in MLflow.
    """
    from ser_bench.cli import audit_command

    if not audit_command.run(*parse_words(words, words_after_dashes(ctx)), as_json):
        raise typer.Exit(EXIT_LEAK)


@app.command(cls=CommandWithWords, epilog="Example: ser-bench serve 8b9797dc 5d8b6821 --port 8000")
def serve(
    ctx: typer.Context,
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN|OVERRIDE",
            help="RUN: id of a run, or its first letters; the first one answers where a request names none. OVERRIDE: "
            "KEY=VALUE, for example device=cpu.",
        ),
    ],
    host: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS",
            help="Address; one that other machines reach needs a token. Default: 127.0.0.1.",
            show_default=False,
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(metavar="PORT", help="Port; 0 is any that is free. Default: 8000.", show_default=False)
    ] = 8000,
    token_env: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="Name of the environment variable with the token of the clients.", show_default=False
        ),
    ] = "",
    allow_host: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Further name by which clients may call the server.")
    ] = None,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(metavar="ORIGIN", help="Site whose pages may ask, for example https://example.org (CORS)."),
    ] = None,
    max_mb: Annotated[
        int, typer.Option(metavar="MIB", help="Largest request. Default: 16.", show_default=False)
    ] = 16,
    max_seconds: Annotated[
        float, typer.Option(metavar="SECONDS", help="Longest clip. Default: that of the run.", show_default=False)
    ] = 0.0,
    deadline: Annotated[
        float,
        typer.Option(metavar="SECONDS", help="Longest time from request to answer. Default: 30.", show_default=False),
    ] = 30.0,
    body_timeout: Annotated[
        float,
        typer.Option(metavar="SECONDS", help="Time in which a request must arrive. Default: 20.", show_default=False),
    ] = 20.0,
    queue: Annotated[
        int,
        typer.Option(metavar="N", help="Requests that may wait; others get 503. Default: 128.", show_default=False),
    ] = 128,
    batch: Annotated[
        int, typer.Option(metavar="N", help="Clips that are predicted together. Default: 16.", show_default=False)
    ] = 16,
    streams: Annotated[
        int, typer.Option(metavar="N", help="Streams at the same time. Default: 4.", show_default=False)
    ] = 4,
) -> None:
    """Serve trained runs over HTTP.

    Clients send audio and receive label and probabilities. /docs on the server describes the requests. Nothing of the
    audio is stored or logged.
    """
    from ser_bench.cli import serve_command

    serve_command.run(
        *parse_words(words, words_after_dashes(ctx)),
        serve_command.ServeOptions(
            host=host,
            port=port,
            token_env=token_env,
            allow_hosts=allow_host or (),
            allow_origins=allow_origin or (),
            max_mb=max_mb,
            max_seconds=max_seconds,
            deadline_s=deadline,
            body_timeout_s=body_timeout,
            queue=queue,
            batch=batch,
            streams=streams,
        ),
    )


@app.command(
    cls=CommandWithWords,
    epilog="Example: ser-bench predict 8b9797dc clip.wav folder/; or "
    "ser-bench predict 8b9797dc meeting.wav --window 3 --hop 1 --plot meeting.png",
)
def predict(
    ctx: typer.Context,
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN|FILE|OVERRIDE",
            help="First RUN: id of a run, or its first letters. Then FILE: audio files, folders with audio files, or - "
            "for audio on standard input. OVERRIDE: KEY=VALUE, for example on_bad_clip=skip if files that cannot be "
            "used are no error.",
        ),
    ],
    form: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="table, csv, json or jsonl (one object per line); with --window also audacity (a label track). "
            "Default: that of --out, or else a table.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Append each row to this .csv or .jsonl file at once; the same command continues it. With --window "
            "it gets the timeline.",
        ),
    ] = None,
    listed: Annotated[
        list[str] | None,
        typer.Option(
            "--list",
            metavar="FILE",
            help="Predict what this file names: a CSV table with a column path or file, whose other columns are kept; "
            "or one path per line. - is standard input. Can be repeated.",
        ),
    ] = None,
    window: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS", help="Make the timeline of one recording of any length, in windows of so many seconds."
        ),
    ] = None,
    hop: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="Distance between windows. Default: a third of the window."),
    ] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE.png", help="Draw the timeline.")] = None,
) -> None:
    """Predict the emotion in new recordings, or along a long one.

    The model of a stored run is used. The table has the predicted label of each file, and the probability of every
    label. A file that cannot be used is a row with its reason; the exit status is then 2 in the end.
    """
    from ser_bench.cli import predict_command

    if as_json and form not in (None, "json"):
        raise ConfigError(f"--json and --format {form} contradict each other")
    options = predict_command.PredictOptions("json" if as_json else form, out, listed or (), window, hop, plot)
    predict_command.run(*parse_words(words, words_after_dashes(ctx)), options)


@app.command(
    cls=CommandWithWords,
    epilog="Example: ser-bench listen 8b9797dc; or ser-bench listen 8b9797dc --from-file talk.wav",
)
def listen(
    ctx: typer.Context,
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN|OVERRIDE",
            help="RUN: id of a run, or its first letters. OVERRIDE: KEY=VALUE, for example device=cpu.",
        ),
    ],
    from_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Play this file in real time instead of the microphone.")
    ] = None,
    speed: Annotated[
        float, typer.Option(metavar="FACTOR", help="Play the file so many times faster.", show_default=False)
    ] = 1.0,
    device: Annotated[
        str | None, typer.Option(metavar="NAME", help="Microphone: its number, or a part of its name.")
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="End after so many seconds of audio. Default: Ctrl-C ends.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per answer.")] = False,
) -> None:
    """Answer while somebody speaks into the microphone.

    The first answer comes within a second after speech begins, and then one every half a second. Each is about the last
    3 seconds at most. Audio that cannot be processed in time is dropped and counted. Nothing is stored.
    """
    from ser_bench.cli import listen_command

    options = listen_command.ListenOptions(from_file, speed, device, as_json, seconds)
    listen_command.run(*parse_words(words, words_after_dashes(ctx)), options)


@app.command("app", cls=CommandWithWords, epilog="Example: ser-bench app 8b9797dc 5d8b6821")
def app_page(
    ctx: typer.Context,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN|OVERRIDE",
            help="RUN: id of a run, or its first letters; several runs answer side by side. Without RUN, the page "
            "offers to train a predictor on the demo corpus. OVERRIDE: KEY=VALUE.",
        ),
    ] = None,
    port: Annotated[int, typer.Option(metavar="PORT", help="Port of the page; 0 chooses a free one.")] = 7860,
) -> None:
    """Open a page to try predictors on your own voice.

    The page is served on this computer only (127.0.0.1), and needs no network. Nothing recorded is kept.
    """
    from ser_bench.cli import app_command

    app_command.run(*parse_words(words or [], words_after_dashes(ctx)), port)


@app.command(cls=CommandWithWords, epilog="Example: ser-bench export 8b9797dc --onnx --int8")
def export(
    ctx: typer.Context,
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN|OVERRIDE",
            help="RUN: id of a run of whisper_probe or of a network, or its first letters. OVERRIDE: KEY=VALUE, for "
            "example corpus.root=FOLDER for --score.",
        ),
    ],
    onnx: Annotated[bool, typer.Option("--onnx", help="Write ONNX, which onnxruntime runs without PyTorch.")] = False,
    int8: Annotated[
        bool, typer.Option("--int8", help="whisper_probe: write a second file, whose encoder computes in 8 bits.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="A new folder. Default: onnx_ and the first letters of RUN.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(metavar="N", help="Threads while times are measured. Default: all cores.")
    ] = None,
    score: Annotated[
        bool, typer.Option("--score", help="whisper_probe: predict the test rows of the run with each file.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Export the predictor of a stored run.

    The folder has the model, its description (model.json) and a README with code that runs it. The model is compared
    with the predictor before. The table has size, largest difference, and the time for a clip of 3 s.
    """
    from ser_bench.cli import export_command

    export_command.run(*_one_run(ctx, words), onnx, int8, out, threads, score, as_json)


@app.command(cls=CommandWithWords, epilog="Example: ser-bench register 8b9797dc emotion --alias champion")
def register(
    ctx: typer.Context,
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN|NAME|OVERRIDE",
            help="RUN: id of a run, or its first letters. NAME: of the registered model. OVERRIDE: KEY=VALUE.",
        ),
    ],
    alias: Annotated[
        str | None, typer.Option(metavar="NAME", help="Let this alias name the version, and no other version.")
    ] = None,
) -> None:
    """Register a stored run under a name.

    The predictor becomes a version of this model in MLflow's registry. Where a command takes RUN, models:/NAME@ALIAS or
    models:/NAME/VERSION then stands for this run.
    """
    from ser_bench.cli import register_command

    register_command.run(*parse_words(words, words_after_dashes(ctx)), alias)


CorpusOption = Annotated[
    str | None, typer.Option("--corpus", metavar="NAME", help="The corpus; short for the override corpus=NAME.")
]
SplitOption = Annotated[
    str | None,
    typer.Option("--split", metavar="PROTOCOL", help="The protocol; short for split=PROTOCOL. Default: speaker."),
]
FoldOption = Annotated[
    str | None, typer.Option("--fold", metavar="N|all", help="The fold, from 0 (split.fold), or all folds. Default: 0.")
]


@app.command(
    "import",
    cls=CommandWithWords,
    epilog="Example: ser-bench import predictions.csv --corpus cremad --split speaker --name mymodel",
)
def import_predictions(
    ctx: typer.Context,
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE|OVERRIDE",
            help="FILE: predictions as .csv, .tsv, .txt, .parquet, .json or .jsonl. OVERRIDE: KEY=VALUE, for example "
            "corpus.root=FOLDER.",
        ),
    ],
    name: Annotated[str, typer.Option(metavar="MODEL", help="Name of the model in tables and reports.")],
    corpus: CorpusOption = None,
    split: SplitOption = None,
    fold: FoldOption = None,
    id_column: Annotated[
        str,
        typer.Option(metavar="COLUMN", help="Column that names the clip. Default: clip_id, file …", show_default=False),
    ] = "",
    label_column: Annotated[
        str, typer.Option(metavar="COLUMN", help="Column of the label. Default: predicted, label …", show_default=False)
    ] = "",
    truth_column: Annotated[
        str,
        typer.Option(
            metavar="COLUMN",
            help="Column of the true label, which must be that of the corpus. Default: truth or emotion.",
            show_default=False,
        ),
    ] = "",
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Count test clips without a prediction as abstentions, so as wrong.")
    ] = False,
) -> None:
    """Store the predictions of a model of your own as a run.

    The file has one line per test clip: its id, and a label or one probability column per label. It is checked against
    corpus and split. The run is compared, audited and reported like any other. There is no model to predict new audio
    with, and the audit says that the training is not known.
    """
    from ser_bench.cli import import_command

    options = import_command.ImportOptions(
        name, corpus, split, fold, id_column, label_column, truth_column, allow_missing
    )
    import_command.run(*parse_words(words, words_after_dashes(ctx)), options)


@app.command(
    "export-split",
    cls=CommandWithWords,
    epilog="Example: ser-bench export-split --corpus cremad --split speaker --fold 0 --out cremad_fold_0",
)
def export_split(
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="A new folder for the lists.")],
    overrides: Overrides = None,
    corpus: CorpusOption = None,
    split: SplitOption = None,
    fold: FoldOption = None,
    audformat: Annotated[
        bool, typer.Option("--audformat", help="Write audformat tables too; needs the extra audformat.")
    ] = False,
) -> None:
    """Write the lists of clips of a split.

    With them a model can be trained elsewhere under the same protocol. The folder has train.csv, val.csv and test.csv
    with clip_id, path (relative to the corpus), emotion, speaker and part, and split.json with the digest of the split.
    """
    from ser_bench.cli import export_split_command

    export_split_command.run(
        overrides or [], export_split_command.ExportOptions(out, corpus, split, fold, audformat)
    )


@app.command(cls=CommandWithWords, epilog="Example: ser-bench doctor")
def doctor(overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Show what is installed.

    The table lists packages, pretrained weights, corpora, the API key (set or not set) and folders. For what is missing
    it gives the command that installs or downloads it.
    """
    from ser_bench.cli import doctor as installation
    from ser_bench.cli.terminal_tables import print_json, print_table
    from ser_bench.config import compose

    rows = installation.rows(compose(overrides or []))
    if as_json:
        print_json([dict(zip(installation.COLUMNS, row, strict=True)) for row in rows])
    else:
        print_table(installation.COLUMNS, rows)

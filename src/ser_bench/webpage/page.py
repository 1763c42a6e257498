"""The layout of the page in Gradio, and what happens when a button is pressed or a recording ends."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from ser_bench import extras
from ser_bench.corpora.sheets import cremad
from ser_bench.errors import SerBenchError
from ser_bench.inference.timeline import MIN_WINDOW_S
from ser_bench.redaction import redact_message
from ser_bench.webpage import page_answers, quick_training
from ser_bench.webpage.page_answers import HOP_S, WINDOW_S, LoadedRuns
from ser_bench.webpage.page_figures import error_html, note_html

if TYPE_CHECKING:
    from gradio import Blocks

COMMAND = "ser-bench app"
TITLE = "Emotion in speech"
CACHE_SWEEP_S, CACHE_AGE_S = 60, 900
"""How often recordings are looked for that are to be deleted, and from which age they are, seconds."""
SENTENCES = tuple(cremad.SENTENCES.values())[:5]
"""What a speaker reads for enrolment: any words do, as no predictor that adapts reads them."""
CAUTION = (
    "A label is what a model of acted speech says about a recording. It does not say what somebody feels. Recordings "
    "stay on this computer and are deleted when this program ends."
)
LOG_LINES = 12
ON_LOAD = """() => {
  document.documentElement.lang = "en";
  for (const id of ["answers", "timeline"])
    document.getElementById(id)?.setAttribute("aria-live", "polite");
}"""


def build_page(runs: LoadedRuns, overrides: Sequence[str] = ()) -> Blocks:
    """Return the page.

    Args:
        runs: what the page asks; empty: the page offers to train a predictor first.
        overrides: of a run that the page trains, for example its store.

    Raises:
        ConfigError: Gradio is not installed.
    """
    extras.require("gradio", COMMAND)
    import gradio as gr

    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(CACHE_SWEEP_S, CACHE_AGE_S)) as page:
        gr.HTML(f"<h1>{TITLE}</h1><p>{CAUTION}</p>")
        with gr.Tabs():
            with gr.Tab("Try it"):
                with gr.Column(visible=not len(runs)) as training_box:
                    gr.HTML(_training_offer())
                    train = gr.Button("Train a predictor on the demo corpus", variant="primary", elem_id="train")
                training_log = gr.HTML(elem_id="training", visible=not len(runs))
                with gr.Column(visible=bool(len(runs))) as asking_box:
                    recording = gr.Audio(
                        sources=["microphone", "upload"], type="filepath", label="Your recording", elem_id="recording",
                        editable=False, buttons=[],
                    )  # fmt: skip
                    predict = gr.Button("Predict", variant="primary", elem_id="predict")
                    answers = gr.HTML(elem_id="answers")
                    timeline = gr.HTML(elem_id="timeline")
                    with gr.Accordion("Timeline of a long recording", open=False):
                        gr.HTML(
                            f"<p>Recordings from {page_answers.TIMELINE_FROM_S:g} s have a timeline. Press Predict "
                            f"after a change. The longest recording: {page_answers.MAX_DURATION_S / 60:g} minutes.</p>"
                        )
                        window = gr.Number(WINDOW_S, label="Window (s)", minimum=MIN_WINDOW_S)
                        hop = gr.Number(HOP_S, label="Hop: from one window to the next (s)",
                                        minimum=page_answers.MIN_HOP_S)  # fmt: skip
                    with gr.Accordion("Adapt to your voice", open=False, visible=runs.adapt) as enrolment_box:
                        prompt = gr.HTML(_prompt([]), elem_id="enrolment")
                        sentence = gr.Audio(
                            sources=["microphone", "upload"], type="filepath", label="One sentence",
                            elem_id="sentence", editable=False, buttons=[],
                        )  # fmt: skip
                        adapt = gr.Button("Adapt, and predict again", elem_id="adapt")
                        forget = gr.Button("Start again", elem_id="forget")
            with gr.Tab("Last comparison") as report_tab:
                report = gr.HTML(elem_id="report")
        speaker, read = gr.State(""), gr.State([])

        def answer(path: str | None, known: str, window_s: float, hop_s: float,
                   progress: Any = gr.Progress()) -> tuple[str, str]:  # fmt: skip  # noqa: B008
            try:
                clip = page_answers.read_recording(path, known)
                progress(0.1, desc="features and predictions")
                fits = [run for run in runs if clip.duration_s <= run.predictor.max_duration_s]
                first = page_answers.answers_html(runs, clip, bool(known)) if fits else page_answers.pitch_html(clip)
                return first, page_answers.timelines_html(
                    runs, clip, window_s, hop_s, lambda share, what: progress(share, desc=what)
                )
            except SerBenchError as error:
                return error_html(redact_message(str(error))), ""

        def keep_sentence(path: str | None, paths: list[str]) -> tuple[list[str], str, None]:
            paths = [*paths, path] if path else paths
            return paths, _prompt(paths), None

        def adapt_to(paths: list[str]) -> tuple[str, str]:
            name = f"speaker {uuid.uuid4().hex}"
            try:
                count = page_answers.enrol(runs, paths, name)
            except SerBenchError as error:
                return "", error_html(redact_message(str(error))) + _prompt(paths)
            done = f"Adapted to {len(paths)} of your recordings: {count} of {len(runs)} predictors."
            return name, note_html(done) + _prompt(paths)

        def shown_boxes() -> tuple[Any, Any, Any]:
            """Offer the training only while no run is loaded: the page may be opened again after it."""
            return gr.update(visible=not len(runs)), gr.update(visible=bool(len(runs))), gr.update(visible=runs.adapt)

        def train_one() -> Iterator[tuple[str, Any, Any, Any]]:
            hidden, shown, same = gr.update(visible=False), gr.update(visible=True), gr.update()
            lines: list[str] = []
            try:
                model = quick_training.choose_model()
                training = quick_training.QuickTraining(quick_training.training_words(model, overrides))
                for line in training.lines():
                    lines += [line] if line else []
                    yield _training_progress(model, lines), hidden, same, same
                runs.load(training.run_id)
            except SerBenchError as error:
                yield error_html(redact_message(str(error))), shown, same, same
                return
            done = f"{model} is trained on the SYNTHETIC demo corpus. Record something below."
            yield note_html(done), hidden, shown, gr.update(visible=runs.adapt)

        asked: dict[str, Any] = {
            "fn": answer,
            "inputs": [recording, speaker, window, hop],
            "outputs": [answers, timeline],
            "show_progress_on": [answers],
            "api_visibility": "private",
        }
        for event in (recording.stop_recording, recording.upload, predict.click):
            event(**asked)
        recording.clear(lambda: ("", ""), None, [answers, timeline], api_visibility="private")
        for event in (sentence.stop_recording, sentence.upload):
            event(keep_sentence, [sentence, read], [read, prompt, sentence], api_visibility="private")
        adapt.click(adapt_to, [read], [speaker, prompt], api_visibility="private").then(**asked)
        forget.click(lambda: ([], "", _prompt([])), None, [read, speaker, prompt], api_visibility="private").then(
            **asked
        )
        train.click(train_one, None, [training_log, training_box, asking_box, enrolment_box], api_visibility="private")
        report_tab.select(lambda: page_answers.report_page(runs), None, report, api_visibility="private")
        page.load(lambda: None, None, None, js=ON_LOAD, api_visibility="private")
        page.load(shown_boxes, None, [training_box, asking_box, enrolment_box], api_visibility="private")
    blocks: Blocks = page
    return blocks


def _prompt(paths: Sequence[str]) -> str:
    """Return the sentences to read, with those that were read marked."""
    items = "".join(
        f"<li>{'✓ ' if i < len(paths) else ''}{escape(sentence)}</li>" for i, sentence in enumerate(SENTENCES)
    )
    count = len(paths)
    following = f"Sentence {count + 1} of {len(SENTENCES)} is next." if count < len(SENTENCES) else "All were read."
    return (
        "<p>Read these five sentences in the way you usually speak, one recording each. Any other words do as well. "
        "The predictors that were trained with adapt=speaker_stats then measure your voice against itself.</p>"
        f"<ol>{items}</ol><p>{count} recorded. {following}</p>"
    )


def _training_offer() -> str:
    """Return what is trained if there is no run, and how to load one."""
    model = quick_training.choose_model()
    return note_html(
        f"No run is loaded. ser-bench app RUN loads one; ser-bench runs lists them. Or train {model} now on the demo "
        "corpus, which takes a minute or more. It is SYNTHETIC speech: its answers about a human voice mean little."
    )


def _training_progress(model: str, lines: Sequence[str]) -> str:
    """Return the last lines of the log of a training."""
    shown = "\n".join(lines[-LOG_LINES:])
    heading = f"<p><strong>Training {escape(model)} on SYNTHETIC speech …</strong></p>"
    return f'{heading}<pre class="ser-log">{escape(shown)}</pre>'

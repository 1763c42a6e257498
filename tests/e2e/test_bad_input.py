"""What a user gets wrong ends in one line that says what is wrong and what to do next; never in a traceback."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from ser_bench import corpora
from ser_bench.config import compose
from tests.support.bench import FEWER_CLIPS, ROOT, Bench


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("corpus=cremad", "corpus.root=/nowhere"), "/nowhere"),
        (("split.folds=40",), "12 speakers cannot be split into 40 folds"),
        (("model=resnet",), "cnn_text"),
        (("model.widht=3",), "model.widht"),
        (("trainer.max_epochs=many",), "max_epochs"),
        (("model=llm", "llm=gpt4o"), "llm=local"),
    ],
)
def test_one_clear_line(fresh: Bench, words: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    process = fresh.start(*words)
    output, _ = process.communicate(timeout=300)
    assert process.returncode not in (0, None), output
    assert said in output and "Traceback" not in output, output


def test_a_tracking_server_that_is_down_fails_before_training(fresh: Bench) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{unused.getsockname()[1]}"
    output = fresh.run(f"tracking.uri={uri}", "tracking.timeout_s=3", status=2)
    assert uri in output and "Traceback" not in output and "epoch" not in output.split("note")[0]


def test_own_clips_from_a_table(fresh: Bench, cache: Path) -> None:
    """`corpus=table`: a CSV of one's own, with one clip that cannot be read."""
    demo = corpora.load(compose([FEWER_CLIPS, f"cache_dir={cache}"]))
    lines = ["path,emotion,speaker,sentence"]
    lines += [f"{clip.path},{clip.emotion},{clip.speaker},{clip.sentence}" for clip in demo.clips]
    broken = fresh.folder / "broken.wav"
    broken.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
    lines.append(f"{broken},angry,9001,IEO")
    table = fresh.folder / "my_clips.csv"
    table.write_text("\n".join(lines))
    words = ("corpus=table", f"corpus.root={table}", "model=cnn", "trainer=debug", "corpus.folds=2")
    said = fresh.run(*words, status=2)
    assert "broken.wav" in said and "LFS" in said and "Traceback" not in said
    said = fresh.run(*words, "on_bad_clip=skip")
    assert "broken" in said and "UAR" in said


def test_who_reads_the_first_line_only_gets_no_traceback() -> None:
    command = f"{sys.executable} -m ser_bench.cli corpora list | head -n 1"
    found = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert found.stdout.strip() and "Traceback" not in found.stderr and "BrokenPipe" not in found.stderr

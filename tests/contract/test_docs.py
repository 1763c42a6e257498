"""What the documentation states is true: its files, links and configuration keys exist, and repeated numbers agree.

The pages are README.md, experiments/README.md and everything below docs/. File names are also checked in the docstrings
of src/.
"""

from __future__ import annotations

import ast
import json
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from ser_bench import config, predictors
from ser_bench.config import Config, leaves

ROOT = Path(__file__).resolve().parents[2]
SRC = ROOT / "src" / "ser_bench"
RESULTS = ROOT / "experiments" / "README.md"
PAGES = [ROOT / "README.md", RESULTS, *sorted((ROOT / "docs").rglob("*.md"))]
MODULES = sorted(SRC.rglob("*.py"))

TOP_FOLDERS = ("src", "tests", "docs", "conf", "experiments", "benchmarks")
REQUIREMENTS = {"leak=none"}
"""Words of `ser-bench require` that look like overrides."""
TO_BE_ADDED = {
    "src/ser_bench/predictors/centroid/__init__.py",
    "conf/model/centroid.yaml",
    "docs/centroid.md",
    "model=centroid",
    "src/ser_bench/corpora/sheets/toy.py",
    "conf/corpus/toy.yaml",
    "corpus=toy",
    "experiment=mine",
}
"""Files and choices of the examples in docs/adding.md, docs/corpora.md and docs/tutorials, which a reader adds."""
PLACEHOLDER = re.compile(r"NAME|<\w+>|…|\.\.\.")

NAMED_FILE = re.compile(r"(?<![\w/.<>-])(?:[\w.*<>-]+/)*[\w*<>-]+\.(?:py|md|yaml)(?![\w/(])")
"""In inline code: a Python module, page or YAML file."""
PROJECT_PATH = re.compile(rf"(?<![\w/.-])(?:{'|'.join(TOP_FOLDERS)})/[\w./*<>-]*[\w/*>]")
"""Anywhere: a path that starts with a folder of the project."""
FIGURE = re.compile(r"(?<![\d.])\.\d{3}(?!\d)")
"""A UAR or another share with three digits."""


# ---------------------------------------------------------------------------------------------------------------------
# Reading Markdown and docstrings


def without_code_blocks(text: str) -> str:
    text = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    return "\n".join(line for line in text.splitlines() if not line.startswith("    "))


def code_blocks(text: str) -> str:
    fenced = re.findall(r"^```\w*\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    indented = [line.removeprefix("    ") for line in text.splitlines() if line.startswith("    ")]
    return "\n".join([*fenced, *indented]).replace("\\\n", " ")


def inline_code(text: str) -> list[str]:
    spans = re.findall(r"`([^`]+)`", without_code_blocks(text))
    return [" ".join(span.split()).replace("\\|", "|") for span in spans]


def sections(text: str) -> dict[str, str]:
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def paragraphs(text: str) -> list[str]:
    """Return the paragraphs, each row of a table by itself, with single spaces."""
    blocks = re.split(r"\n\s*\n|\n(?=\|)", text)
    return [" ".join(block.split()) for block in blocks]


def tables(text: str) -> Iterator[list[list[str]]]:
    """Yield each table as its rows of cells; the first row is the header."""
    for block in re.findall(r"(?:^\|.*\n?)+", text, flags=re.MULTILINE):
        rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip())[1:-1]] for line in block.splitlines()]
        yield [row for row in rows if not set("".join(row)) <= set("|- ")]


def docstrings(path: Path) -> str:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return "\n\n".join(
        node.value.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    )


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


# ---------------------------------------------------------------------------------------------------------------------
# Files and links


@cache
def file_paths() -> tuple[str, ...]:
    return tuple(f"/{relative(path)}" for folder in TOP_FOLDERS for path in (ROOT / folder).rglob("*.*"))


def exists(name: str, near: Path) -> bool:
    """Return whether a file or folder exists: from the root, from src/, from the package, or near the text.

    The name may also be the end of a path (`sheets/cremad.py`), because module names are unique.
    """
    if name in TO_BE_ADDED or PLACEHOLDER.search(name):
        return True
    starts = [ROOT, ROOT / "src", SRC, near]
    if "*" in name:
        return any(any(start.glob(name)) for start in starts)
    return any((start / name).exists() for start in starts) or any(path.endswith(f"/{name}") for path in file_paths())


def named_files(text: str) -> set[str]:
    in_code = {name for span in inline_code(text) for name in NAMED_FILE.findall(span)}
    packages = {path.name for path in SRC.iterdir() if path.is_dir()}
    folders = {
        span for span in inline_code(text) if re.fullmatch(r"(?:[\w.-]+/)+", span) and span.split("/")[0] in packages
    }
    return in_code | folders | set(PROJECT_PATH.findall(text))


def missing_files(text: str, near: Path) -> set[str]:
    return {name for name in named_files(text) if not exists(name, near)}


def slug(heading: str) -> str:
    """Return the anchor that GitHub gives to a heading."""
    words = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
    return re.sub(r"[^\w\- ]", "", words).strip().replace(" ", "-")


def broken_links(text: str, page: Path) -> set[str]:
    broken = set()
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code_blocks(text)):
        name, _, anchor = target.partition("#")
        if target.startswith(("http://", "https://")) or name in TO_BE_ADDED:
            continue
        path = page.parent / name if name else page
        content = (
            text
            if path == page
            else path.read_text(encoding="utf-8")
            if path.suffix == ".md" and path.is_file()
            else ""
        )
        headings = re.findall(r"^#+ (.+)$", content, flags=re.MULTILINE)
        if not path.exists() or (anchor and anchor not in map(slug, headings)):
            broken.add(target)
    return broken


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_files_that_a_page_names_exist(page: Path) -> None:
    assert not missing_files(page.read_text(encoding="utf-8"), page.parent)


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_links_of_a_page_lead_to_a_file_and_a_heading(page: Path) -> None:
    assert not broken_links(page.read_text(encoding="utf-8"), page)


def test_files_that_docstrings_name_exist() -> None:
    missing = {relative(path): missing_files(docstrings(path), path.parent) for path in MODULES}
    assert not {path: names for path, names in missing.items() if names}


def test_missing_files_and_broken_links_are_found() -> None:
    text = "See `predictors/llm/nothing.py`, docs/nothing.md, [a](metrics.md#nothing), `audio.py` and [b](metrics.md)."
    page = ROOT / "docs" / "page.md"
    assert missing_files(text, page.parent) == {"predictors/llm/nothing.py", "docs/nothing.md"}
    assert broken_links(text, page) == {"metrics.md#nothing"}


def test_every_page_is_linked() -> None:
    linked = {
        (page.parent / target.partition("#")[0]).resolve()
        for page in PAGES
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    }
    folders = [path for path in linked if path.is_dir()]
    unlinked = {relative(page) for page in PAGES[1:] if page not in linked and page.parent not in folders}
    assert not unlinked


def test_functions_that_the_page_of_the_flow_names_exist() -> None:
    page = (ROOT / "docs" / "flow.md").read_text(encoding="utf-8")
    numbered, checked = 0, 0
    for table in tables(page):
        where = table[0].index("file")
        for row in table[1:]:
            numbered += row[0].isdigit()
            files, functions = re.findall(r"`([^`]+)`", row[where]), re.findall(r"`([^`]+)`", row[where + 1])
            defined = "\n".join((SRC / name).read_text(encoding="utf-8") for name in files)
            for function in functions:
                checked += 1
                assert re.search(rf"^ *def {function.split('.')[-1]}\(", defined, flags=re.MULTILINE), function
    assert 10 <= numbered <= 15, "a clip can be followed by opening at most 15 files"
    assert checked >= 15


# ---------------------------------------------------------------------------------------------------------------------
# Configuration keys


@cache
def groups() -> frozenset[str]:
    return frozenset(path.name for path in (ROOT / "conf").iterdir() if path.is_dir()) | {"experiment"}


@cache
def keys() -> frozenset[str]:
    """Return every key, and every prefix of one ("model.log_mel")."""
    paths = [leaf.path for leaf in leaves(Config)]
    paths += [leaf.path for schema in config.model_schemas().values() for leaf in leaves(schema, "model.")]
    parts = [path.split(".") for path in paths]
    return frozenset(".".join(path[: i + 1]) for path in parts for i in range(len(path)))


def choices(group: str) -> set[str]:
    folder = ROOT / "experiments" if group == "experiment" else ROOT / "conf" / group
    return {path.stem for path in folder.glob("*.yaml")}


def wrong_override(word: str) -> bool:
    """Return whether an override names no group, choice or key."""
    name, _, value = word.lstrip("+~").partition("=")
    if name.startswith(("hydra.", "hydra/")) or word in TO_BE_ADDED | REQUIREMENTS:
        return False
    if name in groups():
        words = re.split(r"[,|]", value)
        return any(re.fullmatch(r"\w+", w) and not PLACEHOLDER.search(w) and w not in choices(name) for w in words)
    return name not in keys()


def commands(text: str) -> Iterator[list[str]]:
    """Yield the arguments of every command in a code block that takes overrides."""
    for line in code_blocks(text).splitlines():
        match = re.search(r"(?:run\.py|ser-bench(?: +\w+)?)(?= )(.*)", line)
        if match:
            yield shlex.split(match[1], comments=True)


def overrides(text: str) -> Iterator[str]:
    for words in commands(text):
        for before, word in zip(["", *words], words, strict=False):
            if re.match(r"[+~]*[\w./]+=", word) and before != "--tag":
                yield word


def wrong_keys(text: str) -> set[str]:
    """Return the overrides of commands, and the keys and overrides in inline code, that do not exist."""
    wrong = {word for word in overrides(text) if wrong_override(word)}
    files = r"(?!json|py|md|yaml|safetensors|ckpt|bin|parquet|onnx|int8\.onnx)"
    key = re.compile(rf"(?<![\w./-])(?:{'|'.join(sorted(groups()))})\.{files}\w[\w.]*(?<!\.)")
    for span in inline_code(text):
        if re.match(r"^[+~]*\w+=[\w|,]", span) and span.split("=")[0] in groups():
            wrong |= {span} if wrong_override(span.split()[0]) else set()
        in_code = re.search(r"\w\(|\bimport\b|::", span) is not None
        wrong |= {name for name in key.findall(span) if not in_code and name not in keys()}
    return wrong


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_groups_choices_and_keys_on_a_page_exist(page: Path) -> None:
    assert not wrong_keys(page.read_text(encoding="utf-8"))


def test_commands_in_the_headers_of_experiments_have_groups_choices_and_keys_that_exist() -> None:
    for path in (ROOT / "experiments").glob("*.yaml"):
        text = re.sub(r"\\\n# *", "", path.read_text(encoding="utf-8"))
        header = re.findall(r"^# command: +(.*)$", text, flags=re.MULTILINE)
        assert header
        assert not wrong_keys("\n".join(f"    {line.partition('  ')[0]}" for line in header)), path.name


def test_wrong_groups_choices_and_keys_are_found() -> None:
    text = "Use `split.fold`, `split.folly` or `model=cnn|cmm`:\n\n    python run.py corpus=cremat seeed=1 +hydra.x=1\n"
    assert wrong_keys(text) == {"split.folly", "model=cnn|cmm", "corpus=cremat", "seeed=1"}


@pytest.mark.parametrize("model", ["fusion", "ssl_probe", "text_only"])
def test_defaults_that_a_page_gives_are_those_of_the_configuration(model: str) -> None:
    page = ROOT / "docs" / ("baselines.md" if model == "text_only" else f"{model}.md")
    settings = config.to_plain(config.compose(["experiment=none", f"model={model}"]))["model"]
    plain = r"`model\.(\w+)=(null|true|false|[\d.e-]+)`"
    stated = re.findall(plain, page.read_text(encoding="utf-8"))
    assert stated
    for key, value in stated:
        if key == "finetune" and value == "true":
            continue  # a choice, not the default
        assert json.loads(value) == settings[key], f"{page.name}: model.{key}={value}"


def test_epochs_that_the_page_of_the_cnn_gives_are_those_of_the_trainers() -> None:
    row = re.search(r"^\| `trainer=(\S+)` \| (.*) \|$", (ROOT / "docs" / "cnn.md").read_text(), flags=re.MULTILINE)
    assert row
    epochs = [int(number) for number in re.findall(r"(\d+) epochs?", row[2])]
    named = row[1].replace("\\", "").split("|")
    assert epochs == [config.compose(["experiment=none", f"trainer={name}"]).trainer.max_epochs for name in named]


# ---------------------------------------------------------------------------------------------------------------------
# Numbers that several places repeat


def test_parameter_totals_are_those_of_keras() -> None:
    oracle = json.loads((ROOT / "tests" / "oracles" / "keras_oracle.json").read_text(encoding="utf-8"))
    numbers = {f"{oracle[name][kind]:,}" for name in ("cnn", "cnn_text") for kind in ("total", "trainable")}
    texts = {relative(page): page.read_text(encoding="utf-8") for page in PAGES}
    texts |= {relative(path): path.read_text(encoding="utf-8") for path in (ROOT / "conf").rglob("*.yaml")}
    texts |= {relative(path): docstrings(path) for path in MODULES}
    wrong = {name: set(re.findall(r"\b7,\d{3},\d{3}\b", text)) - numbers for name, text in texts.items()}
    assert not {name: found for name, found in wrong.items() if found}
    rows = {row[0]: row[1] for table in tables(texts["docs/paper.md"]) for row in table}
    for name, row in (("cnn", rows["parameters, audio"]), ("cnn_text", rows["parameters, with text"])):
        assert re.findall(r"[\d,]{9}", row) == [f"{oracle[name][kind]:,}" for kind in ("total", "trainable")]
    keras = oracle["made_with"].split(",")[0].removeprefix("keras ")
    assert re.search(rf"Keras\s+{re.escape(keras)}", texts["docs/paper.md"])


@pytest.mark.parametrize(
    ("model", "page"),
    [
        ("mlp", "docs/cnn.md"),
        ("crnn", "docs/crnn.md"),
        ("cnn", "experiments/README.md"),
        ("cnn_text", "experiments/README.md"),
    ],
)
def test_trained_parameters_on_the_pages_are_those_of_the_networks(model: str, page: str) -> None:
    cfg = config.compose(["experiment=none", f"model={model}"])
    network, _ = predictors.predictor_class(model).untrained_network(cfg, 6)
    count = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
    assert f"{count:,}" in (ROOT / page).read_text(encoding="utf-8")


TOLERANCES = [
    (
        "docs/whisper_probe.md",
        r"agrees with that of CTranslate2 to (\S+)",
        "tests/unit/test_whisper_states.py",
        r"norm\(.*\) < (\S+) \* np\.linalg\.norm",
    ),
    ("docs/paper.md", r"fails if it exceeds (\S+)\.", "tests/unit/test_network.py", r"assert difference < (\S+)"),
    (
        "docs/features.md",
        r"\| `clean`, `noise`, compared with librosa \| equal \| (\S+) \| \S+ dB",
        "tests/unit/test_paper_features.py",
        r'TOLERANCES_UNSHIFTED = .*"rms": ([^,}]+)',
    ),
    (
        "docs/features.md",
        r"\| `clean`, `noise`, compared with librosa \| equal \| \S+ \| (\S+) dB",
        "tests/unit/test_paper_features.py",
        r'TOLERANCES_UNSHIFTED = .*"mfcc": ([^,}]+)',
    ),
]


@pytest.mark.parametrize(("page", "stated", "test", "asserted"), TOLERANCES)
def test_tolerances_on_the_pages_are_those_of_the_tests(page: str, stated: str, test: str, asserted: str) -> None:
    on_page = re.search(stated, " ".join((ROOT / page).read_text(encoding="utf-8").split()))
    in_test = re.search(asserted, (ROOT / test).read_text(encoding="utf-8"))
    assert on_page, f"{page} does not state the tolerance"
    assert in_test, f"{test} has no such assertion"
    assert float(on_page[1]) == float(in_test[1])


# ---------------------------------------------------------------------------------------------------------------------
# Results


def figures(text: str) -> set[str]:
    return set(FIGURE.findall(text))


def test_rows_of_the_readme_repeat_the_results() -> None:
    stated = paragraphs(RESULTS.read_text(encoding="utf-8"))
    checked = 0
    for table in tables((ROOT / "README.md").read_text(encoding="utf-8")):
        for row in table:
            name, values = re.search(r"`\w+`", row[0]), figures(" ".join(row[1:3]))
            if name and len(values) >= 2:
                assert any(name[0] in text and values <= figures(text) for text in stated), row
                checked += 1
    assert checked >= 5


@pytest.mark.parametrize("path", sorted((ROOT / "experiments").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_header_of_an_experiment_repeats_its_results(path: Path) -> None:
    header = re.findall(r"^# result:.*$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    section = sections(RESULTS.read_text(encoding="utf-8")).get(path.stem, "")
    assert header
    assert figures(header[0]) <= figures(section)


@pytest.mark.parametrize("page", ["README", "docs/protocols", "docs/crnn", "docs/egemaps", "docs/whisper_probe"])
def test_results_on_a_page_are_those_of_the_experiments(page: str) -> None:
    claimed = re.findall(r"accuracy: (\S+)", (ROOT / "conf" / "claimed.yaml").read_text(encoding="utf-8"))
    allowed = figures(RESULTS.read_text(encoding="utf-8")) | {f"{float(value):.3f}"[1:] for value in claimed}
    stated = figures((ROOT / f"{page}.md").read_text(encoding="utf-8"))
    assert stated
    assert not stated - allowed


@pytest.mark.parametrize("page", ["README.md", "experiments/README.md"])
def test_differences_in_tables_follow_from_the_uar(page: str) -> None:
    """The difference of a row, in points, is its UAR minus that of the baseline row, which has no difference."""
    checked = 0
    for table in tables((ROOT / page).read_text(encoding="utf-8")):
        header, *rows = table
        columns = [i for i, cell in enumerate(header) if cell.startswith("difference to")]
        if not columns or "UAR" not in header:
            continue
        uar, difference = header.index("UAR"), columns[0]
        base = [row for row in rows if row[difference] in ("", "baseline")]
        for row in rows:
            if base and row is not base[0] and FIGURE.fullmatch(row[uar]):
                points = float(row[difference].split()[0].replace("−", "-"))
                assert points == pytest.approx(100 * (float(row[uar]) - float(base[0][uar])), abs=0.11), row
                checked += 1
    assert checked >= 5

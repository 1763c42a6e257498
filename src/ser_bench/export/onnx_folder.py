"""The folder of an exported predictor: ONNX files, their description and a README; checked and measured.

Every export is compared with the predictor before the folder gets its name.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ser_bench import extras, predictors
from ser_bench.config import Config
from ser_bench.errors import ConfigError, SerBenchError
from ser_bench.export.exportable import Exportable, exportable, temperature_of
from ser_bench.export.onnx_predictor import DESCRIPTION_FILE, FORMAT, NEEDED_FOR, OnnxPredictor, Precision
from ser_bench.inference.predictor_files import PredictorFiles
from ser_bench.predictors import UsesLicensedParts
from ser_bench.predictors.embeddings import WhisperProbe

if TYPE_CHECKING:
    import onnx

TOLERANCE = 1e-4
"""Largest allowed difference of a probability between the float32 file and the predictor."""
README_FILE = "README.md"
FILE_NAMES = {Precision.float32: "model.onnx", Precision.int8: "model.int8.onnx"}
REPEATS, WARM_UP_REPEATS = 11, 3


@dataclass(frozen=True)
class OnnxFile:
    """One file of an export.

    Attributes:
        precision: of its matrix products.
        path: where it is.
        size: bytes.
        largest_difference: of a probability from that of the predictor, on generated input.
        seconds: median time of a prediction: of a recording of 3 s, or of one row of features.
    """

    precision: Precision
    path: Path
    size: int
    largest_difference: float
    seconds: float


@dataclass(frozen=True)
class OnnxExport:
    """An exported folder.

    Attributes:
        folder: where it is.
        files: its files, float32 first.
        predictor_seconds: median time of the predictor itself for the same input, measured in turn with the files.
    """

    folder: Path
    files: tuple[OnnxFile, ...] = field(repr=False)
    predictor_seconds: float


def export_onnx(files: PredictorFiles, here: Config, folder: Path, int8: bool, threads: int | None) -> OnnxExport:
    """Write the folder of a trained predictor.

    Args:
        files: of the predictor.
        here: the user's configuration.
        folder: it must not exist, or be empty.
        int8: write a second file, in which the matrix products of the encoder blocks compute in 8 bits.
        threads: number of threads of onnxruntime while it is measured; None: the number of cores.

    Raises:
        ConfigError: this predictor cannot be exported or has nothing for int8, a package is missing, or the folder has
            files.
        SerBenchError: the float32 file differs from the predictor by more than 1e-4.
    """
    for module in ("onnx", "onnxruntime", "onnxscript"):
        extras.require(module, NEEDED_FOR)
    source = exportable(files, here)
    if int8 and files.cfg.model.name != WhisperProbe.name:
        raise ConfigError(
            f"run {files.run_id} ({files.name}): --int8 quantises the encoder of {WhisperProbe.name}, and "
            f"model={files.cfg.model.name} has none; leave out --int8"
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder}: has files already; name another folder with --out")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".export-") as scratch:
        made = Path(scratch) / folder.name
        made.mkdir()
        names = _write_graphs(source, made, int8)
        _write_description(files, source, made, names)
        checked, predictor_seconds = _checked(source, made, names, threads)
        if folder.exists():
            folder.rmdir()
        shutil.move(made, folder)
    moved = [OnnxFile(f.precision, folder / f.path.name, f.size, f.largest_difference, f.seconds) for f in checked]
    return OnnxExport(folder, tuple(moved), predictor_seconds)


def _write_graphs(source: Exportable, folder: Path, int8: bool) -> dict[Precision, str]:
    """Write the ONNX files, and return the name of each."""
    model = source.graph()
    path = folder / FILE_NAMES[Precision.float32]
    path.write_bytes(model.SerializeToString())
    if int8:
        quantise(model, source.products, folder / FILE_NAMES[Precision.int8])
    return {precision: name for precision, name in FILE_NAMES.items() if (folder / name).exists()}


def quantise(model: onnx.ModelProto, products: Sequence[str], path: Path) -> None:
    """Write the model with these matrix products in 8 bits.

    Weights are quantised once, with one scale per column; the other factor in every prediction, with one scale per
    matrix (dynamic quantisation of onnxruntime). Everything else stays in float32.
    """
    import logging

    from onnxruntime.quantization import QuantType, quantize_dynamic

    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.ERROR)  # it recommends a preparation that changes nothing in these graphs
    try:
        quantize_dynamic(
            model,
            path,
            op_types_to_quantize=["MatMul"],
            nodes_to_quantize=list(products),
            per_channel=True,
            weight_type=QuantType.QInt8,
        )
    finally:
        root.setLevel(before)


def _write_description(
    files: PredictorFiles, source: Exportable, folder: Path, names: dict[Precision, str]
) -> None:
    """Write model.json and the README."""
    described = {
        "format": FORMAT,
        "ser_bench": version("ser-bench"),
        "run": {"id": files.run_id, "name": files.name},
        "predictor": files.cfg.model.name,
        "labels": list(files.labels),
        "sample_rate_hz": source.sample_rate_hz,
        "input": source.input_description(),
        "output": {
            "name": "probabilities",
            "type": "float32",
            "shape": ["batch", len(files.labels)],
            "meaning": "probabilities of the labels, not calibrated: softmax(ln p / temperature) calibrates them",
        },
        "temperature": temperature_of(files),
        "files": {
            precision.value: {
                "name": name,
                "bytes": (folder / name).stat().st_size,
                "sha256": hashlib.sha256((folder / name).read_bytes()).hexdigest(),
            }
            for precision, name in names.items()
        },
        "licences": _licences(files),
    }
    text = json.dumps(described, indent=2, ensure_ascii=False) + "\n"
    (folder / DESCRIPTION_FILE).write_text(text, encoding="utf-8")
    (folder / README_FILE).write_text(readme(described, source.example()), encoding="utf-8")


def readme(described: dict[str, Any], example: Sequence[str]) -> str:
    """Return the text of the README: what the folder holds, and code that runs it."""
    files = [f"- `{file['name']}`: {precision}, {file['bytes']:,} bytes" for precision, file in
             described["files"].items()]  # fmt: skip
    licences = [f"- {part['name']}{': ' + part['source'] if part['source'] else ''}; {part['licence']}" for part in
                described["licences"]]  # fmt: skip
    name = described["input"]["name"]
    lines = [
        f"# {described['run']['name']}",
        "",
        f"Exported by ser_bench {described['ser_bench']} from run {described['run']['id']}. `model.json` describes "
        "input and output.",
        "",
        *files,
        "",
        "```python",
        *example,
        'session = onnxruntime.InferenceSession("model.onnx")',
        f'[probabilities] = session.run(None, {{"{name}": batch}})',
        'print(dict(zip(json.load(open("model.json"))["labels"], probabilities[0].tolist())))',
        "```",
        "",
        f"The input is {described['input']['meaning']}.",
        "",
    ]
    if described["temperature"] != 1.0:
        lines += [f"These probabilities are not calibrated: softmax(ln p / {described['temperature']:.4g}) is.", ""]
    if licences:
        lines += ["Weights of others, under their own licences:", "", *licences, ""]
    return "\n".join(lines)


def _licences(files: PredictorFiles) -> list[dict[str, str]]:
    name = files.cfg.model.name
    if not predictors.has_capability(name, UsesLicensedParts):
        return []
    return [part._asdict() for part in predictors.predictor_class(name).licensed_parts(files.cfg)]


def _checked(
    source: Exportable, folder: Path, names: dict[Precision, str], threads: int | None
) -> tuple[list[OnnxFile], float]:
    """Compare the files with the predictor, time all of them, and return the files and the time of the predictor."""
    exported = {precision: OnnxPredictor(folder, precision, threads) for precision in names}
    differences = {precision: source.largest_difference(one) for precision, one in exported.items()}
    if not differences[Precision.float32] <= TOLERANCE:
        raise SerBenchError(
            f"{names[Precision.float32]} differs from the predictor by up to {differences[Precision.float32]:.2g} in a "
            f"probability, more than {TOLERANCE:g}; nothing was written. Update onnxruntime, or report this run's model"
        )
    calls: list[Callable[[], None]] = [source.answer_once]
    calls += [partial(source.answer_once_with, one) for one in exported.values()]
    predictor_seconds, *seconds = median_seconds(calls)
    found = [
        OnnxFile(precision, folder / name, (folder / name).stat().st_size, differences[precision], spent)
        for (precision, name), spent in zip(names.items(), seconds, strict=True)
    ]
    return found, predictor_seconds


def median_seconds(calls: Sequence[Callable[[], None]]) -> list[float]:
    """Return the median time of each call. They take turns, so that other work on the machine slows all of them."""
    seconds: list[list[float]] = [[] for _ in calls]
    for repeat in range(WARM_UP_REPEATS + REPEATS):
        for call, spent in zip(calls, seconds, strict=True):
            started = time.perf_counter()
            call()
            if repeat >= WARM_UP_REPEATS:
                spent.append(time.perf_counter() - started)
    return [statistics.median(spent) for spent in seconds]

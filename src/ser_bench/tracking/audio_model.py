"""A predictor as an MLflow model that takes audio: signature, input example, requirements, source; no pickled code.

The folder of the model, as MLflow names its parts:

    MLmodel                       flavour `python_function`, signature, configuration
    audio_model_script.py         what MLflow runs to load it
    artifacts/bundle/             the predictor (`inference/bundle.py`)
    code/ser_bench/               the source of this package, with its configuration files
    input_example.json            a synthetic sound
    requirements.txt, README.md   packages with versions; how it is asked
"""

from __future__ import annotations

import base64
import io
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ser_bench import __version__
from ser_bench.config.folders import CONF, EXPERIMENTS, PACKAGE
from ser_bench.tracking.logged_models import logging_model

if TYPE_CHECKING:
    from ser_bench.tracking.stored_runs import StoredRun

MODEL_NAME = "audio_model"
SCRIPT = Path(__file__).with_name("audio_model_script.py")
MODEL_CONFIG: dict[str, Any] = {"overrides": [], "allow_paths": False}
"""What a user may change when the model is loaded; MLflow refuses other names."""
EXAMPLE_S, EXAMPLE_RATE_HZ = 0.5, 8_000
NOT_SHIPPED = shutil.ignore_patterns("__pycache__", "*.pyc", ".*")
README = """# {name}

Emotion in speech: audio in, label and probabilities out. Made by ser_bench {version} from run {run_id}.
`artifacts/bundle/model_card.md` says what it was trained and tested on, and what it is not for.

Input: a column `audio` of texts. Each is the content of a WAV, FLAC or OGG file in base64, with or without
`data:audio/wav;base64,` before it. The path of a file or a `file://` URI is accepted only if the environment variable
`SER_BENCH_ALLOW_PATHS` is `1`, or the model configuration `allow_paths` is true: whoever may ask could read files of
the machine. Addresses (`https://`) are not fetched.

Output: one object per row, as `ser-bench predict --format json` prints it: `label`, `probabilities`, `status`,
`reason`, `flags` (why the answer is unsure), `transcript`, `seconds` per stage, `run_id`.

Pretrained weights (speech recogniser, sentence embedding, encoders) are not in this folder. They are fetched into the
cache folder of the user on first use, and checked by their SHA-256; `SER_BENCH_CACHE` names another folder.
"""


def log_model_folder(stored: StoredRun, bundle: Path, requirements: Sequence[str]) -> str:
    """Log a bundle as the run's MLflow model "audio_model" and return the id of the model.

    Args:
        stored: the run.
        bundle: folder that `inference.bundle.write_bundle` wrote.
        requirements: lines for pip.

    Raises:
        TrackingError: the store cannot be written.
    """
    with (
        logging_model(stored.tracking, stored.run_id, MODEL_NAME) as (folder, described),
        tempfile.TemporaryDirectory() as scratch,
    ):
        source = Path(scratch) / PACKAGE.name
        copy_source(source)
        _save(folder, described, bundle, source, requirements)
        readme = README.format(name=stored.name, version=__version__, run_id=stored.run_id)
        (folder / "README.md").write_text(readme, encoding="utf-8")
    return str(described.model_id)


def copy_source(folder: Path) -> None:
    """Copy the source of this package, with its configuration files where an installed package has them."""
    shutil.copytree(PACKAGE, folder, ignore=NOT_SHIPPED)
    for configurations in (CONF, EXPERIMENTS):
        shutil.copytree(configurations, folder / configurations.name, ignore=NOT_SHIPPED, dirs_exist_ok=True)


def example_audio() -> str:
    """Return a synthetic sound as a WAV file in base64: a falling tone with harmonics, half a second long."""
    import soundfile

    times = np.arange(round(EXAMPLE_S * EXAMPLE_RATE_HZ)) / EXAMPLE_RATE_HZ
    phase = 2 * np.pi * np.cumsum(220.0 - 80.0 * times) / EXAMPLE_RATE_HZ
    wave = sum(np.sin(k * phase) / k for k in range(1, 6)) * np.hanning(len(times)) / 4
    file = io.BytesIO()
    soundfile.write(file, wave, EXAMPLE_RATE_HZ, format="WAV", subtype="PCM_16")
    return base64.b64encode(file.getvalue()).decode("ascii")


def _save(folder: Path, described: Any, bundle: Path, source: Path, requirements: Sequence[str]) -> None:
    import mlflow.pyfunc
    import pandas as pd

    mlflow.pyfunc.save_model(
        str(folder),
        python_model=str(SCRIPT),
        artifacts={"bundle": str(bundle)},
        code_paths=[str(source)],
        mlflow_model=described,
        signature=_signature(),
        input_example=pd.DataFrame({"audio": [example_audio()]}),
        pip_requirements=list(requirements),
        model_config=MODEL_CONFIG,
        metadata={"ser_bench": __version__},
    )
    # MLflow records where the script and the bundle were on this machine, and reads neither.
    flavour = described.flavors[mlflow.pyfunc.FLAVOR_NAME]
    flavour["model_code_path"] = SCRIPT.name
    for artifact in flavour["artifacts"].values():
        artifact["uri"] = artifact["path"]
    described.save(str(folder / "MLmodel"))


def _signature() -> Any:
    """Return the types of the column `audio` and of `Answer.as_dict`."""
    from mlflow.models import ModelSignature
    from mlflow.types.schema import Array, ColSpec, DataType, Map, Object, Property, Schema, TensorSpec

    texts, numbers = DataType.string, Map(DataType.double)
    flag = Object([Property("code", texts), Property("text", texts)])
    answer: list[ColSpec | TensorSpec] = [
        *(ColSpec(texts, name) for name in ("name", "label", "status", "reason")),
        ColSpec(numbers, "probabilities"),
        ColSpec(DataType.boolean, "calibrated"),
        ColSpec(Array(flag), "flags"),
        ColSpec(DataType.double, "duration_s"),
        ColSpec(texts, "transcript", required=False),
        ColSpec(numbers, "seconds"),
        ColSpec(texts, "run_id"),
    ]
    return ModelSignature(inputs=Schema([ColSpec(texts, "audio")]), outputs=Schema(answer))

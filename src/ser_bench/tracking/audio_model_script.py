"""The code that MLflow runs when it loads a model "audio_model" ("models from code"): audio in, answers out.

MLflow copies this file into the model and runs it as a script. The model also contains the source of ser_bench, which
MLflow puts on the path before. Nothing else imports this module.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel


class AudioModel(PythonModel):
    """A predictor that takes a column `audio` of texts."""

    def load_context(self, context: Any) -> None:
        """Load the predictor from the bundle; `overrides` and `allow_paths` of the model configuration apply."""
        from ser_bench.inference.audio_column import AudioColumn

        settings = context.model_config or {}
        self._column = AudioColumn(
            Path(context.artifacts["bundle"]), settings.get("overrides") or (), bool(settings.get("allow_paths"))
        )

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Return one row per row of `model_input`: see `ser_bench.inference.audio_column.AudioColumn.records`."""
        records = self._column.records(list(model_input["audio"]))
        # Type object keeps None, where pandas would write NaN into a column of texts; JSON has no NaN.
        return pd.DataFrame(records, index=model_input.index, dtype=object)


set_model(AudioModel())

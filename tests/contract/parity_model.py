"""A pyfunc model of the tests ("models from code") that answers in the manner its column `kind` names, honest ones and others."""

from typing import Any

import mlflow
import numpy as np
import pandas as pd


class ParityModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    def __init__(self) -> None:
        self._asked_count = 0

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> Any:
        x = np.sin(model_input["x"].to_numpy() * 1000)
        self._asked_count += 1
        answers: dict[str, Any] = {
            "number": x,
            "float32": x.astype(np.float32),
            "whole": (x * 1e6).astype(np.int64),
            "label": np.where(x > 0, "late", "on time"),
            "flag": x > 0,
            "array": np.column_stack([x, x**2]).astype(np.float32),
            "frame": pd.DataFrame({"score": x.astype(np.float32), "label": np.where(x > 0, "a", "b"), "n": model_input["y"]}),
            "series": pd.Series(x, name="score"),
            "columns": {"score": x, "label": np.where(x > 0, "a", "b")},
            "holes": np.where(x > 0, x, np.nan),
            "batch mean": x - x.mean(),
            "running": x.cumsum(),
            "counter": x + self._asked_count,
        }
        return answers[model_input["kind"].iloc[0]]


mlflow.models.set_model(ParityModel())

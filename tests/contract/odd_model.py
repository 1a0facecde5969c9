"""A pyfunc model of the tests ("models from code"): multiplies the amount, and misbehaves on the amounts 13 to 17."""

import time
from typing import Any

import mlflow
import pandas as pd
from mlflow.exceptions import MlflowException


class OddModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> Any:
        amount = float(model_input["amount"].iloc[0])
        if amount == 13:
            raise ValueError("thirteen\nis unlucky")
        if amount == 14:
            raise MlflowException("fourteen is internal")
        if amount == 15:
            return object()  # cannot be written as JSON
        if amount in (16, 17):
            time.sleep(5 if amount == 16 else 60)
        factor = (params or {}).get("factor", 1.0)
        return pd.DataFrame({"scaled": model_input["amount"] * factor, "country": model_input["country"], "seen": len(model_input)})


mlflow.models.set_model(OddModel())

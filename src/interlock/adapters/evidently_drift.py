"""
Distances between two data sets, measured by Evidently with a method fixed for each kind of column.

Evidently left alone changes its method with the row count and counts what it happened to measure; here every column is asked for by
name, and an answer for another column, by another method or given twice is refused. Importing Evidently takes 7 to 20 seconds: it
happens at the first call.
"""

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from interlock.errors import EvidenceError
from interlock.model.redaction import one_line

NUMBER_METHOD = "wasserstein"
CATEGORY_METHOD = "jensenshannon"


@dataclass(frozen=True, slots=True)
class DriftNumbers:
    """A distance for each column, the method it was measured with, and Evidently's own page (None: not asked for)."""

    distances: Mapping[str, float]
    methods: Mapping[str, str]
    html_report: bytes | None


def measure_drift(
    reference: pd.DataFrame, current: pd.DataFrame, *, columns: Sequence[str], with_html_report: bool = False
) -> DriftNumbers:
    """
    How far each column has moved from `reference` to `current`.

    Numbers: Wasserstein distance in units of the reference's standard deviation, 0 upwards. Anything else (text, categories, booleans):
    Jensen-Shannon distance, 0 to 0.83. Nulls and infinities are left out by Evidently: count them before. The page (about 4 MB) shows
    numbers standardised by the reference: Evidently norms by at least 0.001, which would shrink the distance of a column of tiny numbers.

    Raises:
        EvidenceError: a column is absent, holds numbers in one data set only, or Evidently did not measure it.
    """
    methods = {name: _method(reference, current, name) for name in columns}
    snapshot = _run(_standardised(reference, reference, methods), _standardised(current, reference, methods), methods)
    distances = _distances(snapshot.dict()["metrics"], methods)
    page = snapshot.get_html_str(as_iframe=False).encode() if with_html_report else None
    return DriftNumbers(distances, methods, page)


def _method(reference: pd.DataFrame, current: pd.DataFrame, name: str) -> str:
    if name not in reference.columns or name not in current.columns:
        raise EvidenceError(f"column {name} is not in both data sets: drift cannot be measured")
    numeric = [_is_number(frame[name].dtype) for frame in (reference, current)]
    if numeric[0] != numeric[1]:
        raise EvidenceError(f"column {name} holds numbers in one data set and something else in the other: make them alike")
    return NUMBER_METHOD if numeric[0] else CATEGORY_METHOD


def _is_number(dtype: Any) -> bool:
    return bool(pd.api.types.is_numeric_dtype(dtype)) and not pd.api.types.is_bool_dtype(dtype)


def _standardised(frame: pd.DataFrame, reference: pd.DataFrame, methods: Mapping[str, str]) -> pd.DataFrame:
    columns = {}
    for name, method in methods.items():
        if method == CATEGORY_METHOD:
            columns[name] = frame[name].astype("string").astype(object)
            continue
        usual = reference[name].astype("float64")
        usual = usual[usual.abs() != float("inf")]
        spread = float(usual.std(ddof=0))
        columns[name] = (frame[name].astype("float64") - usual.mean()) / (spread if spread > 0 else 1.0)
    return pd.DataFrame(columns)


def _run(reference: pd.DataFrame, current: pd.DataFrame, methods: Mapping[str, str]) -> Any:
    os.environ["DO_NOT_TRACK"] = "true"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from evidently import DataDefinition, Dataset, Report
        from evidently.metrics import ValueDrift

        kinds = DataDefinition(
            numerical_columns=[name for name, method in methods.items() if method == NUMBER_METHOD],
            categorical_columns=[name for name, method in methods.items() if method == CATEGORY_METHOD],
        )
        report = Report([ValueDrift(column=name, method=method) for name, method in methods.items()])
        try:
            return report.run(Dataset.from_pandas(current, kinds), Dataset.from_pandas(reference, kinds))
        except ValueError as error:
            raise EvidenceError(f"Evidently cannot compare the data sets: {one_line(error)}") from error


def _distances(metrics: Sequence[Mapping[str, Any]], methods: Mapping[str, str]) -> dict[str, float]:
    """The distances, if there is exactly one for every column and each by its method."""
    answered = [(m["config"]["column"], m["config"]["method"]) for m in metrics if "column" in m["config"]]
    if sorted(answered) != sorted(methods.items()):
        raise EvidenceError(f"Evidently measured {len(answered)} columns, wanted {len(methods)}, each once and by its fixed method")
    return {m["config"]["column"]: float(m["value"]) for m in metrics}

"""
Evidently's own page about two small samples, for people to look at.

No verdict comes from here: the distances that decide are `interlock.judge.drift`'s, on all rows. Importing Evidently takes seconds: it
happens at the first call.
"""

import os
import warnings
from collections.abc import Sequence

import pandas as pd

from interlock.profile.gates import CategoryColumn, NumberColumn


def draw_page(reference: pd.DataFrame, current: pd.DataFrame, columns: Sequence[NumberColumn | CategoryColumn]) -> str:
    """
    HTML, about 4 MB, with its own scripts. Each column by the method and threshold of the profile; both frames must have all of them.

    Whatever Evidently refuses, it refuses with an exception of its own.
    """
    os.environ["DO_NOT_TRACK"] = "true"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from evidently import DataDefinition, Dataset, Report
        from evidently.metrics import ValueDrift

        kinds = DataDefinition(
            numerical_columns=[column.name for column in columns if column.kind == "number"],
            categorical_columns=[column.name for column in columns if column.kind == "category"],
        )
        report = Report([ValueDrift(column=c.name, method=c.method, threshold=c.drift_distance) for c in columns])
        now, before = (Dataset.from_pandas(_plain(frame, columns), kinds) for frame in (current, reference))
        return str(report.run(now, before).get_html_str(as_iframe=False))


def _plain(frame: pd.DataFrame, columns: Sequence[NumberColumn | CategoryColumn]) -> pd.DataFrame:
    """Doubles and text: Evidently raises on nullable integers."""
    return pd.DataFrame(
        {
            column.name: frame[column.name].astype("float64")
            if column.kind == "number"
            else frame[column.name].astype("string").astype(object)
            for column in columns
        }
    )

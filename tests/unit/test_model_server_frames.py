"""The short way to a data frame: wherever it is taken, it leads exactly where MLflow's own parsing and enforcement lead."""

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow.exceptions import MlflowException
from mlflow.models.utils import _enforce_schema
from mlflow.pyfunc.scoring_server import infer_and_parse_data
from mlflow.types import ColSpec, Schema

from interlock.serving.frames import FrameBuilder

KINDS = {"d": "double", "f": "float", "l": "long", "i": "integer", "b": "boolean", "s": "string"}
BUILDER = FrameBuilder(KINDS)
SCHEMA = Schema([ColSpec(kind, name) for name, kind in KINDS.items()])
GOOD = {"d": 1.5, "f": 0.25, "l": 2**40, "i": -7, "b": True, "s": "de"}


def mlflows_frame(payload: dict[str, Any]) -> pd.DataFrame:
    frame: pd.DataFrame = _enforce_schema(infer_and_parse_data(payload, SCHEMA), SCHEMA)
    return frame


def split(rows: list[dict[str, Any]], names: list[str], index: list[int] | None) -> dict[str, Any]:
    content: dict[str, Any] = {"columns": names, "data": [[row[name] for name in names] for row in rows]}
    return {"dataframe_split": content if index is None else {"index": index, **content}}


numbers = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True),
    st.integers(),
    st.integers(-(2**31) - 2, 2**31 + 2),
    st.sampled_from([2**53, 2**53 + 1, -(2**53) - 1, 2**63 - 1, 2**63, -(2**63), 0, 1, 1e39, 3.4e38]),
)
anything = st.one_of(numbers, st.booleans(), st.text(max_size=3), st.none(), st.just([1]), st.just("2.5"))
usual = {
    "d": st.one_of(st.floats(), st.integers(-(2**54), 2**54)),
    "f": st.one_of(st.floats(width=32), st.floats(), st.integers(-(2**30), 2**30)),
    "l": st.integers(-(2**63), 2**63 - 1),
    "i": st.integers(-(2**31), 2**31 - 1),
    "b": st.booleans(),
    "s": st.text(max_size=4),
}
good_rows = st.lists(st.fixed_dictionaries(usual), min_size=1, max_size=5)
odd_rows = st.lists(st.fixed_dictionaries({name: st.one_of(values, anything) for name, values in usual.items()}), min_size=1, max_size=3)


@settings(max_examples=300, deadline=None)
@given(rows=st.one_of(good_rows, odd_rows), names=st.permutations(list(KINDS)), data=st.data())
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_where_the_short_way_is_taken_it_leads_to_mlflows_frame(rows: list[dict[str, Any]], names: list[str], data: st.DataObject) -> None:
    index = data.draw(st.none() | st.lists(st.integers(-5, 5), min_size=len(rows), max_size=len(rows)))
    for payload in (split(rows, names, index), {"dataframe_records": [{name: row[name] for name in names} for row in rows]}):
        built = BUILDER.build(json.dumps(payload).encode())
        if built is None:
            continue
        # MLflow gets what JSON makes of it too.
        wanted = mlflows_frame(json.loads(json.dumps(payload)))
        pd.testing.assert_frame_equal(built.frame, wanted, check_exact=True, check_column_type=True, check_index_type=True)
        assert [block.dtype for block in built.frame._mgr.blocks] == [block.dtype for block in wanted._mgr.blocks]
        assert [block.values.strides for block in built.frame._mgr.blocks] == [block.values.strides for block in wanted._mgr.blocks]


@settings(max_examples=100, deadline=None)
@given(rows=good_rows)
def test_usual_requests_take_it(rows: list[dict[str, Any]]) -> None:
    if any(abs(row["d"]) > 2**53 for row in rows if isinstance(row["d"], int)) or any(abs(row["f"]) > 3.4e38 for row in rows):
        return
    assert BUILDER.build(json.dumps(split(rows, list(KINDS), None)).encode()) is not None


@settings(max_examples=200, deadline=None)
@given(rows=odd_rows)
@pytest.mark.filterwarnings("ignore")
def test_what_mlflow_refuses_never_takes_it(rows: list[dict[str, Any]]) -> None:
    payload = split(rows, list(KINDS), None)
    try:
        mlflows_frame(json.loads(json.dumps(payload)))
    except MlflowException:
        assert BUILDER.build(json.dumps(payload).encode()) is None


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"{", id="no JSON"),
        pytest.param(b'["dataframe_split"]', id="a list"),
        pytest.param(json.dumps({"dataframe_split": {}, "x": 1}).encode(), id="another key"),
        pytest.param(json.dumps({"dataframe_split": [1]}).encode(), id="no object"),
        pytest.param(json.dumps({"dataframe_split": {"columns": list(KINDS), "data": []}}).encode(), id="no rows"),
        pytest.param(json.dumps({"dataframe_split": {"data": [list(GOOD.values())]}}).encode(), id="no columns"),
        pytest.param(json.dumps({"dataframe_records": [dict(GOOD, extra=1)]}).encode(), id="an extra column"),
        pytest.param(json.dumps({"dataframe_records": [{k: v for k, v in GOOD.items() if k != "s"}]}).encode(), id="a missing column"),
        pytest.param(json.dumps({"inputs": {"dataframe_split": 1}}).encode(), id="another format"),
        pytest.param(json.dumps({"dataframe_records": [dict(GOOD, l=True)]}).encode(), id="a boolean for a long"),
        pytest.param(json.dumps({"dataframe_records": [dict(GOOD, l=1.0)]}).encode(), id="a float for a long"),
        pytest.param(json.dumps({"dataframe_records": [dict(GOOD, i=2**31)]}).encode(), id="an integer that wraps"),
        pytest.param(b'{"dataframe_split":' + b"[" * 100_000, id="too deep"),
    ],
)
def test_what_needs_judgement_is_left_to_mlflow(body: bytes) -> None:
    assert BUILDER.build(body) is None


def test_params_come_along() -> None:
    built = BUILDER.build(json.dumps({"dataframe_records": [GOOD], "params": {"factor": 2}}).encode())
    assert built is not None
    assert built.params == {"factor": 2}
    assert built.frame["f"].dtype == np.float32

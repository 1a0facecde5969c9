"""Inputs of users: taken from Envoy, kept for a while within bounds, and read back as rows."""

import asyncio
import json
import math
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock.adapters.mlflow_files import MlflowFiles
from interlock.errors import ArtifactError, EvidenceError, NoSamples, PolicyError, StateError
from interlock.model.release import ModelVersion
from interlock.serving import input_rows
from interlock.serving.capture_message import Malformed
from interlock.serving.collector import Collector, CollectorSettings
from interlock.serving.collector_protocol import Request
from interlock.serving.input_buffer import InputSettings, parse_input
from interlock.serving.input_rows import InputRows, read_input_rows
from interlock.serving.input_shapes import NotUnderstood, read_columns
from interlock.serving.inputs import Input, list_files, prune_inputs, read_bodies, read_listing, write_inputs
from interlock.serving.journal import JournalReader

NOW = 1_800_000_000.0
JSON = "application/json"


def body_of(**columns: list[Any]) -> bytes:
    rows = [list(row) for row in zip(*columns.values(), strict=True)]
    return json.dumps({"dataframe_split": {"columns": list(columns), "data": rows}}).encode()


def keep(directory: Path, *bodies: bytes | None, at_seconds: float = NOW, content_type: str = JSON) -> Path:
    return write_inputs(directory, [Input(at_seconds, content_type, body) for body in bodies], at_seconds=at_seconds)


ANY = {"a": "any", "b": "any"}


def read(directory: Path, uri: str = "journal:3600", kinds: Mapping[str, str] = ANY) -> InputRows:
    return read_input_rows(uri, directory=directory, now_at_seconds=NOW + 1, kinds=kinds)


# The shapes of the scoring protocol.


@pytest.mark.parametrize(
    "content",
    [
        {"dataframe_split": {"columns": ["a", "b"], "data": [[1, "x"], [2, "y"]]}},
        {"dataframe_split": {"index": [7, 8], "columns": ["b", "a"], "data": [["x", 1], ["y", 2]]}},
        {"dataframe_split": {"data": [[1, "x"], [2, "y"]]}},
        {"dataframe_records": [{"a": 1, "b": "x"}, {"b": "y", "a": 2}]},
        {"instances": [[1, "x"], [2, "y"]]},
        {"instances": [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]},
        {"inputs": {"a": [1, 2], "b": ["x", "y"]}},
        {"inputs": [[1, "x"], [2, "y"]]},
        {"inputs": [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]},
        {"params": {"threshold": 0.5}, "instances": [[1, "x"], [2, "y"]]},
    ],
    ids=lambda content: " ".join(content),
)
def test_every_shape_of_the_protocol_gives_the_same_rows(content: dict[str, Any]) -> None:
    columns = read_columns(json.dumps(content).encode(), JSON, names=("a", "b"))
    assert {name: list(values) for name, values in columns.items()} == {"a": [1, 2], "b": ["x", "y"]}


def test_csv_with_a_header_is_understood_as_well() -> None:
    assert read_columns(b"a,b\n1,x\n2,y\n", "text/csv; charset=utf-8", names=()) == {"a": [1, 2], "b": ["x", "y"]}


def test_values_without_names_are_numbered_where_the_signature_names_none() -> None:
    assert read_columns(b'{"instances": [[1, 2], [3, 4]]}', JSON, names=()) == {"0": [1, 3], "1": [2, 4]}
    assert read_columns(b'{"instances": [1, 2]}', JSON, names=("a",)) == {"a": [1, 2]}
    assert read_columns(b'{"inputs": {"a": 1, "b": "x"}}', JSON, names=()) == {"a": [1], "b": ["x"]}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not json",
        b"[1, 2]",
        b"{}",
        b'{"messages": [{"role": "user"}]}',
        b'{"instances": []}',
        b'{"instances": 7}',
        b'{"instances": [[1, 2], [3]]}',
        b'{"instances": [[1, 2, 3]]}',
        b'{"instances": [[1, 2], {"a": 1}]}',
        b'{"inputs": {"a": [1, 2], "b": [1]}}',
        b'{"inputs": {}}',
        b'{"dataframe_records": ["ab", "cd"]}',
        b'{"dataframe_records": {"a": 1}}',
        b'{"dataframe_split": [1]}',
        b'{"dataframe_split": {"columns": ["a", "a"], "data": [[1, 2]]}}',
        b'{"instances": [[1, 2]], "inputs": [[1, 2]]}',
        b"[" * 100_000,
        b"\xff\xfe",
    ],
    ids=lambda body: body[:40],
)
def test_what_holds_no_rows_is_not_understood_and_takes_nothing_down(body: bytes) -> None:
    with pytest.raises(NotUnderstood):
        read_columns(body, JSON, names=("a", "b"))


@given(
    st.binary(max_size=60) | st.recursive(st.none() | st.integers() | st.text(max_size=3), st.lists).map(lambda v: json.dumps(v).encode())
)
def test_law_any_bytes_are_rows_or_not_understood(content: bytes) -> None:
    for body in (content, b'{"instances": ' + content + b"}", b'{"inputs": {"a": ' + content + b"}}"):
        try:
            columns = read_columns(body, JSON, names=("a",))
        except NotUnderstood:
            continue
        assert len({len(values) for values in columns.values()}) == 1


# Files.


def test_inputs_come_back_from_a_file_that_only_its_owner_may_read(tmp_path: Path) -> None:
    path = keep(tmp_path / "journal", b'{"a": 1}', None, b"\xff not text", at_seconds=NOW)
    listing = read_listing(path)
    assert listing.size_bytes.tolist() == [8, 0, 10]
    assert read_bodies(path, np.array([0, 1, 2])) == [
        Input(NOW, JSON, b'{"a": 1}'),
        Input(NOW, JSON, None),
        Input(NOW, JSON, b"\xff not text"),
    ]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_two_files_of_one_moment_are_two(tmp_path: Path) -> None:
    assert len({keep(tmp_path, b"1"), keep(tmp_path, b"2")}) == 2
    assert len(list_files(tmp_path, since_at_seconds=NOW)) == 2


def test_the_judges_journal_does_not_see_inputs(tmp_path: Path) -> None:
    keep(tmp_path, b"1")
    reader = JournalReader(tmp_path)
    assert reader.read_new() == []
    assert reader.corrupt_count == 0


def test_old_inputs_go_by_age_the_newest_as_well_and_then_by_size(tmp_path: Path) -> None:
    for age in (500, 300, 100, 0):
        keep(tmp_path, os.urandom(10_000), at_seconds=NOW - age)
    (tmp_path / f"inputs-{int((NOW - 900) * 1000):015d}.tmp").write_bytes(b"of a killed collector")
    (tmp_path / "legs-000000000001.parquet").write_bytes(b"not ours")
    kept_bytes = prune_inputs(tmp_path, before_at_seconds=NOW - 400, most_bytes=10**9)
    assert len(list(tmp_path.glob("inputs-*"))) == 3
    prune_inputs(tmp_path, before_at_seconds=0, most_bytes=kept_bytes - 1)
    assert len(list(tmp_path.glob("inputs-*"))) == 2
    assert prune_inputs(tmp_path, before_at_seconds=NOW + 1, most_bytes=10**9) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["legs-000000000001.parquet"]


@pytest.mark.parametrize("name", ["inputs-2026-backup.parquet", "inputs-000000000000001.parquet.bak", "inputs-1.parquet", "inputs-1.tmp"])
def test_files_that_somebody_else_puts_there_are_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"")
    assert prune_inputs(tmp_path, before_at_seconds=NOW, most_bytes=0) == 0
    assert list_files(tmp_path, since_at_seconds=0) == []
    assert (tmp_path / name).exists()


def test_a_file_that_is_none_of_ours_is_an_evidence_error(tmp_path: Path) -> None:
    path = keep(tmp_path, b"1")
    pq.write_table(pa.table({"body": [b"1"]}), path)
    with pytest.raises(EvidenceError, match="columns"):
        read_listing(path)


# The collector.


def collector(directory: Path, **changes: Any) -> Collector:
    return Collector(CollectorSettings(directory), InputSettings(directory, **{"write_seconds": 0.0} | changes))


def post(to: Collector, line: bytes, body: bytes) -> int:
    return to.answer(Request(b"POST", b"/inputs", line, body)).status


def test_an_input_is_on_disk_after_it_was_taken_and_none_of_it_is_a_leg(tmp_path: Path) -> None:
    taking = collector(tmp_path)
    assert post(taking, b"8 application/json", b'{"a": 1}') == 204
    asyncio.run(taking.flush())
    asyncio.run(taking.flush_inputs())
    (path,) = list_files(tmp_path, since_at_seconds=0)
    assert [one.body for one in read_bodies(path, np.array([0]))] == [b'{"a": 1}']
    assert "interlock_capture_inputs_total 1.0" in taking.metrics_text().decode()
    assert list(tmp_path.glob("legs-*")) == []


def test_inputs_wait_for_their_time_unless_the_collector_ends(tmp_path: Path) -> None:
    taking = collector(tmp_path, write_seconds=1e6)
    post(taking, b"2 -", b"{}")
    asyncio.run(taking.flush_inputs())
    assert list_files(tmp_path, since_at_seconds=0) == []

    async def told_to_end() -> None:
        stop = asyncio.Event()
        stop.set()
        await taking.run(stop)

    asyncio.run(told_to_end())
    assert len(list_files(tmp_path, since_at_seconds=0)) == 1


def test_without_room_an_input_is_dropped_and_counted_and_envoy_is_told_nothing(tmp_path: Path) -> None:
    taking = collector(tmp_path, buffer_bytes=1_000)
    assert [post(taking, b"500 -", b"x" * 500) for _ in range(3)] == [204] * 3
    text = taking.metrics_text().decode()
    assert "interlock_capture_inputs_total 1.0" in text
    assert "interlock_capture_dropped_inputs_total 2.0" in text
    asyncio.run(taking.flush_inputs())
    assert post(taking, b"500 -", b"x" * 500) == 204
    assert "interlock_capture_inputs_total 2.0" in taking.metrics_text().decode()


def test_an_input_over_the_limit_is_noted_without_its_body(tmp_path: Path) -> None:
    taking = collector(tmp_path)
    post(taking, b"-1 application/json", b"")
    assert "interlock_capture_oversized_inputs_total 1.0" in taking.metrics_text().decode()
    asyncio.run(taking.flush_inputs())
    (path,) = list_files(tmp_path, since_at_seconds=0)
    assert read_bodies(path, np.array([0]))[0].body is None


@pytest.mark.parametrize(("line", "body"), [(b"", b""), (b"x -", b""), (b"3 -", b"{}"), (b"-1 -", b"{}")])
def test_anything_else_is_malformed_and_counted_and_envoy_is_told_nothing(tmp_path: Path, line: bytes, body: bytes) -> None:
    with pytest.raises(Malformed):
        parse_input(line, body, received_at_seconds=NOW)
    taking = collector(tmp_path)
    assert post(taking, line, body) == 204
    assert "interlock_capture_malformed_legs_total 1.0" in taking.metrics_text().decode()


def test_a_content_type_of_any_bytes_is_kept(tmp_path: Path) -> None:
    taking = collector(tmp_path)
    assert post(taking, b"2 application/json; x=\xff", b"{}") == 204
    asyncio.run(taking.flush_inputs())
    (path,) = list_files(tmp_path, since_at_seconds=0)
    assert read_bodies(path, np.array([0]))[0].content_type == "application/json; x=\xff"
    assert "interlock_capture_malformed_legs_total 0.0" in taking.metrics_text().decode()


def test_a_disk_that_refuses_loses_no_input_and_recovers(tmp_path: Path) -> None:
    directory = tmp_path / "journal"
    directory.write_text("a file where the directory should be")
    taking = collector(directory)
    post(taking, b"2 -", b"{}")
    asyncio.run(taking.flush_inputs())
    assert "interlock_capture_can_write 0.0" in taking.metrics_text().decode()
    directory.unlink()
    asyncio.run(taking.flush_inputs())
    assert "interlock_capture_can_write 1.0" in taking.metrics_text().decode()
    assert len(list_files(directory, since_at_seconds=0)) == 1
    (directory / "a file").write_text("")
    with pytest.raises(StateError, match="1 inputs cannot be written"):
        keep(directory / "a file", b"1")


def test_old_inputs_are_deleted_while_nobody_sends_new_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("interlock.serving.input_buffer._PRUNE_EVERY_SECONDS", 0.0)
    keep(tmp_path, b"1", at_seconds=1_000.0)
    asyncio.run(collector(tmp_path, retention_seconds=3600.0).flush_inputs())
    assert list_files(tmp_path, since_at_seconds=0) == []


# Rows.


def test_rows_of_all_shapes_become_one_frame_of_all_columns(tmp_path: Path) -> None:
    keep(tmp_path, body_of(b=["x"], a=[1.5]), b'{"instances": [[2, "y"], [3, "z"]]}', b'{"dataframe_records": [{"a": 4, "c": true}]}')
    found = read(tmp_path)
    expected = pd.DataFrame({"a": [1.5, 2, 3, 4], "b": ["x", "y", "z", None], "c": [None, None, None, True]})
    pd.testing.assert_frame_equal(found.frame, expected)
    assert found.source.startswith("journal: 4 rows of 3 requests, 2027-01-15 ")


def test_nulls_are_rows_for_the_gate_to_count(tmp_path: Path) -> None:
    keep(tmp_path, b'{"instances": [[1, null], [2.5, "x"], [null, "y"]]}')
    found = read(tmp_path)
    assert found.frame["a"].dtype == np.float64
    assert [found.frame["a"][0], found.frame["a"][1], math.isnan(found.frame["a"][2])] == [1, 2.5, True]
    assert found.frame["b"].isna().tolist() == [True, False, False]
    assert "not finite" not in found.source


@pytest.mark.parametrize("kind", ["double", "float", "any"])
def test_an_infinite_value_of_a_user_is_missing_and_counted(tmp_path: Path, kind: str) -> None:
    keep(tmp_path, b'{"instances": [[1, "x"], [-Infinity, "y"]]}', b'{"inputs": {"a": 1e999, "b": "x"}}')
    found = read(tmp_path, kinds={"a": kind, "b": "string"})
    assert found.frame["a"].isna().tolist() == [False, True, True]
    assert found.source.endswith("; 2 values that are not finite taken for missing")


@pytest.mark.parametrize(
    ("kind", "text", "values", "dtype"),
    [
        ("double", '[1, "9.5", true, null]', [1.0, 9.5, 1.0, None], np.float64),
        ("float", '[0.1, "2", 1e300]', [float(np.float32(0.1)), 2.0, None], np.float32),
        ("integer", '[1, "2", true, 3.0]', [1, 2, 1, 3], np.int32),
        ("long", "[1, 9007199254740993]", [1, 9007199254740993], np.int64),
        ("boolean", "[true, 0, 1]", [True, False, True], np.bool_),
        ("string", '["x", 5, null]', ["x", "5", None], np.object_),
        ("datetime", '["2026-01-01"]', ["2026-01-01"], np.object_),
    ],
)
def test_values_are_cast_as_the_server_casts_them(tmp_path: Path, kind: str, text: str, values: list[Any], dtype: Any) -> None:
    keep(tmp_path, f'{{"inputs": {{"a": {text}}}}}'.encode(), content_type=JSON)
    frame = read(tmp_path, kinds={"a": kind}).frame
    assert frame["a"].dtype == dtype
    assert [None if pd.isna(value) else value for value in frame["a"]] == values


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("double", '"nine"'),
        ("double", "[1]"),
        ("double", "1" + "0" * 400),
        ("integer", "null"),
        ("integer", '"9.5"'),
        ("integer", "2147483648"),
        ("long", "Infinity"),
        ("long", "NaN"),
    ],
)
def test_a_body_that_cannot_be_cast_is_not_understood(tmp_path: Path, kind: str, value: str) -> None:
    keep(tmp_path, body_of(a=[1]), f'{{"inputs": {{"c": [Infinity], "a": [{value}]}}}}'.encode())
    found = read(tmp_path, kinds={"a": kind})
    assert found.frame["a"].tolist() == [1]
    assert found.source.endswith("; 1 not understood")


def test_a_number_that_no_double_holds_does_no_harm_in_a_column_that_nobody_wants(tmp_path: Path) -> None:
    keep(tmp_path, b'{"dataframe_records": [{"a": 1, "c": 1' + b"0" * 400 + b'}, {"a": 2, "c": 0.5}]}')
    found = read(tmp_path, kinds={"a": "double"})
    assert found.frame["a"].tolist() == [1, 2]
    assert found.frame["c"].isna().tolist() == [True, False]
    assert found.source.endswith("; 1 values that are not finite taken for missing")


def test_text_in_csv_stays_text_where_it_looks_like_a_number(tmp_path: Path) -> None:
    keep(tmp_path, b"a,b\n01234,1\n,2\n", content_type="text/csv")
    frame = read(tmp_path, kinds={"a": "string", "b": "double"}).frame
    assert [None if pd.isna(value) else value for value in frame["a"]] == ["01234", None]
    assert frame["b"].tolist() == [1.0, 2.0]


def test_only_the_window_is_read(tmp_path: Path) -> None:
    keep(tmp_path, body_of(a=[1]), at_seconds=NOW - 7000)
    write_inputs(tmp_path, [Input(NOW - at, JSON, body_of(a=[at])) for at in (3700, 3500)], at_seconds=NOW - 3499)
    keep(tmp_path, body_of(a=[0]))
    assert read(tmp_path).frame["a"].tolist() == [3500, 0]
    assert len(read(tmp_path, "journal:86400").frame) == 4


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    keep(tmp_path, body_of(a=[1]), b"not json", None, b'{"instances": [[1, 2, 3]]}')
    keep(tmp_path, b"1", at_seconds=NOW - 5).write_bytes(b"noise")
    source = read(tmp_path).source
    assert "1 rows of 4 requests" in source
    assert source.endswith("; 1 over the capture limit; 2 not understood; 1 files cannot be read")


def test_the_digest_is_of_the_contents(tmp_path: Path) -> None:
    for name, bodies in (("one", (b"[]", body_of(a=[1]))), ("same", (b"[]", body_of(a=[1]))), ("other", (b"{}", body_of(a=[1])))):
        keep(tmp_path / name, *bodies)
    one, same, other = (read(tmp_path / name).digest for name in ("one", "same", "other"))
    assert one == same != other
    assert len(one) == 64


@pytest.mark.parametrize("uri", ["journal:", "journal:0", "journal:-5", "journal:1.5", "journal:1d", "journal:99999999999", "file.csv"])
def test_an_address_that_is_none_is_a_matter_of_policy(tmp_path: Path, uri: str) -> None:
    with pytest.raises(PolicyError, match="journal:86400"):
        read(tmp_path, uri)


def test_no_inputs_is_no_samples_and_names_the_remedy(tmp_path: Path) -> None:
    for directory in (tmp_path, tmp_path / "not there"):
        with pytest.raises(NoSamples, match=r"no inputs of the last 3600 s.*--input-share-bps 0; wait for traffic"):
            read(directory)
    keep(tmp_path, b"not json", None)
    with pytest.raises(NoSamples, match=r"none of 2 inputs .* 1 over the capture limit; 1 not understood"):
        read(tmp_path)


def test_a_file_that_cannot_be_read_is_not_taken_for_no_traffic(tmp_path: Path) -> None:
    keep(tmp_path, b"1").write_bytes(b"")
    with pytest.raises(NoSamples, match="1 files cannot be read"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("limit", "value"), [("MOST_BODY_COUNT", 300), ("MOST_BODY_BYTES", 300 * len(body_of(a=[1000]))), ("MOST_ROW_COUNT", 300)]
)
def test_too_much_is_drawn_from_the_whole_window_and_twice_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: int
) -> None:
    for part in range(10):
        bodies = [body_of(a=[1000 + 100 * part + position]) for position in range(100)]
        keep(tmp_path, *bodies, at_seconds=NOW - 100 + part)
    monkeypatch.setattr(input_rows, limit, value)
    found, again = read(tmp_path), read(tmp_path)
    values = found.frame["a"]
    assert len(values) == 300
    assert values.is_monotonic_increasing, "in the order of the requests"
    assert values.is_unique
    assert set((values - 1000) // 100) == set(range(10))
    assert (again.digest, again.frame["a"].tolist()) == (found.digest, values.tolist())


def test_columns_that_hardly_anybody_sends_cannot_fill_the_memory(tmp_path: Path) -> None:
    keep(tmp_path, *(json.dumps({"dataframe_records": [{"a": 1, f"odd {number}": 2}]}).encode() for number in range(500)))
    assert list(read(tmp_path).frame.columns) == ["a"]
    keep(tmp_path, json.dumps({"dataframe_records": [{f"often {number}": 2 for number in range(300)}] * 50}).encode())
    assert len(read(tmp_path).frame.columns) == 1 + input_rows.MOST_OTHER_COLUMNS


def test_a_column_of_the_signature_is_kept_however_rare_it_is(tmp_path: Path) -> None:
    keep(tmp_path, *(body_of(a=[1]) for _ in range(500)), body_of(a=[1], b=[2]))
    frame = read(tmp_path).frame
    assert list(frame.columns) == ["a", "b"]
    assert frame["b"].notna().sum() == 1


# The signature, for values without names.

VERSION = ModelVersion("late", "1", "sha256:" + "1" * 64)


@pytest.mark.parametrize(
    ("inputs", "kinds"),
    [
        ([{"name": "a", "type": "double"}, {"name": "b", "type": "string"}], {"a": "double", "b": "string"}),
        ([{"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1, 3]}}], {}),
    ],
    ids=["named columns", "a tensor without a name"],
)
def test_values_are_named_by_the_signature(tmp_path: Path, inputs: list[dict[str, Any]], kinds: dict[str, str]) -> None:
    files = MlflowFiles("http://nowhere", tmp_path)
    files.directory(VERSION).mkdir()
    signature = {"signature": {"inputs": json.dumps(inputs), "outputs": "[{}]"}}
    (files.directory(VERSION) / "MLmodel").write_text(json.dumps(signature))
    assert files.read_input_kinds(VERSION) == kinds


@pytest.mark.parametrize("inputs", ["not json", "7", "[7]"])
def test_a_signature_that_cannot_be_read_is_no_signature_without_names(tmp_path: Path, inputs: str) -> None:
    files = MlflowFiles("http://nowhere", tmp_path)
    files.directory(VERSION).mkdir()
    (files.directory(VERSION) / "MLmodel").write_text(json.dumps({"signature": {"inputs": inputs, "outputs": "[{}]"}}))
    with pytest.raises(ArtifactError, match="log the model again"):
        files.read_input_kinds(VERSION)

"""The table of requests that both model servers must answer alike, with the status that MLflow's gives."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

NAMES = ["amount", "count", "country", "vip"]
ROW: list[Any] = [1.5, 1, "de", True]
JSON_TYPE = {"content-type": "application/json"}
CSV_TYPE = {"content-type": "text/csv"}


def split(*rows: list[Any], names: list[str] | None = None, **more: Any) -> bytes:
    return json.dumps({"dataframe_split": {"columns": names or NAMES, "data": list(rows)}, **more}).encode()


def records(*rows: dict[str, Any]) -> bytes:
    return json.dumps({"dataframe_records": list(rows)}).encode()


@dataclass(frozen=True)
class Case:
    name: str
    body: bytes = b""
    headers: Mapping[str, str] | Mapping[bytes, bytes] = field(default_factory=lambda: dict(JSON_TYPE))
    method: str = "POST"
    path: str = "/invocations"
    status: int = 200
    same_body: bool = True


RECORD = dict(zip(NAMES, ROW, strict=True))
COLUMNS = {name: [value] for name, value in RECORD.items()}
HUGE = 10**30

CASES = [
    Case("split", split(ROW)),
    Case("split, many rows", split(*[[n / 7, n, "de", n % 2 == 0] for n in range(300)])),
    Case("split with index", json.dumps({"dataframe_split": {"index": [5, 3], "columns": NAMES, "data": [ROW, ROW]}}).encode()),
    Case(
        "split, index too short", json.dumps({"dataframe_split": {"index": [5], "columns": NAMES, "data": [ROW, ROW]}}).encode(), status=400
    ),
    Case("split, columns in another order", split(ROW[::-1], names=NAMES[::-1])),
    Case("split, whole number for a double", split([2, 1, "de", True])),
    Case("records", records(RECORD)),
    Case("records, uneven rows", records(RECORD, {"amount": 1.0}), status=400),
    Case("records that are no list", b'{"dataframe_records": {"amount": 1.5}}', status=400),
    Case("instances", json.dumps({"instances": [RECORD, RECORD]}).encode()),
    Case("inputs", json.dumps({"inputs": COLUMNS}).encode()),
    Case("charset in the content type", split(ROW), {"content-type": "application/json; charset=UTF-8"}),
    Case("csv", b"amount,count,country,vip\n1.5,1,de,True\n2.5,2,fr,False\n", CSV_TYPE),
    Case("csv, wrong type", b"amount,count,country,vip\nmuch,1,de,True\n", CSV_TYPE, status=400),
    Case("csv that is not utf-8", b"amount\n\xff\xfe", CSV_TYPE, status=400),
    Case("csv, empty", b"", CSV_TYPE, status=400),
    Case("parquet that is none", b"PAR0", {"content-type": "application/vnd.apache.parquet"}, status=400),
    Case("params", split(ROW, params={"factor": 4.0})),
    Case("params, whole number", split(ROW, params={"factor": 4})),
    Case("params, null", split(ROW, params=None)),
    Case("params, unknown", split(ROW, params={"nobody": 1})),
    Case("params, wrong type", split(ROW, params={"factor": "much"}), status=400),
    Case("params, no object", split(ROW, params=[1]), status=400),
    Case("unknown key beside the data", split(ROW, nobody=1)),
    Case("malformed JSON", b'{"dataframe_split": ', status=400),
    Case("JSON that is not utf-8", b'{"dataframe_split": "\xff"}', status=400),
    Case("JSON, too deep", b"[" * 100_000, status=500),
    Case("a list", b"[1, 2]", status=400),
    Case("a number", b"1", status=400),
    Case("empty body", b"", status=400),
    Case("empty object", b"{}", status=400),
    Case("two formats at once", json.dumps({"dataframe_records": [RECORD], "inputs": COLUMNS}).encode(), status=400),
    Case("chat input", b'{"messages": [{"role": "user", "content": "hello"}]}', status=400),
    Case("missing column", split(ROW[:3], names=NAMES[:3]), status=400),
    Case("extra column", split([*ROW, 9], names=[*NAMES, "extra"])),
    Case("a column twice", split([*ROW, 2.5], names=[*NAMES, "amount"]), status=400),
    Case("rows of different lengths", split(ROW, ROW[:2])),
    Case("text for a double", split(["much", 1, "de", True]), status=400),
    Case("digits as text for a double", split(["2.5", 1, "de", True])),
    Case("half a whole number", split([1.5, 1.5, "de", True])),
    Case("a number for a text", split([1.5, 1, 3, True])),
    Case("a number for a boolean", split([1.5, 1, "de", 1])),
    Case("a boolean for a double", split([True, 1, "de", True])),
    Case("null for a double", split([None, 1, "de", True])),
    Case("null for a whole number", split([1.5, None, "de", True]), status=400),
    Case("null for a text", split([1.5, 1, None, True])),
    Case("a list for a double", split([[1.5], 1, "de", True]), status=400),
    Case("an object for a double", split([{"a": 1}, 1, "de", True]), status=400),
    Case("NaN", split([float("nan"), 1, "de", True])),
    Case("Infinity", split([float("inf"), 1, "de", True])),
    Case("NaN for a whole number", split([1.5, float("nan"), "de", True]), status=400),
    Case(
        "a number beyond a double",
        b'{"dataframe_split": {"columns": ["amount","count","country","vip"], "data": [[1e999, 1, "de", true]]}}',
    ),
    Case("a whole number beyond 2**53 for a double", split([2**53 + 1, 1, "de", True], [1.5, 1, "de", True])),
    Case("a whole number beyond 64 bits for a double", split([HUGE, 1, "de", True])),
    Case("a whole number beyond 64 bits", split([1.5, HUGE, "de", True]), status=400),
    Case("no rows", split(), status=400),
    Case("no rows, no columns", b'{"dataframe_split": {"columns": [], "data": []}}', status=400),
    Case("records, none", b'{"dataframe_records": []}', status=400),
    Case("the model raises", split([13.0, 1, "de", True]), status=400),
    Case("the model raises, csv", b"amount,count,country,vip\n13,1,de,True\n", CSV_TYPE, status=400),
    Case("the model raises an internal error", split([14.0, 1, "de", True]), status=500),
    Case("the model answers what is no JSON", split([15.0, 1, "de", True]), status=500),
    Case("wrong content type", split(ROW), {"content-type": "text/html"}, status=415),
    Case("wrong charset", split(ROW), {"content-type": "application/json; charset=latin-1"}, status=415),
    Case("unknown content type parameter", split(ROW), {"content-type": "application/json; format=pandas-split"}, status=415),
    Case("content type that is no text", split(ROW), {b"content-type": b"appl\xe9"}, status=415, same_body=False),
    Case("no content type", split(ROW), {}, status=500),
    Case("GET on /invocations", method="GET", status=405),
    Case("PUT on /invocations", split(ROW), method="PUT", status=405),
    Case("ping", method="GET", path="/ping"),
    Case("health", method="GET", path="/health"),
    Case("version", method="GET", path="/version"),
    Case("POST on /ping", method="POST", path="/ping", status=405),
    Case("unknown path", method="GET", path="/nope", status=404),
    Case("the root", method="GET", path="/", status=404),
]

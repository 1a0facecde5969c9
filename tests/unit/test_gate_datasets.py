"""Rows come from exactly the bytes whose digest is recorded, or not at all."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest

from interlock.adapters import datasets
from interlock.adapters.datasets import read_logged_rows, read_rows
from interlock.errors import EvidenceError, NoSamples, PolicyError, ReleaseError, ServiceRefused, ServiceUnavailable

FRAME = pd.DataFrame({"hour": [1, 2, 3], "late": [0, 1, 0]})


@pytest.fixture
def data(tmp_path: Path) -> Path:
    directory = tmp_path / "data"
    directory.mkdir()
    FRAME.to_parquet(directory / "rows.parquet")
    FRAME.to_csv(directory / "rows.csv", index=False)
    FRAME.to_parquet(tmp_path / "outside.parquet")
    return directory


@pytest.mark.parametrize("name", ["rows.parquet", "rows.csv"])
def test_rows_are_read_with_the_digest_of_their_file(data: Path, name: str) -> None:
    read = read_rows(name, data_directory=data)
    pd.testing.assert_frame_equal(read.frame, FRAME)
    assert read.digest == hashlib.sha256((data / name).read_bytes()).hexdigest()


def test_an_absolute_path_is_read(data: Path) -> None:
    assert len(read_rows(str(data.parent / "outside.parquet"), data_directory=data).frame) == 3


def test_a_link_does_not_lead_out_of_the_data_directory(data: Path) -> None:
    (data / "link.parquet").symlink_to(data.parent / "outside.parquet")
    with pytest.raises(PolicyError, match="leaves the data directory"):
        read_rows("link.parquet", data_directory=data)


@pytest.mark.parametrize(
    ("uri", "error"),
    [
        pytest.param("../outside.parquet", PolicyError, id="the parent directory"),
        pytest.param("a/../../outside.parquet", PolicyError, id="the parent directory in disguise"),
        pytest.param("https://example.org/rows.csv", PolicyError, id="an address of the web"),
        pytest.param("file:///etc/rows.csv", PolicyError, id="a file address"),
        pytest.param("s3://bucket/key.csv?versionId=3", PolicyError, id="an S3 address with a query"),
        pytest.param("rows.pickle", PolicyError, id="a pickle"),
        pytest.param("rows", PolicyError, id="no suffix"),
        pytest.param("", PolicyError, id="an empty address"),
        pytest.param("absent.csv", ServiceRefused, id="no such file"),
        pytest.param("directory.csv", ServiceRefused, id="a directory"),
        pytest.param("rows.csv/deeper.csv", ServiceRefused, id="below a file"),
    ],
)
def test_an_address_that_cannot_be_read_is_refused(data: Path, uri: str, error: type[ReleaseError]) -> None:
    (data / "directory.csv").mkdir()
    with pytest.raises(error):
        read_rows(uri, data_directory=data)


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        pytest.param("x.parquet", b"", NoSamples, id="an empty parquet file"),
        pytest.param("x.parquet", b"<html>404</html>", EvidenceError, id="an error page as parquet"),
        pytest.param("x.csv", b"", NoSamples, id="an empty csv file"),
        pytest.param("x.csv", b"a,b\n", NoSamples, id="a header without rows"),
        pytest.param("x.csv", b"\xff\xfe\x00garbage", EvidenceError, id="bytes that are no text"),
        pytest.param("x.csv", b"a,b,a\n1,2,3\n", EvidenceError, id="a column name twice"),
        pytest.param("x.csv", b'a,b\n"1,2\n', EvidenceError, id="a quote that never ends"),
        pytest.param("x.csv", b"a,b\n1,2\n1,2,3,4\n", EvidenceError, id="a row longer than the header"),
    ],
)
def test_garbage_is_not_evidence(tmp_path: Path, name: str, content: bytes, error: type[ReleaseError]) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(error):
        read_rows(name, data_directory=tmp_path)


def test_a_damaged_parquet_file_is_either_read_or_refused_but_never_crashes(data: Path) -> None:
    whole = (data / "rows.parquet").read_bytes()
    generator = np.random.default_rng(0)
    refused = 0
    for _ in range(150):
        damaged = bytearray(whole[: int(generator.integers(1, len(whole) + 1))])
        for place in generator.integers(0, len(damaged), 3):
            damaged[place] ^= int(generator.integers(1, 256))
        (data / "damaged.parquet").write_bytes(damaged)
        try:
            read_rows("damaged.parquet", data_directory=data)
        except EvidenceError:
            refused += 1
    assert refused > 100


class FakeS3:
    """Stands in for boto3's client: answers, or raises."""

    def __init__(self, answer: bytes | Exception) -> None:
        self._answer = answer

    def get_object(self, *, Bucket: str, Key: str) -> dict[str, Any]:  # noqa: N803
        assert (Bucket, Key) == ("bucket", "deep/rows.parquet")
        return {"Body": self}

    def read(self) -> bytes:
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


def client_error(code: str) -> Exception:
    from botocore.exceptions import ClientError

    error: Exception = ClientError({"Error": {"Code": code, "Message": "AKIAIOSFODNN7EXAMPLE"}}, "GetObject")
    return error


def transport_error(name: str) -> Exception:
    import botocore.exceptions

    arguments = {"endpoint_url": "http://s3", "error": "x", "actual_bytes": 1, "expected_bytes": 2}
    error: Exception = getattr(botocore.exceptions, name)(**arguments)
    return error


def read_from(monkeypatch: pytest.MonkeyPatch, answer: bytes | Exception) -> pd.DataFrame:
    import boto3

    monkeypatch.setattr(boto3, "client", lambda *_, **__: FakeS3(answer))
    return read_rows("s3://bucket/deep/rows.parquet", data_directory=Path("/nowhere")).frame


def test_rows_are_read_from_s3(monkeypatch: pytest.MonkeyPatch, data: Path) -> None:
    pd.testing.assert_frame_equal(read_from(monkeypatch, (data / "rows.parquet").read_bytes()), FRAME)


@pytest.mark.parametrize(
    ("make", "error"),
    [
        pytest.param(lambda: client_error("NoSuchKey"), ServiceRefused, id="no such key"),
        pytest.param(lambda: client_error("AccessDenied"), ServiceRefused, id="access denied"),
        pytest.param(lambda: client_error("SlowDown"), ServiceUnavailable, id="slow down"),
        pytest.param(lambda: client_error("503"), ServiceUnavailable, id="a 503 without a code"),
        pytest.param(lambda: transport_error("EndpointConnectionError"), ServiceUnavailable, id="no connection"),
        pytest.param(lambda: transport_error("ReadTimeoutError"), ServiceUnavailable, id="time-out while reading"),
        pytest.param(lambda: transport_error("IncompleteReadError"), ServiceUnavailable, id="cut off while reading"),
        pytest.param(lambda: transport_error("ResponseStreamingError"), ServiceUnavailable, id="broken off while reading"),
        pytest.param(lambda: transport_error("NoCredentialsError"), ServiceRefused, id="no credentials"),
        pytest.param(lambda: transport_error("NoRegionError"), ServiceRefused, id="no region"),
    ],
)
def test_what_s3_raises_is_named_by_who_must_act(monkeypatch: pytest.MonkeyPatch, make: Any, error: type[ReleaseError]) -> None:
    with pytest.raises(error) as caught:
        read_from(monkeypatch, make())
    assert "AKIA" not in str(caught.value)


def test_rows_of_a_logged_dataset_are_read_from_where_its_source_is(monkeypatch: pytest.MonkeyPatch, data: Path) -> None:
    content = (data / "rows.parquet").read_bytes()
    path = data / "rows.parquet"
    for address in (str(path), path.as_uri(), path.as_uri().replace("rows", "ro%77s")):
        read = read_logged_rows(address, name="runs:/1/flights")
        assert read.digest == hashlib.sha256(content).hexdigest()
        assert read.source.startswith("runs:/1/flights (")
    import boto3

    monkeypatch.setattr(boto3, "client", lambda *_, **__: FakeS3(content))
    pd.testing.assert_frame_equal(read_logged_rows("s3://bucket/deep/rows.parquet", name="x").frame, FRAME)


@pytest.mark.parametrize(
    "address",
    [
        pytest.param("rows.parquet", id="a path from somebody else's working directory"),
        pytest.param("dbfs:/rows.parquet", id="a kind of address that we do not read"),
        pytest.param("/data/rows.pickle", id="a pickle"),
        pytest.param("https://example.org/rows", id="a web address without a suffix"),
        pytest.param("/data/absent.csv", id="no such file"),
    ],
)
def test_a_source_that_cannot_be_read_is_refused_and_not_called_a_wrong_profile(address: str) -> None:
    with pytest.raises(ServiceRefused):
        read_logged_rows(address, name="runs:/1/flights")


def over_web(monkeypatch: pytest.MonkeyPatch, answer: Any, *, headers: dict[str, str] | None = None) -> None:
    def handle(_: httpx.HTTPTransport, request: httpx.Request) -> httpx.Response:
        if isinstance(answer, Exception):
            raise answer
        status, content = answer
        return httpx.Response(status, content=content, headers=headers, request=request)

    monkeypatch.setattr(httpx.HTTPTransport, "handle_request", handle)


def test_rows_are_read_from_a_web_address_whose_key_is_not_shown(monkeypatch: pytest.MonkeyPatch, data: Path) -> None:
    over_web(monkeypatch, (200, (data / "rows.csv").read_bytes()))
    read = read_logged_rows("https://example.org/rows.csv?key=abc", name="runs:/1/flights")
    pd.testing.assert_frame_equal(read.frame, FRAME)
    assert "abc" not in read.source


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        pytest.param((404, b"<html>"), ServiceRefused, id="not found"),
        pytest.param((503, b"<html>"), ServiceUnavailable, id="unavailable"),
        pytest.param((200, b""), NoSamples, id="an empty body"),
        pytest.param((200, b"a,b\n"), NoSamples, id="a header without rows"),
        pytest.param(httpx.ConnectError("abc"), ServiceUnavailable, id="no connection"),
    ],
)
def test_what_the_web_answers_is_named_by_who_must_act(monkeypatch: pytest.MonkeyPatch, answer: Any, error: type[ReleaseError]) -> None:
    over_web(monkeypatch, answer)
    with pytest.raises(error) as caught:
        read_logged_rows("https://example.org/rows.csv?key=abc", name="runs:/1/flights")
    assert "abc" not in str(caught.value)


@pytest.mark.parametrize(
    ("start", "to"),
    [
        pytest.param("https", "http://example.org/rows.csv?key=abc", id="https to http"),
        pytest.param("https", "ftp://example.org/rows.csv?key=abc", id="https to ftp"),
        pytest.param("http", "file:///etc/rows.csv?key=abc", id="http to a file"),
        pytest.param("https", "https://example.org/rows.csv?key=abc", id="to itself, without end"),
    ],
)
def test_a_redirect_that_leads_nowhere_good_is_refused(monkeypatch: pytest.MonkeyPatch, start: str, to: str) -> None:
    over_web(monkeypatch, (302, b""), headers={"location": to})
    with pytest.raises(ServiceRefused, match="redirects") as caught:
        read_logged_rows(f"{start}://example.org/rows.csv", name="runs:/1/flights")
    assert "abc" not in str(caught.value)


def test_a_redirect_from_http_to_https_is_followed(monkeypatch: pytest.MonkeyPatch, data: Path) -> None:
    def handle(_: httpx.HTTPTransport, request: httpx.Request) -> httpx.Response:
        if request.url.scheme == "http":
            return httpx.Response(301, headers={"location": "https://example.org/rows.csv"}, request=request)
        return httpx.Response(200, content=(data / "rows.csv").read_bytes(), request=request)

    monkeypatch.setattr(httpx.HTTPTransport, "handle_request", handle)
    pd.testing.assert_frame_equal(read_logged_rows("http://example.org/rows.csv", name="x").frame, FRAME)


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        pytest.param("WEB_MAX_BYTES", 10, ServiceRefused, "more than 10 bytes", id="too large"),
        pytest.param("WEB_DEADLINE_SECONDS", -1.0, ServiceUnavailable, "was not read within", id="too slow"),
    ],
)
def test_a_file_of_the_web_without_end_is_not_read_to_its_end(
    monkeypatch: pytest.MonkeyPatch, name: str, value: float, error: type[ReleaseError], message: str
) -> None:
    given: list[int] = []

    def drip() -> Iterator[bytes]:
        for index in range(1000):
            given.append(index)
            yield b"a,b\n1,2\n" * 10

    over_web(monkeypatch, (200, drip()))
    monkeypatch.setattr(datasets, name, value)
    with pytest.raises(error, match=message):
        read_logged_rows("https://example.org/rows.csv", name="runs:/1/flights")
    assert len(given) == 1

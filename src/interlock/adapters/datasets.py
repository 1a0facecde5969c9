"""Rows from a Parquet or CSV file, on disk, in S3 or at a web address, with the digest of exactly the bytes they were parsed from."""

import csv
import hashlib
import io
import re
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import pandas as pd

from interlock.errors import EvidenceError, NoSamples, PolicyError, ServiceError, ServiceRefused, ServiceUnavailable
from interlock.model.redaction import one_line

if TYPE_CHECKING:
    import httpx

WEB_PATIENCE_SECONDS = 60.0  # between two blocks
WEB_DEADLINE_SECONDS = 600.0  # for the whole file
WEB_MAX_BYTES = 4 * 2**30
WEB_REDIRECT_COUNT = 20
_S3 = re.compile(r"s3://(?P<bucket>[^/?#]+)/(?P<key>[^?#]+)")
_TRANSIENT_CODES = frozenset(
    {"500", "502", "503", "504", "InternalError", "RequestTimeout", "ServiceUnavailable", "SlowDown", "Throttling"}
)


@dataclass(frozen=True, slots=True)
class Dataset:
    """Rows as read once. `digest` is the SHA-256 of the file's bytes, hexadecimal; `source` says where they came from."""

    frame: pd.DataFrame
    digest: str
    source: str


def read_rows(uri: str, *, data_directory: Path) -> Dataset:
    """
    Read all rows of one file, whole, into memory.

    `uri` is a path relative to `data_directory` (which it may not leave, not even through a link), an absolute path, or s3://bucket/key;
    it ends in .parquet or .csv. The first line of a CSV names the columns.

    Raises:
        PolicyError: the address leaves the data directory, or is of another kind.
        ServiceRefused: there is no such file, or it may not be read.
        ServiceUnavailable: S3 does not answer now.
        EvidenceError: the bytes are not what the name promises, or a column name is there twice.
        NoSamples: no rows.
    """
    if _parser(uri) is None:
        raise PolicyError(f"data {one_line(ValueError(uri))} is neither .parquet nor .csv: name such a file in the release profile")
    content, source = _read_s3(uri) if uri.startswith("s3://") else _read_file(_local_path(uri, data_directory))
    return _parsed(uri, content, source)


def read_logged_rows(address: str, *, name: str) -> Dataset:
    """
    Read all rows of one file whose address came from MLflow: an absolute path, file://, s3://bucket/key, http:// or https://.

    `name`: of the dataset, for the messages and as the source. The same rules and errors as `read_rows`; ServiceRefused also for an
    address of another kind, which is not the profile's fault.
    """
    scheme = urlsplit(address).scheme
    if _parser(address) is None:
        raise ServiceRefused(f"the source of {name} is neither .parquet nor .csv: log the dataset with such a file as its source")
    if scheme == "s3":
        content, _ = _read_s3(address)
    elif scheme in {"http", "https"}:
        content = _read_web(address, name)
    elif scheme in {"", "file"} and (path := Path(unquote(urlsplit(address).path) if scheme else address)).is_absolute():
        content, _ = _read_file(path)
    else:
        raise ServiceRefused(
            f"the source of {name} is no absolute path and no file, S3 or web address: log the dataset with such a file as its source"
        )
    return _parsed(address, content, f"{name} ({_without_query(address)})")


def _parser(uri: str) -> Callable[[bytes], pd.DataFrame] | None:
    return _PARSERS.get(PurePosixPath(_without_query(uri) if uri.startswith("http") else uri).suffix.lower())


def _without_query(address: str) -> str:
    """A signed address carries its key in the query."""
    return address.partition("?")[0].partition("#")[0]


def _parsed(uri: str, content: bytes, source: str) -> Dataset:
    parse = _parser(uri)
    assert parse is not None
    if not content:
        raise NoSamples(f"{source} is an empty file: check the query that writes it")
    try:
        frame = parse(content)
    except (ValueError, OSError, NotImplementedError, OverflowError, csv.Error) as error:
        raise EvidenceError(f"{source} cannot be read as rows, {type(error).__name__}: {one_line(error)}: write it again") from error
    if frame.empty:
        raise NoSamples(f"{source} has no rows: check the query that writes it")
    return Dataset(frame, hashlib.sha256(content).hexdigest(), source)


def _read_file(path: Path) -> tuple[bytes, str]:
    try:
        return path.read_bytes(), str(path)
    except FileNotFoundError as error:
        raise ServiceRefused(f"there is no file {path}: put it there, or name another one in the release profile") from error
    except OSError as error:
        raise ServiceRefused(f"{path} cannot be read ({error.strerror}): check its permissions") from error


def _local_path(uri: str, data_directory: Path) -> Path:
    if "://" in uri or "\0" in uri:
        raise PolicyError("data is read from a file, s3://bucket/key or runs:/RUN_ID/NAME, not from another kind of address")
    if Path(uri).is_absolute():
        return Path(uri)
    root = data_directory.resolve()
    path = (root / uri).resolve()
    if not path.is_relative_to(root):
        raise PolicyError(f"data {uri} leaves the data directory {root}: name a file inside it, or an absolute path")
    return path


def _read_s3(uri: str) -> tuple[bytes, str]:
    address = _S3.fullmatch(uri)
    if address is None:
        raise PolicyError("an S3 address has the form s3://bucket/key, without query and fragment")
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    patience = Config(connect_timeout=5, read_timeout=60, retries={"total_max_attempts": 2, "mode": "standard"})
    try:
        body = boto3.client("s3", config=patience).get_object(Bucket=address["bucket"], Key=address["key"])["Body"]
        return body.read(), uri
    except (BotoCoreError, ClientError, ValueError) as error:
        raise _translated(error, uri) from error


def _read_web(address: str, name: str) -> bytes:
    import httpx

    deadline = time.monotonic() + WEB_DEADLINE_SECONDS
    try:
        with httpx.Client(timeout=WEB_PATIENCE_SECONDS) as client:
            request = client.build_request("GET", address)
            for _ in range(WEB_REDIRECT_COUNT + 1):
                with closing(client.send(request, stream=True)) as response:
                    if response.next_request is None:
                        _require_success(response.status_code, name)
                        return _read_body(response.iter_bytes(), deadline, name)
                    request = _redirected(request.url.scheme, response.next_request, name)
    except httpx.TransportError as error:
        raise ServiceUnavailable(f"the source of {name} does not answer now ({type(error).__name__})") from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ServiceRefused(f"the source of {name} cannot be read ({type(error).__name__}): check its address") from error
    raise ServiceRefused(f"the source of {name} redirects more than {WEB_REDIRECT_COUNT} times: check its address")


def _redirected(scheme: str, to: "httpx.Request", name: str) -> "httpx.Request":
    """The next request. Only from http to https may the scheme change."""
    if to.url.scheme not in {scheme, "https"}:
        raise ServiceRefused(f"the source of {name} redirects from {scheme} to another kind of address: log it with its final address")
    return to


def _require_success(status_code: int, name: str) -> None:
    if status_code >= 500 or status_code in {408, 425, 429}:
        raise ServiceUnavailable(f"the source of {name} answers {status_code} now")
    if status_code != 200:
        raise ServiceRefused(f"the source of {name} answers {status_code}: check its address")


def _read_body(blocks: Iterable[bytes], deadline: float, name: str) -> bytes:
    """All of it, unpacked. A server that never ends must not fill the memory, and one that drips must not hold a release for ever."""
    content = bytearray()
    for block in blocks:
        content += block
        if len(content) > WEB_MAX_BYTES:
            raise ServiceRefused(f"the source of {name} has more than {WEB_MAX_BYTES} bytes: log the dataset with a smaller file")
        if time.monotonic() > deadline:
            raise ServiceUnavailable(f"the source of {name} was not read within {WEB_DEADLINE_SECONDS:g} s ({len(content)} bytes were)")
    return bytes(content)


def _translated(error: Exception, uri: str) -> ServiceError:
    from botocore.exceptions import ConnectionError as NoConnection
    from botocore.exceptions import HTTPClientError, IncompleteReadError

    code = _s3_code(error)
    if code in _TRANSIENT_CODES or isinstance(error, NoConnection | HTTPClientError | IncompleteReadError):
        return ServiceUnavailable(f"S3 does not deliver {uri} now ({code})")
    return ServiceRefused(f"S3 refuses {uri} ({code}): check the address, the credentials and the bucket policy")


def _s3_code(error: Exception) -> str:
    """The service's short error code, or the client's class name: never its message, which may quote the request."""
    response: Mapping[str, Any] = getattr(error, "response", None) or {}
    return str(response.get("Error", {}).get("Code") or type(error).__name__)


def _parse_parquet(content: bytes) -> pd.DataFrame:
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(io.BytesIO(content))
    _refuse_twins(table.column_names)
    frame = table.to_pandas()
    return frame if isinstance(frame, pd.DataFrame) else pd.DataFrame(frame)


def _parse_csv(content: bytes) -> pd.DataFrame:
    header = next(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline="")), [])
    _refuse_twins(header)
    return pd.read_csv(io.BytesIO(content), encoding="utf-8-sig", index_col=False, low_memory=False)


def _refuse_twins(names: list[str]) -> None:
    if twins := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"column {', '.join(twins)} is there more than once")


_PARSERS: Mapping[str, Callable[[bytes], pd.DataFrame]] = {".parquet": _parse_parquet, ".csv": _parse_csv}

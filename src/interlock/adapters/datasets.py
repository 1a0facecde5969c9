"""Rows from a Parquet or CSV file, on disk or in S3, together with the digest of exactly the bytes they were parsed from."""

import csv
import hashlib
import io
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from interlock.errors import EvidenceError, NoSamples, PolicyError, ServiceError, ServiceRefused, ServiceUnavailable
from interlock.model.redaction import one_line

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
    parse = _PARSERS.get(PurePosixPath(uri).suffix.lower())
    if parse is None:
        raise PolicyError(f"data {one_line(ValueError(uri))} is neither .parquet nor .csv: name such a file in the release profile")
    content, source = _read_s3(uri) if uri.startswith("s3://") else _read_file(uri, data_directory)
    if not content:
        raise NoSamples(f"{source} is an empty file: check the query that writes it")
    try:
        frame = parse(content)
    except (ValueError, OSError, NotImplementedError, OverflowError, csv.Error) as error:
        raise EvidenceError(f"{source} cannot be read as rows, {type(error).__name__}: {one_line(error)}: write it again") from error
    if frame.empty:
        raise NoSamples(f"{source} has no rows: check the query that writes it")
    return Dataset(frame, hashlib.sha256(content).hexdigest(), source)


def _read_file(uri: str, data_directory: Path) -> tuple[bytes, str]:
    path = _local_path(uri, data_directory)
    try:
        return path.read_bytes(), str(path)
    except FileNotFoundError as error:
        raise ServiceRefused(f"there is no file {path}: put it there, or name another one in the release profile") from error
    except OSError as error:
        raise ServiceRefused(f"{path} cannot be read ({error.strerror}): check its permissions") from error


def _local_path(uri: str, data_directory: Path) -> Path:
    if "://" in uri or "\0" in uri:
        raise PolicyError("data is read from a file or from s3://bucket/key, not from another kind of address")
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

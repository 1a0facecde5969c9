"""
Recent inputs of users as one data frame: journal:SECONDS, for the drift gate.

Memory and time are bounded whatever lies on the disk: bodies are drawn before they are read, rows before they are put together.
"""

import hashlib
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from interlock.errors import EvidenceError, NoSamples, PolicyError
from interlock.serving.input_casts import TEXT, Caster
from interlock.serving.input_shapes import Columns, NotUnderstood, read_columns
from interlock.serving.inputs import Input, Listing, list_files, read_bodies, read_listing

SCHEME = "journal:"
_ADDRESS = re.compile(r"journal:([1-9][0-9]{0,8})")
MOST_BODY_BYTES = 64 * 1024 * 1024  # JSON text that is parsed: half a million rows of 20 numbers, some seconds
MOST_BODY_COUNT = 200_000
MOST_ROW_COUNT = 500_000
# Anybody can send columns that no model wants, another one each time: beside the signature's, only what every hundredth row has is kept.
MOST_OTHER_COLUMNS = 100
LEAST_OTHER_SHARE = 0.01


@dataclass(frozen=True, slots=True)
class InputRows:
    """Rows that users have sent. `digest`: SHA-256 of the bodies they were parsed from, in order; `source`: how many, and from when."""

    frame: pd.DataFrame
    digest: str
    source: str


def read_input_rows(uri: str, *, directory: Path, now_at_seconds: float, kinds: Mapping[str, str]) -> InputRows:
    """
    The rows of the inputs that were kept in the last so many seconds, in the order of their requests; at most 500,000.

    Where there are more than 200,000 bodies or 64 MiB of them, whole bodies are drawn, with a seed from what lies there: the same files
    give the same rows. Columns are the signature's (`kinds`: name and MLflow's word for the type, in its order), cast as the server casts
    them, and others that at least 1 % of the rows have. What a row does not have is missing, and so is an infinite value.

    Raises:
        PolicyError: not journal: and a number of seconds.
        NoSamples: none were kept in that time, or none of them is understood.
    """
    address = _ADDRESS.fullmatch(uri)
    if address is None:
        raise PolicyError(f"{uri!r} is not journal: and a whole number of seconds, say journal:86400")
    window_seconds = int(address[1])
    window = _Window(list_files(directory, since_at_seconds=now_at_seconds - window_seconds), now_at_seconds - window_seconds)
    if not window.total_count:
        raise NoSamples(
            f"the journal holds no inputs of the last {window_seconds} s{window.remarks}: it keeps a share of what users send, unless "
            "`interlock up` was started with --input-share-bps 0; wait for traffic, or name a file in the release profile"
        )
    found = _parse(window, kinds)
    if not found.row_count:
        raise NoSamples(f"none of {found.body_count} inputs of the last {window_seconds} s is understood{found.remarks(window)}")
    chosen = _drawn(found.row_count, MOST_ROW_COUNT, window.seed)
    source = f"journal: {len(chosen)} rows of {found.body_count} requests, {found.first_at} to {found.last_at}{found.remarks(window)}"
    return InputRows(found.frame(chosen, tuple(kinds)), found.digest.hexdigest(), source)


class _Window:
    """What lies in the window, and which bodies of it are read."""

    def __init__(self, paths: Sequence[Path], since_at_seconds: float) -> None:
        self.unreadable_count = 0
        self._listings: list[Listing] = []
        for path in paths:
            try:
                self._listings.append(read_listing(path))
            except EvidenceError:
                self.unreadable_count += 1
        self._inside = [listing.received_at_seconds >= since_at_seconds for listing in self._listings]
        self.total_count = int(sum(inside.sum() for inside in self._inside))
        seeding = hashlib.sha256()
        for listing, inside in zip(self._listings, self._inside, strict=True):
            seeding.update(listing.received_at_seconds[inside].tobytes() + listing.size_bytes[inside].tobytes())
        self.seed = int.from_bytes(seeding.digest()[:8], "big")

    @property
    def remarks(self) -> str:
        """What is missing, for people; empty when nothing is."""
        return f"; {self.unreadable_count} files cannot be read" if self.unreadable_count else ""

    def read(self) -> list[Input]:
        """The bodies drawn, in the order of the files. A file that goes meanwhile counts as one that cannot be read."""
        if not self.total_count:
            return []
        bodies: list[Input] = []
        for listing, wanted in zip(self._listings, self._draw(), strict=True):
            try:
                bodies += read_bodies(listing.path, np.flatnonzero(wanted)) if wanted.any() else []
            except EvidenceError:
                self.unreadable_count += 1
        return bodies

    def _draw(self) -> list[NDArray[np.bool_]]:
        sizes = np.concatenate([listing.size_bytes[inside] for listing, inside in zip(self._listings, self._inside, strict=True)])
        if len(sizes) <= MOST_BODY_COUNT and int(sizes.sum(dtype=np.int64)) <= MOST_BODY_BYTES:
            return self._inside
        order = np.random.default_rng(self.seed).permutation(len(sizes))
        fits = np.cumsum(sizes[order], dtype=np.int64) <= MOST_BODY_BYTES
        fits[MOST_BODY_COUNT:] = False
        is_drawn = np.zeros(len(sizes), dtype=np.bool_)
        is_drawn[order[fits]] = True
        wanted, begin = [], 0
        for inside in self._inside:
            mask = inside.copy()
            mask[inside] = is_drawn[begin : begin + int(inside.sum())]
            begin += int(inside.sum())
            wanted.append(mask)
        return wanted


@dataclass
class _Parsed:
    """The rows so far: of each column the stretches of rows that have it."""

    caster: Caster
    body_count: int = 0
    row_count: int = 0
    not_understood_count: int = 0
    oversized_count: int = 0
    first_at: str = ""
    last_at: str = ""
    digest: Any = field(default_factory=hashlib.sha256)
    stretches: dict[str, list[tuple[int, Sequence[Any]]]] = field(default_factory=lambda: defaultdict(list))

    def add(self, one: Input, columns: Columns | None) -> None:
        """One request, with its rows if they are understood."""
        at = f"{datetime.fromtimestamp(one.received_at_seconds, UTC):%Y-%m-%d %H:%M:%S}"
        self.first_at, self.last_at, self.body_count = self.first_at or at, at, self.body_count + 1
        body = one.body or b""
        self.digest.update(f"{one.received_at_seconds!r} {one.content_type} {len(body)}\n".encode() + body)
        if columns is None:
            self.oversized_count += one.body is None
            self.not_understood_count += one.body is not None
            return
        for name, values in columns.items():
            self.stretches[name].append((self.row_count, values))
        self.row_count += len(next(iter(columns.values())))

    def remarks(self, window: _Window) -> str:
        """What is missing, for people; empty when nothing is."""
        remarks = f"; {self.oversized_count} over the capture limit" if self.oversized_count else ""
        remarks += f"; {self.not_understood_count} not understood" if self.not_understood_count else ""
        remarks += f"; {count} values that are not finite taken for missing" if (count := self.caster.not_finite_count) else ""
        remarks += f"; drawn of {window.total_count}" if self.body_count < window.total_count else ""
        return remarks + window.remarks

    def frame(self, chosen: NDArray[np.intp], names: Sequence[str]) -> pd.DataFrame:
        """The chosen rows, the columns of the signature first."""
        kept = self._kept(names)
        return pd.DataFrame({name: self._column(name, chosen) for name in kept}) if kept else pd.DataFrame(index=range(len(chosen)))

    def _kept(self, names: Sequence[str]) -> list[str]:
        counts = {name: sum(len(values) for _, values in self.stretches[name]) for name in self.stretches}
        others = [name for name in counts if name not in names and counts[name] >= LEAST_OTHER_SHARE * self.row_count]
        others.sort(key=lambda name: -counts[name])
        return [*(name for name in names if name in counts), *others[:MOST_OTHER_COLUMNS]]

    def _column(self, name: str, chosen: NDArray[np.intp]) -> "pd.Series[Any]":
        values: list[Any] = [None] * self.row_count
        for begin, stretch in self.stretches[name]:
            values[begin : begin + len(stretch)] = stretch
        return self.caster.series(name, values if len(chosen) == self.row_count else [values[position] for position in chosen])


def _parse(window: _Window, kinds: Mapping[str, str]) -> _Parsed:
    caster, names = Caster(kinds), tuple(kinds)
    found, texts = _Parsed(caster), {name for name, kind in kinds.items() if kind == TEXT}
    for one in window.read():
        try:
            found.add(one, None if one.body is None else caster.cast(read_columns(one.body, one.content_type, names=names, texts=texts)))
        except NotUnderstood:
            found.add(one, None)
    return found


def _drawn(count: int, most: int, seed: int) -> NDArray[np.intp]:
    if count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, most, replace=False))

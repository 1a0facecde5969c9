"""
Which keys have been seen, and when: in keyed analysis a key counts once in every process, however often it asks.

With sticky traffic the unit of randomisation is the key (a customer, a session), and so the unit of analysis must be: judged request by
request, one customer who asks a hundred times is a hundred witnesses who are one. A process that restarts later counts the key's first
request after its own beginning, so that a fault that begins late is seen in keys that came early.
"""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from interlock.errors import EvidenceError
from interlock.judge.counts import whole
from interlock.judge.grids import Ints

MOST_KEYS = 200_000  # about 30 MB; beyond it a fixed part of all keys, chosen by digest, stands for all of them
NOT_COUNTED = -1
_FORMAT = "judge-keys/v1"
_SCALE = 2**64


class KeyMemory:
    """
    The last window of every key that is in the sample. Grows to at most `most_keys`; then the sample is halved, again and again.

    Workers that share a canary must be given different keys: what one has seen, the other does not know.
    """

    def __init__(self, *, most_keys: int = MOST_KEYS) -> None:
        self._last_window: dict[int, int] = {}
        self._below = _SCALE  # keys whose digest lies below are in the sample
        self._most_keys = most_keys

    def __len__(self) -> int:
        return len(self._last_window)

    @property
    def sampled_share(self) -> float:
        """Share of all keys that are counted, in (0, 1]."""
        return self._below / _SCALE

    def visit(self, keys: Iterable[str], windows: Ints) -> Ints:
        """
        Note that the keys came in these windows, and return from which window on each is fresh; -1 = not to be counted.

        Not counted: a key that came in this window (or, out of order, a later one) already, and one outside the sample.
        """
        fresh = [self._visit(_digest(key), window) for key, window in zip(keys, windows.tolist(), strict=True)]
        return np.array(fresh, dtype=np.int64)

    def _visit(self, key: int, window: int) -> int:
        if key >= self._below:
            return NOT_COUNTED
        last = self._last_window.get(key, -1)
        if last >= window:
            return NOT_COUNTED
        self._last_window[key] = window
        if len(self._last_window) > self._most_keys:
            self._below //= 2
            self._last_window = {each: seen for each, seen in self._last_window.items() if each < self._below}
        return last + 1

    def to_dict(self) -> dict[str, Any]:
        """The memory as JSON types."""
        return {
            "format": _FORMAT,
            "most_keys": self._most_keys,
            "below": str(self._below),
            "last_window": {f"{key:016x}": window for key, window in sorted(self._last_window.items())},
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> "KeyMemory":
        """The memory that wrote the document. Raises EvidenceError when it is not one."""
        try:
            if document["format"] != _FORMAT:
                raise EvidenceError(f"key memory has the format {document['format']!r}, needs {_FORMAT}")
            memory = cls(most_keys=whole(document["most_keys"]))
            memory._below = whole(int(document["below"]))
            memory._last_window = {int(key, 16): whole(window) for key, window in document["last_window"].items()}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise EvidenceError(f"key memory cannot be read: {type(error).__name__} {error}") from error
        return memory


def _digest(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest())

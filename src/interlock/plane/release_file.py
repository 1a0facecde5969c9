"""One release's evidence file followed as it grows, for the live page. Each look reads what is new only, and keeps a bounded part."""

import json
from collections import deque
from pathlib import Path
from typing import Any

KEPT_TICKS = 300  # five minutes: the page's time axis
KEPT_GATES = 50
KEPT_EVENTS = 100
EVENTS = frozenset({"phase", "final look", "promoted", "finalised", "rollback"})
SIGNAL_FIELDS = ("name", "value", "limit", "unit", "sample_count", "e_value", "halting_e_value")
TICK_FIELDS = ("at", "phase", "weight_bps", "outcome", "incumbent_mib", "candidate_mib", "e_value", "halting_line")
_NOT_SHOWN = frozenset({"profile_text", "tally", "signals"})

Record = dict[str, Any]


class ReleaseFile:
    """What the page shows of one release, as far as its evidence goes. For the eyes only: it proves nothing and verifies no chain."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.intake: Record | None = None
        self._forget()

    def _forget(self) -> None:
        self._read_bytes = 0
        self.intake = None
        self._gates: deque[Record] = deque(maxlen=KEPT_GATES)
        self._events: deque[Record] = deque(maxlen=KEPT_EVENTS)
        self._ticks: deque[Record] = deque(maxlen=KEPT_TICKS)
        self._last_tick: Record | None = None
        self._decision: Record | None = None
        self._unreadable_count = 0

    def read_on(self) -> None:
        """Take in the records that were appended since the last look. OSError when the file cannot be read."""
        with self.path.open("rb") as file:
            if file.seek(0, 2) < self._read_bytes:  # shorter than what was read: it is another file now
                self._forget()
            file.seek(self._read_bytes)
            for line in file:
                if not line.endswith(b"\n"):  # half written at this moment; the next look has it whole
                    break
                self._read_bytes += len(line)
                self._take(line)

    def story(self) -> Record:
        """Intake, gates, events, ticks, last judgement and decision."""
        return {
            "id": self.path.stem,
            "intake": self.intake,
            "gates": list(self._gates),
            "phases": list(self._events),
            "ticks": list(self._ticks),
            "judged": self._last_tick,
            "decision": self._decision,
            "has_chart": self.path.with_suffix(".svg").is_file(),
            "has_report": self.path.with_suffix(".html").is_file(),
            "unreadable_count": self._unreadable_count,
        }

    def ending(self) -> Record:
        """How it ended, in one row."""
        decision = self._decision
        return {
            "id": self.path.stem,
            "at": (decision or self.intake or {}).get("at"),
            "candidate": (self.intake or {}).get("candidate", self.path.stem),
            "decision": decision.get("decision", "Failed") if decision else "under way",
            "reason": decision.get("reason", "") if decision else "",
            "has_chart": self.path.with_suffix(".svg").is_file(),
            "has_report": self.path.with_suffix(".html").is_file(),
        }

    def _take(self, line: bytes) -> None:
        try:
            record: Record = json.loads(line)
            kind = record["kind"]
        except (ValueError, KeyError, TypeError):
            self._unreadable_count += 1
            return
        if kind == "tick":
            self._last_tick = record
            self._ticks.append(_slim(record))
        elif kind == "intake":
            self.intake = _shown(record)
        elif kind == "gate":
            self._gates.append(record)
        elif kind in EVENTS:
            self._events.append(_shown(record))
        elif kind in {"decision", "failed"}:
            self._decision = record


def _shown(record: Record) -> Record:
    return {key: value for key, value in record.items() if key not in _NOT_SHOWN}


def _slim(tick: Record) -> Record:
    """What the charts draw of a tick; numbers to five digits, since the whole axis travels once a second."""
    signals = [{field: _short(signal.get(field)) for field in SIGNAL_FIELDS} for signal in tick.get("signals", ())]
    return {**{field: _short(tick.get(field)) for field in TICK_FIELDS}, "signals": signals}


def _short(value: Any) -> Any:
    return float(f"{value:.5g}") if isinstance(value, float) else value

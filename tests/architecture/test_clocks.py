"""Nothing decides by the wall clock: it jumps. Whoever reads it says what for, and only for the record, for people or for age in days."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted(path for part in ("src", "flows", "tasks") for path in (ROOT / part).rglob("*.py"))
CALLS = {"time.time", "time.time_ns", "time.gmtime", "time.localtime", "datetime.now", "datetime.utcnow", "datetime.today"}
CALLS |= {"datetime.datetime.now", "datetime.date.today", "date.today"}
# File, and why it may.
ALLOWED = {
    "src/interlock/adapters/clock.py": "the one place that reads it for everybody else",
    "src/interlock/plane/fuse.py": "lines of its own log, for people",
    "src/interlock/plane/live.py": "the time shown on the live page, for people",
    "src/interlock/serving/input_buffer.py": "when an input was received and written, for windows; age of what lies on disk",
    "src/interlock/serving/collector.py": "when a leg was received, for windows: a jump is noticed by control/counting.py; age of segments",
}
# `Clock.utc_now` is the same clock by another name.
MAY_ASK_THE_CLOCK = {
    "src/interlock/adapters/clock.py": "is it",
    "src/interlock/adapters/fakes.py": "is it, in tests",
    "src/interlock/adapters/evidence_files.py": "when a record was written, for the record; the order is its number",
    "src/interlock/control/counting.py": "the collector's time at the beginning; then the monotonic clock, and jumps are noticed",
    "src/interlock/control/gates/known_bad.py": "passes it on; its own lateness is on the monotonic clock",
    "src/interlock/control/session.py": "part of a release's name; the order is its token",
    "src/interlock/control/plane_rollback.py": "part of a record's name",
    "src/interlock/plane/fuse.py": "when it has blown, for the record",
    "src/interlock/ports.py": "declares it",
    "src/interlock/wiring.py": "where the window of recent inputs begins, by the collector's clock",
    "tasks/conclusion.py": "part of a release's name",
}


def calls(path: Path) -> set[str]:
    found = {ast.unparse(node.func) for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)}
    return {call for call in found if call in CALLS}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_only_who_has_a_reason_reads_the_wall_clock(path: Path) -> None:
    name = str(path.relative_to(ROOT))
    if name.startswith("src/interlock/demo/"):
        return  # plays users and research
    assert name in ALLOWED or not calls(path), f"{name} calls {calls(path)}: durations come from Clock.monotonic"
    assert name in MAY_ASK_THE_CLOCK or "utc_now" not in path.read_text(encoding="utf-8"), f"{name} asks for utc_now"


@pytest.mark.parametrize("name", [*ALLOWED, *MAY_ASK_THE_CLOCK])
def test_a_reason_that_nobody_needs_any_more_is_taken_away(name: str) -> None:
    path = ROOT / name
    assert (name in ALLOWED and calls(path)) or (name in MAY_ASK_THE_CLOCK and "utc_now" in path.read_text(encoding="utf-8")), name

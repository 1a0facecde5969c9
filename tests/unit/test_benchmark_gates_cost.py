"""The cost of a gate is timed in turns with its bare call, and a gate that measured nothing was not timed."""

from dataclasses import replace

import pytest

from benchmarks.gates_cost import ROUND_COUNTS, Comparison, Timed, measure, summary
from benchmarks.gates_wide import Wide
from interlock.control.session import ReleaseSession
from interlock.model.verdict import Measurement, Outcome, Verdict
from tests.worlds import World

MEASURED = Verdict("drift", Outcome.FAIL, "", (Measurement("distance", 1.0, 0.5, "lower", "", 9, 1),))
COMPARISON = Comparison("drift", lambda _: MEASURED, "the library", lambda _: None, "")
WIDE = Wide(row_count=1_000_000, read_seconds=10.0, judge_seconds=50.0, peak_mib=4096.0, outcome="PASS", measurement_count=9)


def timed(gate_seconds: float, *, was_judged: bool = True) -> Timed:
    return Timed(COMPARISON, (gate_seconds, gate_seconds, 99.0), (1.0, 1.0, 0.01), was_judged)


@pytest.mark.parametrize(("gate_seconds", "is_met"), [(1.15, True), (1.16, False)])
def test_the_ratio_is_that_of_the_medians(gate_seconds: float, is_met: bool) -> None:
    assert timed(gate_seconds).goal.is_met is is_met


def test_a_gate_that_measured_nothing_misses_its_goal() -> None:
    assert not timed(0.1, was_judged=False).goal.is_met


def test_gate_and_bare_call_take_turns_and_change_their_order() -> None:
    called, session = list[str](), World().session()

    def ask(asked: ReleaseSession) -> Verdict:
        assert asked is session
        called.append("gate")
        return MEASURED

    found = measure(replace(COMPARISON, run=ask, bare=lambda _: called.append("bare")), lambda: session)
    assert called[:6] == ["gate", "bare", "gate", "bare", "bare", "gate"], "the first two are not timed"
    assert len(found.gate_seconds) == len(found.bare_seconds) == ROUND_COUNTS[1]
    assert found.was_judged
    unjudged = replace(COMPARISON, run=lambda _: Verdict("drift", Outcome.INCONCLUSIVE, "it could not be judged"))
    assert not measure(unjudged, lambda: session).was_judged


@pytest.mark.parametrize(
    ("wide", "missed"),
    [
        (WIDE, []),
        (replace(WIDE, judge_seconds=50.1), ["read and judged"]),
        (replace(WIDE, peak_mib=4097.0), ["peak memory"]),
        (replace(WIDE, measurement_count=0), ["read and judged", "peak memory"]),
    ],
    ids=["at the limits", "too long", "too much memory", "not judged"],
)
def test_many_rows_have_limits_of_their_own(wide: Wide, missed: list[str]) -> None:
    goals = summary([], wide).goals
    assert [goal.name.rpartition(", ")[2] for goal in goals if not goal.is_met] == missed


def test_what_is_only_shown_is_no_goal() -> None:
    shown = replace(timed(9.0), comparison=replace(COMPARISON, is_goal=False))
    part = summary([shown], WIDE)
    assert len(part.goals) == 2
    assert part.rows[0][4] == "9.00x"

"""What all gates share: the plane is held as long as one computes, and what was judged after it was lost is not written down."""

import threading

import pandas as pd
import pytest

from interlock.control.gates import stage
from interlock.control.gates.stage import encode_rows, judged_and_recorded, one_by_one
from interlock.errors import ConcurrencyError
from interlock.model.verdict import Measurement, Outcome, Verdict, judge_measurements
from tests.worlds import World


def verdict() -> Verdict:
    return judge_measurements("drift", [Measurement("x", 0.0, 1.0, "lower", "", 1, 1)], required=["x"])


def test_the_plane_is_held_while_a_gate_computes_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    world, renewed = World(), threading.Event()
    session = world.session()
    monkeypatch.setattr(stage, "HOLD_SECONDS", 0.01)
    renew, calls = world.traffic.renew, list[int]()

    def counted(*, lease_seconds: float, token: int) -> None:
        renew(lease_seconds=lease_seconds, token=token)
        calls.append(token)
        if len(calls) == 4:
            renewed.set()

    monkeypatch.setattr(world.traffic, "renew", counted)

    def computes() -> Verdict:
        assert renewed.wait(60), "nobody held the plane"
        return verdict()

    assert judged_and_recorded(session, "drift", computes).outcome is Outcome.PASS
    assert not [thread for thread in threading.enumerate() if thread.name == "hold-plane"]


def test_what_was_judged_while_the_plane_was_lost_is_nobodys_fault_and_not_written_down() -> None:
    world = World()
    session = world.session()

    def judge() -> Verdict:
        world.traffic.end(token=session.release.token)
        world.traffic.begin("late-3", lease_seconds=60)
        return judge_measurements("parity", [Measurement("x", 2.0, 1.0, "lower", "", 1, 1)], required=["x"])

    with pytest.raises(ConcurrencyError):
        judged_and_recorded(session, "parity", judge)
    assert world.records("gate") == []


def test_rows_one_by_one_are_the_bodies_that_each_row_alone_would_be() -> None:
    rows = pd.DataFrame({"a": [1, 2], "b": [0.5, None], "c": ["x", "y"]})
    assert one_by_one(rows) == [encode_rows(rows.iloc[[position]]) for position in range(2)]

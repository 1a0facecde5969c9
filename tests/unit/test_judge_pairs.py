"""Joining legs into pairs: every leg ends in one result, and a silent candidate is a failing one."""

import dataclasses
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interlock.errors import PolicyError
from interlock.judge.comparators import label_comparator
from interlock.judge.pairs import LOST_AFTER_SECONDS, Fate, PairJoiner, PairResult
from interlock.judge.tally import Tally
from interlock.model.journal import Arm, Leg, Role
from interlock.plane.envoy_settings import EnvoySettings

GOOD = '{"predictions": ["a"]}'
OTHER = '{"predictions": ["b"]}'


def leg(
    arm: Arm,
    role: Role,
    *,
    request_id: str = "r1",
    at: float = 100.0,
    status: int = 200,
    latency: float | None = 5.0,
    prediction: str | None = GOOD,
    digest: str = "d" * 16,
) -> Leg:
    return Leg(request_id, arm, role, at, status, latency, digest, prediction, "m/1")


INCUMBENT = leg(Arm.INCUMBENT, Role.LIVE)
CANDIDATE = leg(Arm.CANDIDATE, Role.MIRROR)


def joiner(since: float = 0.0) -> PairJoiner:
    return PairJoiner(deadline_seconds=5.0, judging_since_seconds=since, compare=label_comparator())


def settle(*legs: Leg, now: float = 1000.0, explained: int = 0, since: float = 0.0) -> list[PairResult]:
    pairs = joiner(since)
    pairs.offer(legs)
    return pairs.collect(now, explained)


@pytest.mark.parametrize(
    ("incumbent", "candidate", "divergence", "candidate_failed", "incumbent_failed"),
    [
        pytest.param({}, {}, 0.0, False, False, id="the same answer"),
        pytest.param({}, {"prediction": OTHER}, 1.0, False, False, id="another answer"),
        pytest.param({}, {"status_code": 500}, 1.0, True, False, id="a failing candidate diverges, whatever its body says"),
        pytest.param({}, {"status_code": 0, "prediction": None}, 1.0, True, False, id="a candidate that timed out diverges and failed"),
        pytest.param({}, {"status_code": 400}, 1.0, True, False, id="a refusal of what the incumbent accepts diverges and is an error"),
        pytest.param({"status_code": 400}, {}, None, False, True, id="the incumbent refuses what the candidate accepts"),
        pytest.param({"status_code": 400}, {"status_code": 500}, None, True, False, id="a server error is an error on a bad request too"),
        pytest.param({"status_code": 400}, {"status_code": 0}, None, True, False, id="so is no answer to a mirrored bad request"),
        pytest.param({"status_code": 503}, {}, None, False, True, id="a failing incumbent gives no answer to compare with"),
        pytest.param({}, {"status_code": 302, "prediction": None}, 1.0, True, False, id="a candidate that redirects diverges and failed"),
        pytest.param({"status_code": 500}, {"status_code": 500}, None, True, True, id="both failed: an error datum, no divergence"),
        pytest.param({"status_code": 400}, {"status_code": 400}, None, False, False, id="both refuse a bad request"),
        pytest.param({}, {"prediction": None}, 1.0, False, False, id="a candidate answer that is missing diverges"),
        pytest.param({"prediction": None}, {}, None, False, False, id="an incumbent answer that was cut says nothing"),
    ],
)
def test_what_a_pair_says(
    incumbent: dict[str, object], candidate: dict[str, object], divergence: float | None, candidate_failed: bool, incumbent_failed: bool
) -> None:
    live = dataclasses.replace(INCUMBENT, **incumbent)  # type: ignore[arg-type]
    mirror = dataclasses.replace(CANDIDATE, **candidate)  # type: ignore[arg-type]
    for order in ((live, mirror), (mirror, live)):
        (result,) = settle(*order)
        assert result.fate is Fate.JUDGED
        assert result.divergence == divergence
        assert (result.candidate_failed, result.incumbent_failed) == (candidate_failed, incumbent_failed)


def test_a_bad_request_that_the_incumbent_refused_in_the_candidates_place_says_nothing() -> None:
    rescued = leg(Arm.CANDIDATE, Role.LIVE, status=0, latency=None, prediction=None)
    (result,) = settle(rescued, leg(Arm.INCUMBENT, Role.MIRROR, status=400))
    assert (result.candidate_failed, result.incumbent_failed, result.divergence) == (False, False, None)


def test_what_the_incumbent_refuses_compares_no_latency_in_either_arm() -> None:
    """The rescue has lost the candidate's own latency: counted as none, one client with bad requests would roll back every release."""
    rescued = leg(Arm.CANDIDATE, Role.LIVE, status=0, latency=None, prediction=None)
    (bad,) = settle(rescued, leg(Arm.INCUMBENT, Role.MIRROR, status=400))
    (good,) = settle(INCUMBENT, CANDIDATE)
    (failing,) = settle(INCUMBENT, dataclasses.replace(CANDIDATE, status_code=0, latency_ms=None))
    assert (bad.compares_latency, good.compares_latency, failing.compares_latency) == (False, True, True)
    tally = Tally(start_seconds=0.0, window_seconds=5.0)
    tally.add([bad] * 40 + [good] * 60, 1)
    assert sum(int(counts.sum()) for counts in tally.latency.values()) == 120
    assert Tally.from_dict(tally.to_dict()) == tally


@pytest.mark.parametrize("arm", list(Arm))
def test_a_client_that_left_says_nothing_about_either_arm(arm: Arm) -> None:
    other = Arm.INCUMBENT if arm is Arm.CANDIDATE else Arm.CANDIDATE
    left, mirrored = leg(arm, Role.LIVE, at=121.5, status=499, latency=None, prediction=None), leg(other, Role.MIRROR, at=100.0)
    (result,) = settle(left, mirrored)
    assert (result.fate, result.live_arm, result.divergence) == (Fate.CLIENT_LEFT, arm, None)
    (alone,) = settle(left)
    assert (alone.fate, alone.live_arm) == (Fate.CLIENT_LEFT, arm)


def test_a_copy_waits_for_its_live_half_until_the_plane_would_have_said_that_the_client_left() -> None:
    pairs = joiner()
    pairs.offer([leg(Arm.INCUMBENT, Role.MIRROR, at=100.0)])
    assert pairs.collect(105.0 + LOST_AFTER_SECONDS - 0.1) == []
    (result,) = pairs.collect(105.0 + LOST_AFTER_SECONDS)
    assert (result.fate, result.divergence, result.candidate_failed) == (Fate.CANDIDATE_MISSING, 1.0, True)
    assert 2 * EnvoySettings(1, 2, 3, Path()).request_timeout_seconds + 1 == LOST_AFTER_SECONDS, "what the capture filter waits"


def test_roles_follow_the_live_arm() -> None:
    (result,) = settle(leg(Arm.CANDIDATE, Role.LIVE, at=7.0, latency=9.0), leg(Arm.INCUMBENT, Role.MIRROR, at=8.0, latency=4.0))
    assert (result.live_arm, result.candidate_role, result.incumbent_role) == (Arm.CANDIDATE, Role.LIVE, Role.MIRROR)
    assert (result.at_seconds, result.candidate_latency_ms, result.incumbent_latency_ms) == (7.0, 9.0, 4.0)


def test_an_unreadable_incumbent_is_counted_and_a_failing_one_is_not() -> None:
    (unreadable,) = settle(dataclasses.replace(INCUMBENT, prediction="<html>"), CANDIDATE)
    (failing,) = settle(dataclasses.replace(INCUMBENT, status_code=500), CANDIDATE)
    assert (unreadable.is_unreadable, failing.is_unreadable) == (True, False)


def test_a_half_waits_until_the_deadline_and_no_longer() -> None:
    pairs = joiner()
    pairs.offer([INCUMBENT])
    assert pairs.collect(104.9) == []
    (result,) = pairs.collect(105.0)
    assert (result.fate, result.divergence, result.candidate_failed) == (Fate.CANDIDATE_MISSING, 1.0, True)
    assert pairs.collect(200.0) == []
    assert pairs.waiting_count == 0


def test_a_missing_candidate_is_no_divergence_where_the_incumbent_failed_too() -> None:
    (result,) = settle(dataclasses.replace(INCUMBENT, status_code=500))
    assert (result.divergence, result.candidate_failed, result.incumbent_failed) == (None, True, True)


def test_a_missing_incumbent_half_says_nothing_about_the_candidate() -> None:
    (result,) = settle(CANDIDATE)
    assert result.fate is Fate.INCUMBENT_MISSING


def test_explained_drops_excuse_as_many_halves_as_were_dropped_and_no_more() -> None:
    legs = [dataclasses.replace(INCUMBENT, request_id=f"r{i}", received_at_seconds=100.0 + i) for i in range(5)]
    fates = [result.fate for result in settle(*legs, explained=2)]
    assert fates == [Fate.DROPPED] * 2 + [Fate.CANDIDATE_MISSING] * 3


def test_a_drop_reported_before_the_half_expires_still_explains_it() -> None:
    pairs = joiner()
    pairs.offer([INCUMBENT])
    assert pairs.collect(101.0, 1) == []
    assert [result.fate for result in pairs.collect(105.0)] == [Fate.DROPPED]


def test_a_drop_that_explained_nothing_lapses_is_counted_and_excuses_no_later_failure() -> None:
    pairs = joiner()
    pairs.collect(100.0, 3)
    assert [result.fate for result in pairs.collect(110.0)] == [Fate.DROPPED] * 3
    pairs.offer([dataclasses.replace(INCUMBENT, received_at_seconds=111.0)])
    assert [result.fate for result in pairs.collect(120.0)] == [Fate.CANDIDATE_MISSING]


def test_duplicates_are_counted_and_change_nothing() -> None:
    results = settle(INCUMBENT, INCUMBENT, CANDIDATE, CANDIDATE, INCUMBENT)
    assert sorted(result.fate for result in results) == sorted([Fate.JUDGED] + [Fate.DUPLICATE] * 3)


def test_a_late_half_is_counted_and_changes_nothing() -> None:
    pairs = joiner()
    pairs.offer([INCUMBENT])
    pairs.collect(200.0)
    pairs.offer([CANDIDATE])
    assert [result.fate for result in pairs.collect(300.0)] == [Fate.LATE]


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param({"input_digest": "e" * 16}, id="another input"),
        pytest.param({"role": Role.LIVE}, id="both halves live"),
        pytest.param({"latency_ms": math.nan}, id="a latency that is not a number"),
        pytest.param({"latency_ms": -1.0}, id="a negative latency"),
        pytest.param({"latency_ms": math.inf}, id="an infinite latency"),
        pytest.param({"received_at_seconds": math.nan}, id="a time that is not a number"),
        pytest.param({"request_id": ""}, id="no request id"),
    ],
)
def test_a_broken_pair_is_counted_as_broken(wrong: dict[str, object]) -> None:
    results = settle(INCUMBENT, dataclasses.replace(CANDIDATE, **wrong))  # type: ignore[arg-type]
    assert Fate.BROKEN in [result.fate for result in results]
    assert Fate.JUDGED not in [result.fate for result in results]


def test_requests_from_before_the_judging_are_ignored() -> None:
    early = dataclasses.replace(INCUMBENT, received_at_seconds=99.0)
    assert settle(early, CANDIDATE, since=99.5) == []
    assert settle(early, since=99.5) == []


def test_a_lone_mirror_just_after_the_start_is_no_failure_of_the_live_candidate_before_it() -> None:
    mirror = leg(Arm.INCUMBENT, Role.MIRROR, at=101.0)
    assert settle(mirror, since=99.5) == []
    assert [result.fate for result in settle(dataclasses.replace(mirror, received_at_seconds=105.0), since=99.5)] == [
        Fate.CANDIDATE_MISSING
    ]


def test_memory_stays_bounded_when_the_other_half_of_the_journal_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("interlock.judge.pairs._MAX_WAITING_COUNT", 10)
    pairs = joiner()
    pairs.offer(dataclasses.replace(INCUMBENT, request_id=f"r{i}") for i in range(25))
    assert pairs.waiting_count == 10
    assert [result.fate for result in pairs.collect(100.0)] == [Fate.DROPPED] * 15


@pytest.mark.parametrize("deadline", [0.0, -1.0, math.nan, math.inf])
def test_a_deadline_that_never_ends_is_refused(deadline: float) -> None:
    with pytest.raises(PolicyError):
        PairJoiner(deadline_seconds=deadline, judging_since_seconds=0.0, compare=label_comparator())


LEGS = st.builds(
    leg,
    st.sampled_from(Arm),
    st.sampled_from(Role),
    request_id=st.sampled_from("abcde"),
    at=st.floats(50, 150),
    status=st.sampled_from([0, 200, 400, 500]),
    digest=st.sampled_from(["d", "d", "d", "e"]),
)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(LEGS, max_size=25), st.integers(0, 3))
def test_every_leg_ends_in_exactly_one_result(legs: list[Leg], cut: int) -> None:
    pairs = joiner()
    pairs.offer(legs[: len(legs) // (cut + 1)])
    results = pairs.collect(90.0)
    pairs.offer(legs[len(legs) // (cut + 1) :])
    results += pairs.collect(1000.0)
    joined = sum(result.fate is Fate.JUDGED for result in results)
    broken_pairs = len(legs) - len(results) - joined  # a broken pair takes two legs and gives one result
    assert 0 <= broken_pairs <= sum(result.fate is Fate.BROKEN for result in results)
    assert pairs.waiting_count == 0
    assert pairs.collect(2000.0) == []

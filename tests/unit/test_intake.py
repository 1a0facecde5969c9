"""Intake: what entered the watched stage becomes one release each, whatever is repeated, lost or restarted."""

import itertools
from typing import Any

import pytest

from interlock.adapters.fakes import FakeClock, FakeEvidence, FakeRegistry
from interlock.adapters.fakes import FakeRuns as Runs
from interlock.control.intake import LONGEST_PAUSE_SECONDS, PAGE_COUNT, PAUSES_SECONDS, Intake, attempt_of, numbered
from interlock.control.releases import ReleaseIndex, resumed_release
from interlock.control.resume import MAX_ATTEMPTS
from interlock.errors import ServiceUnavailable


@pytest.fixture
def registry() -> FakeRegistry:
    registry = FakeRegistry()
    for version in ("1", "2", "3"):
        registry.add("late", version)
    registry.add("other", "1", "Staging")
    return registry


def intake(
    registry: FakeRegistry, runs: Runs, digest: str = "sha256:a", *, evidence: FakeEvidence | None = None, clock: FakeClock | None = None
) -> Intake:
    """As a new start of `up` has it: with nothing in its memory."""
    return Intake(registry, runs, ReleaseIndex(evidence or FakeEvidence()), clock or FakeClock(), "late", "standard", lambda: digest)


def test_one_entry_is_one_release_however_often_one_looks(registry: FakeRegistry) -> None:
    runs = Runs()
    poller = intake(registry, runs)
    assert poller.poll() == []
    registry.move("late", "2", "Staging")
    assert poller.poll() == ["run-1"]
    assert [poller.poll() for _ in range(3)] == [[], [], []]
    assert runs.asked == [{"model_name": "late", "version": "2", "profile_name": "standard"}]


def test_the_version_that_entered_first_is_released_first(registry: FakeRegistry) -> None:
    runs = Runs()
    for version in ("3", "1", "2"):
        registry.move("late", version, "Staging")
    intake(registry, runs).poll()
    assert [parameters["version"] for parameters in runs.asked] == ["3", "1", "2"]


def test_a_restart_repeats_the_key_so_that_nothing_is_released_twice(registry: FakeRegistry) -> None:
    runs = Runs()
    registry.move("late", "2", "Staging")
    assert [intake(registry, runs).poll() for _ in range(3)] == [["run-1"], [], []]
    assert len(runs.runs) == 1


def test_a_version_that_left_and_came_back_is_the_same_release_until_the_profile_changes(registry: FakeRegistry) -> None:
    runs = Runs()
    poller = intake(registry, runs)
    for stage in ("Staging", "Archived", "Staging"):
        registry.move("late", "2", stage)
        poller.poll()
    runs.set_state("run-1", "COMPLETED", "Held")
    assert poller.poll() == []
    assert list(runs.runs) == ["run-1"]
    assert intake(registry, runs, digest="sha256:b").poll() == ["run-2"]


def test_what_failed_half_way_is_asked_for_again_and_nothing_is_lost(registry: FakeRegistry) -> None:
    runs = Runs(fails_at=2)
    for version in ("1", "2", "3"):
        registry.move("late", version, "Staging")
    poller = intake(registry, runs)
    with pytest.raises(ServiceUnavailable):
        poller.poll()
    assert poller.poll() == ["run-2", "run-3"]
    assert [parameters["version"] for parameters in runs.asked] == ["1", "2", "3"]


def test_a_registry_that_is_down_forgets_nothing(registry: FakeRegistry) -> None:
    runs = Runs()
    poller = intake(registry, runs)
    registry.move("late", "2", "Staging")
    poller.poll()
    registry.down = True
    with pytest.raises(ServiceUnavailable):
        poller.poll()
    registry.down = False
    assert poller.poll() == []


def opened(evidence: FakeEvidence, run_id: str) -> None:
    """A release that the run has opened, and that has ended without a decision."""
    evidence.append(f"of-{run_id}", "intake", {"candidate": "late/2", "flow_run_id": run_id})
    evidence.append(f"of-{run_id}", "failed", {"reason": "its process is gone"})


UNDECIDED = [("CRASHED", "Crashed"), ("FAILED", "Failed"), ("FAILED", "TimedOut")]
DECIDED = [("COMPLETED", name) for name in ("Promoted", "Held", "Rejected", "RolledBack")]
NOT_ENDED = [("SCHEDULED", "AwaitingConcurrencySlot"), ("PENDING", "Pending"), ("RUNNING", "Running"), ("CANCELLED", "Cancelled")]


@pytest.mark.parametrize(("state_type", "state_name"), UNDECIDED)
def test_what_ended_without_a_decision_is_asked_for_again_after_growing_pauses_and_then_archived(
    registry: FakeRegistry, state_type: str, state_name: str
) -> None:
    runs, clock, evidence = Runs(), FakeClock(), FakeEvidence()
    registry.move("late", "2", "Staging")
    poller = intake(registry, runs, clock=clock, evidence=evidence)
    assert poller.poll() == ["run-1"]
    for attempt, pause_seconds in enumerate(PAUSES_SECONDS, start=2):
        last = f"run-{attempt - 1}"
        opened(evidence, last)
        runs.set_state(last, state_type, state_name)
        assert poller.poll() == []
        clock.seconds += pause_seconds - 0.1
        assert poller.poll() == []
        clock.seconds += 0.1
        assert poller.poll() == [f"run-{attempt}"]
        assert poller.poll() == []
        assert attempt_of(runs.runs[f"run-{attempt}"].idempotency_key) == attempt
        assert runs.asked[-1] == runs.asked[0], "law 2: no parameter tells one attempt from another"
    assert tuple(sorted(PAUSES_SECONDS)) == PAUSES_SECONDS
    opened(evidence, "run-3")
    runs.set_state("run-3", state_type, state_name)
    assert poller.poll() == []
    archived = registry.versions[("late", "2")]
    assert archived.stage == "Archived"
    assert "3 releases ended without a decision" in archived.tags["interlock.reason"]
    assert "move the version to Staging again" in archived.tags["interlock.reason"]
    assert [run.idempotency_key for run in runs.runs.values()] == [
        "late:2:sha256:a",
        "late:2:sha256:a:attempt-2",
        "late:2:sha256:a:attempt-3",
    ]


@pytest.mark.parametrize(("state_type", "state_name"), DECIDED + NOT_ENDED)
def test_what_was_decided_or_has_not_ended_is_never_asked_for_again(registry: FakeRegistry, state_type: str, state_name: str) -> None:
    runs, clock = Runs(), FakeClock()
    registry.move("late", "2", "Staging")
    for poller in (intake(registry, runs, clock=clock), intake(registry, runs, clock=clock)):
        for _ in range(5):
            poller.poll()
            clock.seconds += 1000
            runs.set_state("run-1", state_type, state_name)
    assert (list(runs.runs), len(runs.asked)) == (["run-1"], 1)


@pytest.mark.parametrize(("ending", "again"), [({"decision": "Held"}, False), ({}, True)], ids=["decided", "failed"])
def test_a_run_that_crashed_after_its_decision_was_recorded_is_not_tried_again(
    registry: FakeRegistry, ending: dict[str, str], again: bool
) -> None:
    runs, clock, evidence = Runs(), FakeClock(), FakeEvidence()
    registry.move("late", "2", "Staging")
    poller = intake(registry, runs, clock=clock, evidence=evidence)
    poller.poll()
    evidence.append("r", "intake", {"candidate": "late/2", "flow_run_id": "run-1"})
    runs.set_state("run-1", "CRASHED", "Crashed")
    for _ in range(3):
        assert poller.poll() == [], "its release has no ending yet: somebody is bringing traffic and registry in line"
        clock.seconds += 1000
    evidence.append("r", "decision" if ending else "failed", {"reason": "so", **ending})
    poller.poll()
    clock.seconds += 1000
    assert (poller.poll() == ["run-2"]) is again


def test_a_restart_counts_the_attempts_that_were_made_before_it(registry: FakeRegistry) -> None:
    runs, evidence = Runs(), FakeEvidence()
    registry.move("late", "2", "Staging")
    for attempt in (1, 2, 3):
        clock = FakeClock()
        poller = intake(registry, runs, clock=clock, evidence=evidence)
        poller.poll()
        clock.seconds += 1000
        poller.poll()
        assert len(runs.runs) == attempt
        opened(evidence, f"run-{attempt}")
        runs.set_state(f"run-{attempt}", "CRASHED", "Crashed")
    intake(registry, runs, evidence=evidence).poll()
    assert registry.versions[("late", "2")].stage == "Archived"


def test_a_version_that_research_took_back_is_not_tried_again(registry: FakeRegistry) -> None:
    runs, clock = Runs(), FakeClock()
    registry.move("late", "2", "Staging")
    poller = intake(registry, runs, clock=clock)
    poller.poll()
    runs.set_state("run-1", "CRASHED", "Crashed")
    poller.poll()
    registry.move("late", "2", "None")
    clock.seconds += 1000
    assert poller.poll() == []


def given_up(registry: FakeRegistry, runs: Runs, evidence: FakeEvidence, clock: FakeClock) -> list[str]:
    """Poll until the version is archived, every run failing behind an opened release; the runs that were asked for."""
    poller, asked = intake(registry, runs, clock=clock, evidence=evidence), []
    for _ in range(50):
        asked += (started := poller.poll())
        for run_id in started:
            opened(evidence, run_id)
            runs.set_state(run_id, "CRASHED", "Crashed")
        clock.seconds += 60
        if registry.versions[("late", "2")].stage == "Archived":
            return asked
    raise AssertionError("it was never given up")


def test_a_version_that_was_given_up_and_comes_back_has_three_attempts_again_however_often(registry: FakeRegistry) -> None:
    runs, evidence, clock = Runs(), FakeEvidence(), FakeClock()
    for time in range(3):
        registry.move("late", "2", "Staging")
        assert given_up(registry, runs, evidence, clock) == [f"run-{3 * time + number}" for number in (1, 2, 3)]
        assert intake(registry, runs, clock=clock, evidence=evidence).poll() == []
    assert {attempt_of(run.idempotency_key) for run in runs.runs.values()} == set(range(1, 10))


def test_a_version_that_comes_back_after_it_was_given_up_and_is_decided_then_is_not_released_again(registry: FakeRegistry) -> None:
    runs, evidence, clock = Runs(), FakeEvidence(), FakeClock()
    registry.move("late", "2", "Staging")
    given_up(registry, runs, evidence, clock)
    registry.move("late", "2", "Staging")
    assert intake(registry, runs, clock=clock, evidence=evidence).poll() == ["run-4"]
    runs.set_state("run-4", "COMPLETED", "RolledBack")
    for stage in ("Archived", "Staging"):
        registry.move("late", "2", stage)
        clock.seconds += 1000
        assert intake(registry, runs, clock=clock, evidence=evidence).poll() == []
    assert intake(registry, runs, "sha256:b", clock=clock, evidence=evidence).poll() == ["run-5"], "another profile counts from the start"


def test_runs_that_could_not_begin_are_no_attempts_and_wait_longer_each_time_saying_for_what(registry: FakeRegistry) -> None:
    runs, clock = Runs(), FakeClock()
    registry.move("late", "2", "Staging")
    poller, asked_at = intake(registry, runs, clock=clock), []
    for _ in range(4000):
        for run_id in poller.poll():
            asked_at.append(clock.seconds)
            runs.set_state(run_id, "FAILED", "Failed", message="the plane has no incumbent: adopt one with `interlock adopt`")
        clock.seconds += 1
    pauses = [later - earlier for earlier, later in itertools.pairwise(asked_at)]
    assert pauses[:7] == [16, 31, 61, 121, 241, 481, 601], "it is seen to have failed a second after it was asked for"
    assert max(pauses) == 601
    version = registry.versions[("late", "2")]
    assert version.stage == "Staging"
    assert all(words in version.tags["interlock.reason"] for words in ("waits", "interlock adopt", "goes on by itself"))
    assert "interlock.decision" not in version.tags, "nothing was decided"


def test_more_runs_than_prefect_tells_at_once_are_still_counted(registry: FakeRegistry) -> None:
    runs, clock = Runs(), FakeClock()
    registry.move("late", "2", "Staging")
    for number in range(1, 3 * PAGE_COUNT):
        runs.submit("release/release", {}, idempotency_key=numbered("late:2:sha256:a", number))
        runs.set_state(f"run-{number}", "FAILED", "Failed")
    poller = intake(registry, runs, clock=clock)
    poller.poll()
    clock.seconds += LONGEST_PAUSE_SECONDS
    (started,) = poller.poll()
    assert attempt_of(runs.runs[started].idempotency_key) == 3 * PAGE_COUNT


def test_a_run_that_was_deleted_in_prefect_blocks_no_version(registry: FakeRegistry) -> None:
    runs, clock = Runs(), FakeClock()
    registry.move("late", "2", "Staging")
    poller = intake(registry, runs, clock=clock)
    for number in (1, 2):
        poller.poll()
        runs.set_state(f"run-{number}", "CRASHED", "Crashed")
        poller.poll()
        clock.seconds += 1000
    del runs.runs["run-1"]
    (started,) = poller.poll()
    assert attempt_of(runs.runs[started].idempotency_key) == 3


@pytest.mark.parametrize("serves_since", ["the beginning", "just before it is archived"])
def test_who_serves_is_never_archived_or_released_by_a_slip(registry: FakeRegistry, serves_since: str) -> None:
    runs, evidence, clock = Runs(), FakeEvidence(), FakeClock()
    registry.move("late", "2", "Staging")
    if serves_since == "the beginning":
        registry.champions["late"] = "2"
        assert [intake(registry, runs).poll() for _ in range(3)] == [[], [], []]
        return
    read_versions = registry.read_versions

    def promoted_meanwhile(name: str) -> Any:
        versions = read_versions(name)
        registry.champions["late"] = "2" if len(runs.runs) == MAX_ATTEMPTS else "1"
        return versions

    registry.read_versions = promoted_meanwhile  # type: ignore[method-assign]
    with pytest.raises(AssertionError, match="never given up"):
        given_up(registry, runs, evidence, clock)
    assert (registry.versions[("late", "2")].stage, dict(registry.versions[("late", "2")].tags)) == ("Staging", {})


def test_a_version_that_a_person_moves_while_it_is_given_up_stays_where_the_person_put_it(registry: FakeRegistry) -> None:
    runs, evidence, clock = Runs(), FakeEvidence(), FakeClock()
    registry.move("late", "2", "Staging")
    read_versions = registry.read_versions

    def withdrawn_meanwhile(name: str) -> Any:
        versions = read_versions(name)
        if len(runs.runs) == MAX_ATTEMPTS:
            registry.move("late", "2", "None")
        return versions

    registry.read_versions = withdrawn_meanwhile  # type: ignore[method-assign]
    with pytest.raises(AssertionError, match="never given up"):
        given_up(registry, runs, evidence, clock)
    assert registry.versions[("late", "2")].stage == "None"


def test_a_run_that_found_its_version_withdrawn_is_followed_by_another_once_it_is_back(registry: FakeRegistry) -> None:
    runs = Runs()
    registry.move("late", "2", "Staging")
    poller = intake(registry, runs)
    poller.poll()
    registry.move("late", "2", "None")
    runs.set_state("run-1", "CANCELLED", "Withdrawn")
    assert poller.poll() == []
    registry.move("late", "2", "Staging")
    assert [poller.poll(), poller.poll()] == [["run-2"], []]


def test_a_version_whose_evidence_is_damaged_is_not_tried_again_for_nobody_knows_what_was_decided(registry: FakeRegistry) -> None:
    runs, clock, evidence = Runs(), FakeClock(), FakeEvidence()
    registry.move("late", "2", "Staging")
    poller = intake(registry, runs, clock=clock, evidence=evidence)
    poller.poll()
    evidence.append("late-2-20260101", "intake", {"flow_run_id": "run-1"})  # without a candidate
    runs.set_state("run-1", "CRASHED", "Crashed")
    for _ in range(3):
        assert poller.poll() == []
        clock.seconds += 1000


@pytest.mark.parametrize(
    ("key", "attempt"),
    [("", 1), ("late:2:sha256:a", 1), ("x:attempt-3", 3), ("x:attempt-", 1), ("a:attempt-b:2", 1)],
)
def test_the_attempt_is_read_from_the_key(key: str, attempt: int) -> None:
    assert attempt_of(key) == attempt


@pytest.mark.parametrize(("kind", "found"), [("failed", "late-2-1"), ("decision", None), ("tick", None)])
def test_a_release_resumes_the_last_one_of_its_version_that_was_not_decided(kind: str, found: str | None) -> None:
    evidence = FakeEvidence()
    for release_id in ("late-2-0", "late-2-1", "late-22-1", "late-3-1"):
        evidence.append(release_id, "intake", {"candidate": "late"})
    evidence.append("late-2-0", "failed", {"reason": "x"})
    evidence.append("late-2-1", kind, {"reason": "x"})
    assert resumed_release(evidence, "late-2-2") == found
    assert resumed_release(evidence, "late-4-2") is None


def test_a_key_of_thousands_of_digits_is_no_number() -> None:
    assert attempt_of("x:attempt-" + "9" * 5000) == 1

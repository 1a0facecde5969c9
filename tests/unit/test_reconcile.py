"""After a release was lost without a word, evidence and registry follow traffic."""

import pytest

from interlock.adapters.fakes import FakeClock, FakeEvidence, FakeRegistry
from interlock.control.reconcile import close_lost_release, follow_traffic
from interlock.errors import ReleaseError
from tests.worlds import CANDIDATE, INCUMBENT


@pytest.fixture
def registry() -> FakeRegistry:
    """Killed in the bake: the candidate is the champion already, traffic is back on the incumbent."""
    registry = FakeRegistry()
    registry.add("late", "1", "Archived")
    registry.add("late", "2", "Production")
    registry.champions["late"] = "2"
    return registry


def begun(evidence: FakeEvidence, release_id: str, *, ending: str | None = None) -> None:
    evidence.append(release_id, "intake", {"candidate": "late/2"})
    if ending:
        evidence.append(release_id, ending, {"reason": "it ended"})


def stages(registry: FakeRegistry) -> tuple[str, str]:
    return registry.read_version("late", "1").stage, registry.read_version("late", "2").stage


def test_a_release_that_lost_its_lease_in_the_bake_is_closed_and_the_registry_says_who_serves(registry: FakeRegistry) -> None:
    evidence = FakeEvidence()
    begun(evidence, "r")
    close_lost_release(registry, evidence, FakeClock(), release_id="r", incumbent=INCUMBENT, candidate=CANDIDATE)
    assert registry.champions["late"] == "1"
    assert stages(registry) == ("Production", "Archived")
    assert evidence.records["r"][-1]["kind"] == "failed"


def test_a_start_ends_what_was_under_way_and_nothing_else(registry: FakeRegistry) -> None:
    evidence = FakeEvidence()
    begun(evidence, "under-way")
    begun(evidence, "decided", ending="decision")
    begun(evidence, "lost", ending="failed")
    evidence.append("adoption-late-1", "adoption", {"incumbent": "late/1"})
    assert follow_traffic(registry, evidence, FakeClock(), incumbent=INCUMBENT) == ["under-way"]
    assert registry.champions["late"] == "1"
    assert stages(registry) == ("Production", "Archived")
    assert follow_traffic(registry, evidence, FakeClock(), incumbent=INCUMBENT) == [], "a second start finds nothing to do"


def test_a_model_that_nobody_champions_is_left_alone(registry: FakeRegistry) -> None:
    registry.champions.clear()
    assert follow_traffic(registry, FakeEvidence(), FakeClock(), incumbent=INCUMBENT) == []
    assert stages(registry) == ("Archived", "Production")


def test_who_was_lost_gets_a_report_last_of_all_and_also_when_the_registry_does_not_follow(registry: FakeRegistry) -> None:
    evidence, seen = FakeEvidence(), []

    def write(release_id: str) -> None:
        seen.append((release_id, evidence.records[release_id][-1]["kind"], registry.champions["late"]))

    begun(evidence, "r")
    close_lost_release(registry, evidence, FakeClock(), release_id="r", incumbent=INCUMBENT, candidate=CANDIDATE, write_report=write)
    begun(evidence, "s")
    follow_traffic(registry, evidence, FakeClock(), incumbent=INCUMBENT, write_report=write)
    assert seen == [("r", "failed", "1"), ("s", "failed", "1")]
    registry.down = True
    begun(evidence, "t")
    with pytest.raises(ReleaseError):
        close_lost_release(registry, evidence, FakeClock(), release_id="t", incumbent=INCUMBENT, candidate=CANDIDATE, write_report=write)
    assert seen[-1][:2] == ("t", "failed")


def test_a_report_that_cannot_be_written_changes_nothing(registry: FakeRegistry) -> None:
    def broken(release_id: str) -> None:
        raise OSError(f"no space left for the report of {release_id}")

    evidence = FakeEvidence()
    begun(evidence, "a")
    begun(evidence, "b")
    assert follow_traffic(registry, evidence, FakeClock(), incumbent=INCUMBENT, write_report=broken) == ["a", "b"]
    assert stages(registry) == ("Production", "Archived")

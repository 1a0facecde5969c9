"""The readiness gate: a release begins beside a healthy incumbent only, and with files that have not failed under its profile."""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from interlock.adapters.evidence_files import EvidenceFiles
from interlock.adapters.fakes import FakeClock, FakeEvidence
from interlock.control.failures import former_failures
from interlock.control.gates.run import run_readiness
from interlock.control.plane_rollback import roll_back_plane
from interlock.control.session import ReleaseSession, open_session
from interlock.errors import EvidenceError, ServiceUnavailable
from interlock.model.release import ModelVersion
from interlock.model.verdict import Measurement, Outcome, Verdict
from interlock.ports import EvidenceStore
from tests.worlds import CANDIDATE, World, read_test_profile

PROFILE_DIGEST = read_test_profile().digest


def measured(verdict: Verdict, name: str) -> Measurement:
    return next(m for m in verdict.measurements if m.name == name)


def with_release(
    evidence: EvidenceStore,
    release_id: str = "late-1-20260101T000000000000",
    *,
    candidate: str = "late/1",
    digest: str = CANDIDATE.digest,
    profile_digest: str = PROFILE_DIGEST,
    ending: dict[str, Any] | None = None,
    **more: Any,
) -> None:
    """A former release of the candidate's files, in the evidence."""
    evidence.append(release_id, "intake", {"candidate": candidate, "candidate_digest": digest, "profile_digest": profile_digest, **more})
    evidence.append(release_id, "gate", {"gate": "latency", "outcome": "PASS", "reason": "latency: p50_ms 3"})
    if ending:
        evidence.append(release_id, ending.pop("kind", "decision"), ending)


def rejected(reason: str = "latency: p99_ms 900 > 250 ms (n=300)") -> dict[str, Any]:
    return {"decision": "Rejected", "reason": reason}


def test_a_healthy_incumbent_and_files_that_never_failed_pass_and_stand_in_the_evidence() -> None:
    world = World()
    verdict = run_readiness(world.session())
    assert verdict.outcome is Outcome.PASS, verdict.reason
    assert [(m.name, m.value, m.limit) for m in verdict.measurements] == [
        ("incumbent_servers_ready", 2.0, 2.0),
        ("incumbent_servers_steady", 2.0, 2.0),
        ("incumbent_rows_answered", 10.0, 10.0),
        ("releases_that_failed_with_this_digest", 0.0, 0.0),
    ]
    assert [(record["gate"], record["outcome"]) for record in world.records("gate")] == [("readiness", "PASS")]


def not_ready(world: World, _: ReleaseSession) -> None:
    world.traffic.incumbent_ready = False


def spare_not_ready(world: World, _: ReleaseSession) -> None:
    world.traffic.spare_ready = False


def started_again(world: World, _: ReleaseSession) -> None:
    world.traffic.incumbent_pid = 99


def gone(world: World, _: ReleaseSession) -> None:
    world.traffic.incumbent = None


def spare_mute(world: World, _: ReleaseSession) -> None:
    world.failing_sender = 2  # the second that the gate opens


def incumbent_mute(world: World, _: ReleaseSession) -> None:
    world.failing_sender = 1


@pytest.mark.parametrize(
    ("happens", "reason"),
    [
        pytest.param(not_ready, "the incumbent's server is not ready", id="its ping fails"),
        pytest.param(spare_not_ready, "the incumbent's spare is not ready", id="it has no spare to fall back to"),
        pytest.param(started_again, "the incumbent's server was started again since the release was opened", id="it does not stay up"),
        pytest.param(gone, "the incumbent's server is gone", id="it is gone"),
        pytest.param(incumbent_mute, "the incumbent's server left row 1 of 5 without an answer", id="it answers its ping and no row"),
        pytest.param(spare_mute, "the incumbent's spare left row 1 of 5 without an answer", id="its spare answers no row"),
    ],
)
def test_t17_an_unhealthy_incumbent_holds_the_release_and_rejects_nobody(
    happens: Callable[[World, ReleaseSession], None], reason: str
) -> None:
    world = World()
    session = world.session()
    happens(world, session)
    verdict = run_readiness(session)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert verdict.reason.startswith("readiness: INCUMBENT_UNHEALTHY: ")
    assert reason in verdict.reason


def test_t17_beside_an_unhealthy_incumbent_the_way_back_stays_open() -> None:
    world = World()
    session = world.session()
    world.traffic.incumbent_ready = False
    assert run_readiness(session).outcome is Outcome.INCONCLUSIVE
    receipt = roll_back_plane(world.services(), reason="a person")
    assert [step.name for step in receipt.steps] == ["traffic", "registry", "capacity"]


def test_t11_an_incumbent_that_is_not_the_one_the_release_was_opened_beside_holds_it() -> None:
    world = World()
    session = world.session()
    world.traffic.incumbent = ModelVersion("late", "7", "sha256:" + "7" * 64)
    verdict = run_readiness(session)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "has late/7, and the release is beside late/1" in verdict.reason


def test_t11_a_release_that_never_looked_at_its_incumbent_is_held() -> None:
    session = replace(World().session(), opened_plane=None)
    assert run_readiness(session).outcome is Outcome.INCONCLUSIVE


def test_an_opened_release_knows_the_servers_that_it_was_opened_beside() -> None:
    world = World()
    session = open_session(world.services(), read_test_profile(), model_name="late", version="2")
    assert run_readiness(session).outcome is Outcome.PASS
    world.traffic.incumbent_pid += 1
    assert run_readiness(session).outcome is Outcome.INCONCLUSIVE


@pytest.mark.parametrize("decision", ["Rejected", "RolledBack"])
def test_t22_files_that_failed_before_fail_again_under_any_name(decision: str) -> None:
    world = World()
    session = world.session()
    with_release(world.evidence, candidate="renamed/7", ending={"decision": decision, "reason": "too slow"})
    verdict = run_readiness(session)
    assert verdict.outcome is Outcome.FAIL
    words = (decision, "renamed/7", "late-1-20260101T000000000000", "2026-01-01T00:00:00", "too slow", "log a new version", "profile")
    assert all(word in verdict.reason for word in words), verdict.reason
    assert measured(verdict, "releases_that_failed_with_this_digest").sample_count == 2


def test_t22_of_several_failures_the_first_is_named_for_it_is_the_cause() -> None:
    world = World()
    session = world.session()
    with_release(world.evidence, "late-1-first", ending=rejected("too slow"))
    with_release(world.evidence, "late-1-second", ending=rejected("the same files were Rejected"))
    verdict = run_readiness(session)
    assert measured(verdict, "releases_that_failed_with_this_digest").value == 2.0
    assert "in late-1-first at" in verdict.reason


def test_t22_a_failure_before_outweighs_an_unhealthy_incumbent() -> None:
    world = World()
    session = world.session()
    with_release(world.evidence, ending=rejected())
    world.traffic.incumbent_ready = False
    verdict = run_readiness(session)
    assert verdict.outcome is Outcome.FAIL
    assert "is not ready" in verdict.reason


@pytest.mark.parametrize(
    "former",
    [
        pytest.param({"ending": {"decision": "Held", "reason": "too little traffic"}}, id="a release that was held"),
        pytest.param({"ending": {"decision": "Promoted", "reason": "good"}}, id="one that was promoted"),
        pytest.param({"ending": {"kind": "failed", "reason": "its process is gone"}}, id="one whose process died"),
        pytest.param({"ending": None}, id="one that has decided nothing yet"),
        pytest.param({"ending": rejected(), "digest": "sha256:" + "9" * 64}, id="other files"),
        pytest.param({"ending": rejected(), "profile_digest": "sha256:other"}, id="another profile"),
    ],
)
def test_t22_what_says_nothing_against_these_files_does_not_count(former: dict[str, Any]) -> None:
    world = World()
    session = world.session()
    with_release(world.evidence, **former)
    assert run_readiness(session).outcome is Outcome.PASS


def test_t22_a_decision_that_nobody_could_write_down_counts_as_its_evidence_has_it() -> None:
    evidence = FakeEvidence()
    with_release(evidence)
    evidence.append("late-1-20260101T000000000000", "gate", {"gate": "drift", "outcome": "FAIL", "reason": "drift: moved"})
    found = former_failures(evidence, digest=CANDIDATE.digest, profile_digest=PROFILE_DIGEST, besides="late-2")
    assert [(failure.decision, failure.reason) for failure in found.failed] == [("Rejected", "drift: moved")]


@pytest.mark.parametrize("is_ended", [True, False], ids=["a decision", "a gate that failed, and no decision"])
def test_t22_what_decided_is_found_behind_much_that_was_written_later(is_ended: bool) -> None:
    evidence, release_id = FakeEvidence(), "late-1-20260101T000000000000"
    with_release(evidence, ending=rejected() if is_ended else None)
    if not is_ended:
        evidence.append(release_id, "gate", {"gate": "drift", "outcome": "FAIL", "reason": "drift: moved"})
    for number in range(20):
        evidence.append(release_id, "data", {"gate": "drift", "number": number})
    found = former_failures(evidence, digest=CANDIDATE.digest, profile_digest=PROFILE_DIGEST, besides="late-2")
    assert [failure.decision for failure in found.failed] == ["Rejected"]


def test_t22_the_release_that_asks_and_adoptions_do_not_count() -> None:
    evidence = FakeEvidence()
    with_release(evidence, "late-2", ending=rejected())
    evidence.append("adoption-late-1", "adoption", {"incumbent": "late/1", "digest": CANDIDATE.digest})
    found = former_failures(evidence, digest=CANDIDATE.digest, profile_digest=PROFILE_DIGEST, besides="late-2")
    assert (found.looked_at_count, found.failed) == (1, ())


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(b"not json\n", id="no record"),
        pytest.param(b'{"seq":1,"at":"x","kind":"intake"}\n', id="its beginning is cut off"),
        pytest.param(b'{"seq":0,"at":"x"}\n', id="a record without a kind"),
        pytest.param(b"[1]\n", id="no object"),
        pytest.param(
            json.dumps(
                {"seq": 0, "at": "x", "kind": "intake", "candidate_digest": CANDIDATE.digest, "profile_digest": PROFILE_DIGEST}
            ).encode()
            + b'\n{"seq":1,"at":"x","kind":"decision","decision":"Perhaps","reason":"?"}\n',
            id="a decision that does not exist",
        ),
    ],
)
def test_evidence_that_cannot_be_understood_is_inconclusive_and_named(broken: bytes, tmp_path: Path) -> None:
    world = World()
    session = world.session()
    evidence = EvidenceFiles(tmp_path, world.clock)
    (tmp_path / "late-1-x.jsonl").write_bytes(broken)
    session = replace(session, services=replace(session.services, evidence=evidence))
    verdict = run_readiness(session)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "former releases cannot be known" in verdict.reason
    assert "late-1-x" in verdict.reason


def test_evidence_that_cannot_be_read_now_is_inconclusive(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    session = world.session()
    with_release(world.evidence, ending=rejected())

    def unreadable(*_: object, **__: object) -> list[Any]:
        raise ServiceUnavailable("the disk does not answer")

    monkeypatch.setattr(world.evidence, "read_ends", unreadable)
    verdict = run_readiness(session)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "the disk does not answer" in verdict.reason


def test_a_file_without_a_whole_record_was_never_a_release(tmp_path: Path) -> None:
    (tmp_path / "late-1-x.jsonl").write_bytes(b'{"seq":0,"ki')
    (tmp_path / "late-1-y.jsonl").write_bytes(b"")
    found = former_failures(EvidenceFiles(tmp_path, FakeClock()), digest="sha256:1", profile_digest="p", besides="late-2")
    assert (found.looked_at_count, found.failed) == (2, ())


def test_hundreds_of_long_releases_are_looked_at_within_a_second(tmp_path: Path) -> None:
    """Only their ends are read: each is as long as an hour of ticks, 400 of them are 800 MB as they stand in a directory."""
    store = EvidenceFiles(tmp_path, FakeClock())
    with_release(store, "late-1-x", ending=None)
    first = (tmp_path / "late-1-x.jsonl").read_bytes().splitlines(keepends=True)[0]
    tick = b'{"seq":%d,"at":"x","kind":"tick","outcome":"CONTINUE","filler":"' + b"x" * 500 + b'"}\n'
    body = b"".join(tick % number for number in range(1, 4000))
    ending = b'{"seq":4000,"at":"2026","kind":"decision","decision":"RolledBack","reason":"divergence"}\n'
    (tmp_path / "late-1-x.jsonl").write_bytes(first + body + ending)
    for number in range(400):
        (tmp_path / f"late-1-x{number}.jsonl").hardlink_to(tmp_path / "late-1-x.jsonl")
    started = time.process_time()
    found = former_failures(store, digest=CANDIDATE.digest, profile_digest=PROFILE_DIGEST, besides="late-2")
    assert len(found.failed) == 401
    assert time.process_time() - started < 1.0


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 60])
@pytest.mark.parametrize("store_of", [lambda path: EvidenceFiles(path, FakeClock()), lambda _: FakeEvidence()], ids=["files", "fake"])
def test_the_ends_are_those_of_the_whole(store_of: Callable[[Path], EvidenceStore], count: int, tmp_path: Path) -> None:
    store = store_of(tmp_path)
    for number in range(count):
        store.append("r-1", "tick", {"number": number, "filler": "x" * 1000})
    whole = store.read("r-1")
    assert store.read_ends("r-1", last_count=4) == [*whole[:1], *whole[1:][-4:]]
    assert store.read_ends("unknown", last_count=4) == []


def test_ends_that_are_not_numbered_one_after_the_other_are_refused(tmp_path: Path) -> None:
    store = EvidenceFiles(tmp_path, FakeClock())
    for number in range(8):
        store.append("r-1", "tick", {"number": number})
    lines = (tmp_path / "r-1.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "r-1.jsonl").write_bytes(b"".join([*lines[:6], lines[7]]))
    with pytest.raises(EvidenceError, match="numbered 7"):
        store.read_ends("r-1", last_count=4)

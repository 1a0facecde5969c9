"""`interlock status` shows any release from its evidence alone, also one that was cut short."""

from collections.abc import Callable
from typing import Any

import pytest

from interlock import status
from interlock.adapters.fakes import FakeEvidence
from interlock.errors import ServiceRefused

GATE = {
    "gate": "latency",
    "outcome": "INCONCLUSIVE",
    "reason": "latency: none",
    "measurements": [{"name": "p99_ms", "value": None, "limit": 12.5, "better": "lower", "unit": "ms", "n": 7, "min_n": 100}],
}
INTAKE = {
    "candidate": "late/2",
    "incumbent": "late/1",
    "candidate_digest": "sha256:2",
    "profile_name": "short",
    "profile_digest": "sha256:p",
}


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


def store(*records: tuple[str, dict[str, Any]]) -> FakeEvidence:
    evidence = FakeEvidence()
    for kind, payload in records:
        evidence.append("late-2", kind, payload)
    return evidence


def shown(show: Callable[[], None], capsys: pytest.CaptureFixture[str]) -> str:
    show()
    return " ".join(capsys.readouterr().out.split())


def test_without_releases_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(lambda: status.print_releases(FakeEvidence()), capsys) == "no release yet"
    adopted = store(("adoption", {"incumbent": "late/1"}))
    assert shown(lambda: status.print_releases(adopted), capsys) == "no release yet"


@pytest.mark.parametrize(
    ("records", "ending"),
    [
        pytest.param([], "under way", id="under way"),
        pytest.param([("failed", {"reason": "the plane is down"})], "Failed │ the plane is down", id="failed"),
        pytest.param([("decision", {"decision": "Held", "reason": "too few"})], "Held │ too few", id="decided"),
        pytest.param(
            [("failed", {"reason": "raised"}), ("decision", {"decision": "Rejected", "reason": "corrupt"})],
            "Rejected │ corrupt",
            id="the decision outweighs what led to it",
        ),
    ],
)
def test_each_release_is_one_line_with_its_ending(records: list[Any], ending: str, capsys: pytest.CaptureFixture[str]) -> None:
    line = shown(lambda: status.print_releases(store(("intake", INTAKE), *records)), capsys)
    assert "late/2" in line
    assert ending in line


def test_t30_one_release_shows_value_limit_and_count_of_each_gate(capsys: pytest.CaptureFixture[str]) -> None:
    evidence = store(("intake", INTAKE), ("gate", GATE), ("phase", {"phase": "canary 10 %"}), ("tick", {}), ("rollback", {"reason": "why"}))
    text = shown(lambda: status.print_release(evidence, "late-2"), capsys)
    for word in (
        "late/2 against late/1",
        "sha256:2",
        "sha256:p",
        "INCONCLUSIVE",
        "p99_ms │ - │ 12.5 │ 7",
        "canary 10 %",
        "why",
        "under way",
    ):
        assert word in text, word
    assert "tick" not in text


def test_a_release_without_an_intake_record_is_shown_as_far_as_it_goes(capsys: pytest.CaptureFixture[str]) -> None:
    assert "late-2" in shown(lambda: status.print_release(store(("failed", {"reason": "at once"})), "late-2"), capsys)


def test_an_unknown_release_is_refused_with_a_way_on() -> None:
    with pytest.raises(ServiceRefused, match=r"no evidence of a release 'x'.*interlock status"):
        status.print_release(FakeEvidence(), "x")


@pytest.mark.parametrize("reason", ["closing [/bold] early", "answers in [a-z] only", "[red]x"])
def test_a_reason_with_brackets_is_shown_as_it_is(reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    evidence = store(("intake", INTAKE), ("decision", {"decision": "Held", "reason": reason}))
    assert reason in shown(lambda: status.print_releases(evidence), capsys)
    assert reason in shown(lambda: status.print_release(evidence, "late-2"), capsys)

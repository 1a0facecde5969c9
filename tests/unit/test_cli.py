"""The command line: every expected failure is one sentence on stderr and the right exit code, never a traceback."""

import json
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from interlock import cli
from interlock.adapters.evidence_files import EvidenceFiles
from interlock.adapters.fakes import FakeClock
from interlock.plane.state_directory import StackAddresses, StateDirectory
from tests.worlds import PROFILES, World, read_test_profile

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("INTERLOCK_PROFILES_DIR", str(PROFILES))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")

    def _run(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["interlock", *map(str, arguments)])
        code: int | str | None = 0
        try:
            cli.main()
        except SystemExit as ended:
            code = ended.code
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        assert isinstance(code, int | None)
        return code or 0, out, err

    return _run


def one_sentence(result: tuple[int, str, str], code: int, *words: str) -> None:
    status, out, err = result
    assert status == code, err
    assert err.startswith("interlock: ")
    assert err.count("\n") == 1
    assert out == ""
    assert all(word in err for word in words), err


def test_an_unknown_profile_is_named_with_the_known_ones(run: Run, tmp_path: Path) -> None:
    one_sentence(run("profile", "check", "nope"), 2, "'nope'", "hopeless, short")
    one_sentence(run("up", "--model", "late", "--profile", "nope", "--state", tmp_path / "s"), 2, "'nope'", "hopeless, short")
    assert not (tmp_path / "s").exists(), "a stack that could not release anything must not begin to start"


def test_a_malformed_profile_is_named_with_what_is_wrong(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTERLOCK_PROFILES_DIR", str(tmp_path))
    (tmp_path / "odd.yaml").write_text((PROFILES / "short.yaml").read_text().replace("beta: 0.05", "beta: yes"))
    one_sentence(run("profile", "check"), 2, "odd.yaml", "judge.beta")


@pytest.mark.parametrize(
    ("given", "written", "words"),
    [
        pytest.param("name: short", "name: other", "calls itself other", id="a file that calls itself something else"),
        pytest.param("restart_window_seconds: ", "restart_window_seconds: 99999", "window", id="numbers that the judge cannot work with"),
    ],
)
def test_a_profile_that_no_release_could_use_is_not_good(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, written: str, words: str
) -> None:
    monkeypatch.setenv("INTERLOCK_PROFILES_DIR", str(tmp_path))
    text = (PROFILES / "short.yaml").read_text()
    assert given in text
    (tmp_path / "short.yaml").write_text(text.replace(given, written, 1))
    one_sentence(run("profile", "check"), 2, words)


def test_good_profiles_are_checked_with_their_digest(run: Run) -> None:
    code, out, err = run("profile", "check")
    assert (code, err) == (0, "")
    assert [line.split(": good, sha256:")[0] for line in out.splitlines()] == ["hopeless", "short"]


def test_a_check_that_finds_no_profile_at_all_is_not_good(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTERLOCK_PROFILES_DIR", str(tmp_path))
    assert run("profile", "check")[0] == 2


def test_the_schema_is_printed_for_editors(run: Run) -> None:
    code, out, _ = run("profile", "schema")
    assert code == 0
    assert json.loads(out)["title"] == "ReleaseProfile"


def test_a_port_in_use_stops_the_start(run: Run, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, _, err = run("up", "--model", "late", "--profile", "short", "--state", tmp_path, "--page-port", str(port))
    assert code == 2
    assert err.splitlines()[-1] == f"interlock: port {port} for page is in use or not allowed: choose another, or 0 for any free port"
    StateDirectory(tmp_path).claim()  # and nothing holds the directory any more


def test_a_state_directory_that_is_in_use_stops_the_start(run: Run, tmp_path: Path) -> None:
    StateDirectory(tmp_path).claim()
    code, _, err = run("up", "--model", "late", "--profile", "short", "--state", tmp_path)
    assert code == 2
    assert "already up" in err.splitlines()[-1]


def test_a_state_directory_that_cannot_be_one_stops_the_start(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, _, err = run("up", "--model", "late", "--profile", "short", "--state", tmp_path / "file")
    assert code == 2
    assert "cannot be written" in err.splitlines()[-1]


@pytest.mark.parametrize("command", [("rollback",), ("adopt", "late", "1")], ids=["rollback", "adopt"])
def test_without_a_stack_there_is_nothing_to_talk_to(run: Run, tmp_path: Path, command: tuple[str, ...]) -> None:
    one_sentence(run(*command, "--state", tmp_path), 2, "no stack is up", "interlock up")


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        pytest.param(lambda answers: answers, 0, ("PASS", "late/2 serves all requests"), id="a good one serves"),
        pytest.param(lambda answers: 1 - answers, 1, ("FAIL", "roc_auc"), id="a bad one is refused with the whole list"),
    ],
)
def test_t37_adopting_prints_every_gate(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, change: Callable[[Any], Any], code: int, words: tuple[str, ...]
) -> None:
    world = World()
    world.traffic.incumbent = None
    world.models["2"].change = change
    monkeypatch.setattr("interlock.wiring.open_services", lambda state: world.services())
    monkeypatch.setattr("interlock.wiring.read_allowed_profile", lambda name, state: read_test_profile(name))
    found, out, err = run("adopt", "late", "2", "--state", tmp_path)
    assert found == code, err
    assert all(word in out for word in (*words, "artifact", "bootstrap", "drift", "parity", "latency")), out
    assert (world.traffic.incumbent is None) == bool(code)
    assert ("late/2 was not adopted" in err) == bool(code)


def test_a_stack_that_was_killed_is_one_that_does_not_answer(run: Run, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    StateDirectory(tmp_path).write_addresses(StackAddresses(1, url, url, url, url, url, url, "late", ["short"], url, url))
    (tmp_path / "control.token").write_text("secret")
    one_sentence(run("rollback", "--state", tmp_path), 1, "the traffic plane does not answer", "is it up?")


def test_status_needs_no_stack(run: Run, tmp_path: Path) -> None:
    assert run("status", "--state", tmp_path / "nothing")[:2] == (0, "no release yet\n")
    (tmp_path / "evidence").mkdir()
    EvidenceFiles(tmp_path / "evidence", FakeClock()).append("late-2", "intake", {"candidate": "late/2"})
    code, out, _ = run("status", "--state", tmp_path)
    assert code == 0
    assert "late/2" in out
    assert run("status", "late-2", "--state", tmp_path)[0] == 0


def test_status_of_what_is_no_release_is_one_sentence(run: Run, tmp_path: Path) -> None:
    (tmp_path / "evidence").mkdir()
    one_sentence(run("status", "unknown", "--state", tmp_path), 1, "no evidence of a release 'unknown'")
    one_sentence(run("status", "../../etc/passwd", "--state", tmp_path), 1, "no release id")
    (tmp_path / "evidence" / "cut.jsonl").write_text('{"seq": 0, "kind": "in\n')
    one_sentence(run("status", "cut", "--state", tmp_path), 1, "cut or changed")


def test_a_report_is_drawn_from_the_evidence_at_any_time_without_a_stack(run: Run, tmp_path: Path) -> None:
    (tmp_path / "evidence").mkdir()
    EvidenceFiles(tmp_path / "evidence", FakeClock()).append("late-2", "intake", {"candidate": "late/2"})
    beside, chosen = tmp_path / "evidence" / "late-2.html", tmp_path / "for the postmortem.html"
    assert run("report", "late-2", "--state", tmp_path) == (0, f"{beside}\n", "")
    assert run("report", "late-2", "--state", tmp_path, "--out", chosen) == (0, f"{chosen}\n", "")
    assert "Under way" in beside.read_text()
    assert beside.read_text() == chosen.read_text()
    one_sentence(run("report", "unknown", "--state", tmp_path), 1, "no evidence of a release 'unknown'")
    one_sentence(run("report", "../x", "--state", tmp_path), 1, "no release id")
    one_sentence(run("report", "late-2", "--state", tmp_path, "--out", tmp_path / "no" / "where"), 1, "cannot be written", "--out")


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["promote", "late", "2"], id="there is no verb that promotes"),
        pytest.param(["up", "--model", "late"], id="an option is missing"),
        pytest.param(["up", "--model", "late", "--profile", "short", "--skip-gates"], id="no gate can be skipped"),
        pytest.param(["rollback", "--force"], id="nothing can be forced"),
        pytest.param(["up", "--model", "late", "--profile", "short", "--page-port", "99999"], id="no such port"),
        pytest.param(["profile", "loosen"], id="an unknown verb"),
    ],
)
def test_what_the_command_line_does_not_know_is_refused(run: Run, arguments: list[str]) -> None:
    code, _, err = run(*arguments)
    assert code == 2
    assert "Usage" in err


def test_help_names_every_verb(run: Run) -> None:
    code, out, _ = run("--help")
    assert code == 0
    for verb in ("up", "adopt", "rollback", "status", "report", "demo", "profile"):
        assert verb in out

"""Evidence on disk: durable when written, refused when it was cut or changed, and never half a record."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from interlock.adapters.evidence_files import EvidenceFiles
from interlock.adapters.fakes import FakeClock, FakeEvidence
from interlock.errors import EvidenceError, ServiceUnavailable


@pytest.fixture
def store(tmp_path: Path) -> EvidenceFiles:
    return EvidenceFiles(tmp_path, FakeClock())


def test_records_are_numbered_without_a_gap_also_across_processes(store: EvidenceFiles, tmp_path: Path) -> None:
    store.append("r-1", "intake", {"candidate": "late/2"})
    store.append("r-1", "gate", {"outcome": "PASS"})
    EvidenceFiles(tmp_path, FakeClock()).append("r-1", "decision", {"decision": "Promoted"})
    assert [(record["seq"], record["kind"]) for record in store.read("r-1")] == [(0, "intake"), (1, "gate"), (2, "decision")]
    assert store.read("r-1")[0]["at"].endswith("+00:00")
    assert store.read("unknown") == []
    assert store.list_releases() == ["r-1"]


def without_second(lines: list[bytes]) -> list[bytes]:
    return [lines[0], lines[2]]


def cut_short(lines: list[bytes]) -> list[bytes]:
    return [*lines[:2], lines[2][: len(lines[2]) // 2] + b"\n"]


def cut_in_the_middle(lines: list[bytes]) -> list[bytes]:
    return [lines[0], lines[1][:9], lines[2]]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(without_second, id="a record is missing"),
        pytest.param(cut_short, id="the last record is cut, and somebody wrote behind it"),
        pytest.param(cut_in_the_middle, id="a record is cut"),
        pytest.param(lambda lines: lines[1:], id="the first record is missing"),
        pytest.param(lambda lines: lines[::-1], id="the order is another"),
        pytest.param(lambda lines: [*lines, lines[-1]], id="a record is there twice"),
        pytest.param(lambda lines: [*lines, b"[]\n"], id="a list is no record"),
        pytest.param(lambda lines: [*lines, b"\xff\xfe\n"], id="bytes that are no text"),
        pytest.param(lambda lines: [*lines, b"\n"], id="an empty line"),
    ],
)
def test_evidence_that_was_cut_or_changed_is_refused(store: EvidenceFiles, tmp_path: Path, change: Any) -> None:
    for kind in ("intake", "gate", "decision"):
        store.append("r", kind, {})
    file = tmp_path / "r.jsonl"
    file.write_bytes(b"".join(change(file.read_bytes().splitlines(keepends=True))))
    with pytest.raises(EvidenceError, match="cut or changed"):
        store.read("r")
    with pytest.raises(EvidenceError, match="cut or changed"):
        EvidenceFiles(tmp_path, FakeClock()).append("r", "decision", {})


@pytest.mark.parametrize("left", [1, 20, -1], ids=["a byte", "a half", "all but the line feed"])
def test_a_record_that_its_writer_died_over_is_none_and_the_next_one_takes_its_place(
    store: EvidenceFiles, tmp_path: Path, left: int
) -> None:
    for kind in ("intake", "tick", "tick"):
        store.append("r", kind, {"reason": "long enough to be cut"})
    file = tmp_path / "r.jsonl"
    *whole, last = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(whole) + last[:left])
    before = file.read_bytes()
    later = EvidenceFiles(tmp_path, FakeClock())
    assert [record["seq"] for record in later.read("r")] == [0, 1]
    assert file.read_bytes() == before, "a reader has no lock: somebody may be writing there"
    later.append("r", "failed", {})
    assert [(record["seq"], record["kind"]) for record in store.read("r")] == [(0, "intake"), (1, "tick"), (2, "failed")]
    store.append("r", "rollback", {})
    assert [record["seq"] for record in later.read("r")] == [0, 1, 2, 3]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, object()], ids=["nan", "infinity", "a set", "an object"])
def test_what_json_cannot_say_is_refused_before_anything_is_written(store: EvidenceFiles, tmp_path: Path, value: object) -> None:
    for each in (store, FakeEvidence()):
        with pytest.raises(EvidenceError, match="tick of r"):
            each.append("r", "tick", {"value": value})
        assert list(each.read("r")) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("release_id", ["", "../x", "a/b", "/etc/passwd", ".hidden", "x" * 200, "a\0b", "a\n", "..", "a b"])
def test_a_release_id_cannot_lead_out_of_the_directory(store: EvidenceFiles, tmp_path: Path, release_id: str) -> None:
    with pytest.raises(EvidenceError, match="no release id"):
        store.append(release_id, "tick", {})
    with pytest.raises(EvidenceError, match="no release id"):
        store.read(release_id)
    assert list(tmp_path.iterdir()) == []


def test_t35_a_disk_that_fills_up_in_the_middle_of_a_record_leaves_the_file_whole(
    store: EvidenceFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.append("r", "intake", {})
    before = (tmp_path / "r.jsonl").read_bytes()
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:10]))
    with pytest.raises(ServiceUnavailable, match="free space"):
        store.append("r", "tick", {"reason": "long enough to be cut"})
    assert (tmp_path / "r.jsonl").read_bytes() == before
    monkeypatch.undo()
    store.append("r", "tick", {})
    assert [record["seq"] for record in store.read("r")] == [0, 1]


def test_a_full_disk_is_said_and_the_number_is_not_used_up(store: EvidenceFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ServiceUnavailable, match="No space left on device"):
        store.append("r", "intake", {})
    monkeypatch.undo()
    store.append("r", "intake", {})
    assert [record["seq"] for record in store.read("r")] == [0]


def test_a_directory_that_is_gone_is_unavailable_not_a_traceback(tmp_path: Path) -> None:
    with pytest.raises(ServiceUnavailable, match="cannot be written"):
        EvidenceFiles(tmp_path / "gone", FakeClock()).append("r", "intake", {})
    (tmp_path / "r.jsonl").mkdir()
    with pytest.raises(ServiceUnavailable, match="cannot be read"):
        EvidenceFiles(tmp_path, FakeClock()).read("r")


def test_a_record_is_one_line_whatever_is_in_it(store: EvidenceFiles, tmp_path: Path) -> None:
    store.append("r", "tick", {"reason": "one\ntwo\u2028three\x85four"})
    assert (tmp_path / "r.jsonl").read_bytes().count(b"\n") == 1
    assert json.loads((tmp_path / "r.jsonl").read_bytes())["reason"] == store.read("r")[0]["reason"] == "one\ntwo\u2028three\x85four"

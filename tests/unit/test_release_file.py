"""The evidence of one release, followed as it grows: each record once, a bounded part kept."""

import json
from pathlib import Path
from typing import Any

import pytest

from interlock.plane.release_file import KEPT_TICKS, ReleaseFile

INTAKE = {"at": "2025-06-02T02:10:00+00:00", "kind": "intake", "candidate": "flight-delay/2", "profile_text": "long"}
SIGNAL = {"name": "divergence", "value": 0.123456789, "limit": 0.1, "unit": "share", "e_value": 1.5, "reason": "not drawn"}


def tick(number: int) -> dict[str, Any]:
    return {"at": f"{number}", "kind": "tick", "outcome": "CONTINUE", "reason": "fine", "weight_bps": 1000, "signals": [SIGNAL]}


def append(path: Path, *records: Any) -> None:
    with path.open("a") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "flight-delay-2.jsonl"


def test_records_are_taken_once_however_often_it_is_looked_at(path: Path) -> None:
    append(path, INTAKE, tick(1))
    file = ReleaseFile(path)
    file.read_on()
    append(path, tick(2), {"at": "x", "kind": "decision", "decision": "Held", "reason": "n=3"})
    file.read_on()
    file.read_on()
    assert [t["at"] for t in file.story()["ticks"]] == ["1", "2"]
    assert (file.ending()["decision"], file.ending()["candidate"]) == ("Held", "flight-delay/2")


def test_a_half_written_record_waits_for_its_other_half(path: Path) -> None:
    whole = json.dumps(tick(1)) + "\n"
    path.write_text(whole[:20])
    file = ReleaseFile(path)
    file.read_on()
    assert file.story()["ticks"] == []
    path.write_text(whole)
    file.read_on()
    assert len(file.story()["ticks"]) == 1
    assert file.story()["unreadable_count"] == 0


def test_the_newest_ticks_are_kept_and_only_the_last_one_in_full(path: Path) -> None:
    append(path, INTAKE, *(tick(number) for number in range(KEPT_TICKS + 50)))
    file = ReleaseFile(path)
    file.read_on()
    story = file.story()
    assert (len(story["ticks"]), story["ticks"][0]["at"]) == (KEPT_TICKS, "50")
    assert story["ticks"][-1]["signals"][0] == {
        **{"name": "divergence", "value": 0.12346, "limit": 0.1, "unit": "share"},
        **{"sample_count": None, "e_value": 1.5, "halting_e_value": None},
    }
    assert story["judged"] == tick(KEPT_TICKS + 49)
    assert "profile_text" not in story["intake"]


@pytest.mark.parametrize("damage", ["no json", "[1]", "{}", "null"])
def test_a_damaged_record_is_counted_and_hides_nothing_after_it(path: Path, damage: str) -> None:
    path.write_text(damage + "\n")
    append(path, INTAKE)
    file = ReleaseFile(path)
    file.read_on()
    assert file.story()["unreadable_count"] == 1
    assert file.intake is not None


def test_a_file_that_became_shorter_is_read_anew(path: Path) -> None:
    append(path, INTAKE, tick(1), tick(2))
    file = ReleaseFile(path)
    file.read_on()
    path.write_text("")
    append(path, tick(9))
    file.read_on()
    assert file.intake is None
    assert [t["at"] for t in file.story()["ticks"]] == ["9"]

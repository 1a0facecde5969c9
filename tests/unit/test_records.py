"""Records and names of a release: what evidence can always hold."""

import math
from datetime import UTC, datetime
from pathlib import Path

import pytest

from interlock.adapters.evidence_files import EvidenceFiles
from interlock.adapters.fakes import FakeClock
from interlock.control.records import verdict_values
from interlock.control.session import new_release_id
from interlock.model.release import ModelVersion
from interlock.model.verdict import Measurement, judge_measurements


def test_a_verdict_with_numbers_that_json_cannot_say_can_be_recorded(tmp_path: Path) -> None:
    """The incumbent failed a request in the latency gate, so it had no limit: the release must end as Held, not by an error."""
    beside = Measurement("p50_next_to_incumbent_ms", math.inf, math.nan, "lower", "ms", 100, 100)
    verdict = judge_measurements("latency", [beside], required=[beside.name])
    store = EvidenceFiles(tmp_path, FakeClock())
    store.append("r", "gate", verdict_values(verdict))
    (record,) = store.read("r")
    assert record["outcome"] == "INCONCLUSIVE"
    assert (record["measurements"][0]["value"], record["measurements"][0]["limit"]) == (None, None)


@pytest.mark.parametrize("name", ["late", "fraud/scoring v2", "modèle", "../../etc/passwd", "-x", "___", "m" * 300, "模型", ". ."])
def test_any_model_name_gives_a_release_id_that_evidence_accepts(name: str, tmp_path: Path) -> None:
    release_id = new_release_id(ModelVersion(name, "12", "sha256:0"), datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    assert release_id.endswith("-12-20260102T030405000000")
    EvidenceFiles(tmp_path, FakeClock()).append(release_id, "intake", {})
    assert [path.parent for path in tmp_path.rglob("*.jsonl")] == [tmp_path]

"""Healthy candidates are healthy by their making, and whatever is not a PASS counts against the gates."""

from importlib import metadata
from itertools import pairwise

import pandas as pd
import pytest
from packaging.version import Version

from benchmarks.gates_healthy import GATES, MOST_REJECTED, Judged, summary
from benchmarks.gates_part import Part
from benchmarks.gates_retrained import LAST_WEEK, OTHER_HYPERPARAMETERS, OTHER_VERSIONS, SEED_COUNT, WEEK_COUNT, week_ends
from interlock.model.verdict import Outcome, Verdict


def judged(outcome: Outcome = Outcome.PASS, gate: str = "latency") -> Judged:
    """A candidate of which one gate thinks this, and all others PASS."""
    verdicts = [Verdict(name, outcome if name == gate else Outcome.PASS, f"{name}: {outcome.name}") for name in GATES]
    return Judged("another seed", "seed 1", tuple(verdicts))


def is_met(part: Part) -> list[bool]:
    return [goal.is_met for goal in part.goals]


def test_there_are_at_least_thirty() -> None:
    assert SEED_COUNT + WEEK_COUNT + len(OTHER_VERSIONS) + len(OTHER_HYPERPARAMETERS) >= 30


def test_no_week_reaches_into_the_evaluation() -> None:
    ends = week_ends(8, LAST_WEEK)
    assert all(later - earlier == pd.Timedelta(days=7) for earlier, later in pairwise(ends))
    assert ends[-1] == pd.Timestamp("2013-09-01", tz="America/New_York")


@pytest.mark.parametrize("versions", OTHER_VERSIONS, ids=str)
def test_another_version_is_another_patch_of_what_is_installed(versions: dict[str, str]) -> None:
    for name, text in versions.items():
        chosen, installed = Version(text), Version(metadata.version(name))
        assert (chosen.major, chosen.minor) == (installed.major, installed.minor), f"{name}: choose a patch of {installed}"
        assert chosen != installed, f"{name}: choose another patch than {installed}"


@pytest.mark.parametrize("outcome", [Outcome.FAIL, Outcome.INCONCLUSIVE])
def test_one_rejected_candidate_is_allowed_and_two_are_not(outcome: Outcome) -> None:
    one = summary([judged(outcome), judged()], wanted_count=2)
    two = summary([judged(outcome)] * (MOST_REJECTED + 1), wanted_count=2)
    assert (is_met(one), is_met(two)) == ([True, True], [True, False])
    assert one.rows[0][-1] == f"latency: {outcome.name}"


def test_fail_and_inconclusive_are_counted_apart() -> None:
    part = summary([judged(Outcome.FAIL), judged(Outcome.INCONCLUSIVE), judged()], wanted_count=3)
    assert part.goals[1].value == "2 of 3 (1 FAIL, 1 INCONCLUSIVE)"


def test_a_candidate_that_is_not_served_is_rejected() -> None:
    part = summary([Judged("another seed", "seed 1", (), trouble="it ended")] * 2, wanted_count=2)
    assert is_met(part) == [True, False]
    assert part.rows[0][-1] == "it ended"


def test_a_candidate_without_all_verdicts_is_rejected() -> None:
    whole = judged()
    assert Judged("", "", whole.verdicts[1:]).worst is Outcome.INCONCLUSIVE
    assert whole.worst is Outcome.PASS


def test_a_candidate_that_was_not_made_is_neither_healthy_nor_rejected() -> None:
    part = summary([judged(), Judged("another library version", "numpy", (), trouble="no registry", is_made=False)], wanted_count=2)
    assert is_met(part) == [False, True]
    assert is_met(summary([], wanted_count=1)) == [False, False]

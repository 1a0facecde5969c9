"""The benchmark of the gates: what it counts as caught, and that it cannot be passed by showing little. Measuring takes minutes."""

import json
from collections import Counter
from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console

from benchmarks.gates import content, is_met, show_goals, show_part
from benchmarks.gates_defect import GATES, Defect, Seen, refusal_of
from benchmarks.gates_defects import DEFECTS, LEAST_DEFECT_COUNT, Shown, controls, decisive, part_of, show_one
from benchmarks.gates_model import ANSWERS, INPUTS, LOADING
from benchmarks.gates_part import Goal, Part
from benchmarks.gates_world import PROFILES, World, with_gate
from interlock.errors import ArtifactError, ServiceUnavailable
from interlock.profile.reader import read_profile

CAUGHT = Seen("FAIL", "drift: distance of hour 3.1 > 2 (n=5000); hour has moved")
DEFECT = Defect("hour moved", "drift", lambda _: CAUGHT, "distance of hour")
SHOWN = Shown(DEFECT, CAUGHT, "", 1.25)
BLIND = replace(SHOWN, seen=Seen("PASS", "drift: all is well"))
CONTROL = Shown(Defect("nothing", "drift", lambda _: CAUGHT, "", "PASS"), Seen("PASS", "drift: all is well"), "", 1.0)


def one_of_each_gate() -> list[Shown]:
    return [replace(SHOWN, defect=replace(DEFECT, gate=gate)) for gate in GATES]


def missed(part: Part) -> list[str]:
    return [goal.name for goal in part.goals if not goal.is_met]


def test_there_are_as_many_defects_as_promised_each_with_a_name_of_its_own() -> None:
    assert len(DEFECTS) >= LEAST_DEFECT_COUNT
    assert [name for name, count in Counter(defect.name for defect in DEFECTS).items() if count > 1] == []


def test_every_gate_has_at_least_three_and_one_of_the_quick_ones() -> None:
    counts, quick = (Counter(one.gate for one in some) for some in (DEFECTS, [one for one in DEFECTS if one.is_quick]))
    assert {gate for gate in GATES if counts[gate] < 3} == set()
    assert set(quick) == set(GATES) == set(counts)


def test_every_defect_must_be_seen_for_what_it_is_and_none_may_pass() -> None:
    assert [one.name for one in DEFECTS if not one.because or one.wanted == "PASS"] == []


def test_every_gate_is_shown_the_good_candidate_too() -> None:
    assert [one.gate for one in controls()] == list(GATES)
    assert {one.wanted for one in controls()} == {"PASS"}


def test_a_defect_of_the_model_is_planted_in_one_place() -> None:
    assert not set(ANSWERS) & set(INPUTS) | set(ANSWERS) & set(LOADING) | set(INPUTS) & set(LOADING)


@pytest.mark.parametrize(
    ("seen", "is_caught"),
    [
        pytest.param(CAUGHT, True, id="the right answer for the right reason"),
        pytest.param(replace(CAUGHT, answer="INCONCLUSIVE"), False, id="undecided is not refused"),
        pytest.param(Seen("PASS", CAUGHT.reason), False, id="passed"),
        pytest.param(Seen("FAIL", "drift: null_percent of weekday 4 > 1"), False, id="refused for something else"),
    ],
)
def test_only_the_wanted_answer_with_the_planted_reason_counts(seen: Seen, is_caught: bool) -> None:
    assert DEFECT.is_caught(seen) is is_caught


def test_a_defect_that_could_not_be_planted_is_missed(world: World) -> None:
    def broken(_: World) -> Seen:
        raise ServiceUnavailable("no server")

    shown = show_one(replace(DEFECT, show=broken), world)
    assert (shown.is_caught, shown.got, shown.reason) == (False, "ERROR", "ServiceUnavailable: no server")
    assert show_one(DEFECT, world).is_caught


def test_all_caught_meets_every_goal() -> None:
    part = part_of(one_of_each_gate(), [CONTROL], least_count=10)
    assert missed(part) == []
    assert is_met({"defects": part})
    assert len(part.rows) == 11
    assert all(len(row) == len(part.columns) for row in part.rows)


def test_each_goal_can_be_missed() -> None:
    assert missed(part_of(one_of_each_gate(), [CONTROL], least_count=11)) == ["planted defects"]
    assert missed(part_of([*one_of_each_gate(), BLIND], [CONTROL], least_count=1)) == ["planted defects missed"]
    assert missed(part_of(one_of_each_gate()[1:], [CONTROL], least_count=1)) == ["gates without a planted defect"]
    assert missed(part_of(one_of_each_gate(), [replace(CONTROL, seen=CAUGHT)], least_count=1)) == ["gates that refuse the good candidate"]
    assert "planted defects" in missed(part_of([], [], least_count=0)), "nothing shown is nothing proved"


def test_a_part_without_goals_and_one_missed_goal_are_no_success() -> None:
    part, goal = Part("empty", (), (), ()), Goal("speed", "2", "<= 1", is_met=False)
    assert not is_met({"cost": part})
    assert not is_met({"cost": replace(part, goals=(replace(goal, is_met=True), goal))})


def test_a_miss_stands_out_in_the_table_and_in_the_file() -> None:
    part = part_of([BLIND], [CONTROL], least_count=1)
    assert part.rows[0][3] == "MISSED PASS"
    written = json.loads(json.dumps(content({"defects": part})))
    assert written["is_met"] is False
    assert written["defects"]["planted"][0]["is_caught"] is False
    console = Console(file=StringIO(), width=200)
    show_part(console, part)
    show_goals(console, list(part.goals))
    assert "hour moved" in (text := console.file.getvalue())  # type: ignore[attr-defined]
    assert "missed" in text


def test_the_part_of_the_reason_that_tells_is_shown() -> None:
    assert decisive(CAUGHT.reason, "distance of hour") == "drift: distance of hour 3.1 > 2 (n=5000)"
    assert decisive(CAUGHT.reason, "nowhere") == "drift: distance of hour 3.1 > 2 (n=5000)"
    assert "needle" in decisive("x" * 400 + "needle" + "y" * 400, "needle")


def test_what_must_not_succeed_and_does_is_no_refusal() -> None:
    def refused() -> None:
        raise ArtifactError("changed")

    assert refusal_of(refused) == Seen("REFUSED", "changed")
    assert refusal_of(lambda: None).answer == "PASS"


def test_numbers_of_a_gate_are_changed_as_a_reviewer_would_see_them_checked() -> None:
    loaded = read_profile("demo", PROFILES)
    changed = with_gate(loaded, "drift", {"min_row_count": 7})
    assert changed.profile.gates.drift == loaded.profile.gates.drift.model_copy(update={"min_row_count": 7})
    with pytest.raises(ValueError, match="min_row_count"):
        with_gate(loaded, "drift", {"min_row_count": 0})


@pytest.fixture
def world() -> World:
    """One that no defect of these tests looks at."""
    return World.__new__(World)

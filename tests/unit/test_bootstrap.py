"""T37: the first version of a model passes gates of its own before the plane has heard of it; without a PASS of all, nothing is adopted."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from interlock.control.adoption import Adoption, adopt_incumbent
from interlock.control.failures import former_failures
from interlock.control.session import Services
from interlock.errors import ConcurrencyError, PolicyError, ServiceRefused, ServiceUnavailable
from interlock.model.verdict import Outcome
from interlock.profile.reader import LoadedProfile, parse_profile
from tests.worlds import INCUMBENT, World, read_test_profile

GATES = ("artifact", "bootstrap", "drift", "parity", "latency")


@pytest.fixture
def world() -> World:
    """A plane that has no incumbent yet."""
    found = World()
    found.traffic.incumbent = None
    found.registry.champions.clear()
    found.artifact = replace(found.artifact, digest=INCUMBENT.digest)
    return found


def adopt(world: World, *, services: Services | None = None, loaded: LoadedProfile | None = None, version: str = "1") -> Adoption:
    loaded = loaded or read_test_profile()
    return adopt_incumbent(services or world.services(), loaded, "late", version, server="interlock", thread_count=1)


def with_line(old: str, new: str) -> LoadedProfile:
    """The test profile with one line changed."""
    text = read_test_profile().text
    assert text.count(old) == 1
    return parse_profile(text.replace(old, new), source="test")


def outcomes(adoption: Adoption) -> dict[str, Outcome]:
    return {verdict.gate: verdict.outcome for verdict in adoption.verdicts}


def nothing_was_adopted(world: World) -> bool:
    untouched = world.traffic.incumbent is None and not world.registry.champions
    return untouched and not any(call.startswith(("adopt", "begin", "load")) for call in world.traffic.calls)


def test_t37_a_good_first_version_is_adopted_after_all_gates(world: World) -> None:
    adoption = adopt(world)
    assert outcomes(adoption) == dict.fromkeys(GATES, Outcome.PASS), [verdict.reason for verdict in adoption.verdicts]
    assert adoption.is_adopted
    assert (world.traffic.incumbent, world.registry.champions["late"]) == (adoption.version, "1")
    records = world.evidence.records["adoption-late-1"]
    assert [record["gate"] for record in records if record["kind"] == "gate"] == list(GATES)
    assert (records[0]["kind"], records[0]["profile_digest"], records[-1]["kind"]) == ("bootstrap", read_test_profile().digest, "adoption")
    assert {record["digest"] for record in world.records("data")} == {"5" * 64}


def test_t37_its_server_is_on_trial_before_the_plane_has_heard_of_it(world: World) -> None:
    services = world.services()
    start, known = services.start_trial, list[Any]()

    def start_trial(trial: Any) -> Any:
        known.append(world.traffic.incumbent)
        return start(trial)

    adopt(world, services=replace(services, start_trial=start_trial))
    assert known == [None]
    assert [(trial.version.label, trial.server, trial.thread_count) for trial in world.trials] == [("late/1", "interlock", 1)]


def wrong_way_round(world: World) -> None:
    world.models["1"].change = lambda answers: 1 - answers


def far_away(world: World) -> None:
    world.models["1"].change = lambda answers: np.where(np.arange(len(answers)) % 2, answers, np.nan)


def served_otherwise(world: World) -> None:
    world.candidate_answer = lambda: 0.25


def mute(world: World) -> None:
    world.failing_sender = 1


def never_starts(world: World) -> None:
    world.trial_failure = "the model server of late/1 ended with exit code 1: no module named secret_sauce"


@pytest.mark.parametrize(
    ("happens", "gate", "outcome", "words"),
    [
        pytest.param(wrong_way_round, "bootstrap", Outcome.FAIL, "roc_auc", id="it is worse than guessing"),
        pytest.param(far_away, "bootstrap", Outcome.INCONCLUSIVE, "not finite", id="it has no answer to half of the rows"),
        pytest.param(served_otherwise, "parity", Outcome.FAIL, "rows_that_differ_alone", id="its server answers otherwise"),
        pytest.param(mute, "parity", Outcome.FAIL, "connection refused", id="its server answers nothing"),
        pytest.param(mute, "latency", Outcome.FAIL, "failed_request_count", id="its server answers nothing, in time either"),
        pytest.param(never_starts, "parity", Outcome.INCONCLUSIVE, "secret_sauce", id="its server does not start"),
        pytest.param(never_starts, "latency", Outcome.INCONCLUSIVE, "secret_sauce", id="what does not start is not fast"),
    ],
)
def test_t37_what_does_not_pass_is_refused_with_the_whole_list(world: World, happens: Any, gate: str, outcome: Outcome, words: str) -> None:
    happens(world)
    adoption = adopt(world)
    verdict = next(verdict for verdict in adoption.verdicts if verdict.gate == gate)
    assert verdict.outcome is outcome, verdict.reason
    assert words in verdict.reason
    assert not adoption.is_adopted
    assert nothing_was_adopted(world)
    records = world.evidence.records["adoption-late-1"]
    assert [record["gate"] for record in records if record["kind"] == "gate"] == list(GATES)
    assert records[-1]["kind"] == "refused"
    assert words in records[-1]["reason"]


def test_t37_nothing_is_loaded_of_files_that_have_not_passed(world: World) -> None:
    def no_loading(_: object) -> Any:
        raise AssertionError("loaded")

    def no_reading(directory: object, *, hold: object) -> Any:
        raise ServiceUnavailable("the scanner does not answer")

    services = replace(world.services(), load_model=no_loading, read_artifact=no_reading)
    adoption = adopt(world, services=services)
    assert outcomes(adoption) == dict.fromkeys(GATES, Outcome.INCONCLUSIVE)
    assert all("nothing of the version is loaded" in verdict.reason for verdict in adoption.verdicts[1:])
    assert not world.trials
    assert nothing_was_adopted(world)


def test_t37_a_floor_above_what_it_reaches_refuses_it(world: World) -> None:
    strict = with_line("- {name: roc_auc, better: higher, limit: 0.6}", "- {name: roc_auc, better: higher, limit: 0.999}")
    adoption = adopt(world, loaded=strict)
    assert outcomes(adoption)["bootstrap"] is Outcome.FAIL
    assert nothing_was_adopted(world)


def test_t37_labelled_rows_stand_for_users_who_cannot_have_asked_yet(world: World) -> None:
    read, asked = world.services().read_rows, list[str]()

    def read_rows(address: str) -> Any:
        asked.append(address)
        return read(address)

    loaded = with_line("current: current.parquet", "current: journal:3600")
    adoption = adopt(world, services=replace(world.services(), read_rows=read_rows), loaded=loaded)
    assert outcomes(adoption)["drift"] is Outcome.PASS
    assert not any(address.startswith("journal:") for address in asked)


def test_t37_another_profile_than_the_planes_first_judges_no_first_version(world: World) -> None:
    with pytest.raises(PolicyError, match="judged under short"):
        adopt(world, loaded=read_test_profile("hopeless"))
    assert nothing_was_adopted(world)


def test_t37_an_incumbent_that_serves_is_not_judged_away() -> None:
    world = World()
    with pytest.raises(ServiceRefused, match="late/1 is the incumbent"):
        adopt(world, version="2")
    assert not world.records("gate")


def test_t37_a_release_under_way_is_not_disturbed() -> None:
    world = World()
    world.session()
    with pytest.raises(ConcurrencyError, match="late-2 holds"):
        adopt(world)
    assert not world.records("gate")


def test_t37_evidence_that_cannot_be_written_adopts_nothing(world: World) -> None:
    world.evidence.full = True
    with pytest.raises(ServiceUnavailable):
        adopt(world)
    assert nothing_was_adopted(world)


def test_a_refused_adoption_is_no_release_that_failed(world: World) -> None:
    wrong_way_round(world)
    version = adopt(world).version
    found = former_failures(world.evidence, digest=version.digest, profile_digest=read_test_profile().digest, besides="late-1-now")
    assert found.failed == ()


def test_t37_without_a_verdict_nothing_is_adopted() -> None:
    assert not Adoption(INCUMBENT, ()).is_adopted

"""A release ends in one of four ways, and nothing that a person can pass to a flow changes how it is decided."""

import inspect
from typing import Any

import pytest
from prefect import Flow

from flows.release import release
from flows.rollback import rollback
from interlock.model.release import Decision


def test_the_decisions_are_the_four_state_names_and_no_fifth() -> None:
    assert {decision.value for decision in Decision} == {"Promoted", "Held", "Rejected", "RolledBack"}


@pytest.mark.parametrize(
    ("flow", "names"),
    [
        pytest.param(release, ["model_name", "version", "profile_name"], id="release"),
        pytest.param(rollback, ["reason"], id="rollback"),
    ],
)
def test_law_2_no_parameter_of_a_flow_can_skip_force_or_loosen_anything(flow: Flow[..., Any], names: list[str]) -> None:
    parameters = inspect.signature(flow.fn).parameters
    assert list(parameters) == names
    assert all(parameter.annotation in (str, "str") for parameter in parameters.values())
    assert all(parameter.default is inspect.Parameter.empty for parameter in parameters.values())

"""Every Prefect deployment loads by module path from what is installed, and no module of ours hides somebody else's."""

import importlib.metadata
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect import Flow
from prefect.flows import load_flow_from_entrypoint

from interlock.plane.stack import declared_deployments, prefect_file

ROOT = Path(__file__).parents[2]
DECLARED: dict[str, Any] = yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))
ENTRYPOINTS = [item["entrypoint"] for item in DECLARED["deployments"]]


def modules(package: str) -> list[str]:
    return sorted(path.stem for path in (ROOT / package).glob("*.py") if path.stem != "__init__")


@pytest.mark.parametrize("entrypoint", ENTRYPOINTS)
def test_an_entrypoint_is_a_module_path_and_loads(entrypoint: str) -> None:
    assert ":" not in entrypoint
    assert "/" not in entrypoint
    flow: Flow[..., Any] = load_flow_from_entrypoint(entrypoint, use_placeholder_flow=False)
    assert isinstance(flow, Flow)
    assert flow.name == entrypoint.split(".")[-1], "declared_deployments() reads the flow's name from the entrypoint"


def test_no_code_is_pulled_it_is_installed() -> None:
    assert DECLARED["pull"] == []
    assert all("pull" not in item for item in DECLARED["deployments"])
    assert prefect_file() == ROOT / "prefect.yaml"


def test_every_story_is_deployed_and_nothing_else() -> None:
    assert {entrypoint.split(".")[1] for entrypoint in ENTRYPOINTS} == set(modules("flows"))
    assert declared_deployments() == {f"{name}/{name}" for name in modules("flows")}


@pytest.mark.parametrize("module", [*modules("flows"), *modules("tasks")])
def test_a_module_is_named_like_nobody_elses(module: str) -> None:
    others = {name for name in importlib.metadata.packages_distributions() if name not in {"flows", "tasks", "interlock"}}
    assert module not in sys.stdlib_module_names
    assert module not in others


def test_nobody_else_installs_what_is_called_flows_or_tasks() -> None:
    installed = importlib.metadata.packages_distributions()
    for name in ("flows", "tasks", "interlock"):
        assert set(installed.get(name, ["interlock-release"])) == {"interlock-release"}

"""What MLmodel leads to, and what came with it to be parsed, is judged before anything of it is opened."""

from collections.abc import Callable
from pathlib import Path

import pytest

from interlock.adapters.artifact.reading import read_artifact
from interlock.control.gates.artifact import judge_artifact
from interlock.model.verdict import Outcome
from tests.artifacts import ATTACK, CALL_IN_TEXT, CANARY, SHELL
from tests.contract.artifact_rig import POLICY, describe, described, judged, saved_versions

__all__ = ["saved_versions"]  # the fixture


def leads_to_a_model_elsewhere(directory: Path) -> None:
    told, other = described(directory), directory.with_name(f"{directory.name}-other")
    other.mkdir()
    (other / "model.pkl").write_bytes(ATTACK)
    told["flavors"]["python_function"]["model_path"] = f"../{other.name}/model.pkl"
    describe(directory, told)


def leads_to_an_example_elsewhere(directory: Path) -> None:
    told = described(directory)
    told["saved_input_example_info"]["artifact_path"] = f"../{directory.name}/input_example.json"
    describe(directory, told)


def has_code_elsewhere(directory: Path) -> None:
    told, other = described(directory), directory.with_name(f"{directory.name}-other")
    other.mkdir()
    (other / "ours.py").write_text(f"open({CANARY!r}, 'w')\n")
    (directory / "code").mkdir()
    (directory / "code" / "ours.py").write_text("x = 1\n")
    told["flavors"]["python_function"] |= {"code": f"../{other.name}", "loader_module": "ours"}
    describe(directory, told)


def has_a_text_for_a_model(directory: Path) -> None:
    told = described(directory)
    (directory / "weights.txt").write_bytes(b"I010\n0" + CALL_IN_TEXT)
    told["flavors"]["python_function"]["model_path"] = told["flavors"]["sklearn"]["pickled_model"] = "weights.txt"
    describe(directory, told)


def has_a_model_of_code_that_runs_something(directory: Path) -> None:
    told = described(directory)
    (directory / "own.py").write_text(f"import os\n\nos.system({SHELL!r})\n")
    told["flavors"]["python_function"] |= {"loader_module": "mlflow.pyfunc.model", "model_code_path": "own.py"}
    describe(directory, told)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        pytest.param(leads_to_a_model_elsewhere, "MLmodel: model_path", id="a model in another version"),
        pytest.param(leads_to_an_example_elsewhere, "MLmodel: artifact_path", id="an example by way of another directory"),
        pytest.param(has_code_elsewhere, "MLmodel: code", id="code in another version"),
        pytest.param(has_a_text_for_a_model, "weights.txt: os.system", id="a text that the C unpickler runs"),
        pytest.param(has_a_model_of_code_that_runs_something, "own.py line 3: B605", id="models from code that runs a shell"),
    ],
)
def test_what_mlmodel_leads_to_is_judged_before_anything_of_it_is_opened(
    change: Callable[[Path], None], told: str, saved: Callable[[str], Path]
) -> None:
    directory = saved("sklearn pickle")
    change(directory)
    verdict = judged(directory)
    assert verdict.outcome is Outcome.FAIL
    assert told in verdict.reason
    assert not Path(CANARY).exists()


@pytest.mark.parametrize("name", ["conda.yaml", "python_env.yaml", "MLmodel"])
def test_yaml_that_unfolds_without_end_is_refused_at_once(name: str, saved: Callable[[str], Path]) -> None:
    directory = saved("sklearn pickle")
    lines = ["a0: &a0 {k: v}", *(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 12))]
    (directory / name).write_text("\n".join(lines) + "\n")
    reading = read_artifact(directory, hold=lambda: None, deadline_seconds=60.0)
    assert [file.path for file in reading.files if file.refusal] == [name]
    assert "merge keys" in judge_artifact(POLICY, reading, digest=reading.digest).reason


def test_requirements_that_hold_no_names_are_refused(saved: Callable[[str], Path]) -> None:
    directory = saved("sklearn pickle")
    (directory / "conda.yaml").write_text("dependencies: 7\n")
    verdict = judged(directory)
    assert verdict.outcome is Outcome.FAIL
    assert "the requirements" in verdict.reason


def test_requirements_and_signature_are_not_read_when_the_reading_process_did_not_end(saved: Callable[[str], Path]) -> None:
    reading = read_artifact(saved("sklearn pickle"), hold=lambda: None, deadline_seconds=0.01)
    assert reading.requirements == ()
    assert reading.signature.example_row_count == 0
    assert reading.signature.problems
    assert judge_artifact(POLICY, reading, digest=reading.digest).outcome is Outcome.FAIL

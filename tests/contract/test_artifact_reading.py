"""Real model versions as MLflow writes them, read by the process of its own; and files that try to hang, kill or deceive it."""

import json
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from interlock.adapters.artifact.reading import read_artifact
from interlock.adapters.artifact.requirements import read_requirements
from interlock.control.gates.artifact import judge_artifact
from interlock.errors import ArtifactError
from interlock.model.digest import artifact_digest
from interlock.model.verdict import Outcome
from tests.artifacts import ATTACK, CANARY
from tests.contract.artifact_rig import FRAME, LABELS, POLICY, describe, described, judged, saved_versions

__all__ = ["saved_versions"]  # the fixture


@pytest.mark.parametrize(
    ("kind", "modules"),
    [
        pytest.param("sklearn skops", (), id="sklearn as skops"),
        pytest.param("sklearn cloudpickle", (), id="sklearn as cloudpickle"),
        pytest.param("sklearn pickle", (), id="sklearn as pickle"),
        pytest.param("models from code", (), id="models from code"),
        pytest.param("by reference", ("ours_by_reference", "mlflow"), id="a class of the version's own code"),
        pytest.param("by value", ("cloudpickle", "mlflow"), id="a class by value, where the profile allows it"),
    ],
)
def test_a_healthy_version_passes(kind: str, modules: tuple[str, ...], saved: Callable[[str], Path]) -> None:
    verdict = judged(saved(kind), *modules)
    assert verdict.outcome is Outcome.PASS, verdict.reason
    assert ("unjudged" in verdict.reason) == (kind == "by value")


def test_a_class_by_value_fails_where_the_profile_does_not_allow_cloudpickle(saved: Callable[[str], Path]) -> None:
    verdict = judged(saved("by value"), "mlflow")
    assert verdict.outcome is Outcome.FAIL
    assert "python_model.pkl: cloudpickle" in verdict.reason


def test_a_version_is_read_without_a_change_to_it(saved: Callable[[str], Path]) -> None:
    directory = saved("by reference")
    before = artifact_digest(directory)
    reading = read_artifact(directory, hold=lambda: None)
    assert reading.digest == before == artifact_digest(directory)
    assert reading.manifest["MLmodel"]


def test_a_malicious_pickle_put_into_a_healthy_version_fails_and_does_not_run(saved: Callable[[str], Path]) -> None:
    for name in ("model.pkl", "extra.dat", "code/data.txt"):
        directory = saved("sklearn pickle")
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_bytes(ATTACK)
        verdict = judged(directory)
        assert verdict.outcome is Outcome.FAIL
        assert f"{name}: os.system" in verdict.reason
        assert not Path(CANARY).exists()


@pytest.mark.parametrize(
    ("line", "told"),
    [
        pytest.param("import os; os.system('ls ' + x)", "line 1: B605", id="a shell"),
        pytest.param("import os; os.system('ls')", "line 1: B605", id="a shell with a literal command"),
        pytest.param("import subprocess; subprocess.call(['/bin/ls'])", "line 1: B603", id="a process without a shell"),
        pytest.param("from os import execv as go; go('/bin/ls', ['ls'])", "line 1: B606", id="another program in its place"),
        pytest.param("exec('x = 1')", "line 1: B102", id="code in a text"),
        pytest.param("from pickle import loads", "line 1: B403", id="an import that is for nothing else"),
        pytest.param("eval(x)  # nosec", "B307", id="a comment does not hide it"),
        pytest.param("import subprocess; subprocess.Popen(x, shell=True)", "B602", id="a process in a shell"),
        pytest.param("def f(:", "code/helper.py: it is not what its name says, SyntaxError", id="it does not parse"),
    ],
)
def test_code_that_came_with_a_version_is_scanned(line: str, told: str, saved: Callable[[str], Path]) -> None:
    directory = saved("sklearn pickle")
    (directory / "code").mkdir()
    (directory / "code" / "helper.py").write_text(line + "\n")
    verdict = judged(directory)
    assert verdict.outcome is Outcome.FAIL
    assert told in verdict.reason


def test_code_within_the_allowed_severity_passes(saved: Callable[[str], Path]) -> None:
    directory = saved("sklearn pickle")
    (directory / "code").mkdir()
    (directory / "code" / "helper.py").write_text("def f(x):\n    assert x\n")  # B101, low
    assert judged(directory).outcome is Outcome.PASS
    assert judged(directory, max_code_severity="none").outcome is Outcome.FAIL


def test_a_file_that_hangs_its_reader_is_refused_by_name(saved: Callable[[str], Path]) -> None:
    directory, holds = saved("sklearn pickle"), list[int]()
    nested = b"\x80\x04)" + b"".join(b"\x94h" + bytes([n]) + b"\x86" for n in range(60)) + b"}" + b"\x94h;N" + b"s."
    (directory / "model.pkl").write_bytes(nested)  # a key whose hash takes 2^60 steps
    reading = read_artifact(directory, hold=lambda: holds.append(1), deadline_seconds=4.0)
    verdict = judge_artifact(POLICY, reading, digest=reading.digest)
    assert verdict.outcome is Outcome.FAIL
    assert "model.pkl: reading it took longer than 4 s" in verdict.reason
    assert holds


def test_a_file_that_wants_all_memory_is_refused(saved: Callable[[str], Path]) -> None:
    directory = saved("sklearn pickle")
    (directory / "model.pkl").write_bytes(b"\x80\x04\x8e" + (2**40).to_bytes(8, "little") + b".")
    verdict = judged(directory)
    assert verdict.outcome is Outcome.FAIL
    assert "model.pkl" in verdict.reason


def test_a_deeply_nested_text_does_not_end_the_reader(saved: Callable[[str], Path]) -> None:
    directory = saved("sklearn pickle")
    (directory / "deep.json").write_text("[" * 100_000 + "]" * 100_000)
    (directory / "code").mkdir()
    (directory / "code" / "deep.py").write_text("x = " + "(" * 5000 + "1" + ")" * 5000 + "\n")
    verdict = judged(directory)
    assert verdict.outcome is Outcome.FAIL
    assert "deep.json" in verdict.reason


def test_a_link_is_refused_before_anything_is_opened(saved: Callable[[str], Path]) -> None:
    directory = saved("sklearn pickle")
    (directory / "passwd").symlink_to("/etc/passwd")
    with pytest.raises(ArtifactError, match="symbolic link"):
        read_artifact(directory, hold=lambda: None)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        pytest.param(lambda d: d.pop("saved_input_example_info"), "there is no input example", id="no example"),
        pytest.param(lambda d: d.pop("signature"), "no signature", id="no signature"),
        pytest.param(
            lambda d: d["signature"].update(inputs='[{"type": "string", "name": "amount"}, {"type": "double", "name": "age"}]'),
            "does not fit the signature",
            id="another type",
        ),
        pytest.param(
            lambda d: d["signature"].update(inputs='[{"type": "double", "name": "amount"}, {"type": "double", "name": "weight"}]'),
            "columns that the signature does not know (age)",
            id="another name",
        ),
        pytest.param(
            lambda d: d["signature"].update(inputs='[{"type": "boolean", "name": "amount"}, {"type": "double", "name": "age"}]'),
            "does not fit the signature",
            id="numbers for a truth value",
        ),
        pytest.param(lambda d: d["signature"].update(inputs="[{"), "MLmodel cannot be read", id="a signature that is no JSON"),
    ],
)
def test_signature_and_example_must_be_there_and_fit(change: Callable[[Any], Any], told: str, saved: Callable[[str], Path]) -> None:
    directory = saved("sklearn pickle")
    changed = described(directory)
    change(changed)
    describe(directory, changed)
    verdict = judged(directory)
    assert verdict.outcome is Outcome.FAIL, verdict.reason
    assert told in verdict.reason


def test_an_example_file_that_is_gone_fails(saved: Callable[[str], Path]) -> None:
    directory = saved("sklearn pickle")
    (directory / "input_example.json").unlink()
    assert judged(directory).outcome is Outcome.FAIL
    (directory / "input_example.json").write_text(json.dumps({"columns": ["amount"], "data": [["x"]]}))
    assert judged(directory).outcome is Outcome.FAIL


def test_reading_imports_nothing_of_the_version(saved: Callable[[str], Path]) -> None:
    directory = saved("by reference")
    (directory / "code" / "ours_by_reference.py").write_text(f"open({CANARY!r}, 'w')\n")
    (directory / "sitecustomize.py").write_text(f"open({CANARY!r}, 'w')\n")
    read_artifact(directory, hold=lambda: None)
    assert not Path(CANARY).exists()
    assert "ours_by_reference" not in sys.modules


def test_requirements_are_compared_with_what_is_installed(tmp_path: Path) -> None:
    major, minor, *_ = np.__version__.split(".")
    lines = [
        "# a comment",
        f"numpy=={np.__version__}  # pinned",
        f"numpy=={major}.{minor}.99",
        f"numpy=={major}.99.0",
        "numpy==1.0.0",
        "numpy",
        "numpy>=1",
        "numpy>=99",
        "not-a-package-of-anybody==1.0",
        'only-on-windows==1; sys_platform == "win32"',
        "--extra-index-url https://example.invalid",
        "git+https://example.invalid/x.git",
        "numpy @ https://example.invalid/numpy.whl",
        "pip==1.0",
    ]
    (tmp_path / "requirements.txt").write_text("\n".join(lines))
    (tmp_path / "python_env.yaml").write_text("python: 3.9.1\nbuild_dependencies: [pip, wheel]\ndependencies: [-r requirements.txt]\n")
    (tmp_path / "conda.yaml").write_text("dependencies: [python=3.11.7, pip, numpy=1.0.0, {pip: [numpy==1.0.0, 'numpy>=1']}]\n")
    found = [(one.text, one.agreement) for one in read_requirements(tmp_path)]
    assert found == [
        (f"numpy=={np.__version__}", "same_version"),
        (f"numpy=={major}.{minor}.99", "same_minor"),
        (f"numpy=={major}.99.0", "same_major"),
        ("numpy==1.0.0", "other"),
        ("numpy", "unpinned"),
        ("numpy>=1", "unpinned"),
        ("numpy>=99", "other"),
        ("not-a-package-of-anybody==1.0", "absent"),
        ("--extra-index-url https://example.invalid", "unreadable"),
        ("git+https://example.invalid/x.git", "unreadable"),
        ("numpy @ https://example.invalid/numpy.whl", "unreadable"),
        ("python==3.9.1", "same_major" if sys.version_info[:2] != (3, 9) else "same_minor"),
        ("python==3.11.7", "same_minor" if sys.version_info[:3] != (3, 11, 7) else "same_version"),
    ] or sys.version_info[:2] != (3, 11)


def test_an_honest_pickle_of_a_simple_model_is_not_taken_for_a_hostile_one(saved: Callable[[str], Path]) -> None:
    directory = saved("sklearn pickle")
    (directory / "model.pkl").write_bytes(pickle.dumps(LogisticRegression().fit(FRAME, LABELS)))
    assert judged(directory).outcome is Outcome.PASS

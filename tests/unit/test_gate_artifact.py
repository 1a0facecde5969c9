"""The artifact gate refuses what could run, and what it cannot read; nothing of a version is loaded to find out (F24, T05)."""

import io
import json
import lzma
import pickle
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import cloudpickle  # type: ignore[import-untyped]
import joblib  # type: ignore[import-untyped]
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from joblib.numpy_pickle import NumpyArrayWrapper  # type: ignore[import-untyped]
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.feature_selection import SelectKBest, f_classif
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from interlock.adapters.artifact.files import Reader
from interlock.adapters.artifact.pickles import walk
from interlock.control.gates.artifact import REQUIRED
from interlock.control.gates.artifact_names import why_refused
from interlock.control.gates.run import run_artifact
from interlock.model.artifact import Agreement, CodeFinding, Name, Requirement, SignatureReading
from interlock.model.verdict import Outcome, Verdict, judge_measurements
from tests.artifacts import ATTACK, CANARY, HOSTILE, POLICY, calling, judged, replace_modules, zipped
from tests.worlds import CANDIDATE, HEALTHY_ARTIFACT, World

X = np.random.default_rng(0).random((200, 3))
Y = (X[:, 0] > 0.5).astype(int)
FRAME = pd.DataFrame({"amount": X[:, 0], "kind": ["a", "b"] * 100})
HEALTHY_MODELS: dict[str, Any] = {
    "histogram boosting": HistGradientBoostingClassifier(max_iter=5).fit(X, Y),
    "gradient boosting": GradientBoostingClassifier(n_estimators=3).fit(X, Y),
    "a forest": RandomForestClassifier(n_estimators=3).fit(X, Y),
    "neighbours": KNeighborsClassifier(algorithm="kd_tree").fit(X, Y),
    "a pipeline": make_pipeline(StandardScaler(), SelectKBest(f_classif, k=2), LogisticRegression()).fit(X, Y),
    "calibrated": CalibratedClassifierCV(LogisticRegression(), method="isotonic").fit(X, Y),
    "columns": ColumnTransformer([("k", OneHotEncoder(), ["kind"]), ("a", FunctionTransformer(np.log1p), ["amount"])]).fit(FRAME),
    "a frame": FRAME,
    "arrays": {"a": X, "names": np.array(["x", None], dtype=object), "date": np.datetime64("2026-01-01")},
}


def value(verdict: Verdict, name: str) -> float | None:
    return next(m.value for m in verdict.measurements if m.name == name)


@pytest.fixture(autouse=True)
def _nothing_ran() -> Any:
    yield
    assert not Path(CANARY).exists()


@pytest.mark.parametrize("what", [name for name, (_, content) in HOSTILE.items() if content])
def test_a_hostile_file_fails_by_name_and_nothing_of_it_runs(what: str, tmp_path: Path) -> None:
    name, content = HOSTILE[what]
    verdict = judged(tmp_path, {name: content})
    assert verdict.outcome is Outcome.FAIL, verdict.reason
    assert name in verdict.reason
    assert (value(verdict, "refused_file_count") or 0) + (value(verdict, "refused_name_count") or 0) > 0


def test_allowing_a_module_of_pythons_own_gadgets_in_the_profile_does_not_help_them(tmp_path: Path) -> None:
    lax = replace_modules(POLICY, ("functools", "operator", "os", "builtins", "subprocess"))
    for position, content in enumerate((ATTACK, calling("functools", "partial", "x"), calling("builtins", "eval", "1"))):
        assert judged(tmp_path / str(position), {"model.pkl": content}, lax).outcome is Outcome.FAIL


def test_raw_arrays_that_plain_pickle_would_take_for_opcodes_are_read_both_ways(tmp_path: Path) -> None:
    raw = np.frombuffer(ATTACK[2:-1], dtype=np.uint8)
    wrapper = NumpyArrayWrapper(np.ndarray, raw.shape, "C", raw.dtype, allow_mmap=False, numpy_array_alignment_bytes=None)
    content = pickle.dumps(wrapper, protocol=2)[:-1] + raw.tobytes() + b"."
    assert not walk(io.BytesIO(content), as_joblib=True).error
    assert Name("os", "system") not in walk(io.BytesIO(content), as_joblib=True).names
    verdict = judged(tmp_path, {"model.pkl": content})
    assert verdict.outcome is Outcome.FAIL
    assert "os.system" in verdict.reason


@pytest.mark.parametrize("how", ["pickle 0", "pickle 2", "pickle 4", "pickle 5", "cloudpickle", "joblib", "joblib zlib", "joblib xz"])
@pytest.mark.parametrize("what", HEALTHY_MODELS)
def test_a_healthy_model_passes_however_it_was_written(what: str, how: str, tmp_path: Path) -> None:
    verdict = judged(tmp_path, {"model.pkl": written(HEALTHY_MODELS[what], how)})
    assert verdict.outcome is Outcome.PASS, verdict.reason


def written(model: Any, how: str) -> bytes:
    kind, _, detail = how.partition(" ")
    if kind == "joblib":
        out = io.BytesIO()
        joblib.dump(model, out, compress=(detail, 3) if detail else 0)
        return out.getvalue()
    return bytes(cloudpickle.dumps(model)) if kind == "cloudpickle" else pickle.dumps(model, protocol=int(detail))


def test_a_healthy_skops_archive_and_healthy_arrays_and_texts_pass(tmp_path: Path) -> None:
    import skops.io  # type: ignore[import-untyped]

    array, arrays = io.BytesIO(), io.BytesIO()
    np.save(array, X)
    np.savez_compressed(arrays, x=X, y=Y)
    files = {
        "model.skops": skops.io.dumps(HEALTHY_MODELS["histogram boosting"]),
        "array.npy": array.getvalue(),
        "arrays.npz": arrays.getvalue(),
        "MLmodel": b"flavors: {python_function: {loader_module: mlflow.sklearn}}\n",
        "requirements.txt": b"cloudpickle==3.1\nnumpy\n",  # `c` is an opcode, and the next two lines would be a module and a name
        "notes.md": "Grüße.\ncat\ndog\n".encode(),
        "empty": b"",
        "code/features.py": b"def double(x):\n    return 2 * x\n",
    }
    verdict = judged(tmp_path, files)
    assert verdict.outcome is Outcome.PASS, verdict.reason
    assert value(verdict, "file_count") == 8


def test_code_by_value_needs_cloudpickle_allowed_and_is_then_said_to_be_unjudged(tmp_path: Path) -> None:
    files = {"model.pkl": bytes(cloudpickle.dumps(lambda x: x + 1))}
    assert judged(tmp_path, files).outcome is Outcome.FAIL
    verdict = judged(tmp_path, files, replace_modules(POLICY, ("cloudpickle",)))
    assert verdict.outcome is Outcome.PASS, verdict.reason
    assert "unjudged" in verdict.reason
    assert "model.pkl" in verdict.reason
    hostile = {"model.pkl": ATTACK}
    assert judged(tmp_path, hostile, replace_modules(POLICY, ("cloudpickle",))).outcome is Outcome.FAIL


def test_an_archive_that_grows_without_end_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bomb.zip").write_bytes(zipped({"zeros": bytes(5_000_000)}))
    (tmp_path / "bomb.pkl").write_bytes(lzma.compress(bytes(5_000_000)))
    for name in ("bomb.zip", "bomb.pkl"):
        assert any("larger" in reading.refusal for reading in Reader(most_unpacked_bytes=1_000_000).read(tmp_path / name, name))
    nested = b"x"
    for _ in range(6):
        nested = zipped({"inner": nested})
    verdict = judged(tmp_path / "nested", {"deep.zip": nested})
    assert verdict.outcome is Outcome.FAIL
    assert "deep" in verdict.reason


def test_a_stream_that_is_cut_or_goes_on_behind_its_end_is_refused(tmp_path: Path) -> None:
    packed = zlib.compress(pickle.dumps(list(range(10_000))))
    for position, content in enumerate((packed[:-10], packed + b"more", packed[:50])):
        assert judged(tmp_path / str(position), {"model.joblib": content}).outcome is Outcome.FAIL


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60), st.sampled_from([b"", b"\x80\x04", b"\x80\x02", b"(", ATTACK[:-2], ATTACK[:12]]))
def test_no_stream_of_opcodes_escapes_the_walk(content: bytes, begins: bytes) -> None:
    found = walk(io.BytesIO(begins + content), as_joblib=True)
    assert found.error or found.pickle_count or not begins + content
    assert not Path(CANARY).exists()


@settings(max_examples=100, deadline=None)
@given(st.integers(0, len(ATTACK)), st.binary(max_size=8))
def test_a_file_that_contains_an_attack_passes_only_if_it_calls_nothing(position: int, inserted: bytes) -> None:
    content = ATTACK[:position] + inserted + ATTACK[position:]
    try:
        reading = walk(io.BytesIO(content), as_joblib=False)
    except RecursionError:
        return
    for name in reading.names:
        if name.use == "called":
            assert why_refused(name, POLICY.allowed_modules)


@pytest.mark.parametrize(
    ("severity", "allowed", "outcome"),
    [
        pytest.param("low", "none", Outcome.FAIL, id="low above none"),
        pytest.param("low", "low", Outcome.PASS, id="low within low"),
        pytest.param("medium", "low", Outcome.FAIL, id="medium above low"),
        pytest.param("high", "medium", Outcome.FAIL, id="high is never allowed"),
    ],
)
def test_code_is_held_to_the_severity_that_the_profile_allows(severity: Any, allowed: str, outcome: Outcome, tmp_path: Path) -> None:
    finding = CodeFinding("code/x.py", 7, severity, "B307 use of eval")
    verdict = judged(tmp_path, {"code/x.py": b"x = 1\n"}, POLICY.model_copy(update={"max_code_severity": allowed}), code=(finding,))
    assert verdict.outcome is outcome
    assert outcome is Outcome.PASS or "code/x.py line 7: B307 use of eval" in verdict.reason


@pytest.mark.parametrize(
    ("text", "agreement", "policy", "outcome"),
    [
        pytest.param("numpy==2.0.0", "same_version", "same_version", Outcome.PASS, id="the same"),
        pytest.param("numpy==2.0.1", "same_minor", "same_version", Outcome.FAIL, id="another patch, where the same is wanted"),
        pytest.param("numpy==2.0.1", "same_minor", "same_minor", Outcome.PASS, id="another patch"),
        pytest.param("numpy==2.1.0", "same_major", "same_minor", Outcome.FAIL, id="another minor"),
        pytest.param("numpy==2.1.0", "same_major", "same_major", Outcome.PASS, id="another minor, where the major is enough"),
        pytest.param("numpy==1.0.0", "other", "same_major", Outcome.FAIL, id="another major"),
        pytest.param("numpy", "unpinned", "same_version", Outcome.PASS, id="unpinned is only said"),
        pytest.param("absent==1", "absent", "same_major", Outcome.FAIL, id="not installed"),
        pytest.param("-e .", "unreadable", "same_major", Outcome.FAIL, id="no package"),
        pytest.param("mlflow==3.17.9", "same_minor", "same_version", Outcome.PASS, id="another patch of MLflow"),
        pytest.param("mlflow==3.1.0", "same_major", "same_version", Outcome.FAIL, id="another minor of MLflow"),
        pytest.param("python==3.11.1", "same_minor", "same_version", Outcome.PASS, id="another patch of Python"),
        pytest.param("python==3.9.1", "same_major", "same_minor", Outcome.FAIL, id="another Python"),
    ],
)
def test_requirements_are_held_to_what_is_installed(text: str, agreement: Agreement, policy: str, outcome: Outcome, tmp_path: Path) -> None:
    requirement = Requirement(text, "requirements.txt", None if agreement in ("absent", "unreadable") else "2.0.0", agreement)
    changed = POLICY.model_copy(update={"requirements": policy})
    verdict = judged(tmp_path, {"MLmodel": b"a: 1\n"}, changed, requirements=(requirement,))
    assert verdict.outcome is outcome, verdict.reason
    assert text in verdict.reason or (outcome is Outcome.PASS and agreement != "unpinned")


def test_a_version_that_names_no_requirement_is_inconclusive(tmp_path: Path) -> None:
    verdict = judged(tmp_path, {"MLmodel": b"a: 1\n"}, requirements=())
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "pip_requirements" in verdict.reason


def test_a_missing_input_example_fails_with_the_remedy(tmp_path: Path) -> None:
    without = SignatureReading(2, 1, 0, ("there is no input example: log the model with input_example=",))
    verdict = judged(tmp_path, {"MLmodel": b"a: 1\n"}, signature=without)
    assert verdict.outcome is Outcome.FAIL
    assert "input_example=" in verdict.reason


def test_at_most_five_of_a_kind_are_told_and_the_others_counted(tmp_path: Path) -> None:
    verdict = judged(tmp_path, {f"{number}.pkl": ATTACK for number in range(8)})
    assert value(verdict, "refused_name_count") == 8
    assert verdict.reason.count("os is not among the allowed modules") == 5
    assert "and 3 more" in verdict.reason


def test_law_9_the_verdict_can_be_computed_again_from_its_measurements(tmp_path: Path) -> None:
    verdict = judged(tmp_path, {"model.pkl": ATTACK})
    required = [m for m in verdict.measurements if m.name in REQUIRED]
    assert judge_measurements("artifact", required, required=REQUIRED).outcome is verdict.outcome is Outcome.FAIL


def test_the_gate_of_a_release_records_the_digest_of_every_file_and_needs_no_server() -> None:
    world = World()
    session = world.session()
    world.traffic.candidate = None
    verdict = run_artifact(session)
    assert verdict.outcome is Outcome.PASS, verdict.reason
    (manifest,) = world.records("manifest")
    assert (manifest["digest"], manifest["files"]) == (CANDIDATE.digest, dict(HEALTHY_ARTIFACT.manifest))
    assert world.records("gate")[0]["outcome"] == "PASS"
    assert json.dumps(manifest)


def test_files_that_are_not_those_of_the_intake_fail() -> None:
    world = World()
    world.artifact = replace(HEALTHY_ARTIFACT, digest="sha256:" + "9" * 64)
    verdict = run_artifact(world.session())
    assert verdict.outcome is Outcome.FAIL
    assert "9" * 64 in verdict.reason
    assert CANDIDATE.digest in verdict.reason

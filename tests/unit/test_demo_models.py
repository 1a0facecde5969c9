"""The demonstration's models: good when healthy, and each fault does what its name says, at the moment it is switched on."""

import ast
import json
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import joblib  # type: ignore[import-untyped]
import mlflow
import mlflow.pyfunc
import numpy as np
import pandas as pd
import pytest

from interlock.demo import models, served
from interlock.demo.flights import FEATURES, LABEL, FlightsData
from interlock.demo.models import TrainedModel, set_fault
from interlock.demo.served import CONDITIONS_VARIABLE, Conditions, LateFlightModel


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> FlightsData:
    """Invented flights: late when the origin already runs late, more so in the evening."""
    rng = np.random.default_rng(0)
    rows = pd.DataFrame({name: rng.uniform(0, 100, 12_000) for name in FEATURES})
    rows["origin_delay_minutes"] = rng.uniform(-10, 30, len(rows))
    for name in ("carrier_index", "origin_index", "destination_index"):
        rows[name] = rng.integers(0, 5, len(rows)).astype(float)
    rows[LABEL] = (rows["origin_delay_minutes"] + rows["hour"] / 10 + rng.normal(0, 5, len(rows)) > 18).astype(int)
    train, evaluation, live = rows[:9000], rows[9000:11_000], rows.loc[11_000:, list(FEATURES)]
    return FlightsData(tmp_path_factory.mktemp("flights"), train[:6000], train, evaluation, live, live, live)


@pytest.fixture(scope="module")
def model(data: FlightsData) -> TrainedModel:
    return models.train_candidate(data, fault_key="mine", seed=1)


@pytest.fixture
def conditions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "conditions.json"
    monkeypatch.setenv(CONDITIONS_VARIABLE, str(path))
    return path


@pytest.fixture
def serving(model: TrainedModel, tmp_path: Path, conditions: Path) -> LateFlightModel:
    path = tmp_path / "scorer.joblib"
    joblib.dump(model.scorer, path)
    serving = LateFlightModel()
    serving.load_context(SimpleNamespace(artifacts={"scorer": str(path)}, model_config={"fault_key": model.fault_key}))
    return serving


def test_a_seed_gives_the_same_model_and_another_seed_another(data: FlightsData, model: TrainedModel) -> None:
    again = models.train_candidate(data, fault_key="mine", seed=1)
    other = models.train_candidate(data, fault_key="mine", seed=2)
    np.testing.assert_array_equal(again.predict(data.live), model.predict(data.live))
    assert np.abs(other.predict(data.live) - model.predict(data.live)).max() > 0
    assert min(model.metrics["roc_auc"], models.train_incumbent(data).metrics["roc_auc"]) > 0.8


def test_categories_become_smoothed_late_rates_and_unknown_ones_the_mean() -> None:
    rows = pd.DataFrame({"carrier_index": [0.0] * 300 + [2.0] * 100, LABEL: [1] * 300 + [0] * 100})
    rates = models._late_rates(rows, "carrier_index")
    assert rates[0] == pytest.approx((300 + 200 * 0.75) / 500)
    assert rates[2] == pytest.approx(200 * 0.75 / 300)
    encoded = served.encode({0: rates}, np.array([[0.0], [1.0], [2.0], [3.0], [-1.0]]))
    np.testing.assert_allclose(encoded[:, 0], [rates[0], 0.75, rates[2], 0.75, 0.75])


def test_healthy_serving_is_the_trained_model(serving: LateFlightModel, model: TrainedModel, data: FlightsData, conditions: Path) -> None:
    expected = model.predict(data.live)
    np.testing.assert_array_equal(serving.predict(None, data.live), expected)
    np.testing.assert_array_equal(serving.predict(None, data.live[list(reversed(FEATURES))]), expected)
    set_fault(conditions, "another", "skew")
    np.testing.assert_array_equal(serving.predict(None, data.live), expected)


def test_skew_scores_the_two_columns_in_each_others_place(serving: LateFlightModel, data: FlightsData, conditions: Path) -> None:
    first, second = served.SKEWED_COLUMNS
    expected = serving.predict(None, data.live.assign(**{first: data.live[second], second: data.live[first]}))
    healthy = serving.predict(None, data.live)
    set_fault(conditions, "mine", "skew")
    skewed = serving.predict(None, data.live)
    np.testing.assert_array_equal(skewed, expected)
    assert np.abs(skewed - healthy).mean() > 0.2


def test_fail_refuses_the_same_few_inputs_every_time(serving: LateFlightModel, data: FlightsData, conditions: Path) -> None:
    def refused() -> list[int]:
        numbers = []
        for number in range(300):
            try:
                serving.predict(None, data.live.iloc[number : number + 1])
            except mlflow.MlflowException as error:
                numbers += [number] if error.get_http_status_code() == 500 else []
        return numbers

    assert refused() == []
    set_fault(conditions, "mine", "fail")
    first = refused()
    assert 0.02 < len(first) / 300 < 0.09
    assert refused() == first


def test_slow_queues_concurrent_requests(serving: LateFlightModel, data: FlightsData, conditions: Path) -> None:
    set_fault(conditions, "mine", "slow")
    started = time.monotonic()
    threads = [threading.Thread(target=serving.predict, args=(None, data.live.head(1))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    elapsed_seconds = time.monotonic() - started
    assert elapsed_seconds >= 6 * served.LOCKED_SECONDS + served.LOOKUP_SECONDS


def test_a_fault_is_active_from_the_moment_told_until_it_is_removed(conditions: Path) -> None:
    mine, other = Conditions(str(conditions), "mine"), Conditions(str(conditions), "other")
    assert mine.fault() == ""
    before = time.monotonic()
    assert before <= set_fault(conditions, "mine", "slow") <= time.monotonic()
    assert (mine.fault(), other.fault()) == ("slow", "")
    set_fault(conditions, "other", "fail")
    assert (mine.fault(), other.fault()) == ("slow", "fail")
    set_fault(conditions, "mine", None)
    assert (mine.fault(), other.fault()) == ("", "fail")
    conditions.unlink()
    assert other.fault() == ""
    assert not list(conditions.parent.glob("conditions.json?*")), "no half-written file is left behind"


@pytest.mark.parametrize("text", ["", "[]", "{", '{"mine": "skew"}', '{"mine": {}}', '{"mine": {"fault": null}}'])
def test_conditions_that_say_nothing_mean_healthy(conditions: Path, text: str) -> None:
    conditions.write_text(text, encoding="utf-8")
    assert Conditions(str(conditions), "mine").fault() == ""


def test_a_model_without_conditions_is_healthy() -> None:
    assert Conditions(None, "mine").fault() == ""


def test_a_logged_version_carries_its_code_and_loads_without_interlock(model: TrainedModel, data: FlightsData, tmp_path: Path) -> None:
    saved, scratch = tmp_path / "model", tmp_path / "scratch"
    scratch.mkdir()
    mlflow.pyfunc.save_model(saved, **models.describe(model, scratch))
    loaded = mlflow.pyfunc.load_model(str(saved))
    assert (saved / "served.py").read_text(encoding="utf-8") == Path(served.__file__).read_text(encoding="utf-8")
    assert not list(saved.rglob("uv.lock")), "what lies in the working directory is no part of the model"
    assert "interlock" not in type(loaded.unwrap_python_model()).__module__
    np.testing.assert_array_equal(loaded.predict(data.live), model.predict(data.live))
    assert [column.name for column in loaded.metadata.signature.inputs] == list(FEATURES)
    assert json.loads(loaded.metadata.signature.outputs.to_json())[0]["type"] == "double"


def test_the_served_code_imports_nothing_of_interlock() -> None:
    assert "interlock" not in {name.split(".")[0] for name in _imports(Path(served.__file__).read_text(encoding="utf-8"))}


def _imports(code: str) -> set[str]:
    nodes = list(ast.walk(ast.parse(code)))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return plain | {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}

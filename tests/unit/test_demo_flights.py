"""The demonstration's data: complete, in time order, the same every time, and nothing in a row that was not known an hour before."""

import hashlib
import importlib.metadata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from interlock.demo import flights
from interlock.demo.flights import FEATURES, LABEL, FlightsData
from interlock.errors import StateError
from interlock.profile.reader import read_profile

SPLITS = ("train_incumbent", "train_candidate", "evaluation", "reference", "recent", "live")


@pytest.fixture(scope="module")
def source() -> tuple[pd.DataFrame, pd.DataFrame]:
    return flights.read_source()


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def data(directory: Path, source: tuple[pd.DataFrame, pd.DataFrame]) -> FlightsData:
    return flights.prepare(directory)


@pytest.fixture(scope="module")
def first_days(source: tuple[pd.DataFrame, pd.DataFrame]) -> tuple[pd.DataFrame, pd.DataFrame]:
    until = pd.Timestamp("2013-01-06", tz="UTC")
    return tuple(frame[frame["time_hour"] < until].reset_index(drop=True) for frame in source)  # type: ignore[return-value]


@pytest.mark.parametrize("name", SPLITS)
def test_every_row_is_complete_and_every_file_is_what_was_returned(data: FlightsData, directory: Path, name: str) -> None:
    frame = getattr(data, name)
    assert np.isfinite(frame[list(FEATURES)].to_numpy()).all()
    assert set(frame[list(FEATURES)].dtypes) == {np.dtype("float64")}
    pd.testing.assert_frame_equal(pd.read_parquet(directory / "flights" / f"{name}.parquet"), frame.reset_index(drop=True))


def test_there_is_enough_of_everything_and_both_labels(data: FlightsData) -> None:
    assert len(data.evaluation) >= 5000
    assert len(data.live) >= 5000
    assert set(data.evaluation[LABEL]) == {0, 1}
    assert LABEL not in data.live
    assert LABEL not in data.recent


def test_training_ends_before_evaluation_and_evaluation_before_live(data: FlightsData) -> None:
    assert data.train_incumbent.index.max() <= data.train_candidate.index.max() < data.evaluation.index.min()
    assert data.evaluation.index.max() < data.live.index.min()
    assert data.live.index.is_monotonic_increasing
    assert set(data.reference.index) <= set(data.train_candidate.index)


def test_the_profile_names_columns_and_files_that_exist(data: FlightsData) -> None:
    gates = read_profile("demo").profile.gates
    assert {column.name for column in gates.drift.columns} <= set(FEATURES)
    evaluated = hashlib.sha256((data.directory.parent / gates.evaluation.data).read_bytes()).hexdigest()
    assert evaluated == gates.evaluation.data_sha256, "the same rows, byte for byte, on every machine"
    assert gates.evaluation.label_column == LABEL
    for file in (gates.evaluation.data, gates.drift.reference, gates.drift.current):
        assert (data.directory.parent / file).is_file()


def test_the_same_source_gives_the_same_rows(first_days: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    mixed = [frame.sample(frac=1, random_state=1) for frame in first_days]
    rows, again = flights.build_rows(*first_days), flights.build_rows(*mixed)
    order = ["time_hour", *FEATURES, LABEL]
    expected = rows.sort_values(order).reset_index(drop=True)
    pd.testing.assert_frame_equal(again.sort_values(order).reset_index(drop=True), expected, rtol=1e-12)


def test_what_happens_after_the_decision_changes_no_feature(first_days: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    """Every flight is scored an hour before its scheduled hour: rewrite what happens from then on, and its row stays as it is."""
    scheduled, weather = first_days
    hour = pd.Timestamp("2013-01-03 20:00", tz="UTC")
    decided_at = hour - pd.Timedelta(hours=1)
    left_at = scheduled["time_hour"] + pd.to_timedelta(scheduled["minute"] + scheduled["dep_delay"], unit="min")
    changed = scheduled.assign(dep_delay=scheduled["dep_delay"].mask(left_at >= decided_at, scheduled["dep_delay"] + 90))
    other_weather = weather.assign(temp=weather["temp"].mask(weather["time_hour"] > decided_at, 99.0))
    before = flights.build_rows(scheduled, weather)
    after = flights.build_rows(changed, other_weather)
    features = list(FEATURES)
    pd.testing.assert_frame_equal(after[after["time_hour"] <= hour][features], before[before["time_hour"] <= hour][features])
    later = before["time_hour"] > hour
    assert not after[later][features].equals(before[later][features]), "the rewriting must reach later rows, or nothing was tested"
    assert not after[LABEL].equals(before[LABEL])


def test_a_flight_is_late_after_fifteen_minutes_and_left_out_when_cancelled() -> None:
    hour = pd.Timestamp("2013-01-02 15:00", tz="UTC").as_unit("ns")
    scheduled = pd.DataFrame(
        {
            "dep_delay": [15.0, 16.0, None],
            "carrier": "UA",
            "origin": "JFK",
            "dest": ["BOS", "SFO", "LAX"],
            "distance": 100,
            "minute": [0, 30, 45],
        }
    ).assign(time_hour=hour)
    weather = pd.DataFrame({"origin": ["JFK"], "temp": 50.0, "humid": 50.0, "wind_speed": 10.0, "visib": 10.0, "precip": 0.0})
    rows = flights.build_rows(scheduled, weather.assign(time_hour=hour - pd.Timedelta(hours=1)))
    assert list(rows[LABEL]) == [0, 1]
    assert list(rows["hour"]) == [10.0, 10.5]  # New York is five hours behind
    assert rows["temperature_c"].iloc[0] == pytest.approx(10.0)
    assert rows["distance_km"].iloc[0] == pytest.approx(160.9344)
    assert flights.build_rows(scheduled, weather.assign(time_hour=hour)).empty, "no weather was known yet: the flight is left out"


def test_without_the_package_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", absent)
    with pytest.raises(StateError, match="uv sync --group demo"):
        flights.read_source()

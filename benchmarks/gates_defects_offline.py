"""Defects for the gates that need no server: evaluation and drift."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd

from benchmarks.gates_defect import Defect, Seen, judged_by
from benchmarks.gates_world import World
from interlock.demo.flights import LABEL
from interlock.demo.models import train_candidate

EVALUATION, DRIFT = "evaluation", "drift"
Change = Callable[[pd.DataFrame], pd.DataFrame]


def answering(defect: str, size: float = 0.0) -> Callable[[World], Seen]:
    """A version that answers otherwise than the good candidate, offline as well."""
    return lambda world: judged_by(EVALUATION, world.session(world.plant(defect, size)))


def trained_on(change: Change) -> Callable[[World], Seen]:
    """A version that was trained on other rows than it should have been, and is judged on the real ones."""

    def show(world: World) -> Seen:
        rows = change(world.data.train_candidate.copy())
        model = train_candidate(replace(world.data, train_candidate=rows), fault_key="planted", seed=3)
        return judged_by(EVALUATION, world.session(world.log(model)))

    return show


def labelled_with(change: Change) -> Callable[[World], Seen]:
    """The good candidate on other evaluation data, whose digest the profile has."""
    return lambda world: judged_by(EVALUATION, world.session(world.good, loaded=world.labelled(change(world.data.evaluation.copy()))))


def swapped_file(world: World) -> Seen:
    """The file was replaced, and nobody has reviewed it."""
    address, _ = world.write("evaluation", world.data.evaluation.iloc[:-1])
    return judged_by(EVALUATION, world.session(world.good, loaded=world.changed(EVALUATION, data=address)))


def rows_now(change: Change) -> Callable[[World], Seen]:
    """The good candidate, with other rows as what users send now."""

    def show(world: World) -> Seen:
        address, _ = world.write("recent", change(world.data.recent.copy()))
        return judged_by(DRIFT, world.session(world.good, loaded=world.changed(DRIFT, current=address)))

    return show


def answers_missing(world: World) -> Seen:
    """The rows are as they were, and the candidate has no answer to some of them."""
    return judged_by(DRIFT, world.session(world.plant("nan for some", 3000.0)))


def shuffled_labels(rows: pd.DataFrame) -> pd.DataFrame:
    """Every label belongs to another row."""
    return rows.assign(**{LABEL: rows[LABEL].sample(frac=1, random_state=1).to_numpy()})


def leaking_label(rows: pd.DataFrame) -> pd.DataFrame:
    """A feature that was taken after the departure: it knows the label, and nobody knows it when it counts."""
    return rows.assign(origin_delay_minutes=rows[LABEL] * 90.0 + rows["origin_delay_minutes"] / 10)


def swapped(first: str, second: str) -> Change:
    """Two columns that changed places."""
    return lambda rows: rows.rename(columns={first: second, second: first})[list(rows.columns)]


def some(column: str, value: float, *, one_in: int) -> Change:
    """Another value in every so-many-th row."""
    return lambda rows: rows.assign(**{column: rows[column].where(np.arange(len(rows)) % one_in != 0, value)})


def moved(column: str, deviations: float) -> Change:
    """A column that has moved by so many of its standard deviations."""
    return lambda rows: rows.assign(**{column: rows[column] + deviations * rows[column].std()})


def fahrenheit(rows: pd.DataFrame) -> pd.DataFrame:
    """The feed has another unit."""
    return rows.assign(temperature_c=rows["temperature_c"] * 1.8 + 32)


def categories_anew(rows: pd.DataFrame) -> pd.DataFrame:
    """The airlines are numbered from the other end."""
    return rows.assign(carrier_index=15 - rows["carrier_index"])


def several_moved(rows: pd.DataFrame) -> pd.DataFrame:
    """Five columns, none of them far enough for itself."""
    for column in ("hour", "wind_speed_kmh", "humidity_percent", "distance_km", "temperature_c"):
        rows = rows.assign(**{column: (rows[column] + 0.9 * rows[column].std()).clip(upper=rows[column].max())})
    return rows


def calm_flights_alone(world: World) -> Seen:
    """No column has left its place, but the flights that are hard to tell are gone: the answers have moved."""
    rows = world.data.recent
    answers = world.trained.predict(rows)
    return rows_now(lambda _: rows[answers <= np.quantile(answers, 0.7)])(world)


OFFLINE: tuple[Defect, ...] = (
    Defect("wrong model: trained on shuffled labels", EVALUATION, trained_on(shuffled_labels), "roc_auc", is_quick=True),
    Defect("wrong model: trained to say on time", EVALUATION, trained_on(lambda rows: rows.assign(late=1 - rows[LABEL])), "roc_auc"),
    Defect("inverted answers", EVALUATION, answering("inverted"), "roc_auc"),
    Defect("one answer for everybody", EVALUATION, answering("constant", 0.14), "roc_auc"),
    Defect("answers given to the wrong rows", EVALUATION, answering("of another row"), "roc_auc"),
    Defect("label leak: a feature that knows the label", EVALUATION, trained_on(leaking_label), "log_loss", is_quick=True),
    Defect("trained on 100 rows", EVALUATION, trained_on(lambda rows: rows.sample(112, random_state=1)), "roc_auc"),
    Defect("trained on swapped columns", EVALUATION, trained_on(swapped("hour", "weekday")), "_worse_by"),
    Defect("uncalibrated: probabilities squared", EVALUATION, answering("squared"), "log_loss"),
    Defect("uncalibrated: probabilities times 1.8", EVALUATION, answering("pushed up", 1.8), "calibration_error"),
    Defect("bad at one airport only", EVALUATION, answering("wrong at one airport"), "log_loss of origin_index=1", is_quick=True),
    Defect("worse than the incumbent by 3 x the tolerance", EVALUATION, answering("smeared", 0.073), "roc_auc_worse_by", is_quick=True),
    Defect("NaN for some rows", EVALUATION, answering("nan for some", 3000.0), "missing or not finite", "INCONCLUSIVE", is_quick=True),
    Defect("answers in percent", EVALUATION, answering("beyond one"), "outside 0 to 1", "INCONCLUSIVE"),
    Defect("three answers a row", EVALUATION, answering("three columns"), "found text, lists", "INCONCLUSIVE"),
    Defect("one answer for all rows", EVALUATION, answering("one answer"), "it must give one for each", "INCONCLUSIVE"),
    Defect("raises on one row in 50", EVALUATION, answering("fails", 50), "failed on", "INCONCLUSIVE"),
    Defect("missing labels", EVALUATION, labelled_with(some(LABEL, np.nan, one_in=5000)), "have no usable late", "INCONCLUSIVE"),
    Defect("labels of one class", EVALUATION, labelled_with(lambda rows: rows.assign(late=0)), "needs labels 0 and 1", "INCONCLUSIVE"),
    Defect("no label column", EVALUATION, labelled_with(lambda rows: rows.drop(columns=[LABEL])), "has no column late", "INCONCLUSIVE"),
    Defect(
        "no rows of one airport", EVALUATION, labelled_with(lambda rows: rows[rows["origin_index"] != 2]), "origin_index=2", "INCONCLUSIVE"
    ),
    Defect("too few labelled rows", EVALUATION, labelled_with(lambda rows: rows.head(500)), "needs 2000", "INCONCLUSIVE"),
    Defect("another evaluation file", EVALUATION, swapped_file, "the profile wants", "INCONCLUSIVE", is_quick=True),
    Defect("nulls in 5 % of a column", DRIFT, rows_now(some("temperature_c", np.nan, one_in=20)), "null_percent of temp", is_quick=True),
    Defect("infinities", DRIFT, rows_now(some("wind_speed_kmh", np.inf, one_in=1000)), "infinite_count of wind_speed_kmh"),
    Defect("an unseen category", DRIFT, rows_now(some("origin_index", 7.0, one_in=500)), "outside_percent of origin_index", is_quick=True),
    Defect("weekdays from 1 to 7", DRIFT, rows_now(lambda rows: rows.assign(weekday=rows["weekday"] + 1)), "outside_percent of weekday"),
    Defect("categories numbered anew", DRIFT, rows_now(categories_anew), "carrier_index"),
    Defect("a renamed column", DRIFT, rows_now(lambda rows: rows.rename(columns={"hour": "Hour"})), "unusable_column_count"),
    Defect("a missing column", DRIFT, rows_now(lambda rows: rows.drop(columns=["visibility_km"])), "unusable_column_count"),
    Defect("swapped columns", DRIFT, rows_now(swapped("temperature_c", "humidity_percent")), "distance of temperature_c", is_quick=True),
    Defect("Fahrenheit as Celsius", DRIFT, rows_now(fahrenheit), "temperature_c"),
    Defect("a stuck column", DRIFT, rows_now(lambda rows: rows.assign(origin_delay_minutes=0.0)), "stuck_column_count"),
    Defect("shifted by 5 standard deviations", DRIFT, rows_now(moved("distance_km", 5)), "distance of distance_km"),
    Defect("five columns moved by .9 each", DRIFT, rows_now(several_moved), "drifted_share"),
    Defect("out of range", DRIFT, rows_now(some("hour", 25.0, one_in=1000)), "outside_percent of hour"),
    Defect("numbers as text", DRIFT, rows_now(lambda rows: rows.assign(hour=rows["hour"].astype(str))), "unusable_column_count"),
    Defect("too few rows", DRIFT, rows_now(lambda rows: rows.head(400)), "needs 1000", "INCONCLUSIVE"),
    Defect("only the answers have drifted", DRIFT, calm_flights_alone, "prediction_distance"),
    Defect("no answer to some rows", DRIFT, answers_missing, "are missing or not finite", "INCONCLUSIVE"),
)

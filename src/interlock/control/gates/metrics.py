"""The metrics of the evaluation gate of one model, by scikit-learn's functions where it has them, and what each cannot be taken of."""

from dataclasses import dataclass, replace
from typing import Any, Self, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from interlock.profile.gates import MetricName

Numbers: TypeAlias = NDArray[np.float64]

CALIBRATION_BIN_COUNT = 10
ROUNDING = 1e-6  # so far outside 0 to 1 is a probability in 32 bits
DISTANCE = "distance_to_label"
RANKED = frozenset({"roc_auc", "average_precision"})
OF_PROBABILITIES = frozenset({"log_loss", "brier", "calibration_error", "precision", "recall", "f1"})
DEFINED_ON_ONE_CLASS = frozenset({"log_loss", "brier", "calibration_error", "accuracy"})
OF_QUANTITIES = frozenset({"mean_absolute_error", "root_mean_squared_error", "r2"})


@dataclass(frozen=True, slots=True)
class Side:
    """
    One model on labelled rows; every array has shape (n,).

    labels, answers: floats, or objects where they are no numbers. distances: D of each answer to its label, NaN where one of the two is
    unusable; all NaN when no metric asks for it.
    """

    labels: NDArray[Any]
    answers: NDArray[Any]
    distances: Numbers

    def at(self, rows: NDArray[np.intp]) -> Self:
        """The same model on some of the rows."""
        return type(self)(self.labels[rows], self.answers[rows], self.distances[rows])


def flaw(name: MetricName, side: Side, *, is_part: bool = False) -> str | None:
    """
    Why this metric cannot be taken of this model, or None when it can.

    A part of the rows may have labels of one class where the metric is defined on such; whole data without the other class are broken.
    """
    if not len(side.labels):
        return f"{name} has no rows"
    if name == DISTANCE:
        count = int(np.isnan(side.distances).sum())
        lacking = f"{count} of {len(side.labels)} rows have no answer and label that the profile's comparator can compare"
        return f"{name}: {lacking}" if count else None
    if name in {"accuracy", "r2"} and len(pd.unique(side.labels)) < 2 and not (is_part and name in DEFINED_ON_ONE_CLASS):
        return f"{name}: all labels are the same"
    return None if name == "accuracy" else _flaw_of_numbers(name, side, needs_both=not (is_part and name in DEFINED_ON_ONE_CLASS))


def _flaw_of_numbers(name: MetricName, side: Side, *, needs_both: bool) -> str | None:
    for values, what in ((side.labels, "labels"), (side.answers, "answers")):
        if values.dtype.kind != "f":
            return f"{name} needs numbers, found text, lists or whole numbers beyond 2^53 as {what}: distance_to_label takes any answer"
    if name in OF_QUANTITIES:
        return None
    classes = set(np.unique(side.labels))
    if not classes <= {0.0, 1.0} or (needs_both and len(classes) < 2):
        return f"{name} needs labels 0 and 1, found {len(classes)} different labels"
    if name in OF_PROBABILITIES and not _within_unit(side.answers):
        return f"{name} needs probabilities, found predictions outside 0 to 1"
    return None


def score(name: MetricName, side: Side) -> float:
    """One metric of one model, as `mlflow.models.evaluate` has it; NaN where it is not defined. The side must have no `flaw`."""
    from sklearn import metrics  # half a second, which only a release that comes as far as this gate pays

    labels, answers = side.labels, clipped(name, side).answers
    if name == DISTANCE:
        return float(np.mean(side.distances))
    if name == "calibration_error":
        return _calibration_error(labels, answers)
    if name == "log_loss":
        return float(metrics.log_loss(labels, answers, labels=[0.0, 1.0]))
    if name in {"precision", "recall", "f1"}:
        return float(getattr(metrics, f"{name}_score")(labels, decided(side), zero_division=np.nan))
    if name == "accuracy":
        return float(metrics.accuracy_score(*_as_codes(labels, decided(side))))
    return float(getattr(metrics, _LIBRARY[name])(labels, answers))


def clipped(name: MetricName, side: Side) -> Side:
    """Rounding errors beyond 0 and 1 taken off the probabilities, where the metric is one of probabilities."""
    return replace(side, answers=np.clip(side.answers, 0.0, 1.0)) if name in OF_PROBABILITIES else side


_LIBRARY = {
    "roc_auc": "roc_auc_score",
    "average_precision": "average_precision_score",
    "brier": "brier_score_loss",
    "mean_absolute_error": "mean_absolute_error",
    "root_mean_squared_error": "root_mean_squared_error",
    "r2": "r2_score",
}


def decided(side: Side) -> NDArray[Any]:
    """The label that each answer stands for: a probability is label 1 from one half on, when all labels are 0 or 1; else itself."""
    labels, answers = side.labels, side.answers
    if labels.dtype.kind == "f" and answers.dtype.kind == "f" and _within_unit(answers) and set(np.unique(labels)) <= {0.0, 1.0}:
        return np.asarray(answers >= 0.5, dtype=np.float64)
    return answers


def hits(side: Side) -> Numbers:
    """1 where the model's label is the true one, else 0."""
    labels, answers = _as_codes(side.labels, decided(side))
    return np.asarray(labels == answers, dtype=np.float64)


def calibration_bins(probabilities: Numbers) -> NDArray[np.intp]:
    """The bin of each row, of ten with about equally many rows. Equal probabilities share a bin: the order of the rows must not matter."""
    edges = np.quantile(probabilities, np.linspace(0, 1, CALIBRATION_BIN_COUNT + 1)[1:-1])
    return np.searchsorted(edges, probabilities)


def _calibration_error(labels: Numbers, probabilities: Numbers) -> float:
    """Expected calibration error: how far the mean probability of a bin lies from its share of label 1, averaged over the rows."""
    gaps = np.bincount(calibration_bins(probabilities), weights=probabilities - labels, minlength=CALIBRATION_BIN_COUNT)
    return float(np.abs(gaps).sum() / len(labels))


def _as_codes(labels: NDArray[Any], answers: NDArray[Any]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """One integer for each different label: text and numbers among them do not stop the comparison."""
    codes, _ = pd.factorize(np.concatenate([labels.astype(object), answers.astype(object)]))
    return codes[: len(labels)], codes[len(labels) :]


def _within_unit(values: Numbers) -> bool:
    return bool(((values >= -ROUNDING) & (values <= 1 + ROUNDING)).all())

"""
The drift gate on many rows of many columns, in a process of its own whose peak memory is its alone.

    python -m benchmarks.gates_wide write|judge DIRECTORY ROWS

The model answers at once: how long a model takes for a million rows is not the gate's doing.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from interlock.adapters.datasets import read_rows
from interlock.control.gates.answers import PlainAnswers
from interlock.control.gates.drift import judge_drift
from interlock.profile.gates import CategoryColumn, Drift, NumberColumn, PredictionDrift
from interlock.profile.output import TotalVariation

COLUMN_COUNT = 50
SIDES = ("reference", "current")
NUMBER_METHODS = ("wasserstein", "psi", "jensenshannon", "hellinger", "kl_div")
CARRIERS = ("AA", "B6", "DL", "EV", "UA")


@dataclass(frozen=True, slots=True)
class Wide:
    """What it took: reading both files and judging, and the most memory that was resident at once."""

    row_count: int
    read_seconds: float
    judge_seconds: float
    peak_mib: float
    outcome: str
    measurement_count: int

    @property
    def seconds(self) -> float:
        """All of it."""
        return self.read_seconds + self.judge_seconds


class _FirstColumn:
    """A model that costs nothing."""

    def answers(self, frame: pd.DataFrame) -> Sequence[Any]:
        return list((frame["x0"] / 10).tolist())


def measure_wide(directory: Path, *, row_count: int) -> Wide:
    """Write both sides, then judge them, each in a process of its own."""
    _child("write", directory, row_count)
    return Wide(**json.loads(_child("judge", directory, row_count)))


def _child(action: str, directory: Path, row_count: int) -> str:
    command = [sys.executable, "-m", "benchmarks.gates_wide", action, str(directory), str(row_count)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]


def _write(directory: Path, row_count: int) -> None:
    for seed, side in enumerate(SIDES):
        generator = np.random.default_rng(seed)
        frame = pd.DataFrame({f"x{index}": _drawn(generator, index, row_count) for index in range(COLUMN_COUNT)})
        frame.to_parquet(directory / f"{side}.parquet", index=False)


def _drawn(generator: np.random.Generator, index: int, row_count: int) -> Any:
    """Of ten columns one is text, one few whole numbers, one skewed, the others normal."""
    match index % 10:
        case 9:
            return generator.choice(CARRIERS, row_count)
        case 8:
            return generator.integers(0, 24, row_count)
        case 7:
            return generator.exponential(3.0, row_count)
        case _:
            return generator.normal(size=row_count)


def _policy() -> Drift:
    return Drift(
        reference="reference.parquet",
        current="current.parquet",
        min_row_count=1000,
        sample_row_count=None,
        max_drifted_share=0.3,
        prediction=PredictionDrift(method="wasserstein", max_distance=0.3),
        columns=tuple(_columns()),
    )


def _columns() -> Iterator[NumberColumn | CategoryColumn]:
    for index in range(COLUMN_COUNT):
        shared: dict[str, Any] = {"name": f"x{index}", "drift_distance": 0.1, "max_distance": 0.3}
        shared |= {"max_null_percent": 0.0, "max_outside_percent": 0.0}
        if index % 10 == 9:
            yield CategoryColumn(kind="category", method="jensenshannon", categories=CARRIERS, **shared)
        else:
            shared["method"] = NUMBER_METHODS[index % len(NUMBER_METHODS)]
            yield NumberColumn(kind="number", minimum=-100.0, maximum=100.0, **shared)


def _judge(directory: Path, row_count: int) -> Wide:
    started, policy = time.monotonic(), _policy()
    reference, current = (read_rows(side, data_directory=directory) for side in (policy.reference, policy.current))
    read_seconds = time.monotonic() - started
    answers = PlainAnswers(TotalVariation(type="probability", comparator="total_variation"), _FirstColumn())
    verdict = judge_drift(policy, reference, current, answers=answers, confidence=0.95)
    seconds = time.monotonic() - started - read_seconds
    return Wide(row_count, read_seconds, seconds, _peak_mib(), verdict.outcome.name, len(verdict.measurements))


def _peak_mib() -> float:
    """Of this program alone: the kernel's other counter may be that of the process which started it."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def main(arguments: Sequence[str]) -> None:
    """One of the two actions."""
    action, directory, row_count = arguments[0], Path(arguments[1]), int(arguments[2])
    if action == "write":
        _write(directory, row_count)
        print("written")
    else:
        print(json.dumps(asdict(_judge(directory, row_count))))


if __name__ == "__main__":
    main(sys.argv[1:])

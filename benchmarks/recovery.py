"""
From fault to recovered: every release gets its fault at a random moment of its canary, under live traffic.

    python -m benchmarks.recovery [--quick] [--json FILE]

--quick: 3 releases (about 6 minutes); otherwise 9. Exits 1 if a release did not end as it should, a user request failed, or it
took too long.
"""

import argparse
import json
import random
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from interlock.demo.driver import run_demo
from interlock.demo.scenarios import SCENARIOS, Scenario

FAULT_WITHIN_SECONDS = (1.0, 45.0)  # the steps at 20, 35 and 50 % all get their share
GOALS = ("every release ended as it should", "failed user requests", "median time to recover", "worst time to recover")


def faulty_releases(repeats: int, *, seed: int) -> list[Scenario]:
    """Each fault `repeats` times, with a key, a training seed and a moment of its own."""
    moments = random.Random(seed)
    faults = [scenario for scenario in SCENARIOS if scenario.fault]
    return [
        replace(
            fault,
            key=f"{fault.key}-{turn}",
            title=fault.title.removesuffix(", after two minutes"),
            seed=100 * turn + fault.seed,
            fault_after_seconds=moments.uniform(*FAULT_WITHIN_SECONDS),
        )
        for turn in range(repeats)
        for fault in faults
    ]


def main() -> int:
    """Run, print, and say by the exit code whether the goals were met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="interlock-recovery-") as root:
        written = options.json or Path(root) / "figures.json"
        run_demo(Path(root) / "state", written, scenarios=faulty_releases(1 if options.quick else 3, seed=1))
        goals = {goal["name"]: goal["met"] for goal in json.loads(written.read_text(encoding="utf-8"))["goals"]}
    return 0 if all(goals[name] for name in GOALS) else 1


if __name__ == "__main__":
    sys.exit(main())

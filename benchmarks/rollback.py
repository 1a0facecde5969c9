"""
The rollback itself: ask -> observed, with half of the live requests on the candidate, on the real plane under load.

    python -m benchmarks.rollback [--quick] [--json FILE]

Observed means: the split was read back as 0, and 20 requests on the live listener were all answered by the incumbent. Also the wall time
of the `interlock rollback` command, Python start and registry included. Exits 1 where a goal is missed.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from interlock.control.rollback import restore_traffic
from interlock.control.session import Services
from interlock.demo.driver import MODEL_NAME, PROFILE_NAME, REQUESTS_PER_SECOND, Demo, running_stack, train
from interlock.demo.models import register
from interlock.demo.scenarios import SCENARIOS
from interlock.demo.traffic import LiveTraffic
from interlock.model.plane import CandidateLimits
from interlock.model.release import ModelVersion
from interlock.plane.state_directory import StateDirectory
from interlock.terminal import wide_console

P95_GOAL_SECONDS = 1.0
LEASE_SECONDS = 30.0
SETTLE_SECONDS = 0.5
LIMITS = CandidateLimits(error_percent=50.0, p99_ms=1900.0, min_sample_count=50, resident_mib=2048.0)


def expose(services: Services, candidate: ModelVersion, turn: int) -> None:
    """Half of the live requests to the candidate, as a release would."""
    token = services.traffic.begin(f"benchmark-{turn}", lease_seconds=LEASE_SECONDS)
    services.traffic.load_candidate(candidate, server="interlock", thread_count=4, limits=LIMITS, token=token)
    while not ((state := services.traffic.observe().candidate) and state.ready):
        time.sleep(0.2)
    services.traffic.set_mirroring(enabled=True, token=token)
    services.traffic.set_weight(5000, lease_seconds=LEASE_SECONDS, token=token)
    time.sleep(SETTLE_SECONDS)


def measure(services: Services, candidate: ModelVersion, repeats: int) -> list[float]:
    """Seconds from ask to observed, `repeats` times."""
    seconds = []
    for turn in range(repeats):
        expose(services, candidate, turn)
        asked = time.monotonic()
        restore_traffic(services.traffic, services.clock, reason="benchmark")
        seconds.append(time.monotonic() - asked)
    return seconds


def measure_command(services: Services, state: StateDirectory, candidate: ModelVersion, repeats: int) -> list[float]:
    """Wall seconds of `interlock rollback`, traffic, registry and capacity, `repeats` times."""
    seconds = []
    for turn in range(repeats):
        expose(services, candidate, 1000 + turn)
        started = time.monotonic()
        subprocess.run([sys.executable, "-m", "interlock", "rollback", "--state", str(state.root)], check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.monotonic() - started)
    return seconds


def p95(values: list[float]) -> float:
    """The 95th percentile, upwards."""
    return sorted(values)[min(len(values) - 1, int(0.95 * len(values)))]


def run(repeats: int, console: Console) -> dict[str, float]:
    """All measurements on a stack of their own."""
    with tempfile.TemporaryDirectory(prefix="interlock-rollback-") as root:
        state = StateDirectory(Path(root))
        conditions = state / "conditions.json"
        with running_stack(state, conditions, [PROFILE_NAME], console) as when_up:
            data, incumbent, (model,) = train(state, SCENARIOS[:1], console)
            addresses = when_up()
            demo = Demo(state, addresses, data, conditions, console)
            demo.adopt(incumbent)
            candidate, _ = demo.services.files.fetch(MODEL_NAME, register(model, MODEL_NAME, tracking_uri=addresses.mlflow_url))
            with LiveTraffic(addresses.live_url, data.live, REQUESTS_PER_SECOND) as traffic:
                observed = measure(demo.services, candidate, repeats)
                command = measure_command(demo.services, state, candidate, 5)
    return {
        "rollback_count": len(observed),
        "median_seconds": statistics.median(observed),
        "p95_seconds": p95(observed),
        "worst_seconds": max(observed),
        "command_wall_median_seconds": statistics.median(command),
        "failed_user_request_count": traffic.snapshot().failed_count,
    }


def main() -> int:
    """Run, print, and say by the exit code whether the goals were met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    options, console = parser.parse_args(), wide_console()
    figures = run(20 if options.quick else 100, console)
    goals = {"p95_seconds": P95_GOAL_SECONDS, "failed_user_request_count": 0.0}
    table = Table("figure", "measured", "goal", "")
    for name, measured in figures.items():
        goal = goals.get(name)
        verdict = "" if goal is None else "met" if measured <= goal else "missed"
        table.add_row(name.replace("_", " "), f"{measured:.4g}", "-" if goal is None else f"{goal:g}", verdict)
    console.print(table)
    if options.json:
        options.json.write_text(json.dumps({**figures, "goals": goals}, indent=1), encoding="utf-8")
    return 0 if all(figures[name] <= goal for name, goal in goals.items()) else 1


if __name__ == "__main__":
    sys.exit(main())

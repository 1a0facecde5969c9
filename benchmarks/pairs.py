"""
How many pairs a second one core joins and counts, and how much memory a canary of a day takes at 1,000 requests a second.

    python -m benchmarks.pairs [--quick] [--json FILE]

Legs go through the joiner, the comparator and the count table as in a canary, a second of traffic at a time, and the judge looks at
the end. The day is walked through window by window: every window of every step gets pairs, and the traffic between them is left out,
since the table grows with windows and not with pairs; the first minutes are walked at the full rate. Exits 1 where a goal is missed.
"""

import argparse
import json
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from interlock.judge.comparators import Compare, document_comparator, label_comparator, probability_comparator, text_comparator
from interlock.judge.evaluate import judge_tick
from interlock.judge.keys import KeyMemory
from interlock.judge.pairs import PairJoiner
from interlock.judge.policy import JudgePolicy, SignalPolicy, StepPlan
from interlock.judge.tally import Tally
from interlock.model.journal import Arm, Leg, Role
from interlock.terminal import wide_console

REQUESTS_PER_SECOND = 1000
PAIRS_GOAL_PER_SECOND = 50_000
MEMORY_GOAL_MIB = 512.0  # a quarter of what the embedded stack takes with two model versions
LOOK_GOAL_SECONDS = 0.5  # of the one second between two looks
DAY_SECONDS = 24 * 3600
WINDOW_SECONDS = 5
SEGMENTS = ("a", "b", "c", "d")
SHARES = (0.0, 0.05, 0.1, 0.25, 0.5, 1.0)

POLICY = JudgePolicy(
    alpha=0.01,
    beta=0.05,
    window_seconds=WINDOW_SECONDS,
    steps=tuple(StepPlan(share, DAY_SECONDS / len(SHARES)) for share in SHARES),
    is_keyed=False,
    divergence_tolerance=0.02,
    divergence_weight=0.35,
    divergence_is_binary=True,
    bias_tolerance=None,
    bias_weight=0.0,
    segments=tuple(SignalPolicy(f"segment:{name}", 0.0, 0.05) for name in SEGMENTS),
    error_tolerance=0.005,
    error_incumbent_ratio=1.0,
    error_weight=0.35,
    p50_tolerance_ratio=0.1,
    p50_slack_ms=2.0,
    p50_weight=0.10,
    p99_tolerance_ratio=0.25,
    p99_slack_ms=20.0,
    p99_weight=0.20,
    max_missing_share=0.02,
    slo_max_error_share=0.05,
    slo_max_p99_ms=500.0,
    slo_min_sample_count=500,
)


@dataclass(frozen=True, slots=True)
class Output:
    """An output type: its comparator, how a prediction looks, and how many pairs do not hold the same text twice."""

    compare: Compare
    predictions: tuple[str, ...]
    differing_share: float


OUTPUTS = {
    "labels": Output(label_comparator(), ('{"predictions": [0]}', '{"predictions": [1]}'), 0.02),
    "probabilities": Output(probability_comparator(), tuple(f'{{"predictions": [0.{i}371]}}' for i in range(1, 10)), 1.0),
    "text": Output(text_comparator(), tuple(f'{{"predictions": ["the train to gate {i} leaves late"]}}' for i in range(9)), 1.0),
    "json": Output(
        document_comparator({"offer": "number", "reason": "string"}),
        tuple(f'{{"predictions": [{{"offer": {i}, "reason": "fare class {i}"}}]}}' for i in range(9)),
        1.0,
    ),
}


def second_of_legs(output: Output, at_seconds: float, count: int, share: float, rng: random.Random) -> list[Leg]:
    """Both legs of `count` requests; as many as the output says hold different texts."""
    legs = []
    for number in range(count):
        live = Arm.CANDIDATE if rng.random() < share else Arm.INCUMBENT
        ours = rng.choice(output.predictions)
        theirs = rng.choice(output.predictions) if rng.random() < output.differing_share else ours
        request_id = f"{at_seconds}-{number}-{rng.getrandbits(64):016x}"
        at, segment = at_seconds + number / count, rng.choice(SEGMENTS)
        for arm, prediction in ((Arm.CANDIDATE, ours), (Arm.INCUMBENT, theirs)):
            role = Role.LIVE if arm is live else Role.MIRROR
            latency_ms = rng.lognormvariate(3, 0.4)
            legs.append(Leg(request_id, arm, role, at, 200, latency_ms, "0" * 16, prediction, "m/1", segment, "k"))
    return legs


def joiner(output: Output) -> PairJoiner:
    """As a canary has it."""
    return PairJoiner(deadline_seconds=4.0, judging_since_seconds=0.0, compare=output.compare)


def measure_rate(output: Output, seconds: int) -> float:
    """Pairs a second of CPU through join and update; making the legs is not counted."""
    rng, joining, tally = random.Random(1), joiner(output), Tally.for_policy(POLICY, start_seconds=0.0)
    busy_seconds = 0.0
    for second in range(seconds):
        legs = second_of_legs(output, second, 10 * REQUESTS_PER_SECOND, 0.1, rng)
        started = time.process_time()
        joining.offer(legs)
        tally.add(joining.collect(second + 1.0), 1)
        busy_seconds += time.process_time() - started
    return seconds * 10 * REQUESTS_PER_SECOND / busy_seconds


def resident_mib() -> float:
    """Of this process."""
    return float(psutil.Process().memory_info().rss) / 2**20


def walk_day(full_rate_seconds: int, console: Console) -> Iterator[tuple[str, Tally, float]]:
    """Some minutes at the full rate, then every other window of the day; yields what was walked, the table, and MiB above the start."""
    rng, joining, tally = random.Random(2), joiner(OUTPUTS["labels"]), Tally.for_policy(POLICY, start_seconds=0.0)
    before_mib, second = resident_mib(), 0
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("walking through a day", total=full_rate_seconds + (DAY_SECONDS - full_rate_seconds) / WINDOW_SECONDS)
        while second < DAY_SECONDS:
            is_full = second < full_rate_seconds
            step = min(len(SHARES) - 1, second * len(SHARES) // DAY_SECONDS)
            joining.offer(second_of_legs(OUTPUTS["labels"], second, REQUESTS_PER_SECOND if is_full else 50, SHARES[step], rng))
            tally.add(joining.collect(second + 1.0), step)
            second += 1 if is_full else WINDOW_SECONDS
            progress.advance(task)
            if second == full_rate_seconds:
                yield f"{second / 60:g} min at {REQUESTS_PER_SECOND} requests/s", tally, resident_mib() - before_mib
    yield "24 h, every window", tally, resident_mib() - before_mib


def measure_keys_mib(count: int) -> float:
    """MiB that so many different customers take in keyed analysis."""
    before_mib, memory = resident_mib(), KeyMemory()
    for first in range(0, count, 10_000):
        memory.visit([f"customer {first + i}" for i in range(10_000)], np.full(10_000, first // 10_000, dtype=np.int64))
    return resident_mib() - before_mib


def look_seconds(tally: Tally) -> float:
    """Best of three: what one look costs."""
    found = []
    for _ in range(3):
        started = time.process_time()
        judge_tick(tally, POLICY)
        found.append(time.process_time() - started)
    return min(found)


def run(is_quick: bool, console: Console) -> dict[str, float]:
    """All figures by name."""
    figures = {"memory, keys of 2,000,000 customers: MiB": measure_keys_mib(2_000_000)}  # first: freed memory would hide it
    for name, tally, mib in walk_day(60 if is_quick else 600, console):
        figures |= {f"memory, {name}: MiB": mib, f"one look, {name}: s": look_seconds(tally)}
        figures[f"the table as JSON, {name}: MiB"] = len(json.dumps(tally.to_dict())) / 2**20
    figures |= {f"{name}: pairs/s": measure_rate(output, 3 if is_quick else 20) for name, output in OUTPUTS.items()}
    return figures


def goals_of(figures: dict[str, float]) -> list[tuple[str, float, str, bool]]:
    """Figure, value, goal in words, met."""
    rows = []
    for name, value in figures.items():
        if name == "labels: pairs/s":
            rows.append((name, value, f">= {PAIRS_GOAL_PER_SECOND:,}", value >= PAIRS_GOAL_PER_SECOND))
        elif name.startswith("memory"):
            rows.append((name, value, f"<= {MEMORY_GOAL_MIB:g}", value <= MEMORY_GOAL_MIB))
        elif name.startswith("one look"):
            rows.append((name, value, f"<= {LOOK_GOAL_SECONDS:g}", value <= LOOK_GOAL_SECONDS))
        else:
            rows.append((name, value, "", True))
    return rows


def main() -> int:
    """Measure, print, and say whether the goals are met."""
    parser = argparse.ArgumentParser(description="Pairs a second through join and update, and the memory of a long canary.")
    parser.add_argument("--quick", action="store_true", help="less than a minute")
    parser.add_argument("--json", type=Path, metavar="FILE")
    asked = parser.parse_args()
    console = wide_console()
    rows = goals_of(run(asked.quick, console))
    table = Table("figure", "measured", "goal", "", title="The judge's throughput and memory, one core")
    for name, value, goal, is_met in rows:
        table.add_row(name, f"{value:,.0f}" if value >= 100 else f"{value:.3g}", goal, ("met" if is_met else "missed") if goal else "")
    console.print(table)
    if asked.json:
        asked.json.write_text(
            json.dumps({name: {"value": value, "goal": goal, "is_met": met} for name, value, goal, met in rows}, indent=2)
        )
    return 0 if all(is_met for *_, is_met in rows) else 1


if __name__ == "__main__":
    sys.exit(main())

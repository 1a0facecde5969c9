"""Defects that show in a model server: parity, latency, memory, disagreement. Every candidate is served by a process of its own."""

import statistics
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.gates_defect import Defect, Seen, judged_by
from benchmarks.gates_world import PROFILES, World, with_gate
from interlock.adapters.scoring_client import ScoringClient
from interlock.control.gates.stage import encode_rows
from interlock.demo.flights import FEATURES
from interlock.demo.models import train_candidate
from interlock.model.release import ModelVersion
from interlock.profile.reader import LoadedProfile, read_profile

PARITY, LATENCY, MEMORY, DISAGREEMENT = "parity", "latency", "memory", "disagreement"
SLOW_START_SECONDS, SHORT_DEADLINE_SECONDS = 12.0, 10.0
PROBE_COUNT = 60
Show = Callable[[World], Seen]


def served(gate: str, defect: str, size: float = 0.0, *, only_served: bool = False, standard: bool = False) -> Show:
    """The gate on a version with this defect. standard: with the numbers of profiles/standard.yaml for this gate."""

    def show(world: World) -> Seen:
        loaded = with_standard(world.loaded, gate) if standard else None
        return judge_served(world, gate, world.plant(defect, size, only_served=only_served), loaded=loaded)

    return show


def judge_served(
    world: World,
    gate: str,
    version: ModelVersion,
    *,
    runs: ModelVersion | None = None,
    loaded: LoadedProfile | None = None,
    incumbent: ModelVersion | None = None,
) -> Seen:
    """The gate on this version beside the incumbent, both served. runs: which files the candidate's server has, if not these."""
    limit_mib, beside = world.loaded.profile.limits.resident_mib, incumbent or world.incumbent
    with world.serving.plane(beside, runs or version, memory_limit_mib=limit_mib) as (plane, start_seconds):
        session = world.session(version, plane, loaded=loaded, incumbent=beside)
        session.record("loaded", start_seconds=round(start_seconds, 2))
        return judged_by(gate, session)


def with_standard(loaded: LoadedProfile, gate: str) -> LoadedProfile:
    """The profile, with one gate's numbers of standard.yaml."""
    numbers: Mapping[str, Any] = getattr(read_profile("standard", PROFILES).profile.gates, gate).model_dump()
    return with_gate(loaded, gate, numbers)


def wrong_files(world: World) -> Seen:
    """The server has another training of the same recipe."""
    other = world.log(train_candidate(world.data, fault_key="other", seed=12))
    return judge_served(world, PARITY, world.good, runs=other)


def three_times_the_median(world: World) -> Seen:
    """Every answer comes two medians later, under the numbers of standard.yaml: demo.yaml tolerates 10 ms."""
    rows = world.data.recent[list(FEATURES)]
    with world.serving.plane(world.incumbent) as (plane, _):
        incumbent = plane.observe().incumbent
        assert incumbent is not None
        with ScoringClient(incumbent.port, timeout_seconds=10.0) as client:
            seconds = []
            for position in range(PROBE_COUNT):
                payload, started = encode_rows(rows.iloc[[position]]), world.clock.monotonic()
                client.ask(payload)
                seconds.append(world.clock.monotonic() - started)
    version = world.plant("late", 2 * statistics.median(seconds))
    return judge_served(world, LATENCY, version, loaded=with_standard(world.loaded, LATENCY))


def slow_start(world: World) -> Seen:
    """The model needs longer than the profile's start deadline, which is shortened: two minutes are long for a benchmark."""
    serving = world.loaded.profile.serving.model_copy(update={"start_deadline_seconds": SHORT_DEADLINE_SECONDS})
    loaded = LoadedProfile(world.loaded.profile.model_copy(update={"serving": serving}), world.loaded.text, world.loaded.digest)
    return judge_served(world, LATENCY, world.plant("slow start", SLOW_START_SECONDS, only_served=True), loaded=loaded)


def noisy_incumbent(world: World) -> Seen:
    """No candidate could be told from a bad one beside it."""
    noisy = world.plant("random", model=world.trained_incumbent)
    try:
        return judge_served(world, DISAGREEMENT, world.good, incumbent=noisy)
    finally:
        world.serving.drop(noisy)


SERVED: tuple[Defect, ...] = (
    Defect("skew: two features swapped in the server", PARITY, served(PARITY, "swapped inputs", only_served=True), "_alone", is_quick=True),
    Defect("skew: the server reads Fahrenheit", PARITY, served(PARITY, "fahrenheit", only_served=True), "_alone"),
    Defect("skew: a feature is always 0 in the server", PARITY, served(PARITY, "filled with zeros", only_served=True), "_alone"),
    Defect("another version's files in the server", PARITY, wrong_files, "_alone"),
    Defect("answers rounded to .01 in the server", PARITY, served(PARITY, "rounded", only_served=True), "_alone"),
    Defect("float32 in the server", PARITY, served(PARITY, "float32", only_served=True), "_alone"),
    Defect("percent in the server", PARITY, served(PARITY, "percent", only_served=True), "_alone"),
    Defect("centred on the batch's mean", PARITY, served(PARITY, "minus the batch's mean"), "_in_batches", is_quick=True),
    Defect("ranked within the batch", PARITY, served(PARITY, "rank in the batch"), "_in_batches"),
    Defect("depends on the order of rows", PARITY, served(PARITY, "row before it"), "_shuffled"),
    Defect("counts its requests", PARITY, served(PARITY, "counted"), "_alone"),
    Defect("a cache whose key forgets columns", PARITY, served(PARITY, "remembered", only_served=True), "_alone"),
    Defect("random answers", PARITY, served(PARITY, "random"), "_alone"),
    Defect("drops a row of every batch", PARITY, served(PARITY, "a row short", only_served=True), "predictions: it must be one for each"),
    Defect("500 on more than 5 rows", PARITY, served(PARITY, "no batches", 5, only_served=True), "unanswered_request_count"),
    Defect("+200 ms", LATENCY, served(LATENCY, "late", 0.2, only_served=True), "p50_ms"),
    Defect("median +40 ms, absolutely allowed", LATENCY, served(LATENCY, "late", 0.04, only_served=True), "p50_next_to_incumbent_ms"),
    Defect("median x 3 (standard.yaml's numbers)", LATENCY, three_times_the_median, "p50_next_to_incumbent_ms"),
    Defect("tail: 2 % of requests + 1 s", LATENCY, served(LATENCY, "tail", 1.0, only_served=True), "p99_ms", is_quick=True),
    Defect("evening flights + 150 ms", LATENCY, served(LATENCY, "slower evening", 0.15, only_served=True), "p95_"),
    Defect("stalls: everybody waits .8 s now and then", LATENCY, served(LATENCY, "stalls", 0.8, only_served=True), "p99_ms"),
    Defect("one request at a time, 30 ms each", LATENCY, served(LATENCY, "one at a time", 0.03, only_served=True), "p50_ms"),
    Defect("starts too slowly", LATENCY, slow_start, "start_seconds"),
    Defect("500 on 1 % of requests", LATENCY, served(LATENCY, "fails", 100, only_served=True), "failed_request_count"),
    Defect("hangs", LATENCY, served(LATENCY, "hangs", 25.0, only_served=True), "failed_request_count"),
    Defect(
        "leak of 1 MiB in 1,000 requests",
        MEMORY,
        served(MEMORY, "leak", 1e-3, only_served=True, standard=True),
        "growth_mib",
    ),
    Defect("leak of 10 KiB a request", MEMORY, served(MEMORY, "leak", 0.01, only_served=True), "growth_mib", is_quick=True),
    Defect("leak of 100 KiB a request", MEMORY, served(MEMORY, "leak", 0.1, only_served=True), "growth_mib"),
    Defect("peak of 1.2 GiB while loading", MEMORY, served(MEMORY, "load peak", 1200, only_served=True), "peak_mib"),
    Defect("three times as much resident", MEMORY, served(MEMORY, "resident", 520, only_served=True), "peak_next_to_incumbent_mib"),
    Defect("dies of its limit", MEMORY, served(MEMORY, "leak", 12, only_served=True), "failed_request_count"),
    Defect("ends after 300 requests", MEMORY, served(MEMORY, "ends", 300, only_served=True), "ended_count"),
    Defect("answers of other rows", DISAGREEMENT, served(DISAGREEMENT, "of another row"), "disagreement_at_least", is_quick=True),
    Defect("served answers are inverted", DISAGREEMENT, served(DISAGREEMENT, "inverted"), "disagreement_at_least"),
    Defect("always null", DISAGREEMENT, served(DISAGREEMENT, "null"), "disagreement_at_least"),
    Defect("text instead of numbers", DISAGREEMENT, served(DISAGREEMENT, "text"), "disagreement_at_least"),
    Defect("swapped features, offline as well", DISAGREEMENT, served(DISAGREEMENT, "swapped inputs"), "disagreement_at_least"),
    Defect(
        "ends after 20 requests",
        DISAGREEMENT,
        served(DISAGREEMENT, "ends", 20, only_served=True),
        "first failure of the candidate",
        "INCONCLUSIVE",
    ),
    Defect("an incumbent that answers at random", DISAGREEMENT, noisy_incumbent, "differs from itself", "INCONCLUSIVE"),
)

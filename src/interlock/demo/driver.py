"""`make demo`: starts the stack, serves real flights, and lets four candidates be released with no hand on any of them."""

import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from interlock.adapters.mlflow_registry import MlflowRegistry
from interlock.control.adoption import adopt_incumbent
from interlock.control.rollback import restore_traffic
from interlock.control.session import Services
from interlock.demo.flights import FlightsData, origins, prepare
from interlock.demo.follow import Followed, Follower, Record
from interlock.demo.models import TrainedModel, register, train_candidate, train_incumbent
from interlock.demo.outcome import DemoFigures, Outcome, print_figures, write_figures
from interlock.demo.progress import ReleaseProgress
from interlock.demo.scenarios import SCENARIOS, Scenario
from interlock.demo.served import CONDITIONS_VARIABLE
from interlock.demo.traffic import LiveTraffic
from interlock.errors import ReleaseError, ServiceRefused, ServiceUnavailable, StateError
from interlock.plan.phases import planned_seconds
from interlock.plane.process import family
from interlock.plane.state_directory import StackAddresses, StateDirectory
from interlock.profile.reader import read_profile
from interlock.status import print_verdicts
from interlock.terminal import wide_console
from interlock.wiring import open_services, read_allowed_profile

MODEL_NAME = "flight-delay"
PROFILE_NAME = "demo"
REQUESTS_PER_SECOND = 60.0
UP_SECONDS = 240.0
STOP_SECONDS = 60.0
RECOVERY_SECONDS = 60.0  # how long to look for the recovery; far above the worst goal, so that a miss is a number and no crash
ROLLBACK_REPEATS = 20


def run_demo(root: Path, json_file: Path | None, *, scenarios: Sequence[Scenario] = SCENARIOS, profile: str = PROFILE_NAME) -> int:
    """Run the demonstration in `root`, which is emptied first. 0 only if every release ended as it should and no user request failed."""
    console, started = wide_console(), time.monotonic()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the stack below is stopped on the way out
    state = StateDirectory(root)
    _empty(state)
    conditions = state / "conditions.json"
    with running_stack(state, conditions, [profile], console) as addresses_when_up:
        data, incumbent, candidates = train(state, scenarios, console)
        addresses = addresses_when_up()
        demo = Demo(state, addresses, data, conditions, console)
        figures = demo.run(incumbent, list(zip(scenarios, candidates, strict=True)), started)
    print_figures(figures, console)
    if json_file:
        write_figures(figures, json_file)
    return 0 if figures.is_good else 1


class Demo:
    """Research, users and a stopwatch around one running stack."""

    def __init__(self, state: StateDirectory, addresses: StackAddresses, data: FlightsData, conditions: Path, console: Console) -> None:
        self._state, self._addresses, self._data, self._console = state, addresses, data, console
        self._conditions = conditions
        self.services: Services = open_services(state)
        self._registry = MlflowRegistry(addresses.mlflow_url)
        self._planned_seconds = planned_seconds(read_profile(addresses.profile_names[0], Path(addresses.profiles_directory)).profile.canary)
        self._peak_memory_mib = 0.0
        self._rollback_seconds: list[float] = []

    def run(self, incumbent: TrainedModel, candidates: Sequence[tuple[Scenario, TrainedModel]], started: float) -> DemoFigures:
        """All releases, one after the other, under one unbroken stream of live requests."""
        self.adopt(incumbent)
        live = self._data.live
        with LiveTraffic(self._addresses.live_url, live, REQUESTS_PER_SECOND, segments=origins(live)) as traffic:
            self._say(
                f"live: {REQUESTS_PER_SECOND:g} flights a second through {self._addresses.live_url}; watch {self._addresses.page_url}"
            )
            outcomes = [self.release(scenario, model, traffic) for scenario, model in candidates]
            self._rehearse_rollback()
        users = traffic.snapshot()
        return DemoFigures(
            outcomes=tuple(outcomes),
            total_request_count=users.total_count,
            failed_request_count=users.failed_count,
            rollback_seconds=tuple(self._rollback_seconds),
            peak_memory_mib=self._peak_memory_mib,
            elapsed_seconds=time.monotonic() - started,
            addresses={
                "Prefect": self._addresses.prefect_url.removesuffix("/api"),
                "MLflow": self._addresses.mlflow_url,
                "live page": self._addresses.page_url,
            },
        )

    def adopt(self, incumbent: TrainedModel) -> None:
        """Register the model that serves today and take it over as the first incumbent."""
        version = register(incumbent, MODEL_NAME, tracking_uri=self._addresses.mlflow_url)
        loaded = read_allowed_profile(self.services.allowed_profiles[0], self._state)
        adoption = adopt_incumbent(self.services, loaded, MODEL_NAME, version, server="interlock", thread_count=4)
        if not adoption.is_adopted:
            print_verdicts(adoption.verdicts)
            raise ServiceRefused(f"{adoption.version.label} did not pass the gates of a first version: see the table above")
        self._say(f"{adoption.version.label} is the incumbent (AUC {incumbent.metrics['roc_auc']:.3f} on later months)")

    def release(self, scenario: Scenario, model: TrainedModel, traffic: LiveTraffic) -> Outcome:
        """Register a candidate, move it to Staging as research would, and watch what becomes of it."""
        started, failed_before = time.monotonic(), traffic.snapshot().failed_count
        incumbent = self._incumbent_label()
        version = register(model, MODEL_NAME, tracking_uri=self._addresses.mlflow_url)
        candidate = f"{MODEL_NAME}/{version}"
        self._registry.set_stage(MODEL_NAME, version, "Staging", token=self._registry.read_token(MODEL_NAME))
        self._say(f"[bold]{candidate}[/bold] ({scenario.title}; AUC {model.metrics['roc_auc']:.3f}) moved to Staging")
        evidence = self._state / "evidence"
        with ReleaseProgress(self._console, candidate, self._planned_seconds) as progress:

            def on_record(record: Record) -> None:
                progress.show(record)
                self._show(record)

            follower = Follower(evidence=evidence, conditions=self._conditions, traffic=traffic, on_record=on_record)
            followed = follower.follow(scenario, candidate)
        serving = candidate if scenario.fault is None else incumbent
        recovered_at = _recovery(traffic, serving, followed)
        return self._outcome(scenario, candidate, followed, recovered_at, traffic.snapshot().failed_count - failed_before, started)

    def _outcome(
        self, scenario: Scenario, candidate: str, followed: Followed, recovered_at: float | None, failed_count: int, started: float
    ) -> Outcome:
        ending = followed.ending or {}
        decision = str(ending.get("decision", "Failed"))
        halt = followed.halt or {}
        decided_by = str(halt.get("decided_by") or ("final look" if decision == "Promoted" else "gates"))
        as_expected = decision == scenario.expected.value and (not scenario.expected_signals or decided_by in scenario.expected_signals)
        had_fault = followed.fault_at is not None
        detected = had_fault and followed.halted_at is not None
        rollback = next((r for r in followed.records if r["kind"] == "rollback"), None)
        if rollback:
            self._rollback_seconds.append(float(rollback["steps"][0]["elapsed_seconds"]))
        return Outcome(
            key=scenario.key,
            title=scenario.title,
            candidate=candidate,
            decision=decision,
            decided_by=decided_by,
            reason=str(ending.get("reason", "")),
            as_expected=as_expected and (not scenario.fault or recovered_at is not None),
            requests_until_halt=followed.halt_requests - followed.fault_requests if detected else None,
            detect_seconds=(followed.halted_at or 0) - (followed.fault_at or 0) if detected else None,
            recover_seconds=recovered_at - (followed.fault_at or 0) if had_fault and recovered_at is not None else None,
            failed_request_count=failed_count,
            release_seconds=time.monotonic() - started,
        )

    def _rehearse_rollback(self) -> None:
        """The rollback command, again and again: ask -> observed, under live traffic."""
        services = self.services
        for _ in range(ROLLBACK_REPEATS):
            asked = time.monotonic()
            restore_traffic(services.traffic, services.clock, reason="rehearsal")
            self._rollback_seconds.append(time.monotonic() - asked)
        self._say(f"{ROLLBACK_REPEATS} rehearsed rollbacks: median {statistics.median(self._rollback_seconds):.2f} s from ask to observed")

    def _incumbent_label(self) -> str:
        state = self.services.traffic.observe().incumbent
        return state.version.label if state else ""

    def _show(self, record: Record) -> None:
        if record["kind"] == "tick":
            self._measure_memory()
            return
        text = {
            "intake": lambda r: f"release of {r['candidate']} against {r['incumbent']} opened",
            "loaded": lambda r: f"candidate server ready after {r['start_seconds']:.1f} s",
            "gate": lambda r: f"gate [bold]{r['outcome']}[/bold] {escape(r['reason'][:120])} ...",
            "phase": lambda r: f"{r['phase']}: candidate weight {r['weight_bps'] / 100:g} %",
            "fault": lambda r: f"[yellow]fault active in the candidate: {r['fault']}[/yellow]",
            "final look": lambda r: f"final look: {r['outcome']}",
            "promoted": lambda r: f"promoted: champion is version {r['champion']}",
            "rollback": lambda r: f"rolled back: incumbent observed after {r['steps'][0]['elapsed_seconds']:.2f} s",
            "decision": lambda r: f"[bold]{r['decision']}[/bold]: {escape(r['reason'][:200])}",
            "failed": lambda r: f"[red]Failed[/red]: {escape(r['reason'][:200])}",
        }.get(record["kind"])
        if text:
            self._say(f"  {text(record)}")

    def _measure_memory(self) -> None:
        rss_bytes = 0
        for process in family(self._addresses.supervisor_pid):
            try:
                rss_bytes += process.memory_info().rss
            except ProcessLookupError:
                continue
        self._peak_memory_mib = max(self._peak_memory_mib, rss_bytes / 2**20)

    def _say(self, text: str) -> None:
        self._console.print(f"[dim]{time.strftime('%H:%M:%S')}[/dim] {text}")


@contextmanager
def running_stack(
    state: StateDirectory, conditions: Path, profiles: Sequence[str], console: Console
) -> Iterator[Callable[[], StackAddresses]]:
    """`interlock up` in a process of its own; yields a function that waits for it and returns its addresses; stops it in the end."""
    environment = {**os.environ, CONDITIONS_VARIABLE: str(conditions)}
    allowed = [word for profile in profiles for word in ("--profile", profile)]
    command = [sys.executable, "-m", "interlock", "up", "--model", MODEL_NAME, *allowed, "--state", str(state.root)]
    console.print(f"starting Prefect, MLflow, Envoy and the journal in {state.root}", highlight=False)
    stack = subprocess.Popen(command, env=environment, start_new_session=True)

    def when_up() -> StackAddresses:
        deadline = time.monotonic() + UP_SECONDS
        while not (state / "stack.json").exists():
            if stack.poll() is not None:
                raise StateError("the stack did not start: see its message above")
            if time.monotonic() > deadline:
                raise ServiceUnavailable(f"the stack was not up after {UP_SECONDS:g} s: see {state / 'logs'}")
            time.sleep(0.2)
        return state.read_addresses()

    try:
        yield when_up
    finally:
        stack.send_signal(signal.SIGTERM)
        stack.wait(timeout=STOP_SECONDS)


def train(state: StateDirectory, scenarios: Sequence[Scenario], console: Console) -> tuple[FlightsData, TrainedModel, list[TrainedModel]]:
    """The flights, the incumbent, and a candidate for each scenario."""
    data = prepare(state / "data")
    console.print(
        f"flights of 2013: {len(data.train_candidate):,} to learn from, {len(data.evaluation):,} to evaluate on, {len(data.live):,} live"
    )
    incumbent = train_incumbent(data)
    candidates = [train_candidate(data, fault_key=scenario.key, seed=scenario.seed) for scenario in scenarios]
    return data, incumbent, candidates


def _recovery(traffic: LiveTraffic, label: str, followed: Followed) -> float | None:
    since = followed.fault_at if followed.fault_at is not None else time.monotonic()
    try:
        return traffic.wait_until_all_from(label, since, timeout_seconds=RECOVERY_SECONDS)
    except ReleaseError:
        return None


def _empty(state: StateDirectory) -> None:
    """Start from nothing. StateError while a stack lives there."""
    state.claim()
    state.release()
    shutil.rmtree(state.root)
    state.root.mkdir(parents=True)

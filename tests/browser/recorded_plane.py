"""A recorded release for the live page: the real page, API and evidence reader over a scripted plane, judge and collector."""

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import uvicorn
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from interlock.adapters.evidence_files import EvidenceFiles
from interlock.control.analysis import described
from interlock.control.records import receipt_values, verdict_values
from interlock.errors import ServiceUnavailable
from interlock.judge.readings import Judgement, JudgeOutcome, SignalReading
from interlock.model.journal import Arm, Leg, Role
from interlock.model.plane import PlaneState, RollbackReceipt, RollbackStep, ServerState
from interlock.model.release import ModelVersion
from interlock.model.verdict import Measurement, judge_measurements
from interlock.plane.api import build_api
from interlock.plane.controller import PlaneController
from interlock.plane.live import LivePage
from interlock.serving.recent import Recent
from tests.contract.plane_rig import free_port

RELEASE_ID = "flight-delay-2-20250602T021000"
INCUMBENT = ModelVersion("flight-delay", "1", "sha256:" + "1" * 64)
CANDIDATE = ModelVersion("flight-delay", "2", "sha256:" + "2" * 64)
SECONDS_AGO = {"intake": 112, "gates": 96, "shadow": 92, "canary 10 %": 72, "canary 25 %": 42}
WEIGHTS_BPS = {"shadow": 0, "canary 10 %": 1000, "canary 25 %": 2500}
HARM = "<img src=x onerror=alert(1)> in the reason stays text"


@dataclass
class RecordClock:
    """The time that evidence records are stamped with; set by whoever writes history."""

    at_seconds: float = 0.0

    def monotonic(self) -> float:
        return self.at_seconds

    def utc_now(self) -> datetime:
        return datetime.fromtimestamp(self.at_seconds, UTC)

    def sleep(self, seconds: float) -> None:
        self.at_seconds += seconds


@dataclass
class RecordedPlane:
    """A canary at 25 % that goes on from second to second until `halt`; every part can be taken away."""

    evidence_directory: Path
    began_at: float = field(default_factory=time.time)
    plane_answers: bool = True
    collector_answers: bool = True
    incumbent_ready: bool = True
    halted_at: float | None = None

    def __post_init__(self) -> None:
        self._clock = RecordClock()
        self._store = EvidenceFiles(self.evidence_directory, self._clock)
        self._recent = Recent()
        self._legs_until = self._ticks_until = int(self.began_at) - 120
        self._lock = threading.Lock()
        self._write_past()
        self._write_start()
        self.advance()

    def observe(self) -> PlaneState:
        """What the traffic plane would be read back as."""
        if not self.plane_answers:
            raise ServiceUnavailable("the admin port of Envoy does not answer")
        running = self.halted_at is None
        return PlaneState(
            incumbent=ServerState(INCUMBENT, 101, 9001, self.incumbent_ready, 312.4 + 2 * math.sin(time.time() / 9), 0),
            candidate=ServerState(CANDIDATE, 102, 9002, True, 341.0 + 3 * math.sin(time.time() / 7), 0) if running else None,
            candidate_weight_bps=WEIGHTS_BPS["canary 25 %"] if running else 0,
            is_mirroring=running,
            release_id=RELEASE_ID if running else None,
            token=7,
            lease_remaining_seconds=9.2 if running else None,
        )

    def advance(self) -> None:
        """Bring traffic and ticks up to the present second."""
        with self._lock:
            now = time.time()
            while self._legs_until < int(now):
                self._one_second_of_legs(self._legs_until)
                self._legs_until += 1
            while self.halted_at is None and self._ticks_until < int(now):
                self._ticks_until += 1
                self._tick(self._ticks_until, divergence=0.031)

    def halt(self) -> None:
        """Bad predictions, a HALT, and the rollback with its receipt."""
        self.advance()
        with self._lock:
            now = time.time()
            reason = self._tick(now, divergence=0.34, outcome=JudgeOutcome.HALT)
            self.halted_at = now
            steps = (
                RollbackStep("traffic", "flight-delay/1 answers 100 % of requests", 0.11),
                RollbackStep("registry", "champion and Production are version 1", 0.2),
                RollbackStep("capacity", "the candidate's server has ended", 0.31),
            )
            self._record(now + 0.35, "rollback", **receipt_values(RollbackReceipt(reason, INCUMBENT.label, steps, 0.31)))
            self._record(now + 0.4, "decision", decision="RolledBack", reason=reason)

    async def recent(self, request: Request) -> Response:
        """The collector's `/recent`."""
        del request
        self.advance()
        if not self.collector_answers:
            return Response(status_code=503)
        return JSONResponse(self._recent.rollup(now_seconds=time.time()))

    def _record(self, at_seconds: float, kind: str, **payload: object) -> None:
        self._clock.at_seconds = at_seconds
        self._store.append(RELEASE_ID, kind, payload)

    def _write_past(self) -> None:
        self._clock.at_seconds = self.began_at - 7200
        self._store.append("adoption-flight-delay-1", "adoption", {"incumbent": INCUMBENT.label, "digest": INCUMBENT.digest})
        for version, decision, reason in (("0", "Held", "p99 could not be judged: 41 of 1,000 samples"), ("9", "Rejected", HARM)):
            release_id = f"flight-delay-{version}-20250601T120000"
            self._store.append(release_id, "intake", {"candidate": f"flight-delay/{version}", "incumbent": "flight-delay/1"})
            self._store.append(release_id, "decision", {"decision": decision, "reason": reason})

    def _write_start(self) -> None:
        start = self.began_at
        facts = {"candidate": CANDIDATE.label, "incumbent": INCUMBENT.label, "profile_name": "demo", "profile_digest": "sha256:" + "a" * 64}
        self._record(start - SECONDS_AGO["intake"], "intake", **facts, profile_text="schema_version: release-profile/v1\n" * 80)
        for gate, measurements in GATES.items():
            verdict = judge_measurements(gate, measurements, required=[m.name for m in measurements])
            self._record(start - SECONDS_AGO["gates"], "gate", **verdict_values(verdict))
        for phase in WEIGHTS_BPS:
            self._record(start - SECONDS_AGO[phase], "phase", phase=phase, weight_bps=WEIGHTS_BPS[phase], bake_seconds=30.0)
        self._ticks_until = int(start - SECONDS_AGO["shadow"])

    def _phase(self, at_seconds: float) -> str:
        return next((name for name in reversed(WEIGHTS_BPS) if at_seconds >= self.began_at - SECONDS_AGO[name]), "shadow")

    def _tick(self, at_seconds: float, *, divergence: float, outcome: JudgeOutcome = JudgeOutcome.CONTINUE) -> str:
        count = max(1, int((at_seconds - self.began_at + SECONDS_AGO["shadow"]) * 13))
        halts = outcome is JudgeOutcome.HALT
        signals = tuple(_reading(name, count, halts=halts, divergence=divergence + 0.004 * math.sin(at_seconds)) for name in HALTING)
        if halts:
            reason = f"divergence is 0.34 share against at most 0.1 share (n={count}); evidence 4.1e+03 reached the halting line 100"
        else:
            reason = f"no signal is proved worse than tolerated by n={count} pairs"
        judgement = Judgement(outcome, reason, "divergence" if halts else None, signals, 4.1e3 if halts else 0.21, 100.0)
        phase = self._phase(at_seconds)
        wave = 3 * math.sin(at_seconds / 7)
        infrastructure = {"weight_bps": WEIGHTS_BPS[phase], "incumbent_mib": 312.4 + wave / 2, "candidate_mib": 341.0 + wave}
        self._record(at_seconds, "tick", phase=phase, **described(judgement), **infrastructure)
        return reason

    def _one_second_of_legs(self, at_seconds: int) -> None:
        running = self.halted_at is None and at_seconds >= self.began_at - SECONDS_AGO["shadow"]
        if not running:  # the plane captures nothing between releases
            return
        share = WEIGHTS_BPS[self._phase(at_seconds)] / 10_000
        total = 60 + round(6 * math.sin(at_seconds / 11))
        for number in range(total):
            to_candidate = number < total * share
            live, other = (Arm.CANDIDATE, Arm.INCUMBENT) if to_candidate else (Arm.INCUMBENT, Arm.CANDIDATE)
            self._recent.add(_leg(live, Role.LIVE, at_seconds, number))
            self._recent.add(_leg(other, Role.MIRROR, at_seconds, number))


SEGMENT = "segment:<i>JFK</i>"
HALTING: dict[str, float | None] = {"divergence": 291.5, "bias": 1020.4, SEGMENT: 1020.4, "segment:(other)": None, "errors": 291.5}
HALTING |= {"p50": 1020.4, "p99": 510.2, "slo_error_share": 10_000.0, "slo_p99": 10_000.0, "sample_ratio": None}
GATES = {
    "evaluation": [
        Measurement("roc_auc", 0.7134, 0.62, "higher", "", 5000, 2000),
        Measurement("roc_auc_worse_by", 0.0012, 0.005, "lower", "", 5000, 2000),
        Measurement("log_loss", 0.4471, 0.65, "lower", "", 5000, 2000),
    ],
    "latency": [
        Measurement("failed_request_count", 0.0, 0.0, "lower", "requests", 300, 300),
        Measurement("p50_ms", 8.42, 60.0, "lower", "ms", 300, 300),
        Measurement("p99_ms", 31.7, 400.0, "lower", "ms", 300, 300),
    ],
    "memory": [Measurement("resident_mib", 341.2, 900.0, "lower", "MiB", 300, 300)],
    "drift": [Measurement("drifted_share", 0.1667, 0.7, "lower", "", 5000, 1000)],
}


def _reading(name: str, count: int, *, halts: bool, divergence: float) -> SignalReading:
    values = {"divergence": divergence, "bias": -0.1, "p50": 9.1, "p99": 38.0, "sample_ratio": 0.25}
    limits = {"errors": 0.005, "bias": 0.05, "p50": 28.0, "p99": 322.0, "slo_p99": 0.01, "sample_ratio": None}
    slope = {"divergence": 400, "errors": 900, "p50": 700, "p99": 520, "slo_error_share": 260, "slo_p99": 330}.get(name, 600)
    value = values.get(name, 0.0)
    more = max(0, 1500 - count)
    return SignalReading(
        name=name,
        value=value,
        limit=limits.get(name, 0.1),
        unit="ms" if name in {"p50", "p99"} else "share",
        sample_count=count,
        e_value=1.17e4 if halts and name == "divergence" else math.exp(-count / slope) * (1 + 0.3 * math.sin(count / 40)),
        halting_e_value=HALTING[name],
        low=value * 0.8,
        high=value * 1.3,
        is_usable=True,
        is_proved=more == 0,
        more_requests_needed=more,
        reason=f"INSUFFICIENT_EVIDENCE n={count} of about {count + more} needed" if more else f"within tolerance, proved by n={count}",
        decides=name != "segment:(other)",
        breaks_at_e_value=1000.0 if name == "sample_ratio" else None,
    )


def _leg(arm: Arm, role: Role, at_seconds: int, number: int) -> Leg:
    failed = arm is Arm.CANDIDATE and role is Role.LIVE and number == 0 and at_seconds % 17 == 0
    spread = (number * 7919 + at_seconds * 31) % 97 / 97
    latency_ms = (7 if arm is Arm.INCUMBENT else 8.5) / (1.08 - spread)
    return Leg(
        request_id=f"{at_seconds}-{number}",
        arm=arm,
        role=role,
        received_at_seconds=at_seconds + number / 100,
        status_code=0 if failed else 200,
        latency_ms=None if failed else latency_ms,
        input_digest="0" * 16,
        prediction=None,
        served_by="",
    )


@dataclass
class Served:
    """The page on loopback."""

    url: str
    plane: RecordedPlane
    server: uvicorn.Server

    def stop(self) -> None:
        """No answer from now on."""
        self.server.should_exit = True


@contextmanager
def served_page(directory: Path) -> Iterator[Served]:
    """The real application of the control API over a recorded plane, on a free loopback port."""
    plane, port = RecordedPlane(directory), free_port()
    url = f"http://127.0.0.1:{port}"
    links = {"prefect": "http://127.0.0.1:4200", "mlflow": "http://127.0.0.1:5000", "live": "http://127.0.0.1:8080"}
    controller = cast(PlaneController, plane)  # the page only ever observes
    api = build_api(controller, LivePage(controller, evidence_directory=directory, collector_url=url, links=links), token="unused")
    api.routes.append(Route("/recent", plane.recent))
    server = uvicorn.Server(
        uvicorn.Config(api, host="127.0.0.1", port=port, log_level="warning", access_log=False, timeout_graceful_shutdown=1)
    )
    thread = threading.Thread(target=server.run, name="recorded page", daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started:
        assert time.monotonic() < deadline, "the page was not served within 20 s"
        time.sleep(0.02)
    try:
        yield Served(url, plane, server)
    finally:
        server.should_exit = True
        thread.join(timeout=10)

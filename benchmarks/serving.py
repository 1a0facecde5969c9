"""
What a request costs our model server and `mlflow models serve`: the same scikit-learn model, the same row, side by side in one run.

    python -m benchmarks.serving [--quick] [--json FILE]

CPU is what the operating system charged to the processes (children included) for a round of requests; rounds of the two
servers alternate, and the ratio is the median over rounds, so that other work on the machine meets both. Exits 1 if a goal is missed.
"""

import argparse
import json
import logging
import os
import socket
import statistics
import sys
import tempfile
import time
import warnings
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from tests.contract.model_server_rig import RunningServer, running

CPU_RATIO_LIMIT = 0.70
COLUMNS = ["distance", "dep_delay", "temperature", "wind", "hour", "month", "seats", "age"]
ROW = [1.25, -3.0, 11.5, 0.75, 17, 6, 189, 12]


@dataclass(frozen=True)
class Round:
    """One round of requests to one server over one kept connection."""

    cpu_ms: float
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True)
class Figures:
    """Medians over the rounds of one server."""

    cpu_ms_per_request: float
    p50_ms: float
    p99_ms: float
    start_seconds: float
    resident_mib: float
    processes: int


@dataclass(frozen=True)
class Goal:
    """A limit, and what was found."""

    name: str
    found: float
    limit: float
    met: bool


def main(arguments: list[str] | None = None) -> int:
    """Measures, prints, and says with the exit code whether the goals were met."""
    parser = argparse.ArgumentParser(prog="benchmarks.serving")
    parser.add_argument("--quick", action="store_true", help="fewer requests, at most 90 s")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args(arguments)
    rounds, requests = (6, 400) if options.quick else (15, 1000)
    figures, goals = measure(rounds=rounds, requests=requests)
    show(figures, goals)
    if options.json:
        content = {"figures": {kind: asdict(one) for kind, one in figures.items()}, "goals": [asdict(goal) for goal in goals]}
        options.json.write_text(json.dumps(content, indent=2) + "\n")
    return 0 if all(goal.met for goal in goals) else 1


def measure(*, rounds: int, requests: int) -> tuple[dict[str, Figures], list[Goal]]:
    """Starts both servers at the same time (both starts meet the same machine), then lets them answer in turns."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        model = save_model(Path(name) / "model")
        servers: dict[str, RunningServer] = {}
        starts: dict[str, float] = {}
        started = time.monotonic()
        for kind in ("interlock", "mlflow"):
            servers[kind] = stack.enter_context(running(kind, model, scratch=Path(name)))
        for kind, server in servers.items():  # ours first: it must not wait for the slower one
            server.wait_ready()
            starts[kind] = time.monotonic() - started
        answers = {kind: ask_many(server, 200)[0] for kind, server in servers.items()}  # warm up
        done: dict[str, list[Round]] = {kind: [] for kind in servers}
        for _ in range(rounds):
            for kind, server in servers.items():
                done[kind].append(measure_round(server, requests))
        figures = {kind: _figures(server, done[kind], starts[kind]) for kind, server in servers.items()}
    pairs = zip(done["interlock"], done["mlflow"], strict=True)
    ratio = statistics.median(ours.cpu_ms / theirs.cpu_ms for ours, theirs in pairs)
    same = float(answers["interlock"] == answers["mlflow"])
    return figures, [
        Goal("CPU per request, ours / mlflow", ratio, CPU_RATIO_LIMIT, ratio <= CPU_RATIO_LIMIT),
        Goal("answers equal byte by byte (1 = yes)", same, 1.0, same == 1.0),
    ]


def save_model(directory: Path) -> Path:
    """A scaled logistic regression on eight numeric columns: small, so that the server and not the model is measured."""
    import mlflow
    import numpy as np
    import pandas as pd
    from mlflow.models import infer_signature
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rng = np.random.default_rng(7)
    frame = pd.DataFrame({name: rng.normal(size=500) * 3 for name in COLUMNS})
    whole = {name: frame[name].round().astype("int64") for name, value in zip(COLUMNS, ROW, strict=True) if isinstance(value, int)}
    frame = frame.assign(**whole)
    late = (frame["dep_delay"] + 0.1 * frame["hour"] > 1).astype(int)
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = make_pipeline(StandardScaler(), LogisticRegression()).fit(frame, late)
        signature = infer_signature(frame, model.predict(frame))
        mlflow.sklearn.save_model(
            model,
            directory,
            signature=signature,
            input_example=frame.head(1),
            serialization_format="cloudpickle",
            pip_requirements=["mlflow"],
        )
    return directory


def measure_round(server: RunningServer, requests: int) -> Round:
    """Sends the requests one after the other over one connection, as a proxy with a kept connection does."""
    before = cpu_seconds(server.process.pid)
    _, seconds = ask_many(server, requests)
    used = cpu_seconds(server.process.pid) - before
    cuts = statistics.quantiles(seconds, n=100)
    return Round(used / requests * 1e3, cuts[49] * 1e3, cuts[98] * 1e3)


def ask_many(server: RunningServer, requests: int) -> tuple[bytes, list[float]]:
    """The last answer, and the seconds of each."""
    body = json.dumps({"dataframe_split": {"columns": COLUMNS, "data": [ROW]}}).encode()
    head = f"POST /invocations HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    seconds, answer = [], b""
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(requests):
            started = time.perf_counter()
            connection.sendall(head.encode() + body)
            received = b""
            while not received.endswith(b"]}"):
                if not (chunk := connection.recv(65536)):
                    raise ConnectionError(f"{server.kind} closed the connection after {received!r}: {server.log}")
                received += chunk
            seconds.append(time.perf_counter() - started)
            answer = received.split(b"\r\n\r\n", 1)[1]
            if not received.startswith(b"HTTP/1.1 200"):
                raise ConnectionError(f"{server.kind} answered {received!r}")
    return answer, seconds


def family(pid: int) -> list[psutil.Process]:
    """The process and its descendants."""
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def cpu_seconds(pid: int) -> float:
    """User and system time so far; the operating system counts in ticks of 10 ms."""
    return float(sum(times.user + times.system for times in (process.cpu_times() for process in family(pid))))


def _figures(server: RunningServer, rounds: list[Round], start_seconds: float) -> Figures:
    processes = family(server.process.pid)
    return Figures(
        cpu_ms_per_request=statistics.median(one.cpu_ms for one in rounds),
        p50_ms=statistics.median(one.p50_ms for one in rounds),
        p99_ms=statistics.median(one.p99_ms for one in rounds),
        start_seconds=start_seconds,
        resident_mib=sum(process.memory_info().rss for process in processes) / 2**20,
        processes=len(processes),
    )


def show(figures: dict[str, Figures], goals: list[Goal]) -> None:
    """Prints two tables: the figures, and the goals as met or missed."""
    console = Console()
    table = Table(title=f"one row to a small scikit-learn model, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}")
    for heading in ("model server", "CPU ms/request", "p50 ms", "p99 ms", "start s", "MiB", "processes"):
        table.add_column(heading, justify="left" if heading == "model server" else "right")
    for kind, one in figures.items():
        numbers = (one.cpu_ms_per_request, one.p50_ms, one.p99_ms)
        table.add_row(kind, *(f"{n:.2f}" for n in numbers), f"{one.start_seconds:.1f}", f"{one.resident_mib:.0f}", str(one.processes))
    console.print(table)
    verdicts = Table("goal", "found", "limit", "")
    for goal in goals:
        verdicts.add_row(goal.name, f"{goal.found:.2f}", f"{goal.limit:.2f}", "[green]met[/green]" if goal.met else "[red]missed[/red]")
    console.print(verdicts)


if __name__ == "__main__":
    sys.exit(main())

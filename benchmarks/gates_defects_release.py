"""Defects of the files, of the release around them, and of the gates themselves: artifact, readiness, traffic, liveness."""

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import yaml

from benchmarks.gates_defect import Defect, Seen, judged_by, refusal_of
from benchmarks.gates_plane import BenchPlane, unchanged, without_spare
from benchmarks.gates_world import World
from interlock.control.gates.inputs import ReadArtifact
from interlock.control.unchanged import require_unchanged
from interlock.errors import ArtifactError
from interlock.model.artifact import ArtifactReading
from interlock.model.plane import LiveTraffic, PlaneState, ServerState
from interlock.profile.reader import LoadedProfile
from tests.artifacts import HOSTILE

ARTIFACT, READINESS, TRAFFIC, LIVENESS = "artifact", "readiness", "traffic", "liveness"
RESTART_SECONDS = 60.0
HOSTILE_SHOWN = (  # of the kinds that tests/unit/test_gate_artifact.py goes through
    "os.system",
    "subprocess",
    "exec of protocol 0",
    "importlib",
    "functools.partial",
    "an unknown module",
    "pandas.read_pickle",
    "STACK_GLOBAL from the memo",
    "a second pickle in the file",
    "a pickle named .txt",
    "packed twice",
    "a pickle in a zip, as torch has it",
    "an array of objects",
    "compiled Python",
    "a shared library",
    "YAML that makes objects",
    "a loader of somebody else's",
)
QUICK = ("os.system", "a pickle named .txt")
BANDIT_HIGH = "import subprocess\n\n\ndef fetch(name):\n    return subprocess.call('curl ' + name, shell=True)\n"


def with_files(change: Callable[[Path], object]) -> Callable[[World], Seen]:
    """The good candidate with something else among its files when it was registered."""

    return lambda world: judged_by(ARTIFACT, world.session(world.altered(change)))


def with_file(name: str, content: bytes) -> Callable[[World], Seen]:
    """One more file, or another one."""

    def change(directory: Path) -> None:
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_bytes(content)

    return with_files(change)


def without_signature(directory: Path) -> None:
    """The MLmodel file says nothing about inputs and outputs."""
    described = yaml.safe_load((directory / "MLmodel").read_text())
    described.pop("signature")
    (directory / "MLmodel").write_text(yaml.safe_dump(described))


def other_example(directory: Path) -> None:
    """The example of some other model."""
    (directory / "input_example.json").write_text(json.dumps({"columns": ["a"], "data": [["text"]]}))


def without_example(directory: Path) -> None:
    """Nobody can try it before users do."""
    for path in directory.glob("*example*"):
        path.unlink()


def requiring(line: str) -> Callable[[World], Seen]:
    """One more requirement."""
    return with_files(lambda directory: (directory / "requirements.txt").open("a").write(f"\n{line}\n"))


@contextmanager
def tampered(world: World) -> Iterator[None]:
    """One byte of the good candidate's code is another one; afterwards it is as before."""
    path = next(world.files.directory(world.good).glob("*.py"))
    content = path.read_bytes()
    path.write_bytes(content + b"#")
    try:
        yield
    finally:
        path.write_bytes(content)


def tampered_since_intake(world: World) -> Seen:
    """Between intake and gate."""
    with tampered(world):
        return judged_by(ARTIFACT, world.session(world.good))


def tampered_before_loading(world: World) -> Seen:
    """Between gate and model server: the plane reads the files again before it starts one."""
    with tampered(world):
        return refusal_of(lambda: world.serving.servers.check(world.good, server="interlock"))


def tampered_before_canary(world: World) -> Seen:
    """While the server runs, before users are sent to it."""
    with tampered(world):
        return refusal_of(lambda: require_unchanged(world.session(world.good), before="canary"))


def ready(world: World, seen: Callable[[PlaneState], PlaneState] = unchanged) -> Seen:
    """The readiness gate beside an incumbent with its spare, as a defect shows them."""
    world.serving.keep(world.incumbent)
    world.serving.keep(world.incumbent, is_spare=True)
    plane = BenchPlane(world.serving.servers, world.incumbent)
    opened = plane.observe()
    plane.seen = seen
    return judged_by(READINESS, world.session(world.good, plane, opened=opened))


def spare_of(world: World) -> ServerState:
    """The incumbent's spare."""
    world.serving.keep(world.incumbent)
    world.serving.keep(world.incumbent, is_spare=True)
    state = BenchPlane(world.serving.servers, world.incumbent).observe().spare
    assert state is not None
    return state


def hanging_spare(world: World) -> Seen:
    """It accepts connections and never answers."""
    spare = spare_of(world)
    os.kill(spare.pid, signal.SIGSTOP)
    try:
        return ready(world)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(spare.pid, signal.SIGCONT)


def restarted_spare(world: World) -> Seen:
    """It died after the release was opened, and serves again."""
    spare = spare_of(world)
    plane = BenchPlane(world.serving.servers, world.incumbent)
    opened = plane.observe()
    os.kill(spare.pid, signal.SIGKILL)
    deadline = time.monotonic() + RESTART_SECONDS
    while time.monotonic() < deadline:
        now = plane.observe().spare
        if now is not None and now.ready and now.pid != spare.pid:
            break
        time.sleep(0.2)
    return judged_by(READINESS, world.session(world.good, plane, opened=opened))


def after_release(decision: str) -> Callable[[World], Seen]:
    """Beside the evidence of a former release of the same files under the same profile, which ended so."""

    def show(world: World) -> Seen:
        former, digests = "flight-delay-former", {"candidate_digest": world.good.digest, "profile_digest": world.loaded.digest}
        world.evidence.append(former, "intake", {"candidate": world.good.label, **digests})
        world.evidence.append(former, "decision", {"decision": decision, "reason": "it diverged"})
        try:
            return ready(world)
        finally:
            (world.root / "evidence" / f"{former}.jsonl").unlink()

    return show


def with_users(requests_count: int, seen_seconds: float = 3600.0) -> Callable[[World], Seen]:
    """The traffic gate after an hour with so many requests."""

    def show(world: World) -> Seen:
        plane = BenchPlane(world.serving.servers, world.incumbent, last_hour=LiveTraffic(requests_count, seen_seconds))
        return judged_by(TRAFFIC, world.session(world.good, plane))

    return show


def blind(change: Callable[[World], LoadedProfile]) -> Callable[[World], Seen]:
    """The liveness gate of a release whose profile leaves one gate without teeth."""

    def show(world: World) -> Seen:
        with world.serving.plane(world.incumbent) as (plane, _):
            return judged_by(LIVENESS, world.session(world.good, plane, loaded=change(world)))

    return show


def evaluation_without_teeth(world: World) -> LoadedProfile:
    """Limits that every model keeps."""
    metrics = (
        {"name": "roc_auc", "better": "higher", "limit": 0.0, "max_worse_than_incumbent": 1.0},
        {"name": "calibration_error", "better": "lower", "limit": 1.0, "max_worse_than_incumbent": 1.0},
    )
    return world.changed("evaluation", metrics=metrics, slices=())


def disagreement_without_teeth(world: World) -> LoadedProfile:
    """A tolerance that no answer exceeds."""
    judge = world.loaded.profile.judge
    judge = judge.model_copy(update={"divergence": judge.divergence.model_copy(update={"tolerance": 1.0})})
    return replace(world.loaded, profile=world.loaded.profile.model_copy(update={"judge": judge}))


def drift_without_teeth(world: World) -> LoadedProfile:
    """Distances and ranges that nothing leaves."""
    wide = {"drift_distance": 1e6, "max_distance": 1e6, "max_null_percent": 100.0, "max_outside_percent": 100.0}
    columns = tuple({**column.model_dump(), **wide} for column in world.loaded.profile.gates.drift.columns)
    return world.changed("drift", columns=columns, prediction={"method": "wasserstein", "max_distance": 1e6})


def with_reader(read: Callable[[World], ReadArtifact]) -> Callable[[World], Seen]:
    """The liveness gate of a release whose artifact gate reads files in another way."""

    def show(world: World) -> Seen:
        with world.serving.plane(world.incumbent) as (plane, _):
            return judged_by(LIVENESS, world.session(world.good, plane, read_artifact=read(world)))

    return show


def blind_reader(world: World) -> ReadArtifact:
    """Whatever lies there, it tells of healthy files."""
    healthy = world.session(world.good)
    reading = healthy.services.read_artifact(healthy.candidate_directory, hold=lambda: None)
    return lambda *_, **__: reading


def broken_reader(_: World) -> ReadArtifact:
    """It has no answer."""

    def read(directory: Path, *, hold: Callable[[], None]) -> ArtifactReading:
        hold()
        raise ArtifactError(f"{directory} cannot be read")

    return read


RELEASE: tuple[Defect, ...] = (
    *(Defect(f"hostile: {kind}", ARTIFACT, with_file(*HOSTILE[kind]), HOSTILE[kind][0], is_quick=kind in QUICK) for kind in HOSTILE_SHOWN),
    Defect("code that bandit calls dangerous", ARTIFACT, with_file("code/fetching.py", BANDIT_HIGH.encode()), "code_finding_count"),
    Defect("no signature", ARTIFACT, with_files(without_signature), "signature_problem_count"),
    Defect("an example that does not fit", ARTIFACT, with_files(other_example), "signature_problem_count"),
    Defect("no input example", ARTIFACT, with_files(without_example), "example_row_count"),
    Defect("numpy of another major version", ARTIFACT, requiring("numpy==1.26.4"), "requirement_mismatch_count", is_quick=True),
    Defect("a package that is not installed", ARTIFACT, requiring("catboost==1.2.7"), "not installed"),
    Defect("tampered with between intake and gate", ARTIFACT, tampered_since_intake, "unchanged_since_intake", is_quick=True),
    Defect("tampered with before loading", ARTIFACT, tampered_before_loading, "judged was", "REFUSED"),
    Defect("tampered with before users", ARTIFACT, tampered_before_canary, "they were changed since", "REFUSED", is_quick=True),
    Defect("no traffic", TRAFFIC, with_users(0), "planned_seconds", "INCONCLUSIVE", is_quick=True),
    Defect("one request a second", TRAFFIC, with_users(3600), "planned_seconds", "INCONCLUSIVE"),
    Defect("a little less traffic than the plan needs", TRAFFIC, with_users(36_000), "planned_seconds", "INCONCLUSIVE"),
    Defect("nobody counts the traffic", TRAFFIC, with_users(0, 0.0), "see whether the plane was restarted", "INCONCLUSIVE"),
    Defect(
        "the spare is gone",
        READINESS,
        lambda world: ready(world, without_spare),
        "spare is gone",
        "INCONCLUSIVE",
        is_quick=True,
    ),
    Defect("the spare hangs", READINESS, hanging_spare, "without an answer", "INCONCLUSIVE"),
    Defect("the spare was started again", READINESS, restarted_spare, "was started again", "INCONCLUSIVE"),
    Defect("these files failed before", READINESS, after_release("RolledBack"), "releases_that_failed_with_this_digest"),
    Defect("a former release cannot be read", READINESS, after_release("nobody knows"), "cannot be known", "INCONCLUSIVE"),
    Defect("blind evaluation", LIVENESS, blind(evaluation_without_teeth), "evaluation said PASS", "INCONCLUSIVE", is_quick=True),
    Defect("blind disagreement", LIVENESS, blind(disagreement_without_teeth), "disagreement said PASS", "INCONCLUSIVE"),
    Defect("blind drift", LIVENESS, blind(drift_without_teeth), "drift said PASS", "INCONCLUSIVE"),
    Defect("blind artifact reader", LIVENESS, with_reader(blind_reader), "artifact said PASS", "INCONCLUSIVE"),
    Defect("broken artifact reader", LIVENESS, with_reader(broken_reader), "artifact said INCONCLUSIVE", "INCONCLUSIVE"),
)

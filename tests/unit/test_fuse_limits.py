"""Which readings break a limit, and which do not, one table; what Envoy's answers are taken for; what a look that fails means."""

import json
import math
import os
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from interlock.adapters.fakes import FakeClock
from interlock.errors import ConcurrencyError
from interlock.model.plane import CandidateLimits
from interlock.plane import fuse, fuse_envoy
from interlock.plane.envoy_settings import CANDIDATE, CANDIDATE_ONLY, LIVE, PREDICTIONS_ROUTE
from interlock.plane.fuse import Fuse, FuseSettings, Guard
from interlock.plane.fuse_envoy import SAFE_RUNTIME, call, read_counts
from interlock.plane.fuse_limits import Counts, Window, between
from interlock.plane.fuse_signs import BEAT_FILE, BLOWN_FILE, Blown, beat, is_beating, read_blown, write_blown
from interlock.plane.lease import Lease
from interlock.plane.sessions import ProcessId, identify, started_at
from interlock.plane.stamp import Stamp, read_stamp, seconds_since_boot, write_stamp

LIMITS = CandidateLimits(error_percent=50.0, p99_ms=1900.0, min_sample_count=50, resident_mib=2048.0)
ZERO = Counts("127.0.0.1:1", 0, 0, 0, 0, 0, 0, 0, 0, {}, {})
HALF = dict.fromkeys(SAFE_RUNTIME, 5000)


def after(counts: Counts, **grown: int | dict[float, int]) -> Counts:
    """The counts some time later."""
    changes = {}
    for name, more in grown.items():
        old = getattr(counts, name)
        changes[name] = {key: old.get(key, 0) + more.get(key, 0) for key in {*old, *more}} if isinstance(more, dict) else old + more
    return replace(counts, **changes)  # type: ignore[arg-type]


def first_break(seconds: list[dict[str, object]], *, limits: CandidateLimits = LIMITS) -> tuple[int, str] | None:
    """One reading a second, each with what was answered since the one before: the second in which a limit was broken, and how."""
    window, counts = Window(limits), ZERO
    for second, grown in enumerate([{}, *seconds]):
        counts = replace(ZERO, **grown.pop("anew")) if "anew" in grown else after(counts, **grown)  # type: ignore[arg-type]
        if (reason := window.add(100.0 + second, counts)) is not None:
            return second, reason
    return None


GOOD = {"live_count": 30, "live_own_count": 30, "copies_count": 30, "users_count": 60, "copies_times": {5.0: 30}, "live_times": {5.0: 30}}
COPIES_FAIL = GOOD | {"copies_bad_count": 30}  # as 4xx, as 5xx, as no answer in time
RESCUED = GOOD | {"live_own_count": 0}  # failed and answered by the incumbent, or never given to the candidate, which is ejected
BOTH_FAIL = COPIES_FAIL | RESCUED
BAD_REQUESTS = BOTH_FAIL | {"live_bad_count": 30, "users_bad_count": 60}
HALF_BAD = {**GOOD, "live_own_count": 15, "live_bad_count": 15, "copies_bad_count": 15, "users_bad_count": 30}
HALF_BAD_REST_FAILS = HALF_BAD | {"live_own_count": 0, "copies_bad_count": 30}
SLOW = GOOD | {"copies_times": {5.0: 27, 2000.0: 3}}
AT_THE_LIMIT = GOOD | {"copies_times": {5.0: 27, 1900.0: 3}}
SLOW_ONCE = GOOD | {"copies_times": {2000.0: 30}}
FEW_SLOW = {"copies_count": 9, "users_count": 9, "copies_times": {2000.0: 9}}
LATE = GOOD | {"copies_late_count": 3, "copies_bad_count": 3}
STALL = {**GOOD, "copies_count": 500, "copies_bad_count": 500}
FULL = {**GOOD, "live_count": 60, "live_own_count": 60, "copies_count": 0}  # all traffic: nothing is mirrored to the candidate


def quiet(times: dict[float, int]) -> list[dict[str, object]]:
    """Envoy brings its histograms up to date every fifth second."""
    still = {key: value for key, value in GOOD.items() if not key.endswith("times")}
    return [dict(still), dict(still), dict(still), dict(still), still | {"copies_times": times}]


@pytest.mark.parametrize(
    ("seconds", "breaks_at", "words"),
    [
        pytest.param([GOOD] * 30, None, "", id="a healthy candidate"),
        pytest.param([BOTH_FAIL] * 30, 8, "failed 100 % of 300 requests", id="everything fails: a window of 5 s, and 3 s on"),
        pytest.param([GOOD] * 60 + [BOTH_FAIL] * 9, 66, "failed", id="a late fault: more than half of the window from the third second"),
        pytest.param([COPIES_FAIL] * 30, None, "", id="exactly half fails, which is the limit"),
        pytest.param([RESCUED] * 30, None, "", id="exactly half is rescued"),
        pytest.param([COPIES_FAIL | {"live_own_count": 29}] * 9, 8, "failed 52 %", id="just above the limit"),
        pytest.param([FULL | {"live_own_count": 0}] * 9, 8, "failed 100 % of 300", id="all traffic, ejected"),
        pytest.param([FULL | {"live_own_count": 25}] * 9, 8, "failed 58 %", id="all traffic, more than half rescued"),
        pytest.param([BAD_REQUESTS] * 30, None, "", id="bad requests alone"),
        pytest.param([HALF_BAD] * 30, None, "", id="half of the requests are bad"),
        pytest.param([HALF_BAD_REST_FAILS] * 9, 8, "failed 100 % of 150", id="bad requests do not hide failures"),
        pytest.param([{**COPIES_FAIL, "users_bad_count": 60}] * 30, None, "", id="the incumbent fails as well"),
        pytest.param([GOOD, *[BOTH_FAIL] * 2, *[GOOD] * 30], None, "", id="two bad seconds"),
        pytest.param([*[GOOD] * 9, STALL, *[GOOD] * 9], None, "", id="a stall"),
        pytest.param([*[GOOD] * 9, STALL, STALL, *[GOOD] * 9], None, "", id="two stalls: in the window, but nothing new"),
        pytest.param([{"copies_count": 1, "copies_bad_count": 1, "users_count": 1}] * 30, None, "", id="too few answers: 5 in 5 s"),
        pytest.param([{"copies_count": 10, "copies_bad_count": 10, "users_count": 10}] * 9, 8, "of 50 requests", id="just enough answers"),
        pytest.param([{}] * 30, None, "", id="no traffic"),
        pytest.param([SLOW] * 9, 8, "the slowest 1 % of 300 answers of the candidate took 2000 ms or more, limit 1900 ms", id="slow"),
        pytest.param([AT_THE_LIMIT] * 30, None, "", id="a bin that begins at the limit may lie below it"),
        pytest.param([LATE] * 9, 8, "did not come, limit 1900 ms", id="no answer within the deadline is slower than any limit"),
        pytest.param([*[GOOD] * 9, SLOW, *[GOOD] * 9], None, "", id="one slow second: more than 1 % of its window"),
        pytest.param([*[GOOD] * 9, SLOW_ONCE, *[AT_THE_LIMIT] * 9], None, "", id="in the window it is too slow, but nothing new is"),
        pytest.param([FEW_SLOW] * 30, None, "", id="too few slow answers: 45 in 5 s"),
        pytest.param([BOTH_FAIL, {}] * 9, 9, "failed 100 %", id="seconds without an answer neither heal nor harm"),
        pytest.param(([*[GOOD] * 9, *[BOTH_FAIL] * 4]) * 4, None, "", id="four bad seconds, and again later"),
        pytest.param(quiet({2000.0: 150}) * 4, 10, "of 150", id="histograms that are brought up to date every 5 s"),
        pytest.param([*quiet({5.0: 150}), *quiet({2000.0: 150}), *quiet({5.0: 150}) * 3], None, "", id="one slow histogram of 5 s"),
        pytest.param(
            [*[GOOD] * 6, *[BOTH_FAIL] * 4, {"anew": dict(COPIES_FAIL, live_count=3)}, *[BOTH_FAIL] * 7], None, "", id="Envoy was restarted"
        ),
        pytest.param([*[BOTH_FAIL] * 5, {"anew": {"server": "127.0.0.1:2"}}, *[BOTH_FAIL] * 7], None, "", id="another server in between"),
        pytest.param([*[BOTH_FAIL] * 5, {"anew": {}}, *[BOTH_FAIL] * 8], 14, "failed", id="and goes on failing"),
    ],
)
def test_what_breaks_a_limit(seconds: list[dict[str, object]], breaks_at: int | None, words: str) -> None:
    found = first_break([dict(second) for second in seconds])
    assert (found[0] if found else None) == breaks_at, found
    assert words in (found[1] if found else "")


def test_a_reading_that_was_late_is_still_a_reading() -> None:
    window = Window(LIMITS)
    assert window.add(0.0, ZERO) is None
    minute = after(ZERO, live_count=900, users_count=900)
    assert window.add(60.0, minute) is None
    assert window.add(70.0, after(minute, live_count=900, users_count=900)) is not None


def test_counts_that_went_down_say_nothing() -> None:
    some = after(ZERO, **COPIES_FAIL)  # type: ignore[arg-type]
    assert between(ZERO, some) is not None
    assert between(some, some) is not None
    assert between(some, ZERO) is None
    for name in GOOD:
        down = {5.0: 1} if name.endswith("times") else getattr(some, name) - 1
        assert between(some, replace(some, **{name: down})) is None, name  # type: ignore[arg-type]
    assert between(some, replace(some, server="")) is None


def test_an_answer_that_is_counted_in_one_place_first_hides_no_failure() -> None:
    answers = between(ZERO, after(ZERO, live_count=10, live_own_count=12, copies_count=5, copies_bad_count=5, users_count=15))
    assert answers is not None
    assert answers.failed_count == 5


def test_nothing_was_answered() -> None:
    answers = between(ZERO, ZERO)
    assert answers is not None
    assert math.isnan(answers.failed_percent)
    assert math.isnan(answers.p99_ms())


@dataclass
class Admin:
    """A TCP server on loopback that sends what it is told, whatever it is asked."""

    pieces: list[bytes] = field(default_factory=list)
    pause_seconds: float = 0.0
    port: int = 0
    asked: list[str] = field(default_factory=list)
    _listening: socket.socket = field(default_factory=socket.socket)

    def __post_init__(self) -> None:
        self._listening.bind(("127.0.0.1", 0))
        self._listening.listen(16)
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def answer(self, body: object, status: str = "200 OK") -> None:
        text = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.pieces = [f"HTTP/1.1 {status}\r\ncontent-length: {len(text)}\r\n\r\n".encode() + text]

    def close(self) -> None:
        self._listening.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            with connection:
                try:
                    self.asked.append(connection.recv(4096).decode().split("\r\n")[0])
                    for piece in self.pieces:
                        connection.sendall(piece)
                        time.sleep(self.pause_seconds)
                except OSError:
                    pass


@pytest.fixture
def admin() -> Iterator[Admin]:
    serving = Admin()
    yield serving
    serving.close()


HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n"


@pytest.mark.parametrize(
    ("pieces", "pause_seconds"),
    [
        pytest.param([], 0.0, id="nothing"),
        pytest.param([b"\x00\x01 not http\r\n\r\n"], 0.0, id="garbage"),
        pytest.param([HEAD + b"half"], 0.0, id="half an answer"),
        pytest.param([HEAD[:20]], 0.0, id="half a head"),
        pytest.param([b"HTTP/1.1 500 X\r\ncontent-length: 2\r\n\r\n{}"], 0.0, id="500"),
        pytest.param([HEAD], 30.0, id="a hang in the middle"),
        pytest.param([HEAD, *[b"x"] * 1000], 0.02, id="drips: each byte comes in time, the whole never does"),
        pytest.param([*[b"H"] * 1000], 0.02, id="a head that drips"),
        pytest.param([b"HTTP/1.1 200 OK\r\n\r\n", *[b"x" * 2**20] * 100], 0.0, id="an answer without end"),
    ],
)
def test_no_answer_holds_the_fuse_for_ever(admin: Admin, pieces: list[bytes], pause_seconds: float) -> None:
    admin.pieces, admin.pause_seconds = pieces, pause_seconds
    began_at = time.monotonic()
    with pytest.raises((OSError, ValueError, fuse_envoy.http.client.HTTPException)):  # type: ignore[attr-defined]
        call(admin.port, "GET", "/stats")
    assert time.monotonic() - began_at < 10, "half a second, on a machine that is not busy"


def test_nobody_there_is_an_answer_too() -> None:
    with pytest.raises(OSError):
        call(1, "GET", "/stats")


@pytest.mark.parametrize("body", [b"{}", b"", b"chunks"])
def test_a_good_answer_is_read_as_a_whole(admin: Admin, body: bytes) -> None:
    admin.answer(body)
    assert call(admin.port, "GET", "/runtime") == body
    admin.pieces = [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n%x\r\n" % len(body), body, b"\r\n0\r\n\r\n"] if body else []
    assert not body or call(admin.port, "GET", "/runtime") == body


STATS: list[dict[str, object]] = [
    {"name": "cluster.candidate.upstream_rq_total", "value": 12},
    {"name": "cluster.candidate_only.upstream_rq_total", "value": 4},
    {"name": "cluster.candidate.upstream_rq_completed", "value": 10},
    {"name": "cluster.candidate.upstream_rq_4xx", "value": 1},
    {"name": "cluster.candidate.upstream_rq_5xx", "value": 2},
    {"name": "cluster.candidate_only.upstream_rq_completed", "value": 4},
    {"name": "cluster.candidate_only.upstream_rq_5xx", "value": 3},
    {"name": "cluster.candidate_only.upstream_rq_timeout", "value": 2},
    {"name": "vhost.live.route.predictions.upstream_rq_completed", "value": 14},
    {"name": "vhost.live.route.predictions.upstream_rq_4xx", "value": 5},
    {"histograms": {"details": [{"name": "cluster.candidate.upstream_rq_time", "totals": [{"lower_bound": 5, "width": 0.1, "count": 9}]}]}},
]
HOST = {
    "address": {"socket_address": {"address": "127.0.0.1", "port_value": 99}},
    "stats": [{"name": "rq_success", "value": "6"}, {"name": "rq_error"}],
}
CLUSTERS = {"cluster_statuses": [{"name": "candidate", "host_statuses": [HOST | {"priority": 1, "stats": []}, HOST]}]}


def answering(monkeypatch: pytest.MonkeyPatch, stats: object, clusters: object = CLUSTERS) -> None:
    def told(port: int, method: str, path: str) -> bytes:
        return json.dumps(stats if path.startswith("/stats") else clusters).encode()

    monkeypatch.setattr(fuse_envoy, "call", told)


def test_the_counts_are_those_of_the_candidate_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, {"stats": STATS})
    assert read_counts(1) == Counts("127.0.0.1:99", 10, 3, 6, 4, 3, 2, 14, 5, {5.0: 9}, {})
    answering(monkeypatch, {"stats": STATS}, {"cluster_statuses": []})
    assert read_counts(1).server == "", "a candidate that has no place"


def test_the_names_are_those_of_the_configuration() -> None:
    assert f"cluster.{CANDIDATE}" == fuse_envoy.LIVE
    assert f"cluster.{CANDIDATE_ONLY}" == fuse_envoy.COPIES
    assert f"vhost.{LIVE}.route.{PREDICTIONS_ROUTE}" == fuse_envoy.USERS


@pytest.mark.parametrize(
    ("stats", "clusters"),
    [
        pytest.param({}, CLUSTERS, id="nothing"),
        pytest.param({"stats": []}, CLUSTERS, id="no counter"),
        pytest.param({"stats": STATS[1:]}, CLUSTERS, id="one of those that are always there is not"),
        pytest.param({"stats": [*STATS, {"name": "cluster.candidate.upstream_rq_4xx", "value": math.nan}]}, CLUSTERS, id="NaN"),
        pytest.param({"stats": [*STATS, {"name": "cluster.candidate.upstream_rq_4xx", "value": 1.5}]}, CLUSTERS, id="a fraction"),
        pytest.param({"stats": [*STATS, {"name": "cluster.candidate.upstream_rq_4xx", "value": -1}]}, CLUSTERS, id="below 0"),
        pytest.param({"stats": [*STATS, {"name": "cluster.candidate.upstream_rq_4xx", "value": True}]}, CLUSTERS, id="no number"),
        pytest.param({"stats": [*STATS, {"name": "cluster.candidate.upstream_rq_4xx", "value": None}]}, CLUSTERS, id="null"),
        pytest.param(
            {"stats": [*STATS, {"histograms": {"details": [{"name": "x", "totals": [{"lower_bound": math.nan, "count": 1}]}]}}]},
            CLUSTERS,
            id="a bin without a bound",
        ),
        pytest.param({"stats": STATS}, {}, id="no clusters"),
        pytest.param(
            {"stats": STATS}, {"cluster_statuses": [{"name": "candidate", "host_statuses": [HOST | {"stats": []}]}]}, id="no host"
        ),
        pytest.param([], [], id="lists"),
    ],
)
def test_what_is_no_reading_is_not_taken_for_one(monkeypatch: pytest.MonkeyPatch, stats: object, clusters: object) -> None:
    answering(monkeypatch, stats, clusters)
    with pytest.raises((ValueError, TypeError, LookupError, StopIteration)):
        read_counts(1)


@dataclass
class World:
    """What a fuse sees, and what it asked for."""

    root: Path
    split: dict[str, int] | Exception = field(default_factory=lambda: dict(HALF))
    counts: Counts | Exception = ZERO
    resident_mib: float = 100.0
    now: float = 1000.0
    asked: list[str] = field(default_factory=list)
    fuse: Fuse = field(init=False)

    def __post_init__(self) -> None:
        self.restart_fuse()
        self.hold()

    @property
    def stamp(self) -> Path:
        return self.root / "lease.json"

    @property
    def blown(self) -> Blown | None:
        """Read anew each time."""
        return read_blown(self.root / BLOWN_FILE)

    def restart_fuse(self) -> None:
        self.fuse = Fuse(FuseSettings(1, self.stamp, os.getpid(), started_at(os.getpid())))

    def hold(self, token: int = 7, limits: CandidateLimits | None = LIMITS) -> None:
        write_stamp(self.stamp, Stamp("late-2", token, seconds_since_boot() + 3600, limits, ProcessId(4711, "8") if limits else None))

    def read(self, value: object) -> object:
        if isinstance(value, Exception):
            raise value
        return value

    def make_safe(self) -> None:
        self.asked.append("told" if self.blown else "silent")
        self.read(self.split)
        self.split = dict(SAFE_RUNTIME)

    def tick(self, seconds: float = 1.0) -> None:
        self.now += seconds
        self.fuse.tick()


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(tmp_path)
    monkeypatch.setattr(fuse, "read_split", lambda port: made.read(made.split))
    monkeypatch.setattr(fuse, "read_counts", lambda port: made.read(made.counts))
    monkeypatch.setattr(fuse, "make_safe", lambda port: made.make_safe())
    monkeypatch.setattr(fuse, "session_resident_mib", lambda leader: made.resident_mib)
    monkeypatch.setattr("interlock.plane.fuse.time.monotonic", lambda: made.now)
    return made


def fail_for(world: World, seconds: int) -> None:
    for _ in range(seconds):
        assert isinstance(world.counts, Counts)
        world.counts = after(world.counts, **BOTH_FAIL)  # type: ignore[arg-type]
        world.tick()


def test_a_candidate_that_fails_is_told_of_first_and_then_loses_its_traffic_for_good(world: World) -> None:
    fail_for(world, 8)
    assert world.asked == []
    fail_for(world, 1)
    assert world.asked == ["told"]
    assert world.blown is not None
    assert world.blown == Blown(
        "late-2", 7, "the candidate failed 100 % of 300 requests that the incumbent can answer, limit 50 %", world.blown.at
    )
    for _ in range(3):
        world.tick(0.01)  # it sees that all is well
        world.split = dict(HALF)
        world.hold()
        world.tick(0.01)
        assert world.split == SAFE_RUNTIME, "at every tick, however often the lease is renewed"
    assert len(world.asked) == 4


def test_a_lease_that_is_over_is_no_limit_that_was_broken(world: World) -> None:
    write_stamp(world.stamp, Stamp("late-2", 7, seconds_since_boot() - 0.1, LIMITS, ProcessId(4711, "8")))
    world.tick()
    assert world.split == SAFE_RUNTIME
    assert world.asked == ["silent"]


def test_a_fuse_that_was_started_again_remembers(world: World) -> None:
    write_blown(world.root / BLOWN_FILE, Blown("late-2", 7, "broke a limit", "then"))
    world.restart_fuse()
    world.tick()
    assert world.split == SAFE_RUNTIME
    assert world.blown == Blown("late-2", 7, "broke a limit", "then")


@pytest.mark.parametrize("other", [Blown("late-2", 6, "x", "then"), Blown("late-1", 7, "x", "then")])
def test_another_release_is_not_held_to_it(world: World, other: Blown) -> None:
    write_blown(world.root / BLOWN_FILE, other)
    world.tick()
    assert world.split == HALF
    world.resident_mib = 3000.0
    world.tick()
    assert world.split == SAFE_RUNTIME
    assert world.blown is not None
    assert (world.blown.token, world.blown.reason) == (7, "the candidate's server holds 3000.0 MiB, more than its limit of 2048 MiB")
    world.hold(token=8)
    world.split, world.resident_mib = dict(HALF), 2048.0
    world.tick()
    assert world.split == HALF, "its own number, at the limit"


def test_a_full_disk_does_not_keep_the_share_and_is_tried_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, blown: Blown) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(fuse, "write_blown", full)
    world.resident_mib = 3000.0
    world.tick()
    assert world.split == SAFE_RUNTIME
    assert world.blown is None
    world.split, world.resident_mib = dict(HALF), 100.0
    world.tick()
    assert world.split == SAFE_RUNTIME, "it remembers by itself"
    monkeypatch.setattr(fuse, "write_blown", write_blown)
    world.tick()
    assert world.blown is not None


def test_without_a_share_nothing_is_broken(world: World) -> None:
    world.split, world.resident_mib = dict(SAFE_RUNTIME), 9999.0
    fail_for(world, 20)
    world.resident_mib = 100.0
    world.split = dict(HALF)
    fail_for(world, 8)
    assert world.asked == [], "what was answered before the share is not the share's"
    fail_for(world, 1)
    assert world.asked == ["told"]


def test_a_share_that_was_taken_away_and_comes_back_begins_anew(world: World) -> None:
    fail_for(world, 8)
    world.split = dict(SAFE_RUNTIME)
    fail_for(world, 2)
    world.split = dict(HALF)
    fail_for(world, 8)
    assert world.asked == []
    fail_for(world, 1)
    assert world.asked == ["told"]


def test_without_limits_only_the_lease_is_enforced(world: World) -> None:
    world.hold(limits=None)
    world.resident_mib, world.counts = 9999.0, OSError("no counters")
    for _ in range(20):
        world.tick()
    assert world.asked == []


@pytest.mark.parametrize("part", ["counts", "split"])
def test_a_share_that_cannot_be_looked_at_is_over_after_five_seconds(world: World, part: str) -> None:
    world.tick()
    setattr(world, part, ValueError("garbage"))
    for _ in range(4):
        world.tick()
    assert not (world.root / BLOWN_FILE).exists()
    world.tick()
    assert world.blown is not None
    assert world.blown.reason == "nothing could be read of the candidate for 5 s (ValueError garbage)"


def test_a_look_in_between_is_enough(world: World) -> None:
    for _ in range(5):
        world.tick()
        world.counts = OSError("away")
        for _ in range(4):
            world.tick()
        world.counts = ZERO
    assert world.blown is None


def test_an_envoy_whose_split_was_safe_needs_no_look_one_that_was_never_seen_does(world: World) -> None:
    world.split = dict(SAFE_RUNTIME)
    world.tick()
    world.split = OSError("restarting")
    for _ in range(20):
        world.tick()
    assert not (world.root / BLOWN_FILE).exists()
    world.restart_fuse()
    for _ in range(6):
        world.tick()
    assert world.blown is not None


def test_a_candidate_is_looked_at_once_a_second(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = list[int]()
    monkeypatch.setattr(fuse, "read_counts", lambda port: looks.append(port) or ZERO)  # type: ignore[func-returns-value]
    for _ in range(50):
        world.tick(0.2)
    assert 9 <= len(looks) <= 11


def test_another_candidate_begins_anew(world: World) -> None:
    fail_for(world, 8)
    write_stamp(world.stamp, Stamp("late-2", 7, seconds_since_boot() + 3600, LIMITS, ProcessId(4712, "9")))
    fail_for(world, 8)
    assert world.asked == []
    assert not Guard(1, Stamp("a", 1, 2.0, LIMITS, None)).is_for(Stamp("a", 1, 2.0, replace(LIMITS, p99_ms=1.0), None))


def test_a_stamp_that_cannot_be_looked_at_ends_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path) -> Stamp:
        raise MemoryError

    monkeypatch.setattr(fuse, "read_stamp", fail)
    world.tick()
    assert is_beating(world.root / BEAT_FILE, within_seconds=5)


@pytest.mark.parametrize(
    "text", ["", "{", "null", "[]", "{}", '{"release_id": "a"}', '{"release_id": "a", "token": "x", "reason": 1, "at": 2}']
)
def test_a_sign_that_cannot_be_read_is_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / BLOWN_FILE
    assert read_blown(path) is None
    path.write_text(text)
    assert read_blown(path) is None


def test_a_beat_grows_old_and_another_boots_is_none(tmp_path: Path) -> None:
    path = tmp_path / BEAT_FILE
    assert not is_beating(path, within_seconds=1e9)
    beat(path)
    assert is_beating(path, within_seconds=60)
    assert path.stat().st_size == 0, "a full disk allows it"
    assert not is_beating(path, within_seconds=-1)
    now = seconds_since_boot()
    os.utime(path, (now - 10, now - 10))
    assert not is_beating(path, within_seconds=5)
    assert is_beating(path, within_seconds=60)
    os.utime(path, (now + 100, now + 100))
    assert not is_beating(path, within_seconds=60), "of a boot that was longer ago"
    beat(path)
    assert is_beating(path, within_seconds=60)


def test_a_lease_tells_the_fuse_whom_to_guard_until_it_is_free(tmp_path: Path) -> None:
    path, clock = tmp_path / "lease.json", FakeClock()
    lease = Lease(clock, path)
    with pytest.raises(ConcurrencyError):
        lease.guard(LIMITS, pid=os.getpid())
    lease.hold("late-2", token=7, ends_at=lease.end_of(10.0))
    assert _guarded(path) == (None, None)
    for _ in range(2):
        lease.guard(LIMITS, pid=os.getpid())
        assert _guarded(path) == (LIMITS, identify(os.getpid()))
    lease.renew(lease.end_of(20.0))
    assert _guarded(path) == (LIMITS, identify(os.getpid()))
    stamp = read_stamp(path)
    assert stamp is not None
    assert 15 < stamp.ends_at_seconds - seconds_since_boot() <= 20
    lease.free()
    lease.hold("late-3", token=8, ends_at=lease.end_of(10.0))
    assert _guarded(path) == (None, None)


def _guarded(path: Path) -> tuple[CandidateLimits | None, ProcessId | None]:
    stamp = read_stamp(path)
    assert stamp is not None
    return stamp.limits, stamp.candidate

"""The prediction journal: segments, their reader, and the collector that fills them."""

import asyncio
import gzip
import hashlib
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock.errors import EvidenceError, StateError
from interlock.model.journal import Arm, Leg, Role
from interlock.serving.capture_message import Malformed, parse_leg
from interlock.serving.collector import Buffer, Collector, CollectorSettings
from interlock.serving.collector_protocol import Answer, CollectorProtocol, Request
from interlock.serving.journal import JournalReader, SegmentWriter, segment_path
from interlock.serving.recent import Recent


def leg(request_id: str = "r", **changes: object) -> Leg:
    fields: dict[str, object] = {
        "request_id": request_id,
        "arm": Arm.CANDIDATE,
        "role": Role.LIVE,
        "received_at_seconds": 1_000.5,
        "status_code": 200,
        "latency_ms": 1.25,
        "input_digest": "0123456789abcdef",
        "prediction": '{"predictions": [1]}',
        "served_by": "m/2",
    }
    return Leg(**(fields | changes))  # type: ignore[arg-type]


def test_a_leg_comes_back_as_it_was_written(tmp_path: Path) -> None:
    legs = [leg("a"), leg("b", arm=Arm.INCUMBENT, role=Role.MIRROR), leg("c", status_code=0, latency_ms=None, prediction=None), leg("ü☃")]
    reader = JournalReader(tmp_path / "not yet there")
    SegmentWriter(tmp_path / "not yet there").write(legs)
    assert reader.read_new() == legs
    assert reader.read_new() == []


def test_a_new_writer_continues_the_sequence_and_clears_what_a_killed_one_left(tmp_path: Path) -> None:
    SegmentWriter(tmp_path).write([leg("a")])
    (tmp_path / "legs-000000000002.tmp").write_text("half a segm")
    SegmentWriter(tmp_path).write([leg("b")])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["legs-000000000001.parquet", "legs-000000000002.parquet"]
    assert [each.request_id for each in JournalReader(tmp_path).read_new()] == ["a", "b"]


def test_a_reader_from_now_on_leaves_out_the_past(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path)
    writer.write([leg("past")])
    reader = JournalReader(tmp_path, from_now=True)
    writer.write([leg("new")])
    assert [each.request_id for each in reader.read_new()] == ["new"]


def test_a_corrupt_segment_is_named_once_and_costs_no_other_leg(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path)
    for name in "abc":
        writer.write([leg(name)])
    segment_path(tmp_path, 2).write_bytes(b"PAR1 and nothing good")
    reader = JournalReader(tmp_path)
    assert [each.request_id for each in reader.read_new()] == ["a"]
    with pytest.raises(EvidenceError, match="legs-000000000002"):
        reader.read_new()
    assert [each.request_id for each in reader.read_new()] == ["c"]
    assert reader.corrupt_count == 1


@pytest.mark.parametrize("content", [b"", b"x" * 1_000], ids=["empty, as after a power cut", "noise"])
def test_noise_is_an_evidence_error(tmp_path: Path, content: bytes) -> None:
    segment_path(tmp_path, 1).write_bytes(content)
    with pytest.raises(EvidenceError):
        JournalReader(tmp_path).read_new()


def test_a_table_of_other_columns_is_an_evidence_error(tmp_path: Path) -> None:
    pq.write_table(pa.table({"request_id": ["a"]}), segment_path(tmp_path, 1))
    with pytest.raises(EvidenceError, match="columns"):
        JournalReader(tmp_path).read_new()


def test_pruned_segments_are_passed_over_and_the_newest_is_kept(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path)
    for name in "abcd":
        writer.write([leg(name)])
    reader = JournalReader(tmp_path)
    for sequence in (1, 2):
        os.utime(segment_path(tmp_path, sequence), (100, 100))
    assert writer.prune(before_at_seconds=200) == 2
    found = [each.request_id for _ in range(30) for each in reader.read_new()]
    assert found == ["c", "d"]
    assert writer.prune(before_at_seconds=1e12) == 1
    assert segment_path(tmp_path, 4).exists()


def test_a_disk_that_refuses_loses_nothing_and_recovers(tmp_path: Path) -> None:
    directory = tmp_path / "journal"
    directory.write_text("a file where the directory should be")
    collector = Collector(CollectorSettings(directory))
    message = b"id-1 candidate live 200 1250 2 2 identity m/2"
    assert collector.take(message, b"{}{}") == 204
    asyncio.run(collector.flush())
    asyncio.run(collector.flush())
    text = collector.metrics_text().decode()
    assert "interlock_capture_can_write 0.0" in text
    assert "interlock_capture_write_failures_total 2.0" in text
    assert "interlock_capture_waiting_legs 1.0" in text
    directory.unlink()
    asyncio.run(collector.flush())
    assert "interlock_capture_can_write 1.0" in collector.metrics_text().decode()
    assert [each.request_id for each in JournalReader(directory).read_new()] == ["id-1"]


def test_the_disk_is_complained_about_once_a_minute_not_twice_a_second(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "journal").write_text("")
    collector = Collector(CollectorSettings(tmp_path / "journal"))
    for _ in range(5):
        collector.take(b"id-1 candidate live 200 1250 0 0 identity m/2", b"")
        asyncio.run(collector.flush())
    assert len(caplog.records) == 1


def test_a_collector_that_is_told_to_end_in_the_middle_of_a_write_writes_its_legs_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_the_middle, write = threading.Event(), SegmentWriter.write

    def write_slowly(writer: SegmentWriter, legs: Sequence[Leg]) -> None:
        in_the_middle.set()
        time.sleep(0.3)
        write(writer, legs)

    monkeypatch.setattr(SegmentWriter, "write", write_slowly)

    async def scenario() -> None:
        collector, stop = Collector(CollectorSettings(tmp_path, segment_seconds=0.01)), asyncio.Event()
        collector.take(b"id-1 candidate live 200 1250 2 2 identity m/2", b"{}{}")
        running = asyncio.create_task(collector.run(stop))
        await asyncio.to_thread(in_the_middle.wait, 20)
        collector.take(b"id-2 candidate live 200 1250 2 2 identity m/2", b"{}{}")
        stop.set()
        await running

    asyncio.run(scenario())
    assert [each.request_id for each in JournalReader(tmp_path).read_new()] == ["id-1", "id-2"]


def test_legs_without_room_are_refused_and_counted() -> None:
    collector = Collector(CollectorSettings(Path("/nowhere"), buffer_bytes=1_200))
    answers = [collector.take(b"id candidate live 200 1 0 0 identity m/2", b"") for _ in range(4)]
    assert answers == [204, 204, 503, 503]
    text = collector.metrics_text().decode()
    assert "interlock_capture_dropped_legs_total 2.0" in text
    assert 'interlock_capture_legs_total{arm="candidate",failed="false",role="live"} 4.0' in text


def test_legs_that_arrive_while_a_segment_is_written_stay_in_the_buffer() -> None:
    buffer = Buffer(10_000)
    buffer.add(leg("a"))
    peeked = buffer.peek()
    buffer.add(leg("b"))
    buffer.forget(peeked)
    assert [each.request_id for each in buffer.peek()] == ["b"]


def test_a_write_that_fails_leaves_no_gap_in_the_sequence(tmp_path: Path) -> None:
    directory = tmp_path / "journal"
    writer = SegmentWriter(directory)
    writer.write([leg("a")])
    directory.rename(tmp_path / "away")
    with pytest.raises(StateError, match="1 legs cannot be written"):
        writer.write([leg("b")])
    (tmp_path / "away").rename(directory)
    writer.write([leg("b")])
    assert [each.request_id for each in JournalReader(directory).read_new()] == ["a", "b"]


def parse(line: bytes, bodies: bytes) -> Leg:
    return parse_leg(line, bodies, received_at_seconds=5.0)


@given(asked=st.binary(max_size=200), answered=st.text(max_size=200))
def test_both_bodies_are_told_apart_whatever_they_hold(asked: bytes, answered: str) -> None:
    packed = answered.encode()
    found = parse(b"id incumbent mirror 503 1500 %d %d identity m/1" % (len(asked), len(packed)), asked + packed)
    assert found.input_digest == hashlib.sha256(asked).hexdigest()[:16]
    assert (found.prediction, found.latency_ms, found.arm, found.role) == (answered, 1.5, Arm.INCUMBENT, Role.MIRROR)


def test_what_is_missing_is_none_and_never_empty_text() -> None:
    no_answer = parse(b"id candidate live 0 -1 2 -1 identity -", b"{}")
    assert (no_answer.prediction, no_answer.latency_ms, no_answer.served_by) == (None, None, "")
    assert no_answer.input_digest != ""
    too_long = parse(b"id candidate live 200 7 -1 2 identity m/2", b"{}")
    assert (too_long.prediction, too_long.input_digest) == (None, "")


def test_a_label_may_hold_spaces_and_any_letter() -> None:
    assert parse("id candidate live 200 7 0 0 identity Verspätung ü 2/13".encode(), b"").served_by == "Verspätung ü 2/13"


def test_packed_answers_are_unpacked_or_left_out() -> None:
    def prediction(encoding: bytes, body: bytes) -> str | None:
        return parse(b"id candidate live 200 7 0 %d %s m/2" % (len(body), encoding), body).prediction

    packed = gzip.compress(b'{"predictions": [1]}')
    assert prediction(b"gzip", packed) == '{"predictions": [1]}'
    assert prediction(b"gzip", packed[:-9]) is None
    assert prediction(b"gzip", gzip.compress(b"0" * 3_000_000)) is None
    assert prediction(b"br", b"x") is None
    assert prediction(b"identity", "é".encode()) == "é"


@pytest.mark.parametrize("letter", ["é", "è"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["identity", "gzip"])
def test_an_answer_that_is_not_utf_8_is_none_so_that_no_two_of_them_are_alike(letter: str, pack: Callable[[bytes], bytes]) -> None:
    body = pack(f'{{"predictions": ["{letter}"]}}'.encode("latin-1"))
    encoding = b"identity" if pack is bytes else b"gzip"
    assert parse(b"id candidate live 200 7 0 %d %s m/2" % (len(body), encoding), body).prediction is None


@pytest.mark.parametrize(
    ("line", "bodies"),
    [
        (b"", b""),
        (b"id candidate live 200 1 0 0 identity", b""),
        (b"id nobody live 200 1 0 0 identity m", b""),
        (b"id candidate live x 1 0 0 identity m", b""),
        (b"id candidate live 200 1 3 0 identity m", b"{}"),
        (b"id candidate live 200 1 1 0 identity m", b"{}"),
    ],
)
def test_anything_else_is_malformed_and_takes_nothing_down(line: bytes, bodies: bytes) -> None:
    with pytest.raises(Malformed):
        parse(line, bodies)
    collector = Collector(CollectorSettings(Path("/nowhere")))
    assert collector.take(line, bodies) == 400
    assert "interlock_capture_malformed_legs_total 1.0" in collector.metrics_text().decode()


def test_the_rollup_counts_by_second_arm_and_role_and_forgets() -> None:
    recent = Recent()
    for latency_ms in (1.0, 2.0, 3.0, 4.0):
        recent.add(leg(received_at_seconds=100.2, latency_ms=latency_ms))
    recent.add(leg(received_at_seconds=100.9, status_code=0, latency_ms=None, arm=Arm.INCUMBENT))
    recent.add(leg(received_at_seconds=101.0))
    rollup = recent.rollup(now_seconds=102.0)
    assert [(entry["at_seconds"], entry["arm"], entry["count"], entry["failed_count"]) for entry in rollup] == [
        (100, "candidate", 4, 0),
        (100, "incumbent", 1, 1),
        (101, "candidate", 1, 0),
    ]
    assert (rollup[0]["p50_ms"], rollup[0]["p99_ms"], rollup[1]["p50_ms"]) == (3.0, 4.0, None)
    assert recent.rollup(now_seconds=300.0) == []


class Wire(asyncio.Transport):
    """A connection that keeps what was written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.is_closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)

    def close(self) -> None:
        self.is_closed = True


@given(cut=st.integers(min_value=0, max_value=200))
def test_requests_are_answered_in_order_however_they_are_cut(cut: int) -> None:
    wire, seen = Wire(), []

    def answer(request: Request) -> Answer:
        seen.append((request.path, request.leg, request.body))
        return Answer(204) if request.method == b"POST" else Answer(200, b"numbers")

    protocol = CollectorProtocol(answer)
    protocol.connection_made(wire)
    sent = b"POST /legs HTTP/1.1\r\nX-Leg: a b\r\ncontent-length: 4\r\n\r\n{\r\n}GET /metrics?x=1 HTTP/1.1\r\nhost: h\r\n\r\n"
    protocol.data_received(sent[:cut])
    protocol.data_received(sent[cut:])
    assert seen == [(b"/legs", b"a b", b"{\r\n}"), (b"/metrics", b"", b"")]
    assert wire.written == (
        b"HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 7\r\n\r\nnumbers"
    )


@pytest.mark.parametrize(
    "nonsense",
    [
        b"POST /legs HTTP/1.1\r\ncontent-length: x\r\n\r\n",
        b"POST /legs HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
        b"POST /legs HTTP/1.1\r\ncontent-length: 99999999999\r\n\r\n",
        b"POST /legs HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n",
        b"hello\r\n\r\n",
        b"x" * 70_000,
    ],
    ids=["no number", "negative", "too long", "chunked", "not http", "endless headers"],
)
def test_nonsense_ends_the_connection_and_nothing_else(nonsense: bytes) -> None:
    wire = Wire()
    protocol = CollectorProtocol(lambda _: Answer(204))
    protocol.connection_made(wire)
    protocol.data_received(nonsense)
    assert (wire.is_closed, wire.written) == (True, b"")

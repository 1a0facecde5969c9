"""The release report: the same records give the same page, nothing recorded is lost, and nothing recorded is run."""

import errno
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from interlock.plane.state_directory import StateDirectory
from interlock.report.charts import draw
from interlock.report.numerals import bounds, duration, of_line, short
from interlock.report.page import render_report
from interlock.report.signals import signal_table
from interlock.report.story import GateRow, tell_gates
from interlock.report.timeline import kept_ticks, read_timeline
from interlock.wiring import write_report
from tests.reporting import (
    COUNTED,
    GATING,
    HALTING,
    RELEASE_ID,
    SHOWN,
    SIGNALS,
    Record,
    beginning,
    last_tick,
    record,
    rejected,
    rolled_back,
    signal_of,
    split_broken,
    tick,
)

MAX_REPORT_BYTES = 1_500_000
TWO_HOURS_SECONDS = 7200
NASTY = "<script>alert('x')</script>\"><img src=x onerror=alert(1)> $\\frac{1}{0$ \x00"


class Elements(HTMLParser):
    """Every element of a page with its attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def test_the_report_says_what_was_decided_and_why() -> None:
    records = rolled_back()
    page = Elements(render_report(RELEASE_ID, records))
    said = [
        "RolledBack",
        records[-1]["reason"],
        "flight-delay/3",
        "flight-delay/2",
        "demo sha256:aaaa",
        "2025-06-02 02:12:02 UTC",
        "by divergence in bake",
    ]
    assert [text for text in said if text not in page.text] == []
    assert "1,586 (1,274 of them with users on the candidate)" in page.text
    assert {row["data-signal"] for row in page.named("tr") if "data-signal" in row} == set(HALTING)
    assert [section["id"] for section in page.named("section")] == [
        "decision",
        "signals",
        "evidence",
        "values",
        "gates",
        "phases",
        "others",
    ]


def test_there_is_a_panel_for_all_signals_together_and_one_for_each() -> None:
    page = Elements(render_report(RELEASE_ID, rolled_back()))
    panels = [figure["data-panel"] for figure in page.named("figure")]
    values = [name for name in HALTING if not name.startswith("slo_") and name != "sample_ratio"]
    assert panels == ["all signals, weighted", *COUNTED, *values]
    assert SHOWN not in COUNTED, "evidence that does not count is not drawn"
    assert all(svg["role"] == "img" and svg["aria-labelledby"] for svg in page.named("svg"))
    assert all(phase.removeprefix("canary ") in page.text for phase in ("shadow", "canary 10 %", "bake"))
    e_value = short(signal_of(last_tick(rolled_back()), "divergence")["e_value"])
    assert f"divergence: e-value {e_value} at the end, {e_value} at most. It halts at 510.2: reached at 1:59." in page.text
    ids = [attributes["id"] for _, attributes in page.found if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_the_same_records_give_the_same_page() -> None:
    records = rolled_back()
    assert render_report(RELEASE_ID, records) == render_report(RELEASE_ID, json.loads(json.dumps(records)))


def test_the_page_needs_nothing_from_outside_and_runs_nothing() -> None:
    page = Elements(render_report(RELEASE_ID, rolled_back()))
    assert page.named("script") == page.named("iframe") == page.named("img") == []
    assert [a["href"] for a in page.named("link")] == ["data:,"]
    (policy,) = [meta["content"] for meta in page.named("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
    assert all(value.startswith("#") for _, a in page.found for key, value in a.items() if key in {"xlink:href", "src"} and value)


def poisoned(value: Any) -> Any:
    """The same records with a nasty text wherever there was a text, but for what their shape hangs on."""
    kept = {"tick", "gate", "phase", "intake", "decision", "rollback", "data", "counts", "HALT", "CONTINUE", "RolledBack"}
    if isinstance(value, dict):
        return {key if key.isascii() else NASTY: part if key == "at" else poisoned(part) for key, part in value.items()}
    if isinstance(value, list):
        return [poisoned(part) for part in value]
    return value + NASTY if isinstance(value, str) and value not in kept else value


def test_whatever_the_evidence_says_stays_text() -> None:
    records = [*poisoned(rolled_back(seconds=20)), record(99, 30, NASTY, **{NASTY: {NASTY: [{NASTY: NASTY}]}})]
    page = Elements(render_report(RELEASE_ID + NASTY, records))
    assert page.named("script") == page.named("img") == []
    assert not [key for _, attributes in page.found for key in attributes if key.startswith("on")]
    assert "<script>alert('x')</script>" in page.text
    drawing = draw([one for one in records if one["kind"] == "tick"])
    assert [e.tag for e in ElementTree.fromstring(drawing).iter() if e.tag.endswith(("script", "image", "foreignObject"))] == []


def test_a_release_that_a_gate_rejected_has_no_panels_and_says_so() -> None:
    page = Elements(render_report(RELEASE_ID, rejected()))
    assert page.named("svg") == []
    assert all(text in page.text for text in ("Rejected", "No signal was judged", "entered no phase", "p99_ms", "✕ 431.7"))


@pytest.mark.parametrize(
    "records",
    [
        pytest.param([], id="no record at all"),
        pytest.param([{}], id="an empty record"),
        pytest.param([{"kind": "tick"}], id="a tick without anything"),
        pytest.param([{"kind": "tick", "signals": None}, {"kind": "tick", "signals": [None, {}, 7]}], id="signals that are none"),
        pytest.param(
            [{"kind": "gate"}, {"kind": "gate", "measurements": [{}, None]}, {"kind": "phase"}], id="gates and phases without fields"
        ),
        pytest.param([{"kind": "rollback", "steps": [1]}, {"kind": "decision"}, {"kind": "final look"}], id="endings without fields"),
        pytest.param([{"kind": "tick", "at": "yesterday", "e_value": "many", "outcome": "HALT"}], id="words for numbers"),
    ],
)
def test_records_with_fields_missing_are_shown_as_far_as_they_go(records: list[dict[str, Any]]) -> None:
    assert "Interlock release report" in render_report(RELEASE_ID, records)
    assert "<svg" in draw([one for one in records if one.get("kind") == "tick"])


@pytest.mark.parametrize("nothing", [None, math.nan, math.inf, -math.inf, 0.0, -1.0, 1e299, "text"])
@pytest.mark.parametrize("field", ["value", "limit", "e_value", "halting_e_value", "low", "high", "sample_count", "more_requests_needed"])
def test_any_number_may_be_missing_or_be_no_number(field: str, nothing: object) -> None:
    records = [tick(0, 0, "shadow", 0), tick(1, 1, "shadow", 0)]
    for one in records:
        one["signals"] = [{**signal, field: nothing} for signal in one["signals"][:1]]
        one |= {"e_value": nothing, "halting_line": nothing}
    page = render_report(RELEASE_ID, records)
    assert re.findall(r"\b(nan|inf)\b", Elements(page).text.lower()) == []


def test_a_signal_that_could_not_be_judged_stands_out() -> None:
    records = rolled_back(seconds=10)
    signal_of(last_tick(records), "p99").update(is_usable=False, value=None, reason="judging failed: ZeroDivisionError")
    page = Elements(render_report(RELEASE_ID, records))
    (row,) = [row for row in page.named("tr") if row.get("data-signal") == "p99"]
    assert "alarming" in (row["class"] or "")
    assert "NOT USABLE" in page.text


def test_a_halt_by_the_plane_itself_shows_the_last_signals_and_says_that_they_are_older() -> None:
    records = rolled_back(seconds=10)
    last_tick(records).update(signals=[], e_value=0.0, halting_line=0.0, decided_by="capacity", reason="a model server has gone")  # type: ignore[attr-defined]
    page = Elements(render_report(RELEASE_ID, records))
    assert "The very last look judged no signal: a model server has gone" in page.text
    assert "by capacity" in page.text
    assert {row["data-signal"] for row in page.named("tr") if "data-signal" in row} == set(HALTING)


def test_a_record_of_a_kind_nobody_knows_is_shown_and_a_large_one_by_its_sizes() -> None:
    segments = record(50, 30, "segments", attribute="carrier", worst={"AA": 0.2, "UA": 0.1}, rows=[{"carrier": "AA", "n": 7}])
    extended = {**beginning()[2], "comparator": "ranking"}
    page = Elements(render_report(RELEASE_ID, [*rolled_back(seconds=10), segments, extended]))
    assert {"segments", "counts", "rollback", "data"} <= {div["data-kind"] for div in page.named("div") if "data-kind" in div}
    assert all(text in page.text for text in ("carrier", "0.2", "comparator", "ranking"))
    assert "2 entries, " in page.text
    assert "[1, 2, 3]" not in page.text


def test_of_many_records_of_one_kind_the_last_are_shown_and_the_rest_is_counted() -> None:
    page = Elements(render_report(RELEASE_ID, [record(i, i, "segments", number=f"#{i}#") for i in range(500)]))
    assert "480 earlier ones are in the evidence" in page.text
    assert "#499#" in page.text
    assert "#0#" not in page.text


def test_two_hours_of_ticks_make_a_page_that_can_be_sent_around() -> None:
    records = rolled_back(seconds=TWO_HOURS_SECONDS)
    page = render_report(RELEASE_ID, records)
    assert len(page.encode()) <= MAX_REPORT_BYTES
    assert "7200 ticks" in page


def test_a_picture_keeps_first_last_and_every_extreme() -> None:
    seconds = np.arange(10_000, dtype=float)
    values = np.random.default_rng(7).normal(size=10_000)
    values[1234], values[4321], values[7000:7100] = 50.0, -50.0, np.nan
    kept = kept_ticks(seconds, [values], columns=300)
    assert {0, 1234, 4321, 9999} <= set(kept.tolist())
    assert len(kept) <= 4 * 300 + 2


def test_ticks_that_carry_one_time_are_a_second_apart() -> None:
    ticks = [{**tick(i, 0, "shadow", 0)} for i in range(5)]
    assert read_timeline(ticks).seconds.tolist() == [0, 1, 2, 3, 4]


def test_the_chart_of_the_artifact_has_the_panels_of_the_report() -> None:
    drawing = ElementTree.fromstring(draw([one for one in rolled_back() if one["kind"] == "tick"]))
    titles = [e.text for e in drawing.iter("{http://www.w3.org/2000/svg}title")]
    assert titles[1:] == ["e-value: all signals, weighted", *(f"e-value of {name}" for name in COUNTED)]


def test_the_table_of_the_artifact_has_plain_numbers() -> None:
    rows = signal_table(rolled_back())
    assert [row["signal"] for row in rows] == list(HALTING)
    numbers = {"value", "limit", "n", "low", "high", "e_value", "halts_at", "breaks_at", "more_requests_needed"}
    assert rows[0].keys() == numbers | {"signal", "unit", "reason"}
    assert (rows[0]["value"], rows[0]["halts_at"], rows[-1]["breaks_at"]) == (0.039542, 510.2, 1000.0)
    assert signal_table(rejected()) == []


def row(records: list[Record], name: str) -> tuple[str, str]:
    """Class and text of a signal's row at the last look."""
    page = render_report(RELEASE_ID, records)
    (found,) = [part for part in re.findall(r"<tr data-signal=.*?</tr>", page, re.DOTALL) if f'data-signal="{name}"' in part]
    return str(Elements(found).named("tr")[0]["class"]), " ".join(Elements(found).text.split())


def test_a_healthy_split_has_no_cross_and_a_broken_one_stands_out() -> None:
    css, text = row(rolled_back(seconds=20), "sample_ratio")
    assert "alarming" not in css
    assert ("✕" in text, "as asked" in text, "voids all at 1,000" in text) == (False, True, True)
    css, text = row([record(0, 1, "tick", phase="canary 50 %", weight_bps=5000, **split_broken())], "sample_ratio")
    assert "alarming" in css
    assert "BROKEN: it voids every verdict SPLIT_BROKEN: 60 of 600" in text
    assert "more requests" not in text


def test_the_evidence_against_the_split_is_drawn_with_the_line_where_it_voids_every_verdict() -> None:
    broken = [record(i, i, "tick", phase="canary 50 %", weight_bps=5000, **split_broken()) for i in range(2)]
    e_value = short(signal_of(broken[0], "sample_ratio")["e_value"])
    assert f"e-value {e_value} at the end, {e_value} at most. It voids every verdict at 1,000: reached at 0:00." in draw(broken)
    assert "It voids every verdict at 1,000: not reached." in draw([one for one in rolled_back(seconds=10) if one["kind"] == "tick"])


@pytest.mark.parametrize(("value", "cross"), [(-0.1, "✕ "), (0.1, "✕ "), (-0.01, ""), (0.049, "")])
def test_a_bias_is_bounded_on_either_side(value: float, cross: str) -> None:
    records = rolled_back(seconds=10)
    signal_of(last_tick(records), "bias").update(value=value, limit=0.05, low=value - 0.02, high=value + 0.02)
    assert row(records, "bias")[1].startswith(f"bias {cross}{value:g}± 0.05share")
    (panel,) = re.findall(
        r'<figure data-panel="bias"><svg[^>]* aria-labelledby="value-.*?</figure>', render_report(RELEASE_ID, records), re.DOTALL
    )
    assert all(label in panel for label in (">limit 0.05<", ">limit -0.05<", "at most ±0.05", "to either side"))


def test_a_segment_that_is_only_shown_says_so_and_one_that_gates_is_proved() -> None:
    records = rolled_back()
    assert "only shown, does not decide" in row(records, "segment:&lt;b&gt;EWR&lt;/b&gt;")[1]
    assert "proved" in row(records, GATING)[1]
    assert row(records, SHOWN.replace("<", "&lt;").replace(">", "&gt;"))[1].startswith(SHOWN)


def test_data_worth_less_than_their_number_say_by_how_much() -> None:
    records = rolled_back(seconds=10)
    assert "design_effect" not in row(records, "p99")[1]
    signal_of(last_tick(records), "p99")["design_effect"] = 2.5
    assert "design_effect: 2.5" in row(records, "p99")[1]


ODD = [10**400, -(10**400), {"a": 1}, [1, {}], 7, True, None, "0001-01-01T00:00:00+05:00", "9999-12-31T23:59:59-05:00", "0001-01-01"]
ODD_FIELDS = ["kind", "at", "outcome", "reason", "decided_by", "phase", "weight_bps", "bake_seconds", "signals", "e_value", "halting_line"]
ODD_FIELDS += ["decision", "gate", "measurements", "steps", "elapsed_seconds", "candidate", "profile_text", "is_blind"]


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: str(odd)[:26])
@pytest.mark.parametrize("fields", [ODD_FIELDS[:1], ODD_FIELDS[1:8], ODD_FIELDS[8:9], ODD_FIELDS[9:]], ids=lambda fields: fields[0])
def test_whatever_stands_where_text_or_a_number_is_wanted_the_report_is_drawn(fields: list[str], odd: object) -> None:
    records = [one for one in rolled_back(seconds=5) if one["kind"] != "tick"] + [
        tick(9, 8, "shadow", 0),
        {"kind": "final look", "at": "x"},
    ]
    changed = [{**one, **{field: odd for field in fields if field in one}} for one in records]
    assert "Interlock release report" in render_report(RELEASE_ID, changed)


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: str(odd)[:26])
def test_whatever_stands_in_a_signal_the_report_is_drawn(odd: object) -> None:
    looks = [tick(0, 0, "shadow", 0), tick(1, 1, "shadow", 0)]
    for one in looks:
        for i, field in enumerate(SIGNALS["divergence"]):  # another field in each signal
            one["signals"][i % len(SIGNALS)][field] = odd
    assert "Interlock release report" in render_report(RELEASE_ID, looks)
    assert "<svg" in draw(looks)


def test_a_full_disk_leaves_neither_half_a_report_nor_its_remains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "evidence").mkdir()
    (tmp_path / "evidence" / "r.html").write_text("the former one")

    def full(path: Path, text: str, encoding: str) -> int:
        path.write_bytes(text.encode(encoding)[:100])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space left"):
        write_report("r", rejected(), state=StateDirectory(tmp_path))
    assert [path.name for path in (tmp_path / "evidence").iterdir()] == ["r.html"]
    assert (tmp_path / "evidence" / "r.html").read_text() == "the former one"


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        (short(0.05126730191), "0.05127"),
        (short(429165171522.1), "4.29e+11"),
        (short(math.nan), "–"),
        (short(12345.6), "12,346"),
        (short(0), "0"),
        (bounds(5.118, None), "≥ 5.118"),
        (bounds(None, None), "–"),
        (of_line(29.15, 291.5), "10 %"),
        (of_line(4.29e11, 291.5), "1.47e+09 × the line"),
        (of_line(1e-12, 291.5), "< 0.01 %"),
        (of_line(1.0, None), "–"),
        (duration(8.0), "8 s"),
        (duration(7500), "2 h 5 min"),
    ],
)
def test_numbers_are_said_as_people_read_them(said: str, wanted: str) -> None:
    assert said == wanted


def test_no_style_of_the_page_loads_anything() -> None:
    assert re.findall(r"url\((?!#)|@import", render_report(RELEASE_ID, rolled_back(seconds=10))) == []


def test_a_measurement_without_a_limit_stands_beside_and_carries_no_cross() -> None:
    def row(**fields: object) -> GateRow:
        gate = {"kind": "gate", "gate": "g", "outcome": "PASS", "reason": "", "measurements": [{"name": "m", "n": 9, "min_n": 1, **fields}]}
        return tell_gates([gate])[0].rows[0]

    assert row(value=0.5, limit=None).is_within is True
    assert row(value=0.5, limit=0.4, better="lower").is_within is False
    assert row(value=0.5, limit=0.4, better="higher").is_within is True
    assert row(value=None, limit=0.4).is_within is None

"""The live page in a real browser: what the on-call reads, and that no old number passes for a current one."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.browser.recorded_plane import HALTING, RELEASE_ID, SEGMENT, Served, served_page

MAX_PAGE_BYTES = 60 * 1024
COUNTED = [name for name in HALTING if name != "segment:(other)"]  # all but the one that is only shown
PATIENCE_MS = 15_000  # two loaded cores; the page itself needs about a second
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}

Snapshot = dict[str, Any]
OpenPage = Callable[..., Page]
Edit = Callable[[Snapshot], Snapshot]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """A canary at 25 % since 42 seconds, under way."""
    evidence = tmp_path / "evidence"
    evidence.mkdir()
    with served_page(evidence) as page:
        yield page


@pytest.fixture
def open_page(browser: Browser, served: Served) -> Iterator[OpenPage]:
    """Opens the page; at the end no console error and no exception may have happened, but for a server that was stopped."""
    complaints: list[str] = []
    contexts = []

    def open_it(*, viewport: Any = DESKTOP, scheme: Any = "light", answer: Edit | None = None) -> Page:
        context = browser.new_context(viewport=viewport, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        expect.set_options(timeout=PATIENCE_MS)
        page.on("console", lambda message: complaints.append(message.text) if message.type in {"error", "warning"} else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        if answer is not None:
            page.route("**/api/live", lambda route: _edit(route, answer))
        page.goto(served.url)
        expect(page.locator("#word")).not_to_have_text("Waiting")
        return page

    yield open_it
    for context in contexts:
        context.close()
    assert [text for text in complaints if "ERR_CONNECTION" not in text] == []


def _edit(route: Route, answer: Edit) -> None:
    route.fulfill(body=json.dumps(answer(route.fetch().json())), content_type="application/json")


def _scroll_width(page: Page) -> int:
    return int(page.evaluate("document.documentElement.scrollWidth"))


def test_the_page_is_one_small_file_without_outside_assets() -> None:
    text = (Path(__file__).parents[2] / "src/interlock/plane/page.html").read_text(encoding="utf-8")
    assert len(text.encode()) <= MAX_PAGE_BYTES
    assert re.findall(r"""(?:src|href)=["']?(?:https?:)?//""", text) == []
    assert [word for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(") if word in text] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_healthy_canary_is_read_in_one_look(open_page: OpenPage, scheme: str, tmp_path: Path) -> None:
    page = open_page(scheme=scheme)
    expect(page.locator("#word")).to_contain_text("Canary 25 %")
    sentence = page.locator("#sentence")
    expect(sentence).to_contain_text("flight-delay/2 is in canary 25 %: no signal is proved worse than tolerated")
    expect(sentence).to_contain_text(re.compile(r"1,\d{3}\spairs judged. flight-delay/1 serves the rest\."))
    expect(page.locator("#spoken")).to_have_attribute("aria-live", "polite")
    expect(page.locator('#rows [data-phase="canary 25 %"]')).to_have_count(1)
    expect(page.locator('#rows [data-phase="gates"]')).to_have_count(1)
    expect(page.get_by_role("link", name="Prefect")).to_have_attribute("href", "http://127.0.0.1:4200")
    expect(page.get_by_role("link", name="MLflow")).to_be_visible()
    expect(page.locator("#alarms p")).to_have_count(0)
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", light)[:3])) > 3 * 128) is (scheme == "light"), light
    page.screenshot(path=tmp_path / f"canary-{scheme}.png", full_page=True)


def test_every_signal_has_its_line_and_its_number_with_a_unit(open_page: OpenPage) -> None:
    page = open_page()
    numbers = {
        "Candidate share": "25 %",
        "Divergence": "0.1 share",
        "e-values": "292",
        "Live requests": "/s",
        "Latency": "ms",
        "Resident memory": "MiB",
    }
    for title, text in numbers.items():
        row = page.get_by_role("group", name=title)
        expect(row.locator(".values")).to_contain_text(text)
        assert row.locator("path.line").count() >= 1, title
    assert page.get_by_role("group", name="e-values").locator("path.limit").count() == len(COUNTED)
    assert page.get_by_role("group", name="Divergence").locator("path.limit").count() == 1
    assert page.get_by_role("group", name="Failed").locator("rect.bar").count() >= 1


def test_every_signal_that_the_ticks_hold_has_its_line_the_known_ones_first(open_page: OpenPage) -> None:
    page = open_page()
    row = page.get_by_role("group", name="e-values")
    names = ["divergence", "bias", "errors", "p50", "p99", "SLO errors", "SLO p99", "split", SEGMENT.removeprefix("segment:")]
    expect(row.locator(".values li span")).to_have_text(names)
    colours = row.locator(".values li i").evaluate_all("marks => marks.map(mark => getComputedStyle(mark).color + mark.textContent)")
    assert len(set(colours)) == len(names)
    expect(row.locator(".values li").filter(has_text="split")).to_contain_text("of 1,000")
    assert row.locator("path.line").count() == len(COUNTED)


def test_a_bias_is_judged_on_either_side_and_a_split_says_where_it_voids_all(open_page: OpenPage) -> None:
    page = open_page()
    expect(page.locator('#signals [data-signal="bias"]')).to_contain_text(re.compile(r"✕ -0\.1 share.*± 0\.05 share"))
    split = page.locator('#signals [data-signal="sample_ratio"]')
    expect(split).to_contain_text("voids all at 1,000")
    expect(split).not_to_contain_text("✕")


def test_gates_show_each_number_against_its_limit(open_page: OpenPage) -> None:
    page = open_page()
    evaluation = page.locator('[data-gate="evaluation"]')
    expect(evaluation).to_contain_text("PASS")
    row = evaluation.get_by_role("row", name="roc_auc 0.7134")
    assert row.get_by_role("cell").all_inner_texts() == ["roc_auc", "0.7134", "≥ 0.62", "5,000"]
    expect(page.locator('[data-gate="latency"]')).to_contain_text("31.7 ms")


def test_hover_and_the_slider_show_the_values_of_a_past_second(open_page: OpenPage) -> None:
    page = open_page()
    share = page.get_by_role("group", name="Candidate share")
    expect(share.locator(".values")).to_contain_text("25 %")
    box = page.locator('[data-phase="canary 10 %"]').bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 60)
    expect(share.locator(".values")).to_contain_text("10 %")
    expect(page.locator("#when")).to_contain_text("canary 10 %")
    page.mouse.move(2, 2)
    expect(share.locator(".values")).to_contain_text("25 %")
    page.locator("#scrub").focus()
    for _ in range(55):
        page.keyboard.press("ArrowLeft")
    expect(share.locator(".values")).to_contain_text("10 %")
    page.keyboard.press("Escape")
    expect(share.locator(".values")).to_contain_text("25 %")


def test_a_rollback_is_told_with_reason_receipt_and_mark(open_page: OpenPage, served: Served, tmp_path: Path) -> None:
    page = open_page()
    served.plane.halt()
    expect(page.locator("#word")).to_contain_text("Rolled back")
    expect(page.locator("#sentence")).to_contain_text("flight-delay/2 was rolled back")
    expect(page.locator("#sentence")).to_contain_text("divergence is 0.34 share against at most 0.1 share")
    expect(page.locator("#sentence")).to_contain_text("flight-delay/1 serves all requests.")
    expect(page.locator("#receipt")).to_contain_text("flight-delay/1 answers 100 % of requests")
    expect(page.locator('#rows [data-event="HALT"]')).to_have_count(1)
    expect(page.locator(f'[data-release="{RELEASE_ID}"]')).to_contain_text("Rolled back")
    expect(page.get_by_role("group", name="Candidate share").locator(".values")).to_contain_text("0 %")
    page.screenshot(path=tmp_path / "rolled-back.png", full_page=True)


def test_reasons_of_models_stay_text_and_an_adoption_is_no_release(open_page: OpenPage) -> None:
    page = open_page()
    expect(page.locator("#past li")).to_have_count(3)
    expect(page.locator("#past")).to_contain_text("<img src=x onerror=alert(1)> in the reason stays text")
    assert page.locator("#past img").count() == 0


def test_missing_parts_are_said_loudly_and_their_numbers_are_gone(open_page: OpenPage, served: Served) -> None:
    page = open_page()
    expect(page.get_by_role("group", name="Resident memory").locator(".values")).to_contain_text("MiB")
    served.plane.plane_answers = served.plane.collector_answers = False
    expect(page.locator("#alarms")).to_contain_text("The traffic plane does not answer")
    expect(page.locator("#alarms")).to_contain_text("The collector does not answer")
    expect(page.locator("#sentence")).to_contain_text("Who serves is unknown")
    expect(page.get_by_role("group", name="Resident memory").locator(".values")).not_to_contain_text("MiB")
    expect(page.get_by_role("group", name="Live requests").locator(".values")).not_to_contain_text("/s")


def test_an_incumbent_that_is_not_ready_is_an_alarm(open_page: OpenPage, served: Served) -> None:
    served.plane.incumbent_ready = False
    expect(open_page().locator("#alarms")).to_contain_text("The incumbent flight-delay/1 does not answer its health probe")


def test_a_stopped_server_makes_the_page_stale(open_page: OpenPage, served: Served, tmp_path: Path) -> None:
    page = open_page()
    served.stop()
    expect(page.locator("#alarms")).to_contain_text("Stale: no fresh answer for")
    expect(page.locator("#word")).to_contain_text("Stale")
    expect(page.locator("#sentence")).to_contain_text("Unknown since")
    expect(page.locator("#alert")).to_contain_text("Stale")
    expect(page.locator("#facts")).not_to_contain_text("MiB")
    expect(page.get_by_role("group", name="Candidate share").locator(".values")).not_to_contain_text("%")
    page.screenshot(path=tmp_path / "stale.png", full_page=True)


def test_an_answer_that_repeats_itself_is_stale_too(open_page: OpenPage) -> None:
    page = open_page(answer=lambda snapshot: {**snapshot, "at": 1.7e9})
    expect(page.locator("#alarms")).to_contain_text("the answer repeats itself")


@pytest.mark.parametrize("halted", [False, True], ids=["in the canary", "rolled back"])
def test_a_phone_needs_no_sideways_scrolling(open_page: OpenPage, served: Served, tmp_path: Path, *, halted: bool) -> None:
    if halted:
        served.plane.halt()
    page = open_page(viewport=PHONE)
    expect(page.locator('#rows [data-phase="canary 25 %"]')).to_have_count(1)
    expect(page.locator("#gates tbody")).to_have_count(4)
    assert _scroll_width(page) == PHONE["width"]
    page.screenshot(path=tmp_path / "phone.png", full_page=True)


def _nothing_yet(snapshot: Snapshot) -> Snapshot:
    plane = {**snapshot["plane"], "release_id": None, "candidate": None, "candidate_weight_bps": 0, "is_mirroring": False}
    return {**snapshot, "plane": plane, "release": None, "past": []}


def _at_the_gates(snapshot: Snapshot) -> Snapshot:
    release = {**snapshot["release"], "phases": [], "ticks": [], "judged": None, "gates": []}
    return {**snapshot, "release": release, "plane": {**snapshot["plane"], "candidate_weight_bps": 0}}


def _ended(decision: str, reason: str, *, hours_ago: float = 0.0) -> Edit:
    def answer(snapshot: Snapshot) -> Snapshot:
        before = _nothing_yet(snapshot)
        instant = snapshot["release"]["intake"]["at"] if not hours_ago else "2025-01-01T00:00:00+00:00"
        return {**before, "release": {**snapshot["release"], "decision": {"at": instant, "decision": decision, "reason": reason}}}

    return answer


def _stopped(snapshot: Snapshot) -> Snapshot:
    long_ago = {"at": "2025-01-01T00:00:00+00:00"}
    release = {**snapshot["release"], "judged": {**snapshot["release"]["judged"], **long_ago}, "gates": [], "phases": []}
    return {**_nothing_yet(snapshot), "release": {**release, "intake": {**release["intake"], **long_ago}}}


def _in_bake(snapshot: Snapshot) -> Snapshot:
    bake = {**snapshot["release"]["phases"][-1], "phase": "bake", "weight_bps": 10_000}
    release = {**snapshot["release"], "phases": [*snapshot["release"]["phases"], bake]}
    return {**snapshot, "release": release, "plane": {**snapshot["plane"], "candidate_weight_bps": 10_000}}


@pytest.mark.parametrize(
    ("answer", "word", "sentence"),
    [
        pytest.param(_nothing_yet, "Serving", "flight-delay/1 serves all requests; no release is under way.", id="no release yet"),
        pytest.param(_at_the_gates, "Gates", "flight-delay/2 is at the gates: they are being judged", id="at the gates"),
        pytest.param(_in_bake, "Bake", "flight-delay/2 is in bake at 100 %: no signal is proved worse than tolerated", id="in bake"),
        pytest.param(_ended("Promoted", "all proved"), "Promoted", "flight-delay/2 was promoted", id="promoted"),
        pytest.param(_ended("Held", "n=3"), "Held", "flight-delay/2 was held", id="held"),
        pytest.param(_ended("Rejected", "roc_auc .5"), "Rejected", "flight-delay/2 was rejected", id="rejected"),
        pytest.param(_ended("Held", "n=3", hours_ago=1), "Serving", "no release is under way. The last one, flight-delay/2", id="old news"),
        pytest.param(_stopped, "Release stopped", "its release no longer holds the plane", id="nobody runs it"),
    ],
)
def test_each_state_has_its_word_and_sentence(
    open_page: OpenPage, answer: Callable[[Snapshot], Snapshot], word: str, sentence: str
) -> None:
    page = open_page(answer=answer)
    expect(page.locator("#word")).to_contain_text(word)
    expect(page.locator("#sentence")).to_contain_text(sentence)
    assert word in page.title()


def test_a_gate_that_fails_shows_the_number_beyond_its_limit(open_page: OpenPage) -> None:
    def failing(snapshot: Snapshot) -> Snapshot:
        gate = snapshot["release"]["gates"][0]
        gate["outcome"], gate["reason"] = "FAIL", "evaluation: roc_auc 0.5 < 0.62 (n=5000)"
        gate["measurements"][0]["value"] = 0.5
        return _at_the_gates(snapshot) | {"release": {**snapshot["release"], "phases": [], "ticks": [], "judged": None}}

    page = open_page(answer=failing)
    expect(page.locator("#sentence")).to_contain_text("flight-delay/2 did not pass evaluation")
    expect(page.locator('[data-gate="evaluation"] .chip.bad')).to_have_text(re.compile("FAIL"))
    expect(page.locator('[data-gate="evaluation"] .over')).to_have_text("✕ 0.5")

"""The release report in a real browser: read in one look, at any width, in light and dark, without a script and without a network."""

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, ViewportSize, expect

from interlock.report.page import render_report
from tests.browser.recorded_plane import RELEASE_ID as RECORDED_ID
from tests.browser.recorded_plane import served_page
from tests.reporting import COUNTED, HALTING, RELEASE_ID, Record, record, rejected, rolled_back, split_broken

DESKTOP, PHONE = ViewportSize(width=1280, height=900), ViewportSize(width=390, height=844)
HOSTILE = "<script>document.title = 'taken'</script><img src=http://127.0.0.1:9/x onerror=\"document.title='taken'\">"

OpenReport = Callable[..., Page]


@pytest.fixture
def open_report(browser: Browser, tmp_path: Path) -> Iterator[OpenReport]:
    """Opens the report of some records as a file; at the end nothing but that file was asked for, and the console is silent."""
    complaints: list[str] = []
    asked: list[str] = []
    contexts = []

    def open_it(records: Sequence[Record], *, viewport: Any = DESKTOP, scheme: Any = "light") -> Page:
        path = tmp_path / f"{RELEASE_ID}.html"
        path.write_text(render_report(RELEASE_ID, records), encoding="utf-8")
        context = browser.new_context(viewport=viewport, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(path.as_uri())
        return page

    yield open_it
    for context in contexts:
        context.close()
    assert complaints == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert len(asked) == len(contexts)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_rollback_is_understood_from_the_top(open_report: OpenReport, scheme: str, tmp_path: Path) -> None:
    records = rolled_back()
    page = open_report(records, scheme=scheme)
    expect(page.locator("#decision .word")).to_contain_text("RolledBack")
    expect(page.locator("#decision .sentence")).to_have_text(records[-1]["reason"])
    expect(page.locator("#decision")).to_contain_text("flight-delay/3")
    assert (
        page.locator("svg.chart").count() == 1 + len(COUNTED) + len(HALTING) - 3
    )  # the ceilings and the split have no picture of their values
    assert page.locator("#signals tbody tr").count() == len(HALTING)
    row = page.locator('[data-signal="divergence"]')
    expect(row).to_contain_text(re.compile(r"0\.0395.*0\.3026 lately.*≤ 0\.1.*share.*1,586.*past its halting line", re.DOTALL))
    expect(page.locator('[data-signal="errors"]')).to_contain_text("proved")
    expect(page.locator('[data-gate="latency"]')).to_contain_text("✕ 431.7")
    assert page.locator("#phases tbody tr").count() == 5
    colours = [page.evaluate(f"getComputedStyle(document.querySelector('{part}')).{what}") for part, what in DRAWN]
    is_light = [sum(map(int, re.findall(r"\d+", colour)[:3])) > 3 * 128 for colour in colours]
    assert is_light == [scheme == "light", scheme == "dark"], "ink on ground, in the pictures too"
    page.screenshot(path=tmp_path / f"report-{scheme}.png", full_page=True)


DRAWN = (("body", "backgroundColor"), ("svg.chart text", "fill"))


def test_every_picture_says_in_words_what_it_shows(open_report: OpenReport) -> None:
    page = open_report(rolled_back())
    picture = page.get_by_role("img", name="e-value of divergence")
    expect(picture).to_have_accessible_name(re.compile("It halts at 510.2: reached at 1:59"))
    assert page.get_by_role("img").count() == page.locator("svg.chart").count()


def test_on_a_phone_what_a_signal_was_lately_stays_on_the_line_of_its_value(open_report: OpenReport) -> None:
    page = open_report(rolled_back(), viewport=PHONE)
    assert page.evaluate("getComputedStyle(document.querySelector('.signals .lately')).display") == "inline"
    assert page.evaluate("getComputedStyle(document.querySelector('.signals td.wide')).minWidth") == "0px"


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_a_broken_split_stands_out(open_report: OpenReport, viewport: ViewportSize) -> None:
    broken = [record(i, i, "tick", phase="canary 50 %", weight_bps=5000, **split_broken()) for i in range(3)]
    page = open_report([*rejected()[:-1], *broken], viewport=viewport)
    row = page.locator('[data-signal="sample_ratio"]')
    expect(row).to_contain_text("BROKEN: it voids every verdict")
    assert "rgba(0, 0, 0, 0)" not in row.evaluate("row => getComputedStyle(row).backgroundColor")
    calm = page.locator('[data-signal="p99"]').evaluate("row => getComputedStyle(row).backgroundColor")
    assert calm == "rgba(0, 0, 0, 0)"


@pytest.mark.parametrize("records", [rolled_back(), rejected()], ids=["rolled back", "rejected"])
def test_a_phone_needs_no_sideways_scrolling(open_report: OpenReport, records: list[Record], tmp_path: Path) -> None:
    page = open_report(records, viewport=PHONE)
    for details in page.locator("details").all():
        details.locator("summary").first.click()
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    page.screenshot(path=tmp_path / "report-phone.png", full_page=True)


def test_what_models_and_people_wrote_stays_text(open_report: OpenReport) -> None:
    records = rolled_back(seconds=10)
    records[0] |= {"candidate": HOSTILE, "profile_text": f"</pre>{HOSTILE}"}
    records[-1] |= {"reason": HOSTILE}
    records.append({"kind": HOSTILE, HOSTILE: HOSTILE})
    page = open_report(records)
    expect(page.locator("#decision .sentence")).to_have_text(HOSTILE)
    assert page.title() == f"RolledBack: {RELEASE_ID}"
    assert page.locator("img, script").count() == 0


def test_the_live_page_leads_to_the_report_and_the_plane_serves_it(browser: Browser, tmp_path: Path) -> None:
    with served_page(tmp_path) as served:
        served.plane.halt()
        (tmp_path / f"{RECORDED_ID}.html").write_text(render_report(RECORDED_ID, rolled_back()), encoding="utf-8")
        context = browser.new_context(viewport=DESKTOP)
        page = context.new_page()
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(message.text))
        page.goto(served.url)
        page.locator("#facts").get_by_role("link", name="report").click()
        expect(page.locator("#decision .word")).to_contain_text("RolledBack")
        assert page.url == f"{served.url}/releases/{RECORDED_ID}/report.html"
        assert page.locator("svg.chart").first.is_visible()
        page.go_back()
        expect(page.locator(f'[data-release="{RECORDED_ID}"]').get_by_role("link", name="report")).to_be_visible()
        context.close()
    assert complaints == []

"""The operators' page of reports in a real browser, before a real front door and worker."""

import datetime as dt
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from browsing import MISSING, opened, watched
from doors import FrontDoor
from playwright.sync_api import Browser, Page, expect

from agents.analytics.agent import agent

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(180)]
if MISSING:
    pytest.skip("no Chromium here: install it to test the page", allow_module_level=True)

OPERATOR = "operator-token-0123456789"
PATIENCE_MS = 30_000


@pytest.fixture
def door(
    tmp_path: Path,
    make_desk: Callable[..., Any],
) -> Iterator[Any]:
    desk = make_desk(tmp_path)
    try:
        desk.engine.init([agent])
        desk.url = FrontDoor(desk, OPERATOR_TOKEN=OPERATOR).url
        desk.worker("analytics", package="agents")
        yield desk
    finally:
        desk.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with opened() as browser:
        yield browser


@pytest.fixture
def page(door: Any, browser: Browser) -> Iterator[Page]:
    with watched(browser, PATIENCE_MS, door.url, "about:", "blob:") as page:
        yield page


def alert(n: int, state: str, text: str) -> dict[str, Any]:
    now = dt.datetime.now(dt.UTC)
    return {
        "_id": f"{int(now.timestamp() * 1000):012x}{n:020x}",
        **{"watch": "messages", "part": None, "state": state, "period": "hour", "began_at": now},
        **{"value": 0.0, "expected": 40.0, "low": 25.0, "high": 61.0, "unit": "count"},
        **{"look_at": "messages", "text": {"es": text, "en": text}, "seen_at": now},
        "resolved_at": None if state == "open" else now,
    }


def test_alerts_are_shown_and_a_report_is_made_and_read(
    door: Any, page: Page, tmp_path: Path
) -> None:
    door.engine.database["alerts"].insert_many(
        [alert(1, "resolved", "No messages <b>came</b>."), alert(2, "open", "Tasks wait.")]
    )
    page.goto(f"{door.url}/reports")
    page.get_by_label("Operator token").fill("not the operator's")
    page.get_by_role("button", name="Open").click()
    expect(page.get_by_role("alert")).to_contain_text("not the operator's")
    page.get_by_label("Operator token").fill(OPERATOR)
    page.get_by_role("button", name="Open").click()
    expect(page.locator("#alerts li")).to_have_count(2)
    expect(page.locator("#alerts li.open")).to_contain_text("Tasks wait.")
    expect(page.locator("#alerts")).to_contain_text("<b>came</b>")
    expect(page).to_have_title("(1) Reports")
    page.get_by_role("button", name="Make").click()
    shown = page.frame_locator("#shown")
    expect(shown.get_by_role("heading", level=1)).to_have_text("Informe de Panelia")
    page.get_by_label("Language").select_option("en")
    expect(shown.get_by_role("heading", level=1)).to_have_text("Report of Panelia")
    expect(page.locator("#reports li")).to_have_count(1)
    with page.expect_download() as asked:
        page.get_by_role("button", name="PDF").click()
    saved = tmp_path / "report.pdf"
    asked.value.save_as(saved)
    assert saved.read_bytes().startswith(b"%PDF")
    page.screenshot(path=tmp_path / "reports.png")

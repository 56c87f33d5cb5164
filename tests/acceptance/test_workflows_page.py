"""The operators' page of workflows in a real browser, before a real front door."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from browsing import MISSING, opened, watched
from doors import FrontDoor
from playwright.sync_api import Browser, Page, expect
from pydantic import BaseModel

from orchestrator.declarations import Agent
from orchestrator.definitions import parse
from orchestrator.engine import Engine

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(180)]
if MISSING:
    pytest.skip("no Chromium here: install it to test the page", allow_module_level=True)

OPERATOR = "operator-token-0123456789"
PATIENCE_MS = 20_000

worker = Agent(role="work", name="Worker", capabilities=["working"], slots=1)


class Anything(BaseModel):
    n: int = 0


@worker.handles("do", needs=["working"])
def do(context, asked: Anything):
    return {}


FLOW = """
id: flow
name: A <b>bold</b> flow
steps:
  - {id: first, task: do}
  - id: both
    parallel:
      left: [{id: one, task: do}]
      right: [{id: two, delay: {for: 1d}}]
    join: any
  - {id: large, condition: "1 < 2", then: ask, else: end}
  - {id: ask, callback: approval}
  - {id: last, task: do, on_failure: continue}
"""


@pytest.fixture
def door(
    tmp_path: Path,
    make_desk: Callable[..., Any],
) -> Iterator[Any]:
    desk = make_desk(tmp_path)
    try:
        desk.engine.init([worker])
        desk.url = FrontDoor(desk, OPERATOR_TOKEN=OPERATOR).url
        yield desk
    finally:
        desk.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with opened() as browser:
        yield browser


@pytest.fixture
def page(door: Any, browser: Browser) -> Iterator[Page]:
    with watched(browser, PATIENCE_MS, door.url) as page:
        yield page


def work(engine: Engine, n: int) -> None:
    for _ in range(n):
        found = engine.database["tasks"].find_one({"state": "queued"})
        claim = engine.store.claim(found["_id"], found["fence"], "test")
        engine.coordinator.settle(engine.store.finish(claim, {}))


def node(page: Page, name: str) -> Any:
    return page.locator(f"#diagram svg g.node[id*='flowchart-{name}-']")


def test_a_run_is_drawn_and_goes_on_as_one_looks(door: Any, page: Page) -> None:
    engine: Engine = door.engine
    engine.definitions.put(parse(FLOW, "flow.yaml"), "test")
    run = engine.workflows.start("flow", {}, caller="operator")[0]
    page.goto(f"{door.url}/workflows")
    page.get_by_label("Operator token").fill("wrong-token-0123456789")
    page.get_by_role("button", name="Open").click()
    expect(page.locator("#refused")).to_contain_text("not the operator's")
    page.get_by_label("Operator token").fill(OPERATOR)
    page.get_by_role("button", name="Open").click()

    # A definition: its texts are texts, wherever they stand.
    page.locator("#definitions button").click()
    expect(page.locator("#title")).to_have_text("A <b>bold</b> flow")
    expect(node(page, "first")).to_be_visible()
    expect(page.locator("#diagram")).to_contain_text("1 < 2")

    page.locator("#runs button").click()
    expect(page.locator("#run-state")).to_have_text("running")
    expect(node(page, "first")).to_have_class(re.compile(r"\bactive\b"))
    work(engine, 2)
    # Without a reload, as the events come.
    expect(node(page, "first")).to_have_class(re.compile(r"\bcompleted\b"))
    expect(node(page, "two")).to_have_class(re.compile(r"\bcancelled\b"))
    expect(node(page, "ask")).to_have_class(re.compile(r"\bactive\b"))
    expect(page.locator("#steps tbody tr")).to_have_count(6)

    page.get_by_role("button", name="Pause").click()
    expect(page.locator("#run-state")).to_have_text("paused")
    page.get_by_role("button", name="Resume").click()
    expect(page.locator("#run-state")).to_have_text("running")
    page.locator("#callbacks textarea").fill("{")
    page.get_by_role("button", name="Answer").click()
    expect(page.locator("#callbacks .wrong")).not_to_be_empty()
    page.locator("#callbacks textarea").fill('{"approved": true}')
    page.get_by_role("button", name="Answer").click()
    expect(node(page, "last")).to_have_class(re.compile(r"\bactive\b"))
    expect(page.locator("#callbacks form")).to_have_count(0)
    page.screenshot(path=str(door.directory / "workflows.png"), full_page=True)
    work(engine, 1)
    expect(page.locator("#run-state")).to_have_text("completed")
    expect(page.get_by_role("button", name="Cancel")).to_have_count(0)

    # The address is the run's, also for who comes by it.
    page.reload()
    expect(page.locator("#title")).to_have_text("flow")
    expect(page.locator("#facts")).to_contain_text(run.id)

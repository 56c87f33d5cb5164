"""The operators' page of workflows in a real browser, before a real front door."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from browsing import MISSING, opened
from playwright.sync_api import Browser, Page, expect
from pydantic import BaseModel

from deploy.servers import free_port
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
    project: Path,
    eventually: Callable[..., Any],
) -> Iterator[Any]:
    desk = make_desk(tmp_path)
    try:
        desk.engine.init([worker])
        port = free_port()
        desk.spawn(
            "gunicorn", "--config", str(project / "deploy/gunicorn.conf.py"), "api.wsgi:app",
            log="front_door", PORT=str(port), OPERATOR_TOKEN=OPERATOR,
        )  # fmt: skip
        desk.url = f"http://127.0.0.1:{port}"

        def answers() -> bool:
            try:
                return requests.get(f"{desk.url}/livez", timeout=1).ok
            except requests.RequestException:
                return False

        eventually(answers, 40, "the front door is open")
        yield desk
    finally:
        desk.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with opened() as browser:
        yield browser


@pytest.fixture
def page(door: Any, browser: Browser) -> Iterator[Page]:
    broken: list[str] = []
    context = browser.new_context(viewport={"width": 1400, "height": 900}, locale="en-GB")
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.on("pageerror", lambda error: broken.append(str(error)))
    page.on("console", lambda line: broken.append(line.text) if "Policy" in line.text else None)
    # Nothing may be fetched from elsewhere.
    page.on("request", lambda asked: asked.url.startswith(door.url) or broken.append(asked.url))
    expect.set_options(timeout=PATIENCE_MS)
    yield page
    context.close()
    assert broken == []


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

"""The chat page in a real browser, against the real processes."""

import re
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import Any

import pytest
import requests
from browsing import MISSING, opened
from doors import FrontDoor
from playwright.sync_api import Browser, Page, Route, expect
from pypdf import PdfReader

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(180)]

if MISSING:
    pytest.skip("no Chromium here: install it to test the chat page", allow_module_level=True)

PHONE, DESKTOP = {"width": 390, "height": 844}, {"width": 1280, "height": 800}
OPERATOR = "operator-token-0123456789"
PATIENCE_MS = 30_000
QUOTE = "Isodec de 100 blanco para 10x5, por favor"


class Shop(FrontDoor):
    """The front door of a desk that has all its agents in one worker."""

    def said(self, session: str) -> list[tuple[str, str]]:
        """Role and text of every message of a session."""
        found = self.desk.engine.database["messages"].find({"session_id": session}).sort("n", 1)
        return [(message["role"], message["text"]) for message in found]


@pytest.fixture(scope="module")
def shop(
    tmp_path_factory: pytest.TempPathFactory,
    make_desk: Callable[..., Any],
    eventually: Callable[..., Any],
) -> Iterator[Shop]:
    desk = make_desk(tmp_path_factory.mktemp("shop"))
    try:
        desk.environment["AGENTS_PACKAGE"] = "agents"
        # The business never closes: a follow-up goes out when it is asked for.
        desk.environment["BUSINESS_HOURS"] = "mon-sun 00:00-24:00"
        desk.environment["BUSINESS_COUNTRY"] = ""
        desk.spawn("celery", "-A", "agents.all", "worker", log="worker")
        eventually(lambda: len(desk.live()) > 0, 60, "the agents are there")
        yield Shop(desk, OPERATOR_TOKEN=OPERATOR)
    finally:
        # Also where it did not come up: its processes would stay.
        desk.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with opened() as browser:
        yield browser


@pytest.fixture
def visit(shop: Shop, browser: Browser) -> Iterator[Callable[..., Page]]:
    """Open the page as somebody who has never been here; no script of it may fail."""
    contexts, broken = [], []

    def visited(viewport: dict[str, int] = PHONE, locale: str = "es-UY") -> Page:
        context = browser.new_context(viewport=viewport, locale=locale)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("pageerror", lambda error: broken.append(str(error)))
        page.goto(shop.url)
        return page

    expect.set_options(timeout=PATIENCE_MS)
    yield visited
    for context in contexts:
        context.close()
    assert broken == []


def say(page: Page, text: str) -> None:
    page.get_by_role("textbox").fill(text)
    page.keyboard.press("Enter")


def session_of(page: Page) -> str:
    return str(page.evaluate("JSON.parse(localStorage.getItem('chat.session'))"))


def replies(page: Page) -> Any:
    return page.locator(".message.assistant:not(.welcome)")


def test_a_conversation_comes_to_a_quote_that_a_reload_keeps(
    shop: Shop, visit: Callable[..., Page]
) -> None:
    page = visit()
    expect(page.get_by_role("heading", name="Panelia")).to_be_visible()
    say(page, "hola! quiero cotizar isodec de 100")
    expect(replies(page)).to_have_count(1)
    say(page, "10 x 5")
    card = page.locator(".card")
    expect(card).to_contain_text("7.500,00")
    expect(card).to_contain_text("Isodec 100 mm, 10 × 5 m, blanco")
    expect(card).to_contain_text("Válida hasta")
    expect(page.locator("#typing")).to_be_hidden()
    before = page.locator(".bubble").all_inner_texts()

    page.reload()
    expect(card).to_contain_text("7.500,00")
    assert page.locator(".bubble").all_inner_texts() == before

    link = page.get_by_role("link", name="Ver PDF")
    answer = page.request.get(f"{shop.url}{link.get_attribute('href')}")
    assert answer.headers["content-type"] == "application/pdf"
    assert "COT-" in PdfReader(BytesIO(answer.body())).pages[0].extract_text()

    page.get_by_role("button", name="Aceptar").click()
    expect(card).to_contain_text("Aceptada")
    expect(page.get_by_role("button", name="Aceptar")).to_be_hidden()
    page.reload()
    expect(card).to_contain_text("Aceptada")


def test_a_corrected_quote_is_shown_as_replaced(visit: Callable[..., Page]) -> None:
    page = visit()
    say(page, QUOTE)
    expect(page.locator(".card")).to_contain_text("7.500,00")
    say(page, "no, mejor de 150")
    expect(page.locator(".card").nth(1)).to_contain_text("9.000,00")
    expect(page.locator(".card").nth(1)).to_contain_text("-2")
    expect(page.locator(".card").nth(0)).to_contain_text("Reemplazada")
    expect(page.get_by_role("button", name="Aceptar")).to_have_count(1)


def test_a_suggested_answer_is_said_by_a_click_in_the_browsers_language(
    shop: Shop, visit: Callable[..., Page]
) -> None:
    page = visit(DESKTOP, "en-US")
    expect(page.get_by_text("Tell us what you need")).to_be_visible()
    say(page, "Hi, I need a price for isodec, 10 x 5 m")
    expect(replies(page)).to_have_count(1)
    page.locator("#suggestions").get_by_role("button", name="100 mm").click()
    expect(page.locator(".card")).to_contain_text("7,500.00")
    assert ("customer", "100 mm") in shop.said(session_of(page))


def test_what_is_written_without_a_connection_is_sent_once_when_it_is_back(
    shop: Shop, visit: Callable[..., Page]
) -> None:
    page = visit()
    say(page, "hola")
    expect(replies(page)).to_have_count(1)
    page.context.set_offline(True)
    say(page, QUOTE)
    expect(page.get_by_role("status").first).to_contain_text("Sin conexión")
    page.context.set_offline(False)
    expect(page.locator(".card")).to_contain_text("7.500,00")
    expect(page.get_by_role("status").first).to_contain_text("En línea")
    assert [text for role, text in shop.said(session_of(page)) if role == "customer"] == [
        "hola",
        QUOTE,
    ]


def test_a_front_door_that_dies_in_the_middle_is_not_noticed_afterwards(
    shop: Shop, visit: Callable[..., Page]
) -> None:
    page = visit()
    say(page, "hola")
    expect(replies(page)).to_have_count(1)
    # Accepted, and its answer lost on the way: the page cannot know, and says it again.

    def lose_the_answer(route: Route) -> None:
        route.fetch()
        route.abort()

    page.route("**/api/chat*", lose_the_answer)
    with page.expect_event("requestfailed", lambda lost: "/api/chat" in lost.url):
        say(page, QUOTE)
    shop.kill()
    page.unroute("**/api/chat*")
    shop.open()
    expect(page.locator(".card")).to_contain_text("7.500,00")
    expect(page.locator(".message.customer")).to_have_count(2)
    customer = [text for role, text in shop.said(session_of(page)) if role == "customer"]
    assert customer == ["hola", QUOTE]


def test_a_message_that_waits_survives_a_reload(shop: Shop, visit: Callable[..., Page]) -> None:
    page = visit()
    page.route("**/api/chat*", lambda route: route.abort())
    say(page, QUOTE)
    expect(page.locator(".message.customer")).to_contain_text("Enviando")
    page.unroute("**/api/chat*")
    page.reload()
    expect(page.locator(".card")).to_contain_text("7.500,00")
    assert [role for role, _ in shop.said(session_of(page))] == ["customer", "assistant"]


def test_markup_is_text(visit: Callable[..., Page]) -> None:
    page = visit()
    attack = '<img src=x onerror="window.hacked=1"><script>window.hacked=2</script><b>hola</b>'
    say(page, attack)
    expect(replies(page)).to_have_count(1)
    page.reload()
    expect(page.locator(".message.customer .bubble")).to_have_text(attack)
    assert page.evaluate("window.hacked") is None
    assert page.locator("#messages img, #messages script, #messages b").count() == 0


def test_a_person_who_takes_over_is_seen_and_the_bot_is_silent(
    shop: Shop, visit: Callable[..., Page]
) -> None:
    page = visit()
    say(page, "hola")
    expect(replies(page)).to_have_count(1)
    session = session_of(page)
    operator = {"Authorization": f"Bearer {OPERATOR}"}

    def post(deed: str, body: dict[str, Any]) -> requests.Response:
        return requests.post(
            f"{shop.url}/api/sessions/{session}/{deed}", json=body, headers=operator, timeout=20
        )

    assert post("take", {"by": "Ana"}).ok
    expect(page.get_by_role("status").first).to_contain_text("Te atiende una persona")
    assert post("reply", {"by": "Ana", "text": "Hola, soy Ana. <b>¿En qué te ayudo?</b>"}).ok
    person = page.locator(".message.person")
    expect(person).to_contain_text("<b>¿En qué te ayudo?</b>")
    expect(person).to_contain_text("Ana")
    say(page, "Quería saber el horario")
    expect(page.locator(".message.customer")).to_have_count(2)
    expect(page.locator("#typing")).to_be_hidden()
    assert post("give-back", {}).ok
    expect(page.get_by_role("status").first).to_contain_text("En línea")
    assert replies(page).count() == 1


def test_every_control_has_a_name_and_nothing_overflows_a_phone(visit: Callable[..., Page]) -> None:
    page = visit({"width": 320, "height": 640})
    say(page, QUOTE + " " + "x" * 300)
    expect(page.locator(".card")).to_be_visible()
    unnamed = page.evaluate(
        """[...document.querySelectorAll('button, a, textarea')].filter((each) =>
             !(each.textContent.trim() || each.labels?.length)).length"""
    )
    assert unnamed == 0
    wide = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    assert wide <= 0
    assert page.get_by_role("log").get_attribute("aria-live") == "polite"
    assert re.match("es", page.locator("html").get_attribute("lang") or "")


def test_a_follow_up_appears_in_the_open_page(shop: Shop, visit: Callable[..., Page]) -> None:
    page = visit()
    say(page, QUOTE)
    expect(replies(page)).to_have_count(1)
    # Polls while a stream is open are half a minute apart: it is the event that shows it.
    told = requests.post(
        f"{shop.url}/api/followups",
        json={"session_id": session_of(page), "text": "Llegaron las canaletas que preguntaste."},
        headers={"Authorization": f"Bearer {OPERATOR}"},
        timeout=30,
    )
    assert told.status_code in (201, 202), told.text
    expect(replies(page)).to_have_count(2, timeout=15_000)
    expect(replies(page).last).to_contain_text("Llegaron las canaletas que preguntaste.")
    # And the customer's answer is one to it.
    say(page, "buenísimo, gracias!")
    expect(replies(page)).to_have_count(3)

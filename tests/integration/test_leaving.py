"""Quotes reach every sink once for each version; a question's answer reaches its buyer."""

import json
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest
from outside_world import WEBHOOK_SECRET, WebhookReceiver
from shops import GoogleSheets, MercadoLibre, service_account

from agents.conversation.agent import agent as conversation
from agents.data_sync.leaving import QUOTE_FIELDS, question_session
from agents.quote.agent import agent as quote
from agents.quotes import NewQuote, Quote
from agents.stores import stores_of
from orchestrator.errors import RetryLater
from orchestrator.outbox import Entry, EntryState, OutboxFilter
from orchestrator.tasks import Request, new_id

HEADER = [
    "Arg", "Estado", "Fecha", "Cliente", "Orig.", "Telefono-Contacto", "Direccion / Zona",
    "Consulta",
]  # fmt: skip
SINKS = """
quote_sinks:
  hook: {{target: {{type: webhook, url: "{hook}/quotes", secret: hook, event: quote.changed}}}}
  sheet:
    target: {{type: google_sheet, url: "{google}", spreadsheet: {id}, sheet: Administrador 2026,
      key_column: Ref., secret: office}}
    columns:
      Estado: {{from: state}}
      Fecha: {{from: created_at, type: date}}
      Cliente: {{from: customer_name}}
      Orig.: {{from: origin}}
      Telefono-Contacto: {{from: customer_phone}}
      Consulta: {{from: description}}
      Arg: {{from: total, type: decimal}}
"""


@pytest.fixture
def hook() -> Iterator[WebhookReceiver]:
    hook = WebhookReceiver()
    hook.start()
    yield hook
    hook.stop()


@pytest.fixture
def google() -> Iterator[GoogleSheets]:
    google = GoogleSheets()
    google.sheets["Administrador 2026"] = [list(HEADER)]
    google.start()
    yield google
    google.stop()


@pytest.fixture
def seller() -> Iterator[MercadoLibre]:
    seller = MercadoLibre()
    seller.start()
    yield seller
    seller.stop()


@pytest.fixture
def office(office_of: Callable[..., Any], hook: WebhookReceiver, google: GoogleSheets) -> Any:
    secrets = {"hook": WEBHOOK_SECRET, "office": service_account()}
    secrets["office"] |= {"token_uri": f"{google.url}/token"}
    return office_of(
        SINKS.format(hook=hook.url, google=google.url, id=google.ID),
        sync_secrets=json.dumps(secrets),
        http_allowed_hosts="127.0.0.1",
        http_timeout_s=3.0,
    )


def quoted(office: Any, name: str = "Juan", **more: Any) -> Quote:
    engine = office.desk.engine
    return stores_of(engine).quotes.store_once(
        NewQuote(
            **{
                "id": new_id(engine.clock.now()),
                "session": None,
                "customer_name": name,
                "customer_phone": "+59899123456",
                "language": "es",
                "product": "Isodec",
                "description": "Isodec 100 mm, 10 × 5 m",
                "items": ({"unit_price_per_m2": "150"},),
                "total": Decimal("7500.00"),
                "tax": Decimal("1352.46"),
                "tax_rate": Decimal("0.22"),
                "currency": "UYU",
                "validity_days": 15,
                "catalogue_version": 1,
            }
            | more
        )
    )


def entries(office: Any) -> list[Entry]:
    found, _ = office.desk.engine.outbox.page(OutboxFilter(), 100)
    return sorted(found, key=lambda entry: entry.id)


def delivered(office: Any) -> list[EntryState]:
    """Every open entry sent by the task that the outbox made for it."""
    engine = office.desk.engine
    for document in list(engine.database["tasks"].find({"type": "deliver"})):
        office.desk.run(engine.store.get(document["_id"]))
    return [entry.state for entry in entries(office)]


def test_a_quote_reaches_every_sink_and_each_change_once(
    office: Any, hook: WebhookReceiver, google: GoogleSheets
) -> None:
    made = quoted(office, name="=cmd()")
    assert office.desk.ask("tell_quotes", {}) == {"quotes": 1, "entries": 2}
    assert office.desk.ask("tell_quotes", {}) == {"quotes": 0, "entries": 0}
    assert delivered(office) == [EntryState.SENT] * 2
    sheet = google.sheets["Administrador 2026"]
    today = made.created_at.date().isoformat()
    assert sheet == [
        [*HEADER, "Ref."],
        [7500, "draft", today, "'=cmd()", "direct", "+59899123456", "", "Isodec 100 mm, 10 × 5 m",
         made.code],
    ]  # fmt: skip
    assert [event["data"]["key"] for event in hook.taken] == [made.code]
    assert set(hook.taken[0]["data"]["row"]) == set(QUOTE_FIELDS)
    assert (hook.taken[0]["type"], hook.taken[0]["data"]["row"]["total"]) == (
        "quote.changed",
        "7500.00",
    )
    stores_of(office.desk.engine).quotes.change(made.id, "accept")
    assert office.desk.ask("tell_quotes", {})["quotes"] == 1
    delivered(office)
    assert [line[1] for line in sheet[1:]] == ["accepted"]
    assert [event["data"]["row"]["state"] for event in hook.taken] == ["draft", "accepted"]
    assert len({event["webhook_id"] for event in hook.taken}) == 2


def test_a_death_between_word_and_mark_tells_nobody_twice(
    office: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    quotes = stores_of(office.desk.engine).quotes
    quoted(office)
    with monkeypatch.context() as patch:
        patch.setattr(quotes, "told", lambda quote: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            office.desk.ask("tell_quotes", {})
    assert office.desk.ask("tell_quotes", {})["quotes"] == 1
    assert len(entries(office)) == 2


def test_a_version_that_was_overtaken_is_left_to_the_next_entry(
    office: Any, hook: WebhookReceiver
) -> None:
    made = quoted(office)
    office.desk.ask("tell_quotes", {})
    stores_of(office.desk.engine).quotes.change(made.id, "send")
    office.desk.ask("tell_quotes", {})
    assert delivered(office) == [EntryState.SENT] * 4
    assert [event["data"]["row"]["state"] for event in hook.taken] == ["sent"]


@pytest.mark.parametrize("fault", ["500", "cut"])
def test_a_sink_that_fails_is_told_again_and_writes_one_row(
    office: Any, google: GoogleSheets, fault: str
) -> None:
    made = quoted(office)
    office.desk.ask("tell_quotes", {})
    # Token, what is there, the key's column, the append.
    google.faults = [None, None, None, fault]
    entry = next(each for each in entries(office) if each.recipient == "sheet")
    channel = office.syncs.channels["sink"]
    with pytest.raises(RetryLater):
        office.desk.engine.outbox.deliver(entry.id, 0, channel)
    assert office.desk.engine.outbox.deliver(entry.id, 0, channel).state is EntryState.SENT
    assert [line[8] for line in google.sheets["Administrador 2026"][1:]] == [made.code]


def test_no_word_of_a_customer_is_kept_in_an_entry(office: Any) -> None:
    quoted(office)
    office.desk.ask("tell_quotes", {})
    kept = str([entry.body for entry in entries(office)])
    assert "Juan" not in kept
    assert "99123456" not in kept


def test_a_sink_that_the_file_names_no_more_takes_nothing(office: Any) -> None:
    quoted(office)
    office.desk.ask("tell_quotes", {})
    office.define("")
    assert delivered(office) == [EntryState.FAILED] * 2
    assert {entry.reason["code"] for entry in entries(office) if entry.reason} == {"sink_gone"}


# --- Questions ----------------------------------------------------------------------------

QUESTIONS = """
questions:
  account: {{type: mercadolibre, url: "{url}", seller_id: 419059118, client_id: "123456",
    secret: ml}}
"""


@pytest.fixture
def asked(office_of: Callable[..., Any], seller: MercadoLibre) -> Any:
    office = office_of(
        QUESTIONS.format(url=seller.url),
        sync_secrets=json.dumps({"ml": MercadoLibre.SECRET}),
        http_allowed_hosts="127.0.0.1",
        http_timeout_s=3.0,
    )
    office.desk.engine.init([conversation, office.desk.agent])
    return office


def test_a_question_becomes_a_message_and_its_answer_goes_back(
    asked: Any, seller: MercadoLibre
) -> None:
    workers = asked.workers(conversation, quote)
    numbers = [11764931832 + n for n in range(2)]
    for number in numbers:
        seller.ask(number, "Hola, el isodec es bueno para el fuego?")
    asked.desk.accept("take_questions", {})
    workers.work()
    assert {seller.questions[number]["status"] for number in numbers} == {"ANSWERED"}
    assert "autoextinguible" in seller.questions[numbers[0]]["answer"]["text"]
    assert len(seller.taken) == 2


def test_every_page_of_questions_is_taken_once(asked: Any, seller: MercadoLibre) -> None:
    for n in range(60):
        seller.ask(n + 1, "precio?")
    told = asked.desk.ask("take_questions", {})
    assert told == {"questions": 60, "accepted": 60, "postponed": None}
    assert asked.desk.ask("take_questions", {})["accepted"] == 0


def committed(office: Any, number: str, text: str) -> str:
    """The entry of a reply to a question."""
    engine = office.desk.engine
    session = engine.sessions.get(question_session(number, engine.contacts.alias))
    (outgoing,) = engine.outbox.of_message(session, text)
    task, _ = engine.store.accept(
        Request(type="t", payload={}), agent="a", queue="q", decision={}, epoch=0
    )
    return engine.outbox.put(task, 0, outgoing, session.id).id


def sent(office: Any, entry_id: str) -> Entry:
    channel = office.syncs.channels["mercadolibre"]
    found: Entry = office.desk.engine.outbox.deliver(entry_id, 0, channel)
    return found


def test_an_answer_is_given_once_also_when_word_of_it_is_lost(
    asked: Any, seller: MercadoLibre
) -> None:
    seller.ask(7, "precio?")
    asked.desk.ask("take_questions", {})
    entry = committed(asked, "7", "Son $ 150 por m².")
    seller.faults = ["cut"]
    with pytest.raises(RetryLater):
        sent(asked, entry)
    assert sent(asked, entry).state is EntryState.SENT
    assert [each["text"] for each in seller.taken] == ["Son $ 150 por m²."]
    assert seller.questions[7]["answer"]["text"] == "Son $ 150 por m²."
    assert asked.desk.ask("take_questions", {})["questions"] == 0


def test_a_question_that_a_person_answered_there_is_not_answered_here(
    asked: Any, seller: MercadoLibre
) -> None:
    seller.ask(7, "precio?")
    asked.desk.ask("take_questions", {})
    seller.questions[7] |= {"status": "ANSWERED", "answer": {"text": "Hola!"}}
    entry = sent(asked, committed(asked, "7", "Son $ 150."))
    assert (entry.state, entry.reason) == (
        EntryState.FAILED,
        {"code": "mercadolibre_not_unanswered_question", "detail": "MercadoLibre answered 400."},
    )


def test_a_long_answer_is_cut_to_what_may_be_said(asked: Any, seller: MercadoLibre) -> None:
    seller.ask(7, "todo?")
    asked.desk.ask("take_questions", {})
    assert sent(asked, committed(asked, "7", "palabra " * 400)).state is EntryState.SENT
    assert 1900 < len(seller.taken[0]["text"]) <= 2000


def test_a_session_that_somebody_made_up_answers_no_question(
    asked: Any, seller: MercadoLibre
) -> None:
    seller.ask(7, "precio?")
    engine = asked.desk.engine
    for made_up in ("mercadolibre-7-0123456789abcdef0123456789abcdef", "mercadolibre-7-"):
        session = engine.sessions.open(
            made_up, None, caller="web", channel="mercadolibre", trusted=False
        )
        (outgoing,) = engine.outbox.of_message(session, "insults")
        task, _ = engine.store.accept(
            Request(type="t", payload={}), agent="a", queue="q", decision={}, epoch=0
        )
        entry = sent(asked, engine.outbox.put(task, 0, outgoing, session.id).id)
        assert entry.state is EntryState.FAILED
    assert seller.questions[7]["status"] == "UNANSWERED"


def test_mercadolibre_that_is_away_is_asked_the_next_time(asked: Any, seller: MercadoLibre) -> None:
    seller.ask(7, "precio?")
    seller.faults = ["429"]
    assert asked.desk.ask("take_questions", {})["postponed"] == "status_429"
    assert asked.desk.ask("take_questions", {})["accepted"] == 1


# --- Webhooks as a side of a sync ---------------------------------------------------------

TOLD = """
syncs:
  told:
    source: {{type: records, dataset: stock}}
    target: {{type: webhook, url: "{url}/stock", secret: hook, event: stock.changed}}
    key: sku
    columns: {{sku: {{}}, price: {{type: decimal}}}}
"""


def test_rows_that_changed_are_told_once_and_a_repetition_has_the_same_id(
    office_of: Callable[..., Any], hook: WebhookReceiver
) -> None:
    office = office_of(
        TOLD.format(url=hook.url),
        sync_secrets=json.dumps({"hook": WEBHOOK_SECRET}),
        http_allowed_hosts="127.0.0.1",
    )
    office.syncs.records.put("stock", {f"k{n}": {"sku": f"k{n}", "price": "1"} for n in range(3)})
    task = office.desk.accept("run_sync", {"sync": "told"})
    # Read, and the connection closed: nobody knows whether it was taken.
    hook.faults = [None, "cut"]
    with pytest.raises(RetryLater):
        office.desk.run(task)
    assert office.desk.run(task)["counts"]["inserted"] == 3
    ids = [event["webhook_id"] for event in hook.read]
    assert (len(ids), len(set(ids))) == (5, 3)
    assert office.run("told")["counts"]["unchanged"] == 3
    office.syncs.records.put("stock", {"k1": {"price": "2"}})
    hook.taken.clear()
    assert office.run("told")["counts"]["updated"] == 1
    (event,) = hook.taken
    assert (event["type"], event["data"]["key"]) == ("stock.changed", "k1")
    assert event["data"]["row"] == {"price": "2"}
    assert event["webhook_id"] not in ids

"""Messages leave by WhatsApp's Graph API and by webhooks, whatever these answer."""

import datetime as dt
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from outside_world import GraphApi, WebhookReceiver, World

from agents.followup.agent import agent as followup
from agents.stores import stores_of
from orchestrator.engine import Engine
from orchestrator.errors import RetryLater
from orchestrator.outbox import Entry, EntryState, Outgoing
from orchestrator.settings import Settings
from orchestrator.tasks import Request

PHONE = "+59899123456"


@pytest.fixture
def graph() -> Iterator[GraphApi]:
    graph = GraphApi()
    graph.start()
    yield graph
    graph.stop()


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    receiver = WebhookReceiver()
    receiver.start()
    yield receiver
    receiver.stop()


@pytest.fixture
def opened(settings: Settings) -> Iterator[Callable[..., Engine]]:
    """An engine that sends to these servers."""
    engines = []

    def open_engine(*worlds: World, **more: Any) -> Engine:
        told = {"http_timeout_s": 1.0} | more
        for world in worlds:
            told = world.settings | told
        named = settings.model_dump() | told
        engine = Engine(Settings(**named))
        engine.init([followup])
        engine.contacts.heard_from(PHONE, "whatsapp", engine.clock.now())
        engines.append(engine)
        return engine

    yield open_engine
    for engine in engines:
        stores_of(engine).outside.close()
        engine.database.client.drop_database(settings.mongodb_database)
        engine.close()


def put(engine: Engine, outgoing: Outgoing) -> Entry:
    task = engine.store.accept(
        Request(type="t", payload={}), agent="a", queue="q", decision={}, epoch=0
    )[0]
    return engine.outbox.put(task, 0, outgoing)


def text(said: str = "hello", **more: Any) -> Outgoing:
    return Outgoing("whatsapp", PHONE, {"text": said, "kind": "reply", "language": "es"} | more)


def event(said: str = "hello") -> Outgoing:
    return Outgoing("n8n", "s1", {"type": "message.created", "data": {"text": said}})


def deliver(engine: Engine, entry: Entry) -> Entry:
    entry = engine.outbox.get(entry.id)
    channel = stores_of(engine).channels.get(entry.channel)
    return engine.outbox.deliver(entry.id, entry.round, channel)


def tried(engine: Engine, entry: Entry) -> RetryLater:
    with pytest.raises(RetryLater) as later:
        deliver(engine, entry)
    assert engine.outbox.get(entry.id).state is EntryState.PENDING
    return later.value


def test_a_text_is_sent_as_the_cloud_api_wants_it(opened, graph):
    engine = opened(graph)
    entry = put(engine, text("¿Cómo va? ñ 👍"))
    sent = deliver(engine, entry)
    assert (sent.state, sent.reference) == (EntryState.SENT, "wamid.1")
    assert graph.taken == [
        {
            "messaging_product": "whatsapp",
            "recipient_type": "individual",
            "to": PHONE[1:],
            "biz_opaque_callback_data": entry.id,
            "type": "text",
            "text": {"preview_url": False, "body": "¿Cómo va? ñ 👍"},
        }
    ]


@pytest.mark.parametrize("fault", ["429", "500"])
def test_what_whatsapp_surely_did_not_take_is_tried_again(opened, graph, fault):
    engine = opened(graph)
    graph.faults, graph.retry_after = [fault], "3"
    entry = put(engine, text())
    assert tried(engine, entry).after_s == (3.0 if fault == "429" else None)
    assert deliver(engine, entry).state is EntryState.SENT
    assert len(graph.taken) == 1


@pytest.mark.parametrize("fault", ["slow", "cut", "502"])
def test_what_whatsapp_may_have_taken_is_uncertain(opened, graph, fault):
    engine = opened(graph)
    graph.faults = [fault]
    entry = put(engine, text())
    assert deliver(engine, entry).state is EntryState.UNCERTAIN
    assert deliver(engine, entry).state is EntryState.UNCERTAIN
    assert len(graph.read) == 1


@pytest.mark.parametrize(
    ("fault", "code"),
    [("400", "whatsapp_131026"), ("expired", "access_token_refused"), ("window", "outside_window")],
)
def test_what_whatsapp_refuses_fails_with_its_reason(opened, graph, fault, code):
    engine = opened(graph)
    graph.faults = [fault]
    failed = deliver(engine, put(engine, text()))
    assert (failed.state, failed.reason["code"]) == (EntryState.FAILED, code)


def test_nobody_listening_is_surely_not_taken(opened, graph):
    engine = opened(graph, whatsapp_api_url="http://127.0.0.1:9/v23.0")
    assert tried(engine, put(engine, text())).facts["reason"] == "not_reached"


def test_a_host_that_is_not_listed_is_not_asked(opened, graph):
    engine = opened(graph, http_allowed_hosts="graph.facebook.com")
    failed = deliver(engine, put(engine, text()))
    assert (failed.state, failed.reason["code"]) == (EntryState.FAILED, "host_not_allowed")
    assert graph.read == []


def test_after_a_day_of_silence_only_a_template_is_sent(opened, graph):
    engine = opened(graph, whatsapp_templates="quote_sent=quote_reminder")
    engine.contacts.forget(PHONE)
    yesterday = engine.clock.now() - dt.timedelta(hours=24)
    engine.contacts.heard_from(PHONE, "whatsapp", yesterday)
    failed = deliver(engine, put(engine, text()))
    assert (failed.state, failed.reason["code"]) == (EntryState.FAILED, "outside_window")
    assert graph.read == []
    reminder = text("¿Pudo verla?", kind="quote_sent", values=["COT-2026-000007\n\nx"])
    assert deliver(engine, put(engine, reminder)).state is EntryState.SENT
    assert graph.taken[0]["template"] == {
        "name": "quote_reminder",
        "language": {"code": "es"},
        "components": [
            {"type": "body", "parameters": [{"type": "text", "text": "COT-2026-000007 x"}]}
        ],
    }


def test_where_whatsapp_says_that_the_day_is_over_a_template_follows(opened, graph):
    engine = opened(
        graph,
        whatsapp_templates="reply=answer_ready",
        whatsapp_template_languages="es=es_UY",
    )
    graph.faults = ["window"]
    entry = put(engine, text())
    assert tried(engine, entry).after_s == 0.0
    assert deliver(engine, entry).state is EntryState.SENT
    assert graph.taken[0]["template"] == {"name": "answer_ready", "language": {"code": "es_UY"}}


def test_receipts_count_by_how_far_a_message_came(opened, graph):
    engine = opened(graph)
    entry = deliver(engine, put(engine, text()))
    now = engine.clock.now()
    for status in ("read", "sent", "delivered", "delivered"):
        assert engine.outbox.receipt(status, now, reference="wamid.1")
    told = engine.outbox.get(entry.id).receipt
    assert told["status"] == "read"
    assert set(told["times"]) == {"read", "sent", "delivered"}
    assert not engine.outbox.receipt("read", now, reference="wamid.9")


def test_a_receipt_that_says_failed_is_final(opened, graph):
    engine = opened(graph)
    entry = deliver(engine, put(engine, text()))
    now = engine.clock.now()
    why = {"code": "whatsapp_131026", "detail": "Undeliverable."}
    assert engine.outbox.receipt("failed", now, reference="wamid.1", reason=why)
    assert engine.outbox.receipt("delivered", now, reference="wamid.1")
    failed = engine.outbox.get(entry.id)
    assert (failed.state, failed.reason, failed.receipt["status"]) == (
        EntryState.FAILED,
        why,
        "failed",
    )


def test_an_uncertain_message_is_known_by_its_receipt(opened, graph):
    engine = opened(graph)
    graph.faults = ["cut"]
    entry = deliver(engine, put(engine, text()))
    assert entry.state is EntryState.UNCERTAIN
    now = engine.clock.now()
    assert engine.outbox.receipt("delivered", now, reference="wamid.7", entry_id=entry.id)
    known = engine.outbox.get(entry.id)
    assert (known.state, known.reference, known.reason) == (EntryState.SENT, "wamid.7", None)


def test_an_event_is_told_signed_and_under_its_id(opened, receiver):
    engine = opened(receiver)
    entry = put(engine, event())
    assert deliver(engine, entry).state is EntryState.SENT
    # The receiver has verified the signature by the standard's own library.
    assert receiver.taken == [
        {"type": "message.created", "data": {"text": "hello"}, "webhook_id": entry.id}
    ]


@pytest.mark.parametrize("fault", ["500", "404", "429", "slow", "cut", "redirect"])
def test_an_event_is_told_again_under_the_same_id_until_it_is_taken(opened, receiver, fault):
    engine = opened(receiver)
    receiver.faults = [fault]
    entry = put(engine, event())
    tried(engine, entry)
    assert deliver(engine, entry).state is EntryState.SENT
    assert [told["webhook_id"] for told in receiver.read] == [entry.id] * 2
    assert len(receiver.taken) == 1


def test_a_receiver_that_is_gone_is_not_told_again(opened, receiver):
    engine = opened(receiver)
    receiver.faults = ["410"]
    failed = deliver(engine, put(engine, event()))
    assert (failed.state, failed.reason["code"]) == (EntryState.FAILED, "receiver_gone")


def test_a_channel_without_its_secrets_is_off(opened):
    engine = opened()
    assert stores_of(engine).channels.keys() == {"local"}
    failed = deliver(engine, put(engine, text()))
    assert (failed.state, failed.reason["code"]) == (EntryState.FAILED, "channel_off")


def test_a_message_of_a_session_leaves_by_its_channel_in_parts_and_is_told(opened, graph, receiver):
    engine = opened(graph, receiver)
    long = "Una frase. " * 800
    session = engine.sessions.open(None, PHONE, caller="w", channel="whatsapp", trusted=True)
    leaving = engine.outbox.of_message(session, long, language="es", about={"intent": "quote"})
    assert [each.channel for each in leaving] == ["whatsapp", "whatsapp", "whatsapp", "n8n"]
    assert {each.recipient for each in leaving[:3]} == {PHONE}
    assert leaving[3].body["data"] | {"text": ""} == {
        "session_id": session.id,
        "channel": "whatsapp",
        "phone": PHONE,
        "author": "bot",
        "text": "",
        "language": "es",
        "intent": "quote",
    }
    web = engine.sessions.open(None, None, caller="w", channel="web", trusted=True)
    assert [each.channel for each in engine.outbox.of_message(web, "hi")] == ["n8n"]

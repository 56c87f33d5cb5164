"""Effects once, on real processes: senders are killed between sending and marking."""

import hmac
import json
import os
import signal
import time

import pytest
import requests
from doors import FrontDoor
from outside_world import GraphApi, WebhookReceiver

from orchestrator.context import Writer
from orchestrator.outbox import Entry, EntryState, Outgoing
from orchestrator.tasks import Request

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(180)]

SENDER, PHONE = "59899123456", "+59899123456"


@pytest.fixture
def graph():
    graph = GraphApi()
    graph.start()
    yield graph
    graph.stop()


@pytest.fixture
def receiver():
    receiver = WebhookReceiver()
    receiver.start()
    yield receiver
    receiver.stop()


@pytest.fixture
def desk(desk, graph, receiver):
    """A desk with the shipped agents, which sends to these servers."""
    told = graph.settings | receiver.settings
    desk.environment |= {name.upper(): value for name, value in told.items()}
    desk.environment["AGENTS_PACKAGE"] = "agents"
    desk.engine.contacts.heard_from(PHONE, "whatsapp", desk.engine.clock.now())
    return desk


def put(desk, *outgoing: Outgoing) -> list[Entry]:
    task, _ = desk.engine.store.accept(
        Request(type="t", payload={}), agent="a", queue="q", decision={}, epoch=0
    )
    return [desk.engine.outbox.put(task, n, each) for n, each in enumerate(outgoing)]


def text(said: str) -> Outgoing:
    return Outgoing("whatsapp", PHONE, {"text": said, "kind": "reply", "language": "es"})


def event(said: str) -> Outgoing:
    return Outgoing("n8n", "s1", {"type": "message.created", "data": {"text": said}})


def state(desk, entry: Entry) -> EntryState:
    return desk.engine.outbox.get(entry.id).state


def test_a_sender_that_is_killed_between_sending_and_marking(desk, graph, receiver, eventually):
    sender = desk.worker("followup", package="agents")
    graph.faults, receiver.faults = ["hold"], ["hold"]
    first, second, third = put(desk, text("one"), text("two"), text("three"))
    told, told_next = put(desk, event("one"), event("two"))
    eventually(lambda: len(graph.read) == len(receiver.read) == 1, 15, "both have read one")
    assert state(desk, first) is state(desk, told) is EntryState.SENDING
    os.killpg(sender.pid, signal.SIGKILL)
    sender.wait()
    graph.release.set()
    receiver.release.set()
    desk.worker("followup", package="agents")
    last = (third, told_next)
    eventually(lambda: {state(desk, e) for e in last} == {EntryState.SENT}, 30, "all else is sent")

    # WhatsApp would deliver a repetition: a person decides, and the others go on in order.
    uncertain = desk.engine.outbox.get(first.id)
    assert (uncertain.state, uncertain.reason["code"]) == (EntryState.UNCERTAIN, "sender_lost")
    assert state(desk, second) is EntryState.SENT
    assert graph.said() == ["one", "two", "three"]
    assert len(graph.read) == 3
    desk.engine.outbox.resolve(first.id, "send_again", by="operator")
    eventually(lambda: state(desk, first) is EntryState.SENT, 15, "sent again")
    assert graph.said() == ["one", "two", "three", "one"]

    # The receiver of webhooks knows a repetition by its id: it was told again, before the next.
    ids = [event["webhook_id"] for event in receiver.taken]
    assert ids == [told.id, told.id, told_next.id]
    assert state(desk, told) is EntryState.SENT


def test_what_a_dead_process_committed_is_sent_in_order_though_whatsapp_is_down(
    desk, graph, eventually
):
    session = desk.engine.sessions.open(
        None, PHONE, caller="whatsapp", channel="whatsapp", trusted=True
    )
    task, _ = desk.engine.store.accept(
        Request(type="t", payload={}, ordering_key=f"session:{session.id}"),
        agent="a", queue="q", decision={}, epoch=0,
    )  # fmt: skip
    desk.engine.sessions.commit(
        desk.engine.sessions.begin(session.id, task),
        writer=Writer("conversation_agent", frozenset()),
        reply={"text": "0"},
        outgoing=[text(str(n)) for n in range(8)],
    )
    # Nobody projects what was committed: the process that should have is dead.
    graph.faults, graph.retry_after = ["500", "429", "500"], "1"
    desk.worker("followup", package="agents")
    eventually(lambda: len(graph.taken) == 8, 60, "the rescuer had them sent")
    assert graph.said() == [str(n) for n in range(8)]


@pytest.fixture
def door(desk) -> FrontDoor:
    return FrontDoor(desk)


@pytest.fixture
def webhook(door: FrontDoor) -> str:
    return f"{door.url}/api/whatsapp/webhook"


def tell(webhook: str, graph: GraphApi, value: dict) -> requests.Response:
    number = graph.settings["whatsapp_phone_number_id"]
    value = {"messaging_product": "whatsapp", "metadata": {"phone_number_id": number}} | value
    change = {"field": "messages", "value": value}
    body = {"object": "whatsapp_business_account", "entry": [{"id": "1", "changes": [change]}]}
    raw = json.dumps(body).encode()
    key = graph.settings["whatsapp_app_secret"].encode()
    signature = "sha256=" + hmac.digest(key, raw, "sha256").hex()
    headers = {"X-Hub-Signature-256": signature, "Content-Type": "application/json"}
    return requests.post(webhook, data=raw, headers=headers, timeout=10)


def said(n: int, text: str) -> dict:
    now = str(int(time.time()))
    return {"id": f"wamid.in.{n}", "from": SENDER, "timestamp": now, "type": "text",
            "text": {"body": text}}  # fmt: skip


def test_a_conversation_by_whatsapp_up_to_a_quote(desk, graph, receiver, door, webhook, eventually):
    desk.worker("conversation", app="agents.all")
    first = {"messages": [said(1, "Hola, quiero cotizar isodec de 100 mm")]}
    for _ in range(3):
        assert tell(webhook, graph, first).status_code == 200
    eventually(lambda: len(graph.taken) == 1, 30, "it is answered")
    assert tell(webhook, graph, {"messages": [said(2, "10 x 5 metros")]}).status_code == 200
    eventually(lambda: "7.500" in graph.said()[-1], 30, "the quote has come")
    picture = {"id": "wamid.in.3", "from": SENDER, "timestamp": str(int(time.time())),
               "type": "image", "image": {"id": "7"}}  # fmt: skip
    assert tell(webhook, graph, {"messages": [picture]}).status_code == 200
    eventually(lambda: "foto" in graph.said()[-1], 30, "the picture is answered")
    assert len(graph.taken) == len(graph.read) == 3
    eventually(lambda: len(receiver.taken) == 3, 30, "n8n is told")
    assert receiver.taken[1]["data"]["quote"]["total"] == 7500.0
    # What Meta tells of our messages is found again.
    entry_id = graph.taken[1]["biz_opaque_callback_data"]
    for told in ("read", "delivered"):
        status = {"id": "wamid.2", "status": told, "timestamp": str(int(time.time())),
                  "recipient_id": SENDER, "biz_opaque_callback_data": entry_id}  # fmt: skip
        assert tell(webhook, graph, {"statuses": [status]}).status_code == 200
    assert desk.engine.outbox.get(entry_id).receipt["status"] == "read"
    for log in (door.log, "conversation"):
        assert SENDER not in desk.log(log)

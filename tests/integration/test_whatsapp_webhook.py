"""WhatsApp's webhook at the front door: signed, stored at once, and never twice in effect."""

import contextlib
import hmac
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

from agents.conversation.agent import agent as conversation
from api.app import create_app
from orchestrator.engine import Engine
from orchestrator.outbox import EntryState, Outgoing
from orchestrator.settings import Settings
from orchestrator.tasks import Request

SECRET, VERIFY, NUMBER_ID = "app-secret", "verify-token", "106540352242922"
SENDER, PHONE = "59899123456", "+59899123456"
URL = "/api/whatsapp/webhook"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    told = {
        "whatsapp_app_secret": SECRET,
        "whatsapp_verify_token": VERIFY,
        "whatsapp_phone_number_id": NUMBER_ID,
    }
    return Settings(**settings.model_dump() | told)


class Meta:
    """What Meta does: it signs what it sends."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.client = create_app(engine).test_client()

    def post(self, body: Any, secret: str = SECRET, headers: dict[str, str] | None = None) -> Any:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        signed = {
            "X-Hub-Signature-256": "sha256=" + hmac.digest(secret.encode(), raw, "sha256").hex()
        }
        return self.client.post(
            URL, data=raw, content_type="application/json", headers=signed | (headers or {})
        )

    def tasks(self) -> list[dict[str, Any]]:
        found = self.engine.database["tasks"].find({"caller": "whatsapp"})
        return sorted(found, key=lambda task: task["seq"])

    def said(self) -> list[str]:
        return [t["payload"].get("message") or t["payload"]["medium"] for t in self.tasks()]


@pytest.fixture
def meta(engine: Engine) -> Meta:
    engine.init([conversation])
    return Meta(engine)


def message(n: int = 1, said: str = "hola", sender: str = SENDER, **more: Any) -> dict[str, Any]:
    return {
        "from": sender,
        "id": f"wamid.in.{n}",
        "timestamp": str(int(time.time())),
        "type": "text",
        "text": {"body": said},
    } | more


def batch(*messages: Any, statuses: list[Any] | None = None, number: str = NUMBER_ID) -> dict:
    value: dict[str, Any] = {
        "messaging_product": "whatsapp",
        "metadata": {"display_phone_number": "59825001234", "phone_number_id": number},
    }
    if messages:
        value |= {
            "contacts": [{"profile": {"name": "Ana"}, "wa_id": SENDER}],
            "messages": list(messages),
        }
    if statuses:
        value["statuses"] = statuses
    change = {"field": "messages", "value": value}
    return {"object": "whatsapp_business_account", "entry": [{"id": "1", "changes": [change]}]}


def test_the_challenge_is_echoed_as_plain_text_for_the_right_token_only(meta):
    asked = {"hub.mode": "subscribe", "hub.verify_token": VERIFY, "hub.challenge": "<b>1158</b>"}
    answer = meta.client.get(URL, query_string=asked)
    assert (answer.status_code, answer.text, answer.mimetype) == (200, "<b>1158</b>", "text/plain")
    for wrong in (
        {"hub.verify_token": "other"},
        {"hub.mode": "unsubscribe"},
        {"hub.verify_token": "ñ"},
    ):
        assert meta.client.get(URL, query_string=asked | wrong).status_code == 403
    assert meta.client.get(URL).status_code == 403


def test_only_what_is_signed_over_its_raw_bytes_is_read(meta):
    raw = json.dumps(batch(message())).encode()
    assert meta.post(raw, secret="other").status_code == 403
    assert meta.client.post(URL, data=raw).status_code == 403
    assert meta.post(raw, headers={"X-Hub-Signature-256": "sha256=é"}).status_code == 403
    altered = {"X-Hub-Signature-256": "sha256=" + hmac.digest(SECRET.encode(), raw, "sha256").hex()}
    assert meta.client.post(URL, data=raw + b" ", headers=altered).status_code == 403
    assert meta.tasks() == []
    assert meta.post(raw).status_code == 200
    assert len(meta.tasks()) == 1


def test_a_message_becomes_a_task_of_the_phones_session(meta):
    assert meta.post(batch(message(1, "hola"), message(2, "isodec 100"))).status_code == 200
    first, second = meta.tasks()
    session = meta.engine.sessions.get(first["payload"]["session_id"])
    assert first["payload"] == {
        "message": "hola",
        "channel": "whatsapp",
        "phone": PHONE,
        "session_id": session.id,
    }
    assert (session.phone, session.channel) == (PHONE, "whatsapp")
    assert first["key"] == second["key"] == f"session:{session.id}"
    assert (first["state"], second["state"]) == ("queued", "blocked")
    assert meta.engine.contacts.last_heard(PHONE, "whatsapp") is not None


def test_a_batch_that_is_repeated_whole_or_in_other_parts_has_no_second_effect(meta):
    assert meta.post(batch(message(1))).status_code == 200
    for again in (batch(message(1)), batch(message(1), message(2)), batch(message(2), message(1))):
        assert meta.post(again).status_code == 200
    assert [task["_id"] for task in meta.tasks()] == sorted(t["_id"] for t in meta.tasks())
    assert len(meta.tasks()) == 2


def test_entries_changes_and_messages_are_all_read_in_their_order(meta):
    body = batch(message(1, "uno"), message(2, "dos"))
    body["entry"][0]["changes"].append(batch(message(3, "tres"))["entry"][0]["changes"][0])
    body["entry"].append(batch(message(4, "cuatro"))["entry"][0])
    body["entry"][0]["changes"].append({"field": "account_update", "value": {"event": "x"}})
    assert meta.post(body).status_code == 200
    assert meta.said() == ["uno", "dos", "tres", "cuatro"]


def test_messages_to_another_number_are_left_alone(meta):
    assert meta.post(batch(message(1), number="999")).status_code == 200
    assert meta.tasks() == []


BUTTON = {"type": "button", "button": {"payload": "yes", "text": "Acepto"}}
CHOICE = {
    "type": "interactive",
    "interactive": {"type": "button_reply", "button_reply": {"id": "1", "title": "Sin flete"}},
}
LIST = {
    "type": "interactive",
    "interactive": {"type": "list_reply", "list_reply": {"id": "1", "title": "Isodec"}},
}


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        (BUTTON, ["Acepto"]),
        (CHOICE, ["Sin flete"]),
        (LIST, ["Isodec"]),
        ({"type": "image", "image": {"id": "9", "mime_type": "image/jpeg"}}, ["image"]),
        ({"type": "image", "image": {"id": "9", "caption": "esto"}}, ["esto", "image"]),
        ({"type": "audio", "audio": {"id": "9", "voice": True}}, ["audio"]),
        ({"type": "document", "document": {"id": "9", "filename": "x.pdf"}}, ["document"]),
        ({"type": "location", "location": {"latitude": -34.9, "longitude": -56.1}}, ["location"]),
        ({"type": "sticker", "sticker": {"id": "9"}}, ["sticker"]),
        ({"type": "reaction", "reaction": {"message_id": "wamid.1", "emoji": "👍"}}, ["reaction"]),
        ({"type": "reaction", "reaction": {"message_id": "wamid.1"}}, []),
        ({"type": "order", "order": {}}, ["unsupported"]),
        ({"type": "unsupported", "errors": [{"code": 131051}]}, ["unsupported"]),
        ({"type": "system", "system": {"body": "changed", "type": "x"}}, []),
        ({"text": {"body": "\ud83d\x00hola\n"}}, ["\ufffdhola"]),
        ({"text": {"body": "   "}}, []),
    ],
)
def test_every_kind_of_message_is_read(meta, sent, read):
    assert meta.post(batch(message(1, **sent))).status_code == 200
    assert meta.said() == read


@pytest.mark.parametrize(
    "unreadable",
    [None, 7, {}, {"id": "x"}, message(9, sender="abc"), message(9) | {"timestamp": "soon"}],
)
def test_what_cannot_be_read_does_not_keep_the_rest_of_its_batch(meta, unreadable):
    assert meta.post(batch(unreadable, message(1))).status_code == 200
    assert meta.said() == ["hola"]


@pytest.mark.parametrize(
    "body", [b"null", b"[]", b"7", b'{"entry": 7}', b'{"entry": [{"changes": [7]}]}']
)
def test_what_is_no_batch_is_taken_and_means_nothing(meta, body):
    assert meta.post(body).status_code == 200
    assert meta.tasks() == []


def test_what_is_no_json_or_too_large_is_refused(meta):
    assert meta.post(b"{").status_code == 400
    assert meta.post(b"[" * 100_000).status_code == 400
    assert meta.post(b" " * (3 * 1024 * 1024 + 1)).status_code == 413
    assert meta.post(batch(message(1, "x" * 200_000))).status_code == 200
    assert len(meta.said()[0]) == 10_000


def test_what_cannot_be_stored_is_asked_for_again(meta, mongo_server):
    mongo_server.pause()
    try:
        began = time.monotonic()
        answer = meta.post(batch(message(1)))
        assert (answer.status_code, answer.json["code"]) == (503, "store_unavailable")
        assert answer.headers["Retry-After"]
        assert time.monotonic() - began < 10
    finally:
        mongo_server.resume()
    assert meta.post(batch(message(1))).status_code == 200
    assert len(meta.tasks()) == 1


def test_of_a_batch_with_one_message_too_many_the_others_are_stored(meta):
    limit = meta.engine.settings.max_waiting_per_key
    for n in range(limit + 2):
        meta.post(batch(message(n)))
    before = len(meta.tasks())
    other = message(500, "otro", sender="59899765432")
    answer = meta.post(batch(message(400), other))
    assert (answer.status_code, answer.json["code"]) == (503, "not_all_stored")
    assert len(meta.tasks()) == before + 1
    assert meta.said().count("otro") == 1


def test_a_desk_that_nobody_staffs_asks_to_come_back(engine):
    answer = Meta(engine).post(batch(message(1)))
    assert (answer.status_code, answer.json["code"]) == (503, "chat_unstaffed")


def test_without_its_secrets_it_is_not_there(engine):
    off = Settings(**engine.settings.model_dump() | {"whatsapp_app_secret": ""})
    with contextlib.closing(Engine(off)) as other:
        client = create_app(other).test_client()
        for answer in (client.get(URL), client.post(URL, data=b"{}")):
            assert (answer.status_code, answer.json["code"]) == (404, "channel_off")


@pytest.fixture
def sent(engine: Engine) -> Callable[[], Any]:
    """An entry that WhatsApp has taken as wamid.out."""

    def entry() -> Any:
        task = engine.store.accept(
            Request(type="t", payload={}), agent="a", queue="q", decision={}, epoch=0
        )[0]
        entry = engine.outbox.put(task, 0, Outgoing("whatsapp", PHONE, {"text": "hola"}))
        change = {"state": EntryState.SENT.value, "reference": "wamid.out"}
        engine.database["outbox"].update_one({"_id": entry.id}, {"$set": change})
        return entry

    return entry


def status(told: str, **more: Any) -> dict[str, Any]:
    return {
        "id": "wamid.out",
        "status": told,
        "timestamp": "1767225600",
        "recipient_id": SENDER,
    } | more


def test_statuses_are_recorded_on_what_was_sent(meta, sent):
    entry = sent()
    assert meta.post(batch(statuses=[status("read"), status("delivered")])).status_code == 200
    assert meta.engine.outbox.get(entry.id).receipt["status"] == "read"
    late = status("failed", errors=[{"code": 131026, "title": "Undeliverable"}])
    assert meta.post(batch(statuses=[late])).status_code == 200
    failed = meta.engine.outbox.get(entry.id)
    assert (failed.state, failed.reason["code"]) == (EntryState.FAILED, "whatsapp_131026")


def test_statuses_of_others_and_unknown_ones_are_taken(meta):
    strange = [status("sent", id="wamid.other"), status("played"), {"id": 1}]
    assert meta.post(batch(statuses=strange)).status_code == 200


def test_no_text_phone_or_secret_is_logged(meta):
    with capture_logs() as logged:
        meta.post(batch(message(1, "un secreto"), {"from": SENDER}))
        meta.post(batch(message(2)), secret="other")
    for hidden in ("secreto", SENDER, SECRET):
        assert hidden not in str(logged)


def test_a_desk_that_is_full_has_them_sent_again(settings):
    full = Engine(settings.model_copy(update={"max_unfinished": 1}))
    full.init([conversation])
    meta = Meta(full)
    assert meta.post(batch(message(1))).status_code == 200
    refused = meta.post(batch(message(2, "y otra cosa")))
    assert refused.status_code == 503
    assert int(refused.headers["Retry-After"]) > 0
    assert meta.said() == ["hola"]
    # What is known already is no new work.
    assert meta.post(batch(message(1))).status_code == 200
    full.close()

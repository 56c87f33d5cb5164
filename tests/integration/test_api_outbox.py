"""Operators see what leaves the desk, and decide where nobody else can."""

import pytest
from flask.testing import FlaskClient
from pydantic import SecretStr

from api.app import create_app
from orchestrator.engine import Engine
from orchestrator.outbox import EntryState, Outgoing
from orchestrator.tasks import Request

TOKEN = "operator-token-0123456789"
KEY = "key-of-the-web-0123456789"
OPERATOR = {"Authorization": f"Bearer {TOKEN}"}
PHONE = "+59899123456"


@pytest.fixture
def desk(settings):
    engine = Engine(
        settings.model_copy(
            update={"operator_token": SecretStr(TOKEN), "client_keys": SecretStr(f"web:{KEY}")}
        )
    )
    engine.init([])
    yield engine
    engine.close()


@pytest.fixture
def door(desk) -> FlaskClient:
    return create_app(desk).test_client()


def put(desk, state: EntryState, channel: str = "whatsapp", code: str = "whatsapp_131026") -> str:
    task = desk.store.accept(
        Request(type="t", payload={}), agent="a", queue="q", decision={}, epoch=0
    )[0]
    entry = desk.outbox.put(task, 0, Outgoing(channel, PHONE, {"text": "un secreto"}))
    reason = {"code": code, "detail": "No."}
    desk.database["outbox"].update_one(
        {"_id": entry.id}, {"$set": {"state": state.value, "reason": reason}}
    )
    return entry.id


def listed(door, query: str = "") -> list[str]:
    answer = door.get(f"/api/outbox{query}", headers=OPERATOR)
    assert answer.status_code == 200, answer.json
    return [entry["id"] for entry in answer.json["entries"]]


def test_entries_are_listed_by_what_an_operator_looks_for(desk, door):
    uncertain = put(desk, EntryState.UNCERTAIN)
    failed = put(desk, EntryState.FAILED)
    event = put(desk, EntryState.FAILED, channel="n8n", code="receiver_gone")
    sent = put(desk, EntryState.SENT)
    assert listed(door) == [sent, event, failed, uncertain]
    assert listed(door, "?state=uncertain") == [uncertain]
    assert listed(door, "?state=failed") == [event, failed]
    assert listed(door, "?state=failed&channel=n8n") == [event]
    assert listed(door, "?state=failed&code=whatsapp_131026") == [failed]
    first = door.get("/api/outbox?state=failed&page_size=1", headers=OPERATOR)
    assert first.headers["Link"].endswith('rel="next"')
    following = f"?state=failed&page_size=1&page_token={first.json['next_page_token']}"
    assert listed(door, following) == [failed]


def test_a_list_holds_no_text_and_one_entry_does(desk, door):
    entry = put(desk, EntryState.UNCERTAIN)
    assert "secreto" not in door.get("/api/outbox", headers=OPERATOR).text
    shown = door.get(f"/api/outbox/{entry}", headers=OPERATOR).json
    assert shown["body"] == {"text": "un secreto"}
    assert (shown["state"], shown["recipient"]) == ("uncertain", PHONE)


def test_an_operator_decides(desk, door):
    again, dropped, sent = (
        put(desk, state) for state in (EntryState.UNCERTAIN, EntryState.FAILED, EntryState.SENT)
    )

    def decide(entry: str, decision: str):
        return door.post(
            f"/api/outbox/{entry}/resolve", json={"decision": decision}, headers=OPERATOR
        )

    assert decide(again, "send_again").json["state"] == "pending"
    assert decide(dropped, "drop").json["state"] == "dropped"
    assert decide(sent, "drop").status_code == 409
    assert decide("nothing.0", "drop").status_code == 404
    assert decide(again, "think").status_code == 422
    acts = [act["action"] for act in desk.audit.page(10)[0]]
    assert acts[-2:] == ["outbox.drop", "outbox.send_again"]


def test_an_operator_decides_about_many_at_once(desk, door):
    for _ in range(3):
        put(desk, EntryState.FAILED, code="access_token_refused")
    other = put(desk, EntryState.FAILED)
    asked = {"decision": "send_again", "state": "failed", "code": "access_token_refused"}
    answer = door.post("/api/outbox/resolve", json=asked | {"limit": 2}, headers=OPERATOR)
    assert answer.json == {"done": 2, "more": True}
    answer = door.post("/api/outbox/resolve", json=asked, headers=OPERATOR)
    assert answer.json == {"done": 1, "more": False}
    assert listed(door, "?state=failed") == [other]
    wrong = door.post("/api/outbox/resolve", json=asked | {"state": "sent"}, headers=OPERATOR)
    assert wrong.status_code == 422


@pytest.mark.parametrize("path", ["/api/outbox", "/api/outbox/x.0"])
def test_only_the_operator_sees_it(door, path):
    assert door.get(path).status_code == 401
    assert door.get(path, headers={"X-API-Key": KEY}).status_code == 403

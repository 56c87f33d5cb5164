"""Follow-ups over HTTP: scheduled by hand, listed, cancelled; by the operator only."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask.testing import FlaskClient
from pydantic import SecretStr

from agents.followup.agent import agent
from api.app import create_app
from orchestrator.engine import Engine
from tests.integration.followup_desk import FollowupDesk

TOKEN, KEY = "operator-token-0123456789", "key-of-the-web-0123456789"
CLIENT = {"Authorization": f"Bearer {KEY}"}
AT = "2099-01-05T12:00:00Z"


@pytest.fixture
def settings(settings: Any) -> Any:
    secrets = {"operator_token": SecretStr(TOKEN), "client_keys": SecretStr(f"web:{KEY}")}
    always = {"business_hours": "mon-sun 00:00-24:00", "business_country": None}
    return settings.model_copy(update=secrets | always)


@pytest.fixture
def door(engine: Engine) -> FlaskClient:
    client = create_app(engine).test_client()
    client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {TOKEN}"
    return client


@pytest.fixture
def desk(engine: Engine, workers: Callable[..., Any]) -> Iterator[FollowupDesk]:
    """With a conversation, and a worker that runs meanwhile."""
    desk = FollowupDesk(engine, workers(agent))
    desk.said("s1")
    stopped = threading.Event()

    def run() -> None:
        while not stopped.wait(0.02):
            desk.work()

    worker = threading.Thread(target=run)
    worker.start()
    yield desk
    stopped.set()
    worker.join()


def schedule(door: FlaskClient, *, key: str | None = None, **body: Any) -> Any:
    headers = {} if key is None else {"Idempotency-Key": f'"{key}"'}
    known = {"session_id": "s1", "text": "Llegaron las canaletas.", "at": AT}
    return door.post("/api/followups", json=known | body, headers=headers)


def test_one_is_scheduled_once_read_listed_and_cancelled(
    door: FlaskClient, desk: FollowupDesk
) -> None:
    made = schedule(door, key="k")
    assert made.status_code == 201
    followup = made.json
    assert (followup["state"], followup["rule"], followup["by"]) == (
        "planned",
        "by_hand",
        "operator",
    )
    assert followup["due_at"].startswith("2099-01-05T12:00:00")
    assert made.headers["Location"] == f"/api/followups/{followup['id']}"
    assert schedule(door, key="k").json["id"] == followup["id"]
    other = schedule(door, message="conversation_idle", text=None).json
    found = door.get("/api/followups?state=planned&session_id=s1").json["followups"]
    assert [each["id"] for each in found] == [other["id"], followup["id"]]
    assert door.get("/api/followups?rule=quote_unanswered").json == {"followups": []}
    path = f"/api/followups/{followup['id']}"
    for _ in range(2):
        assert door.post(f"{path}/cancel").json["state"] == "cancelled"
    assert door.get(path).json["why"] == {"code": "cancelled", "by": "operator"}
    first = door.get("/api/followups?page_size=1").json
    rest = door.get(f"/api/followups?page_size=1&page_token={first['next_page_token']}").json
    assert [first["followups"][0]["id"], rest["followups"][0]["id"]] == [
        other["id"],
        followup["id"],
    ]


def test_one_that_has_gone_out_is_not_cancelled(
    door: FlaskClient, desk: FollowupDesk, eventually: Callable[..., Any]
) -> None:
    followup = schedule(door, at=None).json
    path = f"/api/followups/{followup['id']}"
    eventually(lambda: door.get(path).json["state"] == "sent", 20, "it is sent")
    refused = door.post(f"{path}/cancel")
    assert (refused.status_code, refused.json["code"]) == (409, "followup_gone")
    assert refused.json["standing"] == "sent"
    messages = door.get("/api/sessions/s1/messages").json["messages"]
    assert messages[-1]["text"] == "Llegaron las canaletas."


@pytest.mark.parametrize(
    ("body", "at"),
    [
        ({"session_id": "nobody"}, "/session_id"),
        ({"message": "quote_sent", "text": None}, "/message"),
        ({"message": "poem", "text": None}, "/message"),
        ({"text": None}, "/text"),
        ({"message": "quote_sent"}, "/text"),
        ({"text": " "}, "/text"),
        ({"text": "x" * 1001}, "/text"),
        ({"at": "tomorrow"}, "/at"),
        ({"at": "2026-12-01T10:00:00"}, "/at"),
        ({"priority": 101}, "/priority"),
        ({"session_id": ""}, "/session_id"),
        ({"who": "me"}, "/who"),
    ],
)
def test_what_cannot_be_scheduled_is_said_by_its_field(
    door: FlaskClient, desk: FollowupDesk, body: dict[str, Any], at: str
) -> None:
    refused = schedule(door, **body)
    assert refused.status_code == 422, refused.json
    assert [each["pointer"] for each in refused.json["errors"]] == [at]
    assert desk.followups() == []


def test_what_nobody_knows(door: FlaskClient, desk: FollowupDesk) -> None:
    for answer in (
        door.get("/api/followups/nothing"),
        door.post("/api/followups/nothing/cancel"),
    ):
        assert (answer.status_code, answer.json["code"]) == (404, "followup_not_found")
    assert door.get("/api/followups?state=lost").status_code == 422


def test_only_the_operator_may(door: FlaskClient, desk: FollowupDesk) -> None:
    for method, path in (
        ("get", "/api/followups"),
        ("post", "/api/followups"),
        ("get", "/api/followups/x"),
        ("post", "/api/followups/x/cancel"),
    ):
        body = {"json": {"session_id": "s1", "text": "x"}} if method == "post" else {}
        assert door.open(path, method=method, headers=CLIENT, **body).status_code == 403
    # What only the desk itself asks for is nobody's to ask for as a task.
    for asked in ("schedule_followup", "find_due_followups", "send_followup"):
        told = door.post("/api/tasks", json={"type": asked, "payload": {}})
        assert told.status_code == 422, told.json


def test_a_desk_without_that_agent(door: FlaskClient) -> None:
    assert door.get("/api/followups").json == {"followups": []}
    refused = schedule(door)
    assert (refused.status_code, refused.json["code"]) == (503, "followups_unstaffed")

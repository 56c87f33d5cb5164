"""Tasks, operators' paths, health and what is true of every request, over the real engine."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from flask.testing import FlaskClient
from pydantic import BaseModel, Field, SecretStr

from api.app import create_app
from orchestrator.declarations import Agent
from orchestrator.engine import Engine
from orchestrator.registry import Heartbeat
from orchestrator.tasks import State
from orchestrator.worker import TaskContext

TOKEN, KEY = "operator-token-0123456789", "key-of-the-web-0123456789"
OPERATOR = {"Authorization": f"Bearer {TOKEN}"}
CLIENT = {"X-API-Key": KEY}
JSON = {"Content-Type": "application/json"}
ORIGIN = "https://shop.example"

adder = Agent(role="adder", name="Adder", capabilities=["sums", "logic"], slots=3)


class Sum(BaseModel):
    terms: list[int] = Field(min_length=1)


@adder.handles("add", needs=["sums"])
def add(context: TaskContext, payload: Sum) -> int:
    return sum(payload.terms)


@adder.handles("add_inside", public=False)
def add_inside(context: TaskContext, payload: Sum) -> int:
    return sum(payload.terms)


@pytest.fixture
def desk(settings) -> Engine:
    """An engine with an operator and a client, and one declared agent."""
    engine = Engine(
        settings.model_copy(
            update={
                "operator_token": SecretStr(TOKEN),
                "client_keys": SecretStr(f"web:{KEY}"),
                "cors_origins": ORIGIN,
            }
        )
    )
    engine.init([adder])
    yield engine
    engine.close()


@pytest.fixture
def door(desk) -> FlaskClient:
    return create_app(desk).test_client()


@pytest.fixture
def open_door(engine) -> FlaskClient:
    """Nobody has a key or a token; one declared agent."""
    engine.init([adder])
    return create_app(engine).test_client()


def submit(door: FlaskClient, query: str = "", headers: dict[str, str] = OPERATOR, **body: object):
    body = {"type": "add", "payload": {"terms": [1, 2]}} | body
    return door.post(f"/api/tasks{query}", json=body, headers=headers)


def finish(desk: Engine, task_id: str, result: object = 3) -> None:
    claim = desk.store.claim(task_id, desk.store.get(task_id).fence, "worker")
    desk.coordinator.settle(desk.store.finish(claim, result))


def code(response) -> str:
    assert response.content_type == "application/problem+json"
    return json.loads(response.text)["code"]


# -- tasks -------------------------------------------------------------------------------


def test_a_submitted_task_is_accepted_and_can_be_followed(desk, door):
    response = submit(door, priority="high", deadline_s=60)
    assert response.status_code == 202
    task = response.json
    assert response.headers["Location"] == f"/api/tasks/{task['id']}"
    assert (task["type"], task["agent"], task["priority"]) == ("add", "adder_agent", "high")
    assert (task["state"], task["result"], task["error"]) == ("queued", None, None)
    assert task["deadline"] > task["created_at"]
    assert "payload" not in task
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(
            lambda: door.application.test_client().get(
                f"/api/tasks/{task['id']}?wait=20", headers=OPERATOR
            )
        )
        finish(desk, task["id"])
        done = waiting.result().json
    assert (done["state"], done["result"], done["reply"]) == ("completed", 3, None)


@pytest.mark.parametrize("kept", [None, {}, {"agent": "adder_agent"}])
def test_a_decision_that_is_not_kept_is_not_found(desk, door, kept):
    task_id = submit(door).json["id"]
    desk.database["tasks"].update_one({"_id": task_id}, {"$set": {"decision": kept}})
    response = door.get(f"/api/tasks/{task_id}/decision", headers=OPERATOR)
    assert (response.status_code, code(response)) == (404, "not_found")


def test_a_wait_that_is_over_shows_the_task_as_it_stands(door):
    response = submit(door, "?wait=0.05")
    assert (response.status_code, response.json["state"]) == (202, "queued")


def test_an_accepted_task_that_cannot_be_read_again_is_a_202(desk, door, mongo_server, eventually):
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(submit, door, "?wait=2")
        # Whoever listens has its task accepted, and waits.
        channel = f"{desk.settings.key_prefix}:finished"
        eventually(lambda: desk.redis.pubsub_numsub(channel)[0][1])
        mongo_server.pause()
        try:
            response = waiting.result()
        finally:
            mongo_server.resume()
    assert response.status_code == 202
    assert desk.store.get(response.json["id"]).state is State.QUEUED


def test_the_decision_says_who_and_why(door):
    task_id = submit(door, strategy="capability_match").json["id"]
    decision = door.get(f"/api/tasks/{task_id}/decision", headers=OPERATOR).json
    assert decision["task_id"] == task_id
    assert (decision["agent"], decision["strategy"]) == ("adder_agent", "capability_match")
    assert decision["candidates"] == [{"agent": "adder_agent", "score": 1.0}]
    assert decision["waits_for_worker"]
    assert "no worker is live" in decision["reason"]


def test_the_timeline_tells_every_transition(desk, door):
    task_id = submit(door).json["id"]
    finish(desk, task_id)
    timeline = door.get(f"/api/tasks/{task_id}/timeline", headers=OPERATOR).json
    assert [event["event"] for event in timeline["events"]] == ["accepted", "claimed", "completed"]
    assert timeline["events"][1]["worker"] == "worker"


def test_a_key_makes_submitting_repeatable(door):
    again = [submit(door, headers=OPERATOR | {"Idempotency-Key": '"k"'}) for _ in range(3)]
    assert len({response.json["id"] for response in again}) == 1
    other = submit(door, headers=OPERATOR | {"Idempotency-Key": '"k"'}, payload={"terms": [9]})
    assert (other.status_code, code(other)) == (422, "idempotency_key_reused")


@pytest.mark.parametrize(
    "body",
    [
        {"type": "paint"},
        {"type": "add_inside"},
        {"capabilities": ["flying"]},
        {"capabilities": ["sums", "flying"]},
    ],
)
def test_what_no_declared_agent_can_do_is_refused(door, desk, body):
    response = submit(door, **body)
    assert (response.status_code, code(response)) == (422, "no_capable_agent")
    assert json.loads(response.text)["task_types"] == ["add"]
    assert desk.database["tasks"].count_documents({}) == 0


def test_a_payload_is_checked_by_the_declared_schema(door, desk):
    response = submit(door, payload={"terms": [1, "two words of a customer"]})
    assert (response.status_code, code(response)) == (422, "invalid_payload")
    assert [error["pointer"] for error in json.loads(response.text)["errors"]] == ["/terms/1"]
    assert "customer" not in response.text
    assert desk.database["tasks"].count_documents({}) == 0


@pytest.mark.parametrize("payload", [{"terms": [1], "$where": {"$gt": ""}}, {"terms": [1], "": 1}])
def test_names_that_mean_something_to_mongodb_are_only_names(door, payload):
    response = submit(door, payload=payload)
    assert response.status_code == 202
    assert door.get(response.headers["Location"], headers=OPERATOR).status_code == 200


def test_cancelling_ends_a_task_once(door):
    path = f"/api/tasks/{submit(door).json['id']}/cancel"
    cancelled = door.post(path, headers=OPERATOR)
    assert (cancelled.status_code, cancelled.json["state"]) == (200, "cancelled")
    assert cancelled.json["error"]["code"] == "cancelled"
    again = door.post(path, headers=OPERATOR)
    assert (again.status_code, code(again)) == (409, "task_is_final")


def test_cancelling_a_running_task_asks_it_to_stop(desk, door):
    task_id = submit(door).json["id"]
    desk.store.claim(task_id, desk.store.get(task_id).fence, "worker")
    cancelled = door.post(f"/api/tasks/{task_id}/cancel", headers=OPERATOR).json
    assert (cancelled["state"], cancelled["cancel_requested"]) == ("running", True)


def test_only_the_operator_submits_and_cancels(door, open_door):
    task_id = submit(door).json["id"]
    for path in ("/api/tasks", f"/api/tasks/{task_id}/cancel"):
        assert door.post(path, json={"broken": 1}).status_code == 401
        assert door.post(path, json={"broken": 1}, headers=CLIENT).status_code == 403
        assert open_door.post(path, json={"broken": 1}).status_code == 401
    assert door.get(f"/api/tasks/{task_id}", headers=CLIENT).status_code == 404


@pytest.mark.parametrize(
    "task_id",
    [
        "x",
        "0" * 32,
        "%00",
        "%F0%9F%98%80",
        "%ED%A0%80",
        "..",
        "a" * 2000,
        "$where",
        "%7B%22$gt%22:0%7D",
    ],
)
def test_task_ids_of_any_shape_are_not_found(door, task_id):
    for view in ("", "/decision", "/timeline"):
        assert door.get(f"/api/tasks/{task_id}{view}", headers=OPERATOR).status_code == 404
    assert door.post(f"/api/tasks/{task_id}/cancel", headers=OPERATOR).status_code == 404


# -- operators ---------------------------------------------------------------------------

LOOKED_AT = [
    "/api/orchestrator/status",
    "/api/orchestrator/agents",
    "/api/orchestrator/agents/adder_agent",
    "/api/orchestrator/agents/adder_agent/health",
    "/api/orchestrator/tasks/queue",
]


def beat(desk: Engine, running: int) -> None:
    desk.registry.beat(
        Heartbeat(
            worker="adder@host-1/1/ab",
            node="adder@host-1",
            agents={"adder_agent": 3},
            running={"adder_agent": running},
            done=5,
            failed=0,
            mean_run_s=0.2,
            trouble=None,
            started_at="2026-01-01T00:00:00+00:00",
            version="1",
            pid=1,
        )
    )


def test_an_agent_is_shown_with_its_workers(desk, door):
    agent = door.get("/api/orchestrator/agents/adder_agent").json
    assert (agent["status"], agent["workers"], agent["current_tasks"]) == ("offline", [], 0)
    assert agent["capabilities"] == ["logic", "sums"]
    beat(desk, running=1)
    agents = door.get("/api/orchestrator/agents").json["agents"]
    assert [agent["agent_id"] for agent in agents] == ["adder_agent"]
    assert (agents[0]["status"], agents[0]["max_concurrent_tasks"]) == ("busy", 3)
    assert agents[0]["workers"][0]["worker"] == "adder@host-1"
    health = door.get("/api/orchestrator/agents/adder_agent/health").json
    assert (health["healthy"], health["workers_online"], health["problems"]) == (True, 1, [])


def test_an_agent_that_nobody_declared_is_not_found(door):
    for path in ("/api/orchestrator/agents/nobody", "/api/orchestrator/agents/nobody/health"):
        assert code(door.get(path)) == "agent_not_found"


def test_status_and_queues_count_what_is_there(desk, door):
    submit(door)
    status = door.get("/api/orchestrator/status").json
    assert status["status"] == "down"
    assert status["health"]["agents"] == {"total": 1, "online": 0, "offline": 1}
    assert status["health"]["tasks"]["pending"] == 1
    queues = door.get("/api/orchestrator/tasks/queue").json
    assert queues["queue_size"] == 1
    queue = queues["queues"][0]
    assert queue["by_priority"]["normal"] == 1
    ages = queue["oldest_s_by_priority"]
    assert 0 <= ages.pop("normal") == queue["oldest_s"] < 60
    assert ages == {"critical": None, "high": None, "low": None}


@pytest.mark.parametrize("path", LOOKED_AT)
def test_operators_paths_are_open_to_this_machine_and_to_the_operator(door, path):
    away = {"REMOTE_ADDR": "203.0.113.9"}
    assert door.get(path).status_code == 200
    assert door.get(path, headers=OPERATOR, environ_base=away).status_code == 200
    assert door.get(path, environ_base=away).status_code == 401
    assert door.get(path, headers=CLIENT, environ_base=away).status_code == 403
    assert door.get(path, headers={"Host": "evil.example"}).status_code == 401
    assert door.get(path, headers={"X-Forwarded-For": "203.0.113.9"}).status_code == 401


# -- health ------------------------------------------------------------------------------


def test_alive_is_alive_for_everybody(door):
    for path in ("/health", "/livez", "/health/"):
        response = door.get(path, environ_base={"REMOTE_ADDR": "203.0.113.9"})
        assert response.status_code == 200
        assert "healthy" in response.text


def test_ready_needs_somebody_who_rescues(desk, door):
    unready = door.get("/readyz")
    assert (unready.status_code, code(unready)) == (503, "not_ready")
    assert json.loads(unready.text)["checks"]["rescue"] is False
    desk.rescuer("test", eager=True).tick()
    assert door.get("/readyz").json == {"status": "ready", "checks": None}
    checks = door.get("/readyz?verbose").json["checks"]
    assert checks["mongodb"] is checks["redis"] is checks["rescue"] is True
    assert checks["rescue_age_s"] < 5


def test_not_ready_while_redis_is_away(settings):
    engine = Engine(settings.model_copy(update={"redis_url": "redis://127.0.0.1:1"}))
    response = create_app(engine).test_client().get("/readyz")
    engine.close()
    assert response.status_code == 503
    assert json.loads(response.text)["checks"]["redis"] is False
    assert "Retry-After" in response.headers


# -- every request -----------------------------------------------------------------------


def test_a_request_id_is_taken_over_or_made(door):
    assert door.get("/health", headers={"X-Request-ID": "a-1"}).headers["X-Request-ID"] == "a-1"
    for given in ("", "two words", "x" * 129, "<b>"):
        made = door.get("/nowhere", headers={"X-Request-ID": given})
        assert len(made.headers["X-Request-ID"]) == 32
        assert json.loads(made.text)["request_id"] == made.headers["X-Request-ID"]


def test_only_pages_of_the_owners_origins_may_call(door, open_door):
    asking = {
        "Origin": ORIGIN,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type, idempotency-key",
    }
    allowed = door.options("/chat/process", headers=asking)
    assert allowed.status_code == 200
    assert allowed.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert "POST" in allowed.headers["Access-Control-Allow-Methods"]
    assert "idempotency-key" in allowed.headers["Access-Control-Allow-Headers"].lower()
    refused = door.post("/chat/process", json={}, headers={"Origin": ORIGIN})
    assert refused.status_code == 401
    assert refused.headers["Access-Control-Allow-Origin"] == ORIGIN
    for stranger in ("https://evil.example", "https://shop.example.evil", "null"):
        asked = door.options("/chat/process", headers=asking | {"Origin": stranger})
        assert "Access-Control-Allow-Origin" not in asked.headers
    nobody = open_door.options("/chat/process", headers=asking)
    assert "Access-Control-Allow-Origin" not in nobody.headers


def test_answers_read_well_without_a_decoder(door):
    told = door.post("/chat/process", data=rb'{"mensaje":"a","\ud83d":1}', headers=CLIENT | JSON)
    assert told.status_code == 400
    assert list(told.get_json(force=True))[:2] == ["type", "title"]


def test_methods_are_those_of_the_route(door):
    assert door.head("/health").status_code == 200
    assert door.head("/health").text == ""
    assert "GET" in door.options("/health").headers["Allow"]
    for method, path in (("get", "/chat/process"), ("post", "/health"), ("put", "/api/tasks")):
        response = getattr(door, method)(path)
        assert (response.status_code, code(response)) == (405, "method_not_allowed")
        assert response.headers["Allow"]


def test_answers_are_not_kept_and_not_guessed_at(door):
    for path in ("/health", "/nowhere"):
        headers = door.get(path).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "no-store"


# -- its description ---------------------------------------------------------------------


def test_the_description_is_served_and_both_ways_to_chat_are_one(door):
    spec = door.get("/openapi.json").json
    assert spec["openapi"].startswith("3.1")
    one, other = (spec["paths"][path]["post"] for path in ("/chat/process", "/api/chat"))
    assert one.keys() == other.keys()
    assert one["requestBody"] == other["requestBody"]
    assert one["responses"].keys() == other["responses"].keys()


@pytest.mark.parametrize(
    ("path", "who"),
    [
        ("/api/orchestrator/status?verbos", OPERATOR),
        ("/api/tasks/t/timeline?page_size=3", CLIENT),
        ("/api/dead-letters/t?force=1", OPERATOR),
    ],
)
def test_a_query_that_a_route_does_not_have_is_refused(door, path, who):
    response = door.get(path, headers=who)
    assert (response.status_code, code(response)) == (422, "invalid_request")
    name = path.partition("?")[2].partition("=")[0]
    assert response.get_json(force=True)["errors"][0]["parameter"] == name


def test_the_documentation_is_a_page_without_scripts(door):
    page = door.get("/docs")
    assert page.content_type.startswith("text/html")
    for told in ("/chat/process", "sesionId", "ChatReply", "Idempotency-Key"):
        assert told in page.text
    assert "<script" not in page.text
    assert "None" not in page.text
    assert door.get("/openapi.json").json == door.get("/openapi.json").json

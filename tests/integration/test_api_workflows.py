"""Workflows over HTTP: definitions, runs, callbacks; and what is refused."""

import pytest
from flask.testing import FlaskClient
from pydantic import BaseModel, SecretStr

from api.app import create_app
from orchestrator.declarations import Agent
from orchestrator.engine import Engine

TOKEN, KEY = "operator-token-0123456789", "key-of-the-web-0123456789"
OPERATOR = {"Authorization": f"Bearer {TOKEN}"}
CLIENT = {"X-API-Key": KEY}

worker = Agent(role="work", name="Worker", capabilities=["working"], slots=1)


class Anything(BaseModel):
    n: int = 0


@worker.handles("do")
def do(context, asked: Anything):
    return {}


@pytest.fixture
def desk(settings):
    secrets = {"operator_token": SecretStr(TOKEN), "client_keys": SecretStr(f"web:{KEY}")}
    engine = Engine(settings.model_copy(update=secrets))
    engine.init([worker])
    yield engine
    engine.close()


@pytest.fixture
def door(desk) -> FlaskClient:
    client = create_app(desk).test_client()
    client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {TOKEN}"
    return client


FLOW = {
    "id": "flow",
    "needs": ["n"],
    "steps": [
        {"id": "a", "task": "do", "payload": {"n": "=input.n"}},
        {"id": "q", "callback": "approve", "timeout": "2h"},
        {"id": "d", "delay": {"for": "1h"}},
    ],
}
RUNS = "/api/workflows/flow/runs"


def run_to_callback(desk: Engine, door: FlaskClient) -> dict:
    assert door.put("/api/workflows/flow", json=FLOW).status_code == 200
    run = door.post(RUNS, json={"input": {"n": 1}}).json
    found = desk.database["tasks"].find_one({"state": "queued"})
    claim = desk.store.claim(found["_id"], found["fence"], "test")
    desk.coordinator.settle(desk.store.finish(claim, {"ok": True}))
    return door.get(f"/api/workflows/runs/{run['id']}").json


def test_a_definition_is_put_read_and_listed_in_its_versions(door):
    assert door.put("/api/workflows/flow", json=FLOW).json["version"] == 1
    assert door.put("/api/workflows/flow", json=FLOW).json["version"] == 1
    shorter = FLOW | {"steps": FLOW["steps"][:1]}
    assert door.put("/api/workflows/flow", json=shorter).json["version"] == 2
    assert [each["id"] for each in door.get("/api/workflows").json["workflows"]] == ["flow"]
    read = door.get("/api/workflows/flow").json
    assert [each["version"] for each in read["versions"]] == [2, 1]
    assert read["versions"][0]["by"] == "operator"
    assert len(read["definition"]["steps"]) == 1
    assert door.get("/api/workflows/flow?version=1").json["definition"] == FLOW


def test_a_change_is_audited(door, desk):
    door.put("/api/workflows/flow", json=FLOW)
    entry = desk.database["audit"].find_one({"action": "workflow.put"})
    assert (entry["actor"], entry["subject"], entry["outcome"]) == (
        "operator", "flow", {"version": 1},
    )  # fmt: skip


def test_yaml_says_the_line(door):
    text = "id: flow\nsteps:\n  - id: a\n    task: do\n  - id: b\n    condition: 'input.x >'\n"
    answer = door.put("/api/workflows/flow", data=text, content_type="application/yaml")
    assert answer.status_code == 422
    assert answer.json["code"] == "invalid_workflow"
    assert answer.json["errors"][0]["pointer"] == "/steps/1/condition"
    assert answer.json["errors"][0]["line"] == 6
    good = text.replace("input.x >", "input.x > 1")
    assert (
        door.put("/api/workflows/flow", data=good, content_type="application/yaml").status_code
        == 200
    )


DEEP: list = []
for _ in range(30):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"id": "other"}, "/id"),
        ({"steps": []}, "/steps"),
        ({"steps": [{"id": "a", "task": "nope"}]}, "/steps/0/task"),
        ({"steps": [{"id": "a", "task": "do", "next": "gone"}]}, "/steps/0"),
        ({"steps": [{"id": "a"}]}, "/steps/0/task"),
        ({"steps": [{"id": "a", "condition": "(" * 400 + "1"}]}, "/steps/0/condition"),
        ({"steps": [{"id": "a", "condition": "1" + "+1" * 300}]}, "/steps/0/condition"),
        ({"steps": [{"id": "a", "task": "do", "payload": {"x": DEEP}}]}, ""),
        ({"surprise": 1}, "/surprise"),
        ({"on": [{"cron": "now and then"}]}, "/on/0"),
    ],
)
def test_a_definition_that_cannot_run_is_refused_whole(door, desk, change, pointer):
    answer = door.put("/api/workflows/flow", json=FLOW | change)
    assert answer.status_code in (400, 422), answer.json
    if answer.status_code == 422:
        assert any(each["pointer"].startswith(pointer) for each in answer.json["errors"])
    assert desk.database["workflows"].count_documents({}) == 0


def test_a_definition_of_ten_thousand_steps_is_too_large(door, desk):
    steps = [{"id": f"s{n}", "task": "do"} for n in range(10_000)]
    assert door.put("/api/workflows/flow", json=FLOW | {"steps": steps}).status_code == 413
    lines = "".join(f"- {{id: s{n}, task: do}}\n" for n in range(2_400))
    text = f"id: flow\nsteps:\n{lines}"
    answer = door.put("/api/workflows/flow", data=text, content_type="application/yaml")
    assert answer.status_code == 422
    assert "2000" in answer.json["errors"][0]["detail"]


def kept(desk: Engine) -> dict[str, int]:
    """All that a request about workflows could leave behind."""
    names = ("workflows", "runs", "run_events", "run_waits", "tasks", "timers", "audit")
    return {name: desk.database[name].count_documents({}) for name in names}


def step(**keys) -> dict:
    return {"steps": [{"id": "a", **keys}]}


HUGE, WIDE = "1" + "+1" * 300, "input.a.map(x, input.a.map(y, input.a.map(z, z)))"


@pytest.mark.parametrize("expression", [HUGE, "(" * 100 + "1" + ")" * 100, WIDE, "1 +"])
@pytest.mark.parametrize(
    "place",
    [
        lambda e: step(task="do", payload={"n": f"={e}"}),
        lambda e: step(condition=e),
        lambda e: step(switch=[{"when": e, "then": "end"}]),
        lambda e: step(map=e, steps=[{"id": "b", "task": "do"}]),
        lambda e: step(delay={"until": f"={e}"}),
        lambda e: step(callback="x", session=e),
        lambda e: step(callback="x", ask={"task": "do", "payload": {"n": f"={e}"}}),
        lambda e: step(callback="x", call={"url": "https://x.test/", "body": {"n": f"={e}"}}),
        lambda e: step(task="do", compensate={"task": "do", "payload": {"n": f"={e}"}}),
        lambda e: {"output": {"x": f"={e}"}},
        lambda e: {"on": [{"event": "quote_created", "when": e}]},
        lambda e: {"on": [{"cron": "0 9 * * *", "input": {"n": f"={e}"}}]},
    ],
)
def test_no_expression_that_is_huge_deep_or_wrong_is_kept_wherever_it_stands(
    door, desk, place, expression
):
    before = kept(desk)
    answer = door.put("/api/workflows/flow", json=FLOW | place(expression))
    assert answer.status_code == 422, answer.json
    assert answer.json["errors"][0]["pointer"] != ""
    assert kept(desk) == before


def test_a_run_over_what_is_too_long_to_go_over_fails_and_holds_nobody_up(door, desk):
    steps = [{"id": "a", "condition": "input.l.map(x, x).size() > 0"}]
    assert door.put("/api/workflows/flow", json={"id": "flow", "steps": steps}).status_code == 200
    run = door.post(RUNS, json={"input": {"l": [1] * 20_000}})
    assert run.status_code == 202
    assert run.json["state"] == "failed"
    assert run.json["error"]["code"] == "bad_expression"


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/api/workflows/gone/runs", {"input": {}}, 404),
        ("/api/workflows/Not%20A%20Name/runs", {"input": {}}, 404),
        (RUNS, {"input": {"n": 1}, "version": 9}, 404),
        (RUNS, {"input": {"n": 1}, "version": 0}, 422),
        (RUNS, {"input": [1]}, 422),
        (RUNS, {"input": {"n": 1}, "surprise": 1}, 422),
        (RUNS, {"input": {"n": "x" * 70_000}}, 413),
        (RUNS, {}, 422),
    ],
)
def test_what_cannot_be_started_leaves_nothing(door, desk, path, body, status):
    door.put("/api/workflows/flow", json=FLOW)
    before = kept(desk)
    answer = door.post(path, json=body)
    assert answer.status_code in (status, 400 if status == 422 else status), answer.json
    assert kept(desk) == before


def test_a_callback_that_is_not_the_runs_own_is_refused_and_leaves_nothing(door, desk):
    first, second = run_to_callback(desk, door), run_to_callback(desk, door)
    visitor = create_app(desk).test_client()
    runs = "/api/workflows/runs"
    token = first["callbacks"][0]["path"].partition("token=")[2]
    before = kept(desk)
    refused = {
        # A step that there is not, or that is no callback,
        f"{runs}/{first['id']}/callbacks/nobody?token={token}": 404,
        f"{runs}/{first['id']}/callbacks/a?token={token}": 404,
        # another run's token, another visit's, a piece of one, none at all,
        f"{runs}/{second['id']}/callbacks/approve?token={token}": 404,
        f"{runs}/{first['id']}/callbacks/approve?token={token.replace('q:1', 'q:2')}": 404,
        f"{runs}/{first['id']}/callbacks/approve?token={token[:-1]}": 404,
        f"{runs}/{first['id']}/callbacks/approve?token=~": 404,
        f"{runs}/{first['id']}/callbacks/approve?token=%00%F0%9F%92%A9": 404,
        # and a run that there is not.
        f"{runs}/{'0' * 32}/callbacks/approve?token={token}": 404,
    }
    for path, status in refused.items():
        answer = visitor.post(path, json={"yes": True})
        assert answer.status_code in (status, 422), (path, answer.json)
        assert answer.status_code == status or "token" in answer.text
    assert kept(desk) == before
    # Once, and not again, also after the run has ended.
    good = f"{runs}/{first['id']}/callbacks/approve?token={token}"
    assert visitor.post(good, json={"yes": True}).status_code == 200
    assert door.post(f"{runs}/{first['id']}/cancel").json["state"] == "cancelled"
    assert visitor.post(good, json={"yes": False}).status_code == 409
    [event] = desk.database["run_events"].find({"run_id": first["id"]})
    assert event["payload"] == {"yes": True}


def test_a_run_is_started_read_and_listed(door, desk):
    run = run_to_callback(desk, door)
    assert run["state"] == "running"
    steps = {step["step"]: step for step in run["steps"]}
    assert steps["a"]["state"] == "completed"
    assert steps["a"]["result"] == {"ok": True}
    assert steps["a"]["task_id"] == f"{run['id']}.a:1.1"
    assert steps["q"]["state"] == "active"
    assert [each["id"] for each in door.get("/api/workflows/runs?workflow=flow").json["runs"]] == [
        run["id"]
    ]
    assert door.get("/api/workflows/runs?state=completed").json["runs"] == []
    assert door.get("/api/workflows/runs?state=running&workflow=flow").json["runs"]
    assert door.get("/api/workflows/runs?state=bogus").status_code == 422


def test_the_same_key_is_the_same_run(door):
    door.put("/api/workflows/flow", json=FLOW)
    key = {"Idempotency-Key": '"k1"'}
    first = door.post(RUNS, json={"input": {"n": 1}}, headers=key)
    again = door.post(RUNS, json={"input": {"n": 1}}, headers=key)
    assert first.status_code == again.status_code == 202
    assert first.json["id"] == again.json["id"]
    assert first.headers["Location"] == f"/api/workflows/runs/{first.json['id']}"
    assert door.post(RUNS, json={"input": {"n": 2}}, headers=key).status_code == 422


def test_what_cannot_be_started_is_refused(door, desk):
    assert door.post("/api/workflows/gone/runs", json={}).status_code == 404
    door.put("/api/workflows/flow", json=FLOW)
    answer = door.post(RUNS, json={})
    assert answer.status_code == 422
    assert answer.json["errors"][0]["pointer"] == "/input/n"
    assert door.post(RUNS, json={"input": {"n": 1}, "version": 9}).status_code == 404
    assert desk.database["runs"].count_documents({}) == 0


def test_a_callback_needs_its_token_and_counts_once(door, desk):
    run = run_to_callback(desk, door)
    path = run["callbacks"][0]["path"]
    visitor = create_app(desk).test_client()
    bare = path.partition("?")[0]
    assert visitor.post(bare, json={}).status_code == 403
    assert visitor.post(f"{bare}?token=q:1~{'0' * 32}", json={}).status_code == 404
    assert visitor.post(path, json=["yes"]).status_code == 422
    assert visitor.post(path, data="{").status_code == 415
    assert visitor.post(path, json={"yes": True}).status_code == 200
    assert visitor.post(path, json={"yes": False}).status_code == 409
    after = door.get(f"/api/workflows/runs/{run['id']}").json
    assert {step["step"]: step["state"] for step in after["steps"]}["d"] == "active"


def test_an_operator_answers_pauses_resumes_and_cancels(door, desk):
    run = run_to_callback(desk, door)
    path = f"/api/workflows/runs/{run['id']}"
    assert door.post(f"{path}/pause").json["state"] == "paused"
    assert door.post(f"{path}/callbacks/approve", json={}).status_code == 200
    assert door.post(f"{path}/pause").status_code == 409
    assert door.post(f"{path}/resume").json["state"] == "running"
    assert door.post(f"{path}/cancel").json["state"] == "cancelled"
    assert door.post(f"{path}/cancel").status_code == 409
    assert door.post(f"{path}/retry").json["state"] == "running"
    assert door.post("/api/workflows/runs/nope/cancel").status_code == 404


def test_diagrams_are_mermaid_with_the_runs_states_in_colour(door, desk):
    run = run_to_callback(desk, door)
    plain = door.get("/api/workflows/flow/diagram")
    assert plain.mimetype == "text/vnd.mermaid"
    assert plain.text.startswith("flowchart TD\n")
    assert 'a["a<br/>do"]' in plain.text
    drawn = door.get(f"/api/workflows/runs/{run['id']}/diagram").text
    assert "class a completed" in drawn
    assert "class q active" in drawn


def test_a_runs_events_are_streamed_and_resumed(door, desk):
    run = run_to_callback(desk, door)
    path = f"/api/workflows/runs/{run['id']}"
    door.post(f"{path}/cancel")
    stream = door.get(f"{path}/events").text
    names = [line[7:] for line in stream.splitlines() if line.startswith("event: ")]
    assert names == [
        "RUN_STARTED", "STEP_STARTED", "STEP_FINISHED", "STEP_STARTED", "STEP_FINISHED",
        "RUN_ERROR",
    ]  # fmt: skip
    numbers = [int(line[4:]) for line in stream.splitlines() if line.startswith("id: ")]
    assert numbers == sorted(set(numbers))
    rest = door.get(f"{path}/events", headers={"Last-Event-ID": str(numbers[3])}).text
    assert [int(line[4:]) for line in rest.splitlines() if line.startswith("id: ")] == numbers[4:]


def test_workflows_are_the_operators(desk):
    client = create_app(desk).test_client()
    for method, path in (
        ("get", "/api/workflows"),
        ("put", "/api/workflows/flow"),
        ("get", "/api/workflows/flow"),
        ("post", RUNS),
        ("get", "/api/workflows/runs"),
        ("post", f"/api/workflows/runs/{'0' * 32}/cancel"),
    ):
        assert getattr(client, method)(path, json={}).status_code == 401
        assert getattr(client, method)(path, json={}, headers=CLIENT).status_code == 403


def test_the_status_of_the_desk_counts_runs_that_have_not_ended(desk, door):
    assert door.put("/api/workflows/flow", json=FLOW).status_code == 200
    runs = [door.post(RUNS, json={"input": {"n": n}}).json["id"] for n in range(3)]
    assert door.post(f"/api/workflows/runs/{runs[0]}/pause").status_code == 200
    assert door.post(f"/api/workflows/runs/{runs[1]}/cancel").status_code == 200
    told = door.get("/api/orchestrator/status").json["workflows"]
    assert told == {"running": 1, "paused": 1, "compensating": 0}

"""Tasks that came to nothing: seen with every error, run once more without doing twice."""

import contextlib
import datetime as dt
from concurrent.futures import ThreadPoolExecutor

import pytest
from pydantic import BaseModel, SecretStr

from api.app import create_app
from orchestrator import HandOver, TaskError
from orchestrator.context import Writer
from orchestrator.dead_letters import attempts
from orchestrator.declarations import Agent
from orchestrator.engine import Engine
from orchestrator.errors import AlreadyInEffect, NotADeadLetter
from orchestrator.tasks import Request, State, Task, TaskFilter
from orchestrator.worker import AttemptFailed, Runtime, StopRequest

TOKEN = "operator-token-0123456789"
OPERATOR = {"Authorization": f"Bearer {TOKEN}"}


class Work(BaseModel):
    what: str = "fail"
    session_id: str | None = None


agent = Agent(role="probe", name="Probe", capabilities=["probing"], slots=2)
BROKEN: set[str] = set()
DONE: list[str] = []


@agent.handles("work")
def work(context, payload: Work):
    if payload.what in BROKEN:
        raise TaskError("broken", f"{payload.what} is broken.", part=payload.what)
    DONE.append(payload.what)
    return payload.what


@agent.handles("stumble")
def stumble(context, payload: Work):
    raise RuntimeError("a customer's words")


@agent.handles("assemble")
def assemble(context, payload: Work):
    if not context.phase:
        parts = [Request(type="work", payload={"what": what}) for what in ("wheel", "bell")]
        return HandOver(parts, {"kept": 1})
    if not all(child.completed for child in context.children):
        raise TaskError("part_missing", "A part is missing.")
    return [child.result for child in context.children] + [context.memory["kept"]]


@pytest.fixture
def runtime(settings):
    BROKEN.clear()
    DONE.clear()
    runtime = Runtime(
        settings.model_copy(update={"max_failures": 2}),
        [agent],
        "probe@here",
        {"probe_agent": 2},
        StopRequest(),
        watches_consumer=False,
    )
    runtime.engine.init([agent])
    yield runtime
    runtime.engine.close()


@pytest.fixture
def desk(runtime) -> Engine:
    return runtime.engine


def submit(desk: Engine, type: str = "work", what: str = "wheel", **more) -> Task:
    return desk.coordinator.submit(Request(type, {"what": what}, caller="test", **more))[0]


def run(runtime: Runtime, task: Task) -> Task:
    """One attempt, as a worker makes it."""
    now = runtime.engine.store.get(task.id)
    with contextlib.suppress(AttemptFailed):
        runtime.execute(agent, agent.task_types[now.type], now.id, now.fence, alone=False)
    return runtime.engine.store.get(task.id)


def failed(runtime: Runtime, what: str = "wheel", **more) -> Task:
    BROKEN.add(what)
    task = run(runtime, submit(runtime.engine, what=what, **more))
    assert (task.state, task.dead) == (State.FAILED, True)
    return task


def listed(desk: Engine, **wanted) -> list[str]:
    return [task.id for task in desk.dead_letters.page(TaskFilter(**wanted), 50)[0]]


def test_every_attempts_error_is_kept(runtime, desk):
    task = submit(desk, type="stumble")
    task = run(runtime, task)
    desk.store.take_back(desk.store.claim(task.id, task.fence, "lost@there").task, 1)
    while not task.state.final:
        task = run(runtime, task)
    made = attempts(task)
    assert [each["attempt"] for each in made] == [1, 2, 3, 4]
    assert [each["outcome"] for each in made] == ["retried", "taken_back", "retried", "failed"]
    assert [each["error"]["code"] for each in made] == [
        "handler_error",
        "worker_lost",
        "handler_error",
        "handler_error",
    ]
    assert made[0]["error"]["detail"] == "The handler raised RuntimeError."
    assert made[1]["worker"] == "lost@there"
    assert all(each["ended_at"] >= each["started_at"] for each in made)


def test_lists_are_filtered_and_leave_children_to_their_parents(runtime, desk):
    wheel, bell = failed(runtime), failed(runtime, "bell")
    assert set(listed(desk)) == {wheel.id, bell.id}
    assert set(listed(desk, code="broken")) == {wheel.id, bell.id}
    assert listed(desk, code="other") == listed(desk, type="assemble") == []
    assert listed(desk, since=dt.datetime.now(dt.UTC) + dt.timedelta(minutes=1)) == []
    whole = run(runtime, submit(desk, type="assemble"))
    for child_id in whole.child_ids():
        assert run(runtime, desk.store.get(child_id)).state is State.FAILED
    assert set(listed(desk)) == {wheel.id, bell.id}
    assert run(runtime, whole).dead
    assert listed(desk)[0] == whole.id


def test_dead_letters_are_found_by_an_index(desk):
    query = {"dead": True, "_id": {"$gte": "0", "$lt": "z"}}
    plan = desk.database["tasks"].find(query).explain()["queryPlanner"]["winningPlan"]
    assert "list_dead" in str(plan)


def test_a_replay_is_the_same_task_with_its_history(runtime, desk):
    task = failed(runtime, deadline_s=60)
    replayed = desk.dead_letters.replay(task.id, by="operator")
    assert replayed == desk.store.get(task.id)
    assert (replayed.id, replayed.state, replayed.error) == (task.id, State.QUEUED, None)
    assert (replayed.failures, replayed.crashes, replayed.attempts) == (0, 0, 1)
    assert replayed.deadline > task.deadline
    assert "expire_at" not in desk.database["tasks"].find_one({"_id": task.id})
    assert desk.service.queues()["queue_size"] == 2  # the first message is still there
    BROKEN.clear()
    done = run(runtime, task)
    assert (done.state, done.result) == (State.COMPLETED, "wheel")
    assert [event["event"] for event in done.timeline] == [
        "accepted",
        "claimed",
        "failed",
        "replayed",
        "claimed",
        "completed",
    ]
    assert listed(desk) == []


def test_only_dead_letters_are_replayed_and_each_once(runtime, desk):
    for task in (submit(desk, what="fine"), run(runtime, submit(desk, what="fine"))):
        with pytest.raises(NotADeadLetter):
            desk.dead_letters.replay(task.id, by="operator")
    task = failed(runtime)

    def replay(_):
        try:
            return desk.dead_letters.replay(task.id, by="operator")
        except NotADeadLetter:
            return None

    with ThreadPoolExecutor(6) as pool:
        replayed = [each for each in pool.map(replay, range(6)) if each]
    assert len(replayed) == 1
    assert run(runtime, task).dead


def test_a_replay_runs_again_only_the_parts_that_failed(runtime, desk):
    BROKEN.add("bell")
    whole = run(runtime, submit(desk, type="assemble"))
    wheel, bell = whole.child_ids()
    for child_id in (wheel, bell):
        run(runtime, desk.store.get(child_id))
    assert run(runtime, whole).error["code"] == "part_missing"
    BROKEN.clear()
    desk.dead_letters.replay(whole.id, by="operator")
    waiting = run(runtime, whole)
    assert (waiting.state, waiting.child_ids()) == (State.WAITING, [wheel, bell])
    assert desk.store.get(bell).state is State.QUEUED
    run(runtime, desk.store.get(bell))
    whole = run(runtime, whole)
    assert (whole.state, whole.result) == (State.COMPLETED, ["wheel", "bell", 1])
    assert DONE == ["wheel", "bell"]
    assert whole.child_ids() == [wheel, bell]


def test_a_replay_whose_parts_are_gone_asks_for_them_again(runtime, desk):
    BROKEN.add("bell")
    whole = run(runtime, submit(desk, type="assemble"))
    for child_id in whole.child_ids():
        run(runtime, desk.store.get(child_id))
    run(runtime, whole)
    desk.database["tasks"].delete_many({"_id": {"$in": whole.child_ids()}})
    BROKEN.clear()
    desk.dead_letters.replay(whole.id, by="operator")
    assert run(runtime, whole).state is State.WAITING
    for child_id in whole.child_ids():
        run(runtime, desk.store.get(child_id))
    assert run(runtime, whole).state is State.COMPLETED


def test_a_replayed_task_takes_the_last_place_of_its_key(runtime, desk):
    first = failed(runtime, "first", ordering_key="k")
    second = submit(desk, what="second", ordering_key="k")
    third = submit(desk, what="third", ordering_key="k")
    BROKEN.clear()
    replayed = desk.dead_letters.replay(first.id, by="operator")
    assert replayed.state is State.BLOCKED
    fourth = submit(desk, what="fourth", ordering_key="k")
    for task in (second, third, first, fourth):
        assert run(runtime, task).state is State.COMPLETED
    assert DONE == ["second", "third", "first", "fourth"]


def test_a_replayed_task_that_is_still_the_last_keeps_its_place(runtime, desk):
    only = failed(runtime, ordering_key="k")
    assert desk.dead_letters.replay(only.id, by="operator").seq == only.seq
    assert desk.store.get(only.id).state is State.QUEUED


def test_a_message_that_was_answered_is_not_answered_again(runtime, desk):
    desk.sessions.open("s", None, caller="test", channel="web", trusted=False)
    BROKEN.add("hello")
    tasks = [
        desk.coordinator.submit(
            Request(
                "work",
                {"what": "hello", "session_id": "s"},
                caller="test",
                ordering_key="session:s",
            )
        )[0]
        for _ in range(2)
    ]
    answered, unanswered = tasks
    # Its turn is committed, and then it comes to nothing all the same.
    desk.sessions.commit(
        desk.sessions.begin("s", desk.store.get(answered.id)),
        writer=Writer("probe_agent", frozenset()),
        reply={"text": "hi"},
    )
    for task in tasks:
        assert run(runtime, task).dead
    with pytest.raises(AlreadyInEffect):
        desk.dead_letters.replay(answered.id, by="operator")
    assert desk.dead_letters.replay(unanswered.id, by="operator").state is State.QUEUED


def test_many_are_replayed_or_discarded_by_filter_and_it_is_audited(runtime, desk):
    letters = [failed(runtime, what) for what in ("a", "b", "c")]
    stumbled = submit(desk, type="stumble")
    while not run(runtime, stumbled).state.final:
        pass
    told = desk.dead_letters.replay_all(TaskFilter(code="broken"), 2, by="operator")
    assert told == {"done": 2, "refused": [], "more": True}
    told = desk.dead_letters.discard_all(TaskFilter(code="broken"), 100, by="cli:ann")
    assert told == {"done": 1, "refused": [], "more": False}
    assert listed(desk) == [stumbled.id]
    replays = [desk.store.get(each.id).timeline[-1] for each in letters[1:]]
    assert [event["event"] for event in replays] == ["replayed", "replayed"]
    assert replays[0]["at"] <= replays[1]["at"]
    left = desk.store.get(letters[0].id)
    assert (left.state, left.timeline[-1]["event"]) == (State.FAILED, "discarded")
    with pytest.raises(NotADeadLetter):
        desk.dead_letters.replay(left.id, by="operator")
    acts, _ = desk.audit.page(10)
    assert [(act["actor"], act["action"]) for act in acts] == [
        ("operator", "dead_letter.replay"),
        ("cli:ann", "dead_letter.discard_all"),
        ("operator", "dead_letter.replay_all"),
    ]
    assert acts[0]["outcome"] == {"error": "not_a_dead_letter"}
    assert acts[1]["facts"] == {"code": "broken", "limit": 100}


def test_they_are_kept_for_as_long_as_the_settings_say(runtime, desk):
    task = failed(runtime)
    stored = desk.database["tasks"].find_one({"_id": task.id})
    days = desk.settings.dead_letter_retention_days
    assert stored["expire_at"] - stored["finished_at"] == dt.timedelta(days=days)


# -- over HTTP ---------------------------------------------------------------------------


@pytest.mark.parametrize("left", ["replayed", "expired"])
def test_a_place_that_was_left_is_nobodys(runtime, desk, left):
    """A process that has not heard of the key for a while would guess it, and overtake."""
    elsewhere = Engine(desk.settings)
    asked = Request("work", {"what": "wheel"}, caller="test", ordering_key="k")
    run(runtime, elsewhere.coordinator.submit(asked)[0])
    broken = failed(runtime, "broken", ordering_key="k")
    running = submit(desk, what="running", ordering_key="k")
    assert desk.store.claim(running.id, desk.store.get(running.id).fence, "w")
    waiting = submit(desk, what="waiting", ordering_key="k")
    if left == "replayed":
        waiting = desk.dead_letters.replay(broken.id, by="operator")
    else:
        desk.database["tasks"].delete_one({"_id": broken.id})
    newest = elsewhere.coordinator.submit(asked)[0]
    assert newest.seq > desk.store.get(waiting.id).seq
    # Nor where nothing waits, but something runs.
    if left == "expired":
        for task in (waiting, newest):
            desk.coordinator.cancel(task.id)
            desk.database["tasks"].delete_one({"_id": task.id})
        third = Engine(desk.settings)
        third.coordinator._seq_hints.set("k", 1)
        assert third.coordinator.submit(asked)[0].seq > running.seq
        third.close()
    elsewhere.close()


@pytest.fixture
def door(settings, desk):
    engine = Engine(settings.model_copy(update={"operator_token": SecretStr(TOKEN)}))
    yield create_app(engine).test_client()
    engine.close()


def test_an_operator_sees_replays_and_discards_them(runtime, desk, door):
    first, second = failed(runtime, "a"), failed(runtime, "b")
    page = door.get("/api/dead-letters?page_size=1&type=work", headers=OPERATOR).json
    assert [each["id"] for each in page["dead_letters"]] == [second.id]
    assert page["dead_letters"][0]["error"]["code"] == "broken"
    assert "next_page_token" in page
    shown = door.get(f"/api/dead-letters/{first.id}", headers=OPERATOR).json
    assert [each["error"]["detail"] for each in shown["attempts_made"]] == ["a is broken."]
    response = door.post(f"/api/dead-letters/{first.id}/replay", headers=OPERATOR)
    assert (response.status_code, response.json["state"]) == (202, "queued")
    assert response.headers["Location"] == f"/api/tasks/{first.id}"
    response = door.post(f"/api/dead-letters/{second.id}/discard", headers=OPERATOR)
    assert (response.status_code, response.json["state"]) == (200, "failed")
    for path in (f"/api/dead-letters/{first.id}", f"/api/dead-letters/{second.id}"):
        assert door.get(path, headers=OPERATOR).status_code == 409
    third = failed(runtime, "c")
    body = {"since": third.created_at.isoformat(), "limit": 5}
    response = door.post("/api/dead-letters/replay", json=body, headers=OPERATOR)
    assert response.json == {"done": 1, "refused": [], "more": False}


@pytest.mark.parametrize(
    ("body", "at"), [({"limit": 0}, "/limit"), ({"kind": "x"}, "/kind"), ({"since": "x"}, "/since")]
)
def test_what_is_wrong_with_a_filter_is_named(door, body, at):
    response = door.post("/api/dead-letters/discard", json=body, headers=OPERATOR)
    assert response.status_code == 422
    assert response.json["errors"][0]["pointer"] == at


def test_nobody_else_may(door):
    assert door.get("/api/dead-letters").status_code == 401
    assert door.post("/api/dead-letters/replay", json={}).status_code == 401
    assert door.get("/api/dead-letters/none", headers=OPERATOR).status_code == 404

"""Who is let in when there is more to do than can be done in time."""

import pytest
from pydantic import BaseModel, SecretStr

from api.app import create_app
from orchestrator.declarations import Agent
from orchestrator.engine import Engine
from orchestrator.errors import Overloaded
from orchestrator.registry import Heartbeat
from orchestrator.tasks import Priority, Request

TOKEN = "operator-token-0123456789"
OPERATOR = {"Authorization": f"Bearer {TOKEN}"}

agent = Agent(role="probe", name="Probe", capabilities=["nlp", "context_management"], slots=2)


class Message(BaseModel):
    message: str = ""
    session_id: str = ""
    phone: str | None = None
    channel: str = ""


@agent.handles("process_message", public=False)
def process_message(context, payload: Message): ...


@agent.handles("work")
def work(context, payload: Message): ...


@pytest.fixture
def open_desk(settings):
    opened = []

    def desk(**changes: object) -> Engine:
        engine = Engine(
            settings.model_copy(
                update={"operator_token": SecretStr(TOKEN), "max_expected_wait_s": 10.0} | changes
            )
        )
        engine.init([agent])
        opened.append(engine)
        return engine

    yield desk
    for engine in opened:
        engine.close()


def beat(engine: Engine, *, held: int = 0, mean_run_s: float = 1.0) -> None:
    """A worker with two slots says how it is."""
    engine.registry.beat(
        Heartbeat(
            worker="w",
            node="probe@here",
            agents={"probe_agent": 2},
            running={"probe_agent": held},
            mean_run_s=mean_run_s,
        )
    )


def backlog(engine: Engine, n: int, priority: Priority = Priority.NORMAL) -> None:
    for _ in range(n):
        engine.coordinator.submit(Request("work", {}, priority=priority, caller="test"))


def stored(engine: Engine) -> dict[str, int]:
    return {
        name: engine.database[name].estimated_document_count() for name in ("tasks", "sessions")
    }


def check(engine: Engine, priority: Priority) -> None:
    engine.admission.check(Request("work", {}, priority=priority))


def test_past_the_expected_wait_normal_and_low_are_refused_and_nothing_is_stored(open_desk):
    desk = open_desk()
    door = create_app(desk).test_client()
    beat(desk, held=2)
    backlog(desk, 20)  # 22 ahead x 1 s / 2 slots = 11 s
    before = stored(desk)
    for priority in ("normal", "low"):
        body = {"type": "work", "priority": priority}
        response = door.post("/api/tasks", json=body, headers=OPERATOR)
        assert (response.status_code, response.json["code"]) == (503, "overloaded")
        # It is 1 s beyond the limit.
        assert response.headers["Retry-After"] == "1"
        assert response.json["expected_wait_s"] == 11.0
    chat = door.post("/api/chat", json={"message": "hi", "session_id": "s"}, headers=OPERATOR)
    assert (chat.status_code, chat.json["code"]) == (503, "overloaded")
    assert stored(desk) == before
    for priority in ("high", "critical"):
        body = {"type": "work", "priority": priority}
        assert door.post("/api/tasks", json=body, headers=OPERATOR).status_code == 202


def test_what_is_less_urgent_keeps_nobody_out(open_desk):
    desk = open_desk()
    beat(desk, held=2)
    backlog(desk, 30, Priority.LOW)
    check(desk, Priority.NORMAL)
    with pytest.raises(Overloaded):
        check(desk, Priority.LOW)


def test_a_modest_load_keeps_nobody_out(open_desk, settings):
    desk = open_desk(max_expected_wait_s=type(settings)().max_expected_wait_s)
    beat(desk, held=2)
    backlog(desk, 100)
    check(desk, Priority.NORMAL)
    check(desk, Priority.LOW)


def test_without_a_worker_or_without_redis_tasks_wait_inside(open_desk):
    desk = open_desk()
    backlog(desk, 30)
    check(desk, Priority.LOW)
    desk.redis.close()
    lost = open_desk(redis_url="redis://127.0.0.1:1/0")
    check(lost, Priority.LOW)


def test_a_repeated_key_is_answered_whatever_the_load(open_desk):
    desk = open_desk()
    door = create_app(desk).test_client()
    headers = OPERATOR | {"Idempotency-Key": "k"}
    first = door.post("/api/tasks", json={"type": "work"}, headers=headers)
    beat(desk)
    backlog(desk, 30)
    again = door.post("/api/tasks", json={"type": "work"}, headers=headers)
    assert (again.status_code, again.json["id"]) == (202, first.json["id"])


def test_a_full_store_takes_nothing_in_whatever_its_priority(open_desk):
    desk = open_desk(max_unfinished=5)
    for priority in (Priority.LOW, Priority.CRITICAL) * 2:
        check(desk, priority)
        backlog(desk, 1)
    check(desk, Priority.HIGH)
    with pytest.raises(Overloaded) as refused:
        check(desk, Priority.CRITICAL)
    assert refused.value.facts == {"retry_after_s": 30, "max_unfinished": 5}
    # What is there is counted, also by who has let nobody in.
    backlog(desk, 1)
    with pytest.raises(Overloaded):
        check(open_desk(max_unfinished=5), Priority.CRITICAL)


def test_what_follows_from_an_accepted_task_is_not_looked_at(open_desk):
    desk = open_desk(max_unfinished=1)
    backlog(desk, 3)
    assert stored(desk)["tasks"] == 3

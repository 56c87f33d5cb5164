"""The orchestrator agent: one look at the whole desk."""

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel

from agents.orchestrator.agent import agent
from agents.orchestrator.housekeeping import housekeeping
from orchestrator import TaskError
from orchestrator.declarations import Agent
from orchestrator.definitions import check
from orchestrator.registry import Heartbeat
from orchestrator.tasks import Request


class Nothing(BaseModel):
    pass


idler = Agent(role="idler", name="Idler", capabilities=[], slots=2)


@idler.handles("idle")
def idle(context: object, nothing: Nothing) -> None:
    return None


@pytest.fixture
def desk(desk_of: Callable[..., Any]) -> Any:
    desk = desk_of(agent)
    desk.engine.init([idler])
    return desk


def fail(desk: Any, code: str) -> None:
    task, _ = desk.engine.coordinator.submit(Request("idle", {}, caller="test"))
    claim = desk.engine.store.claim(task.id, task.fence, "worker")
    desk.engine.store.fail(claim, {"code": code, "detail": "It cannot be done."})


def test_a_report_tells_how_the_desk_stands(desk: Any) -> None:
    engine = desk.engine
    engine.rescuer("test", eager=True).tick()
    engine.registry.beat(
        Heartbeat(worker="idler@host/1", node="idler@host", agents={"idler_agent": 2})
    )
    engine.coordinator.submit(Request("idle", {}, caller="test"))
    fail(desk, "broken")
    fail(desk, "broken")
    fail(desk, "refused")
    told = desk.ask("housekeeping_report")
    # The report's own task is queued here, since no worker claimed it.
    assert told["tasks"]["queued"] == 2
    assert told["tasks"]["failed"] == 3
    assert told["oldest_queued"].keys() == {
        engine.settings.queue("idler"),
        engine.settings.queue("orchestrator"),
    }
    assert 0 <= told["oldest_queued_s"] < 60
    assert told["workers"] == {"live": 1, "error": 0, "offline": 0}
    assert told["agents_without_worker"] == ["orchestrator_agent"]
    assert told["dead_letters"] == {
        "last_day": 3,
        "by": [
            {"type": "idle", "code": "broken", "count": 2},
            {"type": "idle", "code": "refused", "count": 1},
        ],
    }
    assert 0 <= told["rescue_age_s"] < 60
    queues = {queue["agent_id"]: queue["depth"] for queue in told["queues"]}
    # Four messages of the idler's were published; only a worker would have taken them.
    assert queues == {"idler_agent": 4, "orchestrator_agent": 1}


def test_a_quiet_desk_has_nothing_to_tell(desk: Any) -> None:
    told = housekeeping(desk.engine)
    assert told["oldest_queued_s"] is None
    assert told["oldest_queued"] == {}
    assert told["dead_letters"] == {"last_day": 0, "by": []}
    assert told["rescue_age_s"] is None


def test_counts_with_indexes_are_those_without(desk: Any) -> None:
    fail(desk, "broken")
    desk.engine.coordinator.submit(Request("idle", {}, caller="test"))
    with_indexes = housekeeping(desk.engine)
    desk.engine.database["tasks"].drop_indexes()
    without = housekeeping(desk.engine)
    assert without["dead_letters"] == with_indexes["dead_letters"]
    assert without["tasks"] == with_indexes["tasks"]
    assert without["oldest_queued"].keys() == with_indexes["oldest_queued"].keys()


GREET = {"id": "greet", "needs": ["n"], "steps": [{"id": "d", "delay": {"for": "1h"}}]}


def test_a_workflow_is_started_once_for_each_task(desk_of, engine):
    desk = desk_of(agent)
    engine.definitions.put(check(GREET), "test")
    task = desk.accept("start_workflow", {"workflow": "greet", "input": '{"n": 1}'})
    first, again = desk.run(task), desk.run(task)
    assert first == again
    assert engine.workflows.get(first["run_id"]).run.input == {"n": 1}


@pytest.mark.parametrize(
    "payload",
    [
        {"workflow": "gone"},
        {"workflow": "greet"},
        {"workflow": "greet", "input": "[1]"},
        {"workflow": "greet", "input": "{"},
    ],
)
def test_what_cannot_be_started_says_why(desk_of, engine, payload):
    desk = desk_of(agent)
    engine.definitions.put(check(GREET), "test")
    with pytest.raises(TaskError) as refused:
        desk.ask("start_workflow", payload)
    assert refused.value.task_code == "not_started"


def test_a_webhook_is_not_put_where_nothing_can_be_signed(desk_of):
    with pytest.raises(TaskError) as refused:
        desk_of(agent).run(
            desk_of(agent).engine.coordinator.submit(
                Request("call_out", {"url": "https://example.com/x", "body": "{}"}, caller="test")
            )[0]
        )
    assert refused.value.task_code == "webhooks_off"

"""A process that dies between any two writes of a run: the run ends as if nothing had been."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from pydantic import BaseModel
from pymongo.collection import Collection

from orchestrator.advance import RunState
from orchestrator.declarations import Agent
from orchestrator.definitions import check
from orchestrator.engine import Engine

worker = Agent(role="work", name="Worker", capabilities=["working"], slots=2)


class Number(BaseModel):
    n: int = 0


@worker.handles("add", needs=["working"])
def add(context, asked: Number):
    effects = context.engine.database["effects"]
    effects.update_one({"_id": context.task.id}, {"$setOnInsert": {"n": asked.n}}, upsert=True)
    return {"n": asked.n + 1}


@worker.handles("undo", needs=["working"])
def undo(context, asked: Number):
    return add(context, asked)


INNER = {
    "id": "inner",
    "steps": [{"id": "x", "task": "add", "payload": {"n": "=input.n"}, "result": "got"}],
    "output": {"n": "=data.got.n"},
}
FLOW: dict[str, Any] = {
    "id": "flow",
    "steps": [
        {"id": "a", "task": "add", "payload": {"n": "=input.n"}, "result": "a"},
        {
            "id": "p",
            "parallel": {
                "left": [{"id": "l", "task": "add", "payload": {"n": 10}, "result": "l"}],
                "right": [{"id": "w", "workflow": "inner", "input": {"n": 20}, "result": "w"}],
            },
        },
        {
            "id": "m",
            "map": "[1, 2]",
            "steps": [{"id": "e", "task": "add", "payload": {"n": "=item"}}],
            "result": "m",
        },
        {"id": "q", "callback": "ask", "session": "input.session_id", "result": "said"},
        {
            "id": "z",
            "task": "add",
            "payload": {"n": "=data.a.n + data.l.n + data.w.n + size(data.m) + data.said.n"},
            "result": "z",
        },
    ],
    "output": {"n": "=data.z.n"},
}
GIVEN = {"n": 1, "session_id": "s1"}
TASKS = 6  # a, l, the inner x, two of e, z
WRITES = ("insert_one", "update_one", "update_many", "delete_one", "delete_many", "bulk_write")


class Died(BaseException):
    """The process is gone; nothing of it can be caught."""


@contextmanager
def dying(at: int | None, *, after: bool) -> Iterator[Callable[[], int]]:
    """Die at the n-th write, before or after it; yields how many there were."""
    counted, dead = itertools.count(), []
    seen = [0]
    with pytest.MonkeyPatch.context() as patch:
        for name in WRITES:
            write = getattr(Collection, name)

            def counting(self, *args, _write=write, **more):
                n = next(counted)
                seen[0] = n + 1
                mine = at is not None and n == at and not dead
                if mine and not after:
                    dead.append(n)
                    raise Died
                result = _write(self, *args, **more)
                if mine:
                    dead.append(n)
                    raise Died
                return result

            patch.setattr(Collection, name, counting)
        yield lambda: seen[0]


def step(desk: Engine, workers, ident: list[str]) -> None:
    """All that anybody does for the run, each thing as often as it takes."""
    run_id = desk.workflows.start("flow", GIVEN, caller="test", key="k")[0].id
    ident[:] = [run_id]
    workers.work()
    stored = desk.workflows.get(run_id)
    if desk.workflows.callbacks(stored):
        desk.workflows.message_received("s1", "m1", desk.clock.now(), {"n": 100})
    workers.work()


def play(desk: Engine, workers, rescuer, advance, at: int | None, after: bool) -> int:
    """From nothing to the end, dying once; how many writes it took."""
    ident: list[str] = []
    with dying(at, after=after) as writes:
        for _ in range(12):
            try:
                step(desk, workers, ident)
                if ident and desk.workflows.get(ident[0]).run.state.final:
                    break
                advance(35)
                rescuer.run_once()
            except Died:
                # Another process goes on, once the lease of this one is over.
                advance(35)
        took = writes()
    run = desk.workflows.get(ident[0]).run
    assert run.state is RunState.COMPLETED, (at, after, run.error, run.visits)
    assert run.output == {"n": 2 + 11 + 21 + 2 + 100 + 1}
    tasks = list(desk.database["tasks"].find())
    assert len(tasks) == TASKS, (at, after, [task["_id"] for task in tasks])
    for task in tasks:
        ends = [event["event"] for event in task["timeline"]].count("completed")
        assert (task["state"], ends) == ("completed", 1), (at, after, task["_id"])
    assert desk.database["effects"].count_documents({}) == TASKS
    # What is left to be done for it is done by nobody else than the rescuer.
    advance(35)
    rescuer.run_once()
    assert desk.database["run_waits"].count_documents({}) == 0, (at, after)
    return took


@pytest.fixture
def world(workers, engine: Engine, advance):
    workers_ = workers(worker)
    for definition in (INNER, FLOW):
        engine.definitions.put(check(definition), "test")
    rescuer = engine.rescuer("me", eager=True)
    rescuer.tick()

    def again(at: int | None, after: bool) -> int:
        for name in ("tasks", "runs", "run_events", "run_waits", "effects"):
            engine.database[name].delete_many({})
        return play(engine, workers_, rescuer, advance, at, after)

    return again


@pytest.mark.timeout(400)
def test_a_run_ends_the_same_wherever_its_process_dies(world):
    writes = world(None, False)
    assert writes > 30
    for at in range(writes):
        # Before a write is after the one before it, but for what was left unknown.
        world(at, after=bool(at % 2))

"""Agents' handlers on a real engine, called as a worker calls them."""

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from orchestrator.declarations import Agent
from orchestrator.engine import Engine
from orchestrator.tasks import Request, Task
from orchestrator.worker import TaskContext


@dataclass(frozen=True)
class Desk:
    """One agent of an engine, without a worker."""

    engine: Engine
    agent: Agent

    def accept(self, task_type: str, payload: dict[str, Any] | None = None) -> Task:
        """A task as it is accepted: routed, validated by the declared schema, stored."""
        task, _ = self.engine.coordinator.submit(Request(task_type, payload or {}, caller="test"))
        return task

    def run(self, task: Task) -> Any:
        """One run of the task's handler; nothing of it is stored in the task."""
        declared = self.agent.task_types[task.type]
        payload = declared.payload.model_validate(task.payload)
        return declared.handler(TaskContext(task, self.engine, [], {}), payload)

    def ask(self, task_type: str, payload: dict[str, Any] | None = None) -> Any:
        """Accept a task and run its handler once."""
        return self.run(self.accept(task_type, payload))


@pytest.fixture
def desk_of(engine: Engine) -> Callable[[Agent], Desk]:
    """An agent that is set up and declared on a fresh engine."""

    def desk(agent: Agent) -> Desk:
        engine.init([agent])
        return Desk(engine, agent)

    return desk


@pytest.fixture
def advance(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Move the database's clock and our own together, as time does."""
    ahead = {"s": 0.0}
    read, monotonic = engine.store.read_clock, engine.clock.monotonic
    monkeypatch.setattr(engine.clock, "monotonic", lambda: monotonic() + ahead["s"])
    monkeypatch.setattr(engine.store, "read_clock", lambda: None if ahead["s"] else read())
    engine.clock._base_monotonic = engine.clock.monotonic()
    engine.clock._base = dt.datetime.now(dt.UTC)
    return lambda seconds: ahead.__setitem__("s", ahead["s"] + seconds)

"""Agents' handlers on a real engine, called as a worker calls them."""

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

"""How a process that runs tasks ends, whatever it meets on the way."""

import pytest
from pydantic import BaseModel
from pymongo.errors import OperationFailure

from orchestrator.declarations import Agent
from orchestrator.slots import Attempt
from orchestrator.tasks import Request
from orchestrator.worker import TaskContext

sleeper = Agent(role="sleeper", name="Sleeper", capabilities=["sleep"], slots=1)


class Nothing(BaseModel):
    pass


@sleeper.handles("sleep")
def sleep(context: TaskContext, payload: Nothing) -> None:
    """Never run here."""


class Ended(BaseException):
    """In place of the end of the process."""


@pytest.mark.parametrize("fails", ["retry", "tell_ended"])
def test_a_process_that_was_given_up_ends_also_where_nothing_can_be_handed_back(
    workers, monkeypatch, fails
):
    desk = workers(sleeper)
    runtime, store = desk._runtime, desk.engine.store
    task, _ = desk.engine.coordinator.submit(Request("sleep", {}, caller="test"))
    held = Attempt("sleeper_agent", "sleep", task.id, task.fence + 1, 1.0, 2.0)
    runtime._holds.enter(held, alone=False)
    runtime._holds.claimed(held, store.claim(task.id, task.fence, runtime.worker))

    def refused(*_: object, **__: object) -> None:
        raise OperationFailure("not authorized", 13)

    def ended(status: int) -> None:
        raise Ended(status)

    monkeypatch.setattr(store, fails, refused)
    monkeypatch.setattr("orchestrator.worker.os._exit", ended)
    with pytest.raises(Ended, match="70"):
        runtime._end_process("a handler is stuck", 70)

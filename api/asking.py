"""Routes that have an agent do something, and answer with what came of it.

The front door does nothing itself: it asks by a task, and waits for it for a while.
"""

import contextlib
import time
from typing import Any

from flask import jsonify

from api import chat
from api.promptness import prompt
from orchestrator.engine import Engine
from orchestrator.errors import NoCapableAgent, StoreUnavailable, Unavailable
from orchestrator.tasks import Request, Task


def ended(
    engine: Engine, asked: Request, wait_s: float | None, *, unstaffed: type[Unavailable]
) -> Task:
    """The task of a request, final or not when the wait is over.

    Raises:
        Unavailable: the one that was named, where no agent has declared this.
    """
    began = time.monotonic()
    with prompt(engine):
        try:
            task, _ = engine.coordinator.submit(asked)
        except NoCapableAgent:
            raise unstaffed() from None
    wait_s = engine.settings.chat_wait_s if wait_s is None else wait_s
    # Once accepted it will be done: no 503, or the client would send it again.
    with contextlib.suppress(StoreUnavailable):
        task = engine.replies.wait(task.id, began + wait_s - time.monotonic())
    return task


def accepted(task: Task) -> Any:
    """The answer for a task that is still under way."""
    # A response of its own: the schema is that of what is not there yet.
    response = jsonify({"task_id": task.id, "state": task.state.value})
    response.status_code = 202
    response.headers["Location"] = chat.location(task)
    return response

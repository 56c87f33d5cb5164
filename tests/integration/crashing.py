"""Does one thing to a desk in a process that kills itself at a given write to MongoDB.

`python crashing.py` reads orders, one JSON object a line, and does each in a fork of itself: in
a fresh process, without the cost of starting one. It answers each with how that ended.
"""

import contextlib
import json
import os
import signal
import sys
import traceback
from typing import Any

from pydantic import BaseModel
from pymongo import monitoring

from orchestrator import HandOver, TaskContext, TaskError
from orchestrator.declarations import Agent
from orchestrator.errors import OrchestratorError
from orchestrator.settings import Settings
from orchestrator.tasks import Request
from orchestrator.worker import AttemptFailed, Runtime, StopRequest

WRITES = frozenset({"insert", "update", "delete", "findAndModify"})
PARTS = ("wheel", "bell")

agent = Agent(role="probe", name="Probe", capabilities=["probing"], slots=2)


class Work(BaseModel):
    """`what` names the effect; `fails` has the handler refuse while it is still broken."""

    what: str
    fails: bool = False


def effects_key(settings: Settings) -> str:
    """The Redis list of all effects, in the order in which they took place."""
    return f"{settings.key_prefix}:effects"


@agent.handles("work")
def work(context: TaskContext, payload: Work) -> str:
    """One effect, seen outside."""
    redis, key = context.engine.redis, effects_key(context.engine.settings)
    if payload.fails and not redis.exists(f"{key}:mended"):
        raise TaskError("broken", "It is broken.")
    redis.rpush(key, payload.what)
    return payload.what


@agent.handles("assemble")
def assemble(context: TaskContext, payload: Work) -> Any:
    """Hand parts over, then have an effect of their results."""
    if not context.phase:
        parts = [
            Request("work", {"what": f"{payload.what}/{part}", "fails": payload.fails})
            for part in PARTS
        ]
        return HandOver(parts)
    if not all(child.completed for child in context.children):
        raise TaskError("part_missing", "A part is missing.")
    return work(context, Work(what=payload.what))


def make_runtime(settings: Settings) -> Runtime:
    """What runs tasks, without its threads."""
    slots = {agent.id: agent.slots}
    return Runtime(settings, [agent], "probe@here", slots, StopRequest(), watches_consumer=False)


def execute(runtime: Runtime, task_id: str, fence: int) -> None:
    """As a worker does it with a message."""
    task_type = agent.task_types[runtime.engine.store.get(task_id).type]
    with contextlib.suppress(AttemptFailed):  # a code for Flower; what became of it is stored
        runtime.execute(agent, task_type, task_id, fence, alone=False)


def do(runtime: Runtime, order: dict[str, Any]) -> None:
    """What an order asks for."""
    engine, on = runtime.engine, order.get("task_id", "")
    match order["do"]:
        case "accept":
            engine.coordinator.submit(Request(**order["request"]))
        case "run":
            execute(runtime, on, order["fence"])
        case "cancel":
            engine.coordinator.cancel(on)
        case "replay":
            engine.dead_letters.replay(on, by="operator")
        case "rescue":
            engine.rescuer("crashing", eager=True).tick()


class Killer(monitoring.CommandListener):
    """Ends this process before or after its n-th write."""

    def __init__(self, write: int, when: str) -> None:
        self._point = write, when
        self._writes = 0

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        if event.command_name in WRITES:
            self._writes += 1
            self._pass("before")

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        if event.command_name in WRITES:
            self._pass("after")

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        """The server refused it."""

    def _pass(self, when: str) -> None:
        if (self._writes, when) == self._point:
            os.kill(os.getpid(), signal.SIGKILL)


def fork(order: dict[str, Any]) -> str:
    """Do an order in a process of its own; "killed", "done", or what went wrong."""
    child = os.fork()
    if not child:
        status = 1
        os.dup2(2, 1)  # answers are the parent's alone
        try:
            # Before the client is made: it asks for listeners then.
            monitoring.register(Killer(*order["point"]))
            do(make_runtime(Settings(**order["settings"])), order)
            status = 0
        except OrchestratorError as error:
            print(f"refused: {error.code}", file=sys.stderr)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    _, how = os.waitpid(child, 0)
    if os.WIFSIGNALED(how):
        return "killed" if os.WTERMSIG(how) == signal.SIGKILL else f"signal {os.WTERMSIG(how)}"
    return "done" if os.WEXITSTATUS(how) == 0 else "failed"


if __name__ == "__main__":
    for line in sys.stdin:
        print(fork(json.loads(line)), flush=True)

"""An agent under test: plain work, work that is handed over, that stumbles, that kills."""

import os
import secrets
import signal
import time
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from orchestrator import Agent, HandOver, Request, TaskContext, TaskError
from orchestrator.outbox import Entry, Outcome
from orchestrator.outbox import Sent as Delivered
from torture import witness
from torture.load import BLIND, SURE

agent = Agent(
    role="work",
    name="Works",
    capabilities=["working", f"{SURE}_integration", f"{BLIND}_integration"],
    slots=8,
)

PARTS = 2
SENDING_S = 0.05
TICK_S = 5


class Work(BaseModel):
    """`key` names the effect, `pause_ms` how long the handler takes for it."""

    key: str
    pause_ms: int = 0


class Delivery(BaseModel):
    """Payload of `deliver`, as the outbox makes it."""

    entry_id: str
    round: int


class Nothing(BaseModel):
    """Payload of what beat asks for."""


def begin(context: TaskContext, work: Work) -> None:
    """Tell that a run begins, and take the time that it takes."""
    task = context.task
    witness.began(work.key, task=task.id, phase=context.phase, failures=task.failures)
    time.sleep(work.pause_ms / 1000)


def done(context: TaskContext, work: Work, **payload: Any) -> dict[str, Any]:
    """Have the effect; the result tells which attempt wrote it."""
    witness.effect(work.key, task=context.task.id, **payload)
    return {"key": work.key, "attempt": context.task.attempts}


@agent.handles("plain")
def plain(context: TaskContext, work: Work) -> Any:
    """One effect."""
    begin(context, work)
    return done(context, work)


@agent.handles("part", public=False)
def part(context: TaskContext, work: Work) -> Any:
    """What others hand over."""
    begin(context, work)
    return done(context, work)


@agent.handles("asking")
def asking(context: TaskContext, work: Work) -> Any:
    """Hand over two parts, then have the effect of their results."""
    if context.phase == 0:
        begin(context, work)
        parts = [{"key": f"{work.key}/part{n}", "pause_ms": work.pause_ms} for n in range(PARTS)]
        return HandOver([Request(type="part", payload=each) for each in parts])
    witness.began(work.key, task=context.task.id, phase=context.phase, failures=0)
    return done(context, work, parts=[child.result["key"] for child in context.children])


@agent.handles("stumbling")
def stumbling(context: TaskContext, work: Work) -> Any:
    """Raise on the first run."""
    begin(context, work)
    if context.task.failures == 0:
        raise RuntimeError("as planned")
    return done(context, work)


@agent.handles("refusing")
def refusing(context: TaskContext, work: Work) -> None:
    """Say that it cannot be done."""
    begin(context, work)
    raise TaskError("refused_as_planned", "No.")


@agent.handles("poison")
def poison(context: TaskContext, work: Work) -> None:
    """Kill the process, every time."""
    begin(context, work)
    os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class Out:
    """A way out to the oracle. On the blind one each attempt is an effect of its own."""

    repeats_safely: bool

    def send(self, entry: Entry) -> Outcome:
        """Take some time, as the world does, and send."""
        witness.began(entry.body["key"], task=entry.id, phase=0, failures=0)
        time.sleep(SENDING_S)
        once = {} if self.repeats_safely else {"attempt": secrets.token_hex(4)}
        witness.effect(entry.body["key"], task=entry.id, **once)
        return Delivered(entry.id)


WAYS_OUT = {SURE: Out(repeats_safely=True), BLIND: Out(repeats_safely=False)}


@agent.handles("deliver", public=False)
def deliver(context: TaskContext, wanted: Delivery) -> Any:
    """Send what a commit let go."""
    outbox = context.engine.outbox
    channel = WAYS_OUT[outbox.get(wanted.entry_id).channel]
    return {"state": outbox.deliver(wanted.entry_id, wanted.round, channel).state.value}


@agent.handles("tick")
def tick(context: TaskContext, _: Nothing) -> Any:
    """What beat asks for."""
    return done(context, Work(key=f"tick/{context.task.id}"))


agent.every(TICK_S, "tick")

"""The worker of our side: one agent whose tasks do nothing, at once or for a while."""

import time

from pydantic import BaseModel, Field

from orchestrator import Agent, HandOver, Request, TaskContext, make_app

agent = Agent(role="noop", name="Does nothing", capabilities=["nothing"], slots=8)


class Nothing(BaseModel):
    """Its payload."""


@agent.handles("noop", needs=["nothing"])
def noop(context: TaskContext, payload: Nothing) -> None:
    """Do nothing."""


class Hold(BaseModel):
    """For how long."""

    seconds: float = Field(gt=0, le=600)


@agent.handles("hold", needs=["nothing"])
def hold(context: TaskContext, payload: Hold) -> None:
    """Hold the slot."""
    time.sleep(payload.seconds)


@agent.handles("relay", needs=["nothing"])
def relay(context: TaskContext, payload: Nothing) -> HandOver | None:
    """Hand over one task that does nothing, and go on with its result."""
    return (
        HandOver([Request("noop", {}, priority=context.task.priority)])
        if not context.phase
        else None
    )


app = make_app(agent)

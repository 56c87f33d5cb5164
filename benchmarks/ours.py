"""The worker of our side: one agent whose only task does nothing."""

from pydantic import BaseModel

from orchestrator import Agent, TaskContext, make_app

agent = Agent(role="noop", name="Does nothing", capabilities=["nothing"], slots=8)


class Nothing(BaseModel):
    """Its payload."""


@agent.handles("noop", needs=["nothing"])
def noop(context: TaskContext, payload: Nothing) -> None:
    """Do nothing."""


app = make_app(agent)

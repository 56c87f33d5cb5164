"""An agent for tests: its handlers wait for a file, so that "in the middle" is certain."""

import time
from pathlib import Path

from pydantic import BaseModel

from orchestrator import Agent, TaskContext

agent = Agent(role="holding", name="Holding agent", capabilities=["holding", "answers"], slots=4)

DEADLINE_S = 60.0


class Hold(BaseModel):
    """`journal` gets a line when a run begins and one when it ends; `gate` lets it go on."""

    journal: str
    gate: str
    note: str = ""


def wait_at_the_gate(context: TaskContext, payload: Hold) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not Path(payload.gate).exists() and time.monotonic() < deadline:
        if context.should_stop():
            return
        time.sleep(0.02)


def write(payload: Hold, line: str) -> None:
    with Path(payload.journal).open("a") as journal:
        journal.write(line + "\n")


@agent.handles("hold")
def hold(context: TaskContext, payload: Hold) -> dict[str, object]:
    """Write, wait at the gate, write again."""
    write(payload, f"began {payload.note}")
    wait_at_the_gate(context, payload)
    write(payload, f"ended {payload.note}")
    return {"note": payload.note, "attempts": context.task.attempts}


@agent.handles("answer", needs=["answers"])
def answer(context: TaskContext, payload: Hold) -> dict[str, object]:
    """The other agent that answers; it can be kept busy."""
    wait_at_the_gate(context, payload)
    return {"by": "holding"}

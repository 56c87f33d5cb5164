"""An agent for tests: shares a task type with the holding agent."""

from pydantic import BaseModel

from orchestrator import Agent, TaskContext

agent = Agent(
    role="answering", name="Answering agent", capabilities=["answers", "more", "and more"], slots=4
)


class Question(BaseModel):
    journal: str = ""
    gate: str = ""
    note: str = ""


@agent.handles("answer", needs=["answers"])
def answer(context: TaskContext, payload: Question) -> dict[str, object]:
    """Answer at once."""
    return {"by": "answering"}


@agent.handles("note")
def note(context: TaskContext, payload: Question) -> dict[str, object]:
    """Give back what came."""
    return {"note": payload.note}

"""An agent for tests: hands over, and tells what came back."""

from pydantic import BaseModel

from orchestrator import Agent, HandOver, Request, TaskContext, TaskError

agent = Agent(role="relay", name="Relay agent", capabilities=["relaying"], slots=2)


class Relay(BaseModel):
    notes: list[str] = []
    type: str = "note"


@agent.handles("relay")
def relay(context: TaskContext, payload: Relay) -> object:
    """Ask for one task a note, then collect."""
    if context.phase == 0:
        children = [Request(type=payload.type, payload={"note": note}) for note in payload.notes]
        return HandOver(children, {"asked": len(children)})
    return {
        "memory": context.memory,
        "children": [
            {"state": child.state.value, "result": child.result, "error": child.error}
            for child in context.children
        ],
    }


@agent.handles("refuse")
def refuse(context: TaskContext, payload: Relay) -> None:
    """Cannot be done."""
    raise TaskError("refused_by_test", "No.", reason="test")


@agent.handles("stumble")
def stumble(context: TaskContext, payload: Relay) -> object:
    """Raise on the first two runs."""
    if context.task.failures < 2:
        raise RuntimeError("a customer's words")
    return {"failures": context.task.failures}


@agent.handles("unfit")
def unfit(context: TaskContext, payload: Relay) -> object:
    """Return what cannot be stored."""
    return {"a set": {1, 2}}


@agent.handles("quit")
def leave(context: TaskContext, payload: Relay) -> None:
    """Try to end the process."""
    raise SystemExit(3)


@agent.handles("misfit")
def misfit(context: TaskContext, payload: Relay) -> None:
    """Fail with facts that cannot be stored."""
    raise TaskError("misfit", "No.", total={1, 2})

"""The orchestrator agent: looks after the desk itself. Its workers run the rescuer first."""

from typing import Any

from pydantic import BaseModel, ConfigDict

from agents.orchestrator.housekeeping import housekeeping
from orchestrator import Agent, TaskContext

agent = Agent(
    role="orchestrator",
    name="Orchestrator agent",
    capabilities=[
        "task_distribution",
        "load_balancing",
        "health_monitoring",
        "workflow_orchestration",
    ],
    slots=3,
)


class Nothing(BaseModel):
    """Payload of `housekeeping_report`: there is nothing to say."""

    model_config = ConfigDict(extra="forbid")


@agent.handles("housekeeping_report", needs=["health_monitoring"])
def housekeeping_report(context: TaskContext, _: Nothing) -> dict[str, Any]:
    """The state of tasks, queues and workers (`agents.orchestrator.housekeeping`)."""
    return housekeeping(context.engine)


agent.every(300, "housekeeping_report")

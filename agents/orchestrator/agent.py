"""The orchestrator agent: looks after the desk itself. Its workers run the rescuer first, and
with it the workflow runs and timers that are due."""

import json
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from agents.orchestrator.housekeeping import housekeeping
from agents.stores import stores_of
from orchestrator import Agent, TaskContext, TaskError
from orchestrator.definition_store import START
from orchestrator.errors import Invalid, NotFound
from orchestrator.expressions import BadExpression, filled
from orchestrator.outbox import Outgoing
from orchestrator.workflows import CALL_OUT

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


class WorkflowWanted(BaseModel):
    """Payload of `start_workflow`: which one, and its input as the JSON text of an object; with
    `expressions`, texts in it that begin with "=" are expressions over `now`."""

    model_config = ConfigDict(extra="forbid")

    workflow: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,59}$")]
    input: Annotated[str, Field(max_length=64 * 1024)] = "{}"
    expressions: bool = False


@agent.handles(START, needs=["workflow_orchestration"])
def start_workflow(context: TaskContext, wanted: WorkflowWanted) -> dict[str, Any]:
    """Start a run, once for this task. Returns {run_id, workflow, version}.

    Raises:
        TaskError: `not_started`: there is no such workflow, or the input is not what it needs.
    """
    try:
        given = json.loads(wanted.input)
    except ValueError:
        given = None
    if not isinstance(given, dict):
        raise TaskError("not_started", "The input is not the JSON text of an object.")
    try:
        if wanted.expressions:
            # The same at each run of this task: the key stands for one input.
            given = filled(given, {"now": context.task.created_at})
        stored, _ = context.engine.workflows.start(
            wanted.workflow,
            given,
            caller=context.task.caller,
            trigger=context.task.caller if context.task.caller == "schedule" else "task",
            key=context.task.id,
        )
    except (NotFound, Invalid, BadExpression) as error:
        raise TaskError("not_started", error.detail, because=error.code) from error
    return {"run_id": stored.id, "workflow": stored.workflow, "version": stored.version}


class Call(BaseModel):
    """Payload of `call_out`: a webhook, its body as JSON text."""

    model_config = ConfigDict(extra="forbid")

    url: Annotated[str, Field(pattern=r"^https?://\S+$", max_length=2_000)]
    body: Annotated[str, Field(max_length=64 * 1024)]


# Asked for by workflows only: what leaves is the outbox's, once this task has committed it.
@agent.handles(CALL_OUT, needs=["workflow_orchestration"], public=False)
def call_out(context: TaskContext, call: Call) -> dict[str, Any]:
    """Put a webhook into the outbox, once for this task. Returns {entry_id}.

    Raises:
        TaskError: `webhooks_off`: the settings have no secret to sign with.
    """
    if "webhook" not in stores_of(context.engine).channels:
        raise TaskError("webhooks_off", "N8N_WEBHOOK_SECRET is not set: nothing can be signed.")
    outgoing = Outgoing("webhook", call.url, json.loads(call.body), purpose="event")
    entry = context.engine.outbox.put(context.task, 0, outgoing)
    return {"entry_id": entry.id}


agent.every(300, "housekeeping_report")

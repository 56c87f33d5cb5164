"""Tasks: submit any, read one and why it went where it went, cancel."""

import contextlib
from typing import Any

from apiflask import APIBlueprint
from flask import g, request

from api import chat, pages, schemas
from api.auth import Access, Caller
from api.inputs import idempotency_key
from api.promptness import prompt
from orchestrator.engine import Engine
from orchestrator.errors import NotFound, StoreUnavailable, TaskNotFound
from orchestrator.tasks import Priority, Request, Task

READING = {
    401: "Credentials are missing or unknown.",
    404: "No such task, or none that this caller may see.",
    503: "The task store is unavailable.",
}


def routes(engine: Engine, access: Access) -> APIBlueprint:
    """Everything under `/api/tasks`."""
    tasks = APIBlueprint("tasks", __name__, tag="Tasks")

    def visible(task_id: str, caller: Caller) -> Task:
        with prompt(engine):
            task = engine.store.get(task_id)
        if not caller.may_see(task.caller):
            raise TaskNotFound()
        return task

    def settled(task: Task, wait_s: float | None) -> Task:
        return engine.replies.wait(task.id, wait_s) if wait_s and not task.state.final else task

    @tasks.post("/api/tasks")
    @access.operator
    @tasks.output(schemas.Task, status_code=202, description="Accepted; `Location` names it.")
    @tasks.input(schemas.TaskRequest)
    @tasks.input(schemas.Waiting, location="query")
    @tasks.doc(
        summary="Submit a task",
        responses={
            400: "The body or a header cannot be read.",
            401: "Credentials are missing or unknown.",
            403: "Only the operator may.",
            409: "`request_in_flight`: the request with this Idempotency-Key is under way, and "
            "`Location` names its task.",
            413: "The body is larger than 64 kB.",
            415: "The body is not JSON in UTF-8.",
            422: "Not valid, no agent can do it, or the Idempotency-Key came with another body.",
            503: "`overloaded`: it was not accepted. Else unknown: send it again with the same "
            "key.",
        },
    )
    def submit(caller: Caller, json_data: schemas.TaskRequest, query_data: schemas.Waiting) -> Any:
        """Accept a task durably; with `wait`, answer when it ends or the time is over.

        Also when it has ended meanwhile the status is 202; `state` tells. With an
        `Idempotency-Key` a repetition has no second effect: for 24 h the first answer comes
        again.
        """
        key = idempotency_key(request)
        asked = Request(
            type=json_data.type,
            payload=json_data.payload,
            capabilities=tuple(json_data.capabilities),
            prefers=tuple(json_data.prefers),
            priority=Priority(json_data.priority),
            strategy=json_data.strategy,
            caller=caller.name,
            idempotency_key=key,
            route="tasks",
            deadline_s=json_data.deadline_s,
            request_id=g.request_id,
        )
        with prompt(engine):
            task, created = engine.coordinator.submit(
                asked, public=True, admission=engine.admission
            )
        if key is not None and not created:
            return chat.again(engine, task, lambda: (task_body(task), 202))
        # Once accepted it will be done: no 503, or the client would send it again.
        with contextlib.suppress(StoreUnavailable):
            task = settled(task, query_data.wait)
        body = task_body(task)
        if key is not None and not task.state.final:
            with contextlib.suppress(StoreUnavailable), prompt(engine):
                body = engine.responses.keep(task.id, 202, body).body
        return body, 202, {"Location": chat.location(task)}

    @tasks.get("/api/tasks")
    @access.operator
    @tasks.output(schemas.Tasks, description="A page; `Link` and the token lead to the next.")
    @tasks.input(schemas.TaskQuery, location="query")
    @tasks.doc(
        summary="List tasks",
        responses={
            401: "Credentials are missing or unknown.",
            403: "Only the operator may.",
            503: "The task store is unavailable.",
        },
    )
    def index(caller: Caller, query_data: schemas.TaskQuery) -> Any:
        """Tasks, the newest first, a page at a time."""
        with prompt(engine), pages.positions():
            found, following = engine.store.page(
                query_data.wanted(), query_data.page_size, query_data.position()
            )
        return query_data.answer("tasks", [summary(task) for task in found], following)

    @tasks.get("/api/tasks/<task_id>")
    @access.customer
    @tasks.output(schemas.Task)
    @tasks.input(schemas.Waiting, location="query")
    @tasks.doc(summary="Read a task", responses=READING)
    def read(task_id: str, caller: Caller, query_data: schemas.Waiting) -> Any:
        """A task as it stands, or, with `wait`, as soon as it ends."""
        return task_body(settled(visible(task_id, caller), query_data.wait))

    @tasks.get("/api/tasks/<task_id>/decision")
    @access.customer
    @tasks.output(schemas.Decision)
    @tasks.doc(summary="Why this agent", responses=READING)
    def decision(task_id: str, caller: Caller) -> Any:
        """The router's choice, its candidates and their scores."""
        decided = visible(task_id, caller).decision
        if not decided or "strategy" not in decided:
            # It was erased with its customer's data, or given up before it was routed.
            raise NotFound("No decision is kept of this task")
        return {"task_id": task_id} | decided

    @tasks.get("/api/tasks/<task_id>/timeline")
    @access.customer
    @tasks.output(schemas.Timeline)
    @tasks.doc(summary="What happened to a task", responses=READING)
    def timeline(task_id: str, caller: Caller) -> Any:
        """Every transition of the task, oldest first."""
        return {"task_id": task_id, "events": list(visible(task_id, caller).timeline)}

    @tasks.post("/api/tasks/<task_id>/cancel")
    @access.operator
    @tasks.output(schemas.Task)
    @tasks.doc(
        summary="Cancel a task",
        responses=READING | {403: "Only the operator may.", 409: "It has already ended."},
    )
    def cancel(task_id: str, caller: Caller) -> Any:
        """Cancel a task and what it handed over.

        One that runs ends when its handler returns: it is answered as running, with
        `cancel_requested`.
        """
        with prompt(engine):
            return task_body(engine.coordinator.cancel(task_id))

    return tasks


def summary(task: Task) -> dict[str, Any]:
    """A task as lists show it."""
    return {
        "id": task.id,
        "type": task.type,
        "state": task.state.value,
        "agent": task.agent,
        "priority": task.priority.value,
        "session_id": task.session_id,
        "parent_id": task.parent["id"] if task.parent else None,
        "created_at": task.created_at,
        "started_at": task.started_at,
        "finished_at": task.finished_at,
        "attempts": task.attempts,
        "failures": task.failures,
        "crashes": task.crashes,
        "error_code": (task.error or {}).get("code"),
    }


def task_body(task: Task) -> dict[str, Any]:
    """A task as it is shown: without its payload, which is the customer's text."""
    return {
        "id": task.id,
        "type": task.type,
        "state": task.state.value,
        "agent": task.agent,
        "priority": task.priority.value,
        "created_at": task.created_at,
        "started_at": task.started_at,
        "finished_at": task.finished_at,
        "deadline": task.deadline,
        "cancel_requested": task.cancel,
        "attempts": task.attempts,
        "failures": task.failures,
        "crashes": task.crashes,
        "parent_id": task.parent["id"] if task.parent else None,
        "children": task.child_ids(),
        "result": task.result,
        "error": task.error,
        "reply": chat.reply(task),
    }

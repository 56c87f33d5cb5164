"""Follow-ups: who is written to, scheduled by hand, cancelled; for the operator.

The front door changes nothing itself: it asks the follow-up agent by tasks, and reads what that
agent declares.
"""

from typing import Any

from apiflask import APIBlueprint
from flask import request

from api import followup_schemas as shapes
from api import pages, schemas
from api.asking import accepted, ended
from api.auth import Access, Caller
from api.errors import FollowupGone, FollowupNotFound, FollowupsUnstaffed, TaskFailed
from api.inputs import idempotency_key, pointer
from api.promptness import prompt
from orchestrator.engine import Engine
from orchestrator.errors import Invalid, NotFound
from orchestrator.tasks import Request, State, Task

RESOURCE = "followups"
OPERATING = {
    401: "Credentials are missing or unknown.",
    403: "Only the operator may.",
    503: "The store is unavailable.",
}
ASKING = OPERATING | {
    202: "Accepted, and still under way: read the task that `Location` names.",
    400: "The body or a header cannot be read.",
    413: "The body is larger than 64 kB.",
    415: "The body is not JSON in UTF-8.",
    422: "A field is not valid, or there is no such conversation, or no quote in it.",
    500: "It could not be done.",
    503: "Unknown whether it was accepted: send it again with the same key.",
}
ONE = OPERATING | {404: "No such follow-up."}


def routes(engine: Engine, access: Access) -> APIBlueprint:
    """Everything under `/api/followups`."""
    followups = APIBlueprint("followups", __name__, tag="Follow-ups")

    def stored(followup_id: str) -> dict[str, Any]:
        with prompt(engine):
            try:
                return engine.resources.get(RESOURCE, followup_id)
            except NotFound:
                raise FollowupNotFound() from None

    def done(asked: Request, wait_s: float | None) -> Task:
        task = ended(engine, asked, wait_s, unstaffed=FollowupsUnstaffed)
        if task.state.final and task.state is not State.COMPLETED:
            raise _not_done(task)
        return task

    @followups.get("/api/followups")
    @access.operator
    @followups.output(shapes.Followups, description="A page; `Link` leads to the next.")
    @followups.input(shapes.FollowupQuery, location="query")
    @followups.doc(summary="List follow-ups", security="operator", responses=OPERATING)
    def index(caller: Caller, query_data: shapes.FollowupQuery) -> Any:
        """What is planned, what went out and what came of it, the newest first."""
        with prompt(engine), pages.positions():
            try:
                given = query_data.filters()
                found, following = engine.resources.page(
                    RESOURCE,
                    {name: value for name, value in given.items() if name != "since"},
                    query_data.page_size,
                    query_data.position(),
                    query_data.since,
                )
            except NotFound:  # nobody plans any yet
                found, following = [], None
        return query_data.answer("followups", found, following)

    @followups.post("/api/followups")
    @access.operator
    @followups.output(shapes.Followup, status_code=201, description="The follow-up.")
    @followups.input(shapes.FollowupRequest)
    @followups.input(schemas.Waiting, location="query")
    @followups.doc(summary="Schedule a follow-up", security="operator", responses=ASKING)
    def create(
        caller: Caller, json_data: shapes.FollowupRequest, query_data: schemas.Waiting
    ) -> Any:
        """Write to a customer by hand, now or later. Never after an opt-out or while a person has
        the conversation, only in the business's hours, within the caps.

        An `Idempotency-Key` makes repetitions safe.
        """
        task = done(
            Request(
                type="schedule_followup",
                payload=json_data.model_dump(mode="json") | {"by": caller.name},
                caller=caller.name,
                idempotency_key=idempotency_key(request),
            ),
            query_data.wait,
        )
        if not task.state.final:
            return accepted(task)
        followup_id = task.result["followup_id"]
        return stored(followup_id), 201, {"Location": f"/api/followups/{followup_id}"}

    @followups.get("/api/followups/<followup_id>")
    @access.operator
    @followups.output(shapes.Followup)
    @followups.doc(summary="Read a follow-up", security="operator", responses=ONE)
    def read(followup_id: str, caller: Caller) -> Any:
        """A follow-up as it stands."""
        return stored(followup_id)

    @followups.post("/api/followups/<followup_id>/cancel")
    @access.operator
    @followups.output(shapes.Followup)
    @followups.doc(
        summary="Cancel a follow-up",
        security="operator",
        responses=ONE
        | {
            202: ASKING[202],
            409: "It has gone out, or was skipped; `standing` says so.",
            500: ASKING[500],
            503: ASKING[503],
        },
    )
    def cancel(followup_id: str, caller: Caller) -> Any:
        """Do not send it. Doing it again changes nothing."""
        standing = stored(followup_id)["state"]
        if standing == "planned":
            wanted = {"followup_id": followup_id, "by": caller.name}
            task = done(Request("cancel_followup", wanted, caller=caller.name), None)
            if not task.state.final:
                return accepted(task)
            standing = task.result["state"]
        if standing != "cancelled":
            raise FollowupGone(standing=standing)
        return stored(followup_id)

    return followups


def _not_done(task: Task) -> Exception:
    error = task.error or {}
    match error.get("code"):
        case "session_not_found":
            return _invalid("session_id", "is no conversation")
        case "no_quote":
            return _invalid("message", "is about a quote, and none was made there")
        case "followup_not_found":
            return FollowupNotFound()
    return TaskFailed(
        "The task ended without a result.", task_id=task.id, task_error=error.get("code")
    )


def _invalid(field: str, detail: str) -> Invalid:
    return Invalid(errors=[{"pointer": pointer(field), "detail": detail}])

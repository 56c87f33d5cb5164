"""Workflows: definitions for the operator to change, runs to start, watch and steer."""

import json
from typing import Any

from apiflask import APIBlueprint
from flask import Response, request

from api import pages, schemas
from api.auth import Access, Caller
from api.errors import Forbidden
from api.inputs import MAX_BODY_BYTES, idempotency_key, raw_body, read_body
from api.promptness import prompt
from orchestrator import definitions, diagrams
from orchestrator.advance import RunState
from orchestrator.definitions import Definition
from orchestrator.engine import Engine
from orchestrator.errors import Invalid
from orchestrator.workflows import StoredRun

OPERATING: dict[Any, Any] = {
    401: "Credentials are missing or unknown.",
    403: "Only the operator may.",
    503: "The store is unavailable.",
}
WRITING = OPERATING | {
    400: "The body or a header cannot be read.",
    413: "The body is larger than 64 kB.",
    415: "The body is neither JSON nor YAML in UTF-8.",
    422: "The definition is not valid; each error names its place, and in YAML its line.",
}
STARTING = OPERATING | {
    400: "The body or a header cannot be read.",
    404: "No such workflow.",
    413: "The body is larger than 64 kB.",
    415: "The body is not JSON in UTF-8.",
    422: "The input lacks something, or the Idempotency-Key came with another body.",
    503: "Unknown whether it was started: send it again with the same key.",
}
ONE = OPERATING | {404: "No such workflow."}
RUN = OPERATING | {404: "No such run."}
CHANGING = RUN | {409: "Its state does not allow that."}
YAML = ("application/yaml", "application/x-yaml", "text/yaml")
DIAGRAM = {
    200: {
        "description": "Mermaid text.",
        "content": {"text/vnd.mermaid": {"schema": {"type": "string"}}},
    }
}


def routes(engine: Engine, access: Access) -> APIBlueprint:
    """Everything under `/api/workflows`."""
    workflows = APIBlueprint("workflows", __name__, tag="Workflows")

    @workflows.get("/api/workflows")
    @access.operator
    @workflows.output(schemas.Workflows)
    @workflows.doc(summary="List workflows", responses=OPERATING)
    def index(caller: Caller) -> Any:
        """Every workflow in its newest version."""
        with prompt(engine):
            return {"workflows": [_summary(each) for each in engine.definitions.all()]}

    @workflows.put("/api/workflows/<workflow_id>")
    @access.operator
    @workflows.output(schemas.WorkflowSummary)
    @workflows.doc(summary="Change a workflow", responses=WRITING)
    def put(workflow_id: str, caller: Caller) -> Any:
        """Keep a definition, in JSON or YAML, as the newest version; runs keep theirs.

        One that is as the newest version changes nothing.
        """
        definition = _definition_sent()
        if definition.id != workflow_id:
            detail = "is another id than the path's"
            raise Invalid(errors=[{"pointer": "/id", "detail": detail}])
        if definition.id == "runs":
            raise Invalid(errors=[{"pointer": "/id", "detail": "is the name of the list of runs"}])
        with prompt(engine):
            engine.definitions.check_declared(definition)
            with engine.audit.act(caller.name, "workflow.put", workflow_id) as outcome:
                kept = engine.definitions.put(definition, caller.name)
                outcome["version"] = kept.version
        return _summary(kept)

    @workflows.get("/api/workflows/<workflow_id>")
    @access.operator
    @workflows.output(schemas.WorkflowInFull)
    @workflows.input(schemas.WorkflowQuery, location="query")
    @workflows.doc(summary="Read a workflow", responses=ONE)
    def read(workflow_id: str, caller: Caller, query_data: schemas.WorkflowQuery) -> Any:
        """A definition, and what versions of it there are."""
        with prompt(engine):
            definition = engine.definitions.get(workflow_id, query_data.version)
            versions = engine.definitions.versions(workflow_id)
        return _summary(definition) | {
            "definition": definition.to_document(),
            "versions": versions,
        }

    @workflows.get("/api/workflows/<workflow_id>/diagram")
    @access.operator
    @workflows.input(schemas.WorkflowQuery, location="query")
    @workflows.doc(summary="Draw a workflow", responses=ONE | DIAGRAM)
    def diagram(workflow_id: str, caller: Caller, query_data: schemas.WorkflowQuery) -> Any:
        """The definition as Mermaid text; `/workflows` shows it drawn."""
        with prompt(engine):
            definition = engine.definitions.get(workflow_id, query_data.version)
        return _mermaid(diagrams.of_definition(definition))

    @workflows.post("/api/workflows/<workflow_id>/runs")
    @access.operator
    @workflows.output(schemas.WorkflowRun, status_code=202, description="Started.")
    @workflows.input(schemas.WorkflowStart)
    @workflows.doc(summary="Start a run", responses=STARTING)
    def start(workflow_id: str, caller: Caller, json_data: schemas.WorkflowStart) -> Any:
        """Start a run durably; an `Idempotency-Key` makes repetitions safe."""
        with prompt(engine):
            stored, _ = engine.workflows.start(
                workflow_id,
                json_data.input,
                caller=caller.name,
                key=idempotency_key(request),
                version=json_data.version,
            )
            stored = engine.workflows.get(stored.id)
        return _run(stored), 202, {"Location": f"/api/workflows/runs/{stored.id}"}

    @workflows.get("/api/workflows/runs")
    @access.operator
    @workflows.output(schemas.WorkflowRuns, description="A page; `Link` leads to the next.")
    @workflows.input(schemas.RunQuery, location="query")
    @workflows.doc(summary="List runs", responses=OPERATING)
    def runs(caller: Caller, query_data: schemas.RunQuery) -> Any:
        """Runs, the newest first, a page at a time."""
        with prompt(engine), pages.positions():
            found, following = engine.workflows.page(
                workflow=query_data.workflow,
                state=RunState(query_data.state) if query_data.state else None,
                since=query_data.since,
                limit=query_data.page_size,
                position=query_data.position(),
            )
        return query_data.answer("runs", [_run(each) for each in found], following)

    def in_full(stored: StoredRun) -> dict[str, Any]:
        return _run(stored) | {
            "input": stored.run.input,
            "steps": engine.workflows.steps(stored),
            "callbacks": [
                {"name": name, "path": path} for name, path in engine.workflows.callbacks(stored)
            ],
        }

    @workflows.get("/api/workflows/runs/<run_id>")
    @access.operator
    @workflows.output(schemas.WorkflowRunInFull)
    @workflows.doc(summary="Read a run", responses=RUN)
    def run(run_id: str, caller: Caller) -> Any:
        """A run with the state, times, attempts and result of every step that it came to."""
        with prompt(engine):
            return in_full(engine.workflows.get(run_id))

    @workflows.get("/api/workflows/runs/<run_id>/diagram")
    @access.operator
    @workflows.doc(summary="Draw a run", responses=RUN | DIAGRAM)
    def run_diagram(run_id: str, caller: Caller) -> Any:
        """The run's definition as Mermaid text, each step in the colour of its state."""
        with prompt(engine):
            stored = engine.workflows.get(run_id)
            definition = engine.definitions.get(stored.workflow, stored.version)
        return _mermaid(diagrams.of_run(definition, stored.run.visits))

    def changing(verb: str, summary: str, told: str) -> None:
        change = getattr(engine.workflows, verb)

        @workflows.post(f"/api/workflows/runs/<run_id>/{verb}", endpoint=f"{verb}_run")
        @access.operator
        @workflows.output(schemas.WorkflowRun)
        @workflows.doc(summary=summary, description=told, responses=CHANGING)
        def changed(run_id: str, caller: Caller) -> Any:
            with prompt(engine):
                return _run(change(run_id))

    changing("cancel", "Cancel a run", "Stops what is open, then undoes what completed.")
    changing("pause", "Pause a run", "It takes no further step; what it has begun goes on.")
    changing("resume", "Resume a run", "A paused run goes on.")
    changing("retry", "Retry a run", "A failed or cancelled run goes on from where it stopped.")

    @workflows.post("/api/workflows/runs/<run_id>/callbacks/<name>")
    @access.bearer
    @workflows.output(schemas.CallbackTaken)
    @workflows.input(schemas.CallbackQuery, location="query")
    @workflows.doc(
        summary="Answer a callback",
        description="For whoever was given the URL with its token, and for the operator. The body "
        "is a JSON object, and what the run goes on with. The first answer counts.",
        responses={
            400: "The body cannot be read.",
            401: "Credentials that are not known here.",
            403: "Without a token only the operator may.",
            404: "Nobody waits for it, or the token is not the one for it.",
            409: "It has been answered already.",
            413: "The body is larger than 64 kB.",
            415: "The body is not JSON in UTF-8.",
            422: "The body is no object.",
            503: "Unknown whether it counts: send it again.",
        },
    )
    def answer(run_id: str, name: str, caller: Caller, query_data: schemas.CallbackQuery) -> Any:
        payload = read_body(request)
        if not isinstance(payload, dict):
            raise Invalid(errors=[{"pointer": "", "detail": "must be an object"}])
        with prompt(engine):
            if query_data.token is not None:
                engine.workflows.called_back(run_id, name, query_data.token, payload)
            elif caller.operator:
                engine.workflows.answered_by_operator(run_id, name, payload)
            else:
                raise Forbidden()
        return {"run_id": run_id, "callback": name}

    return workflows


def _definition_sent() -> Definition:
    """The definition in the body, from JSON or from YAML.

    Raises:
        DefinitionInvalid: it is not valid.
        WrongContentType, Malformed, RequestEntityTooLarge: it cannot be read.
    """
    if request.mimetype in YAML:
        return definitions.parse(raw_body(request, MAX_BODY_BYTES), "body")
    return definitions.check(read_body(request), "body")


def _summary(definition: Definition) -> dict[str, Any]:
    workflow = definition.workflow
    return {
        "id": definition.id,
        "version": definition.version,
        "name": workflow.name,
        "description": workflow.description,
        "steps": len(definition.places),
        "needs": workflow.needs,
        "starts": [json.loads(each.model_dump_json(exclude_none=True)) for each in workflow.on],
    }


def _run(stored: StoredRun) -> dict[str, Any]:
    run = stored.run
    return {
        "id": run.id,
        "workflow": stored.workflow,
        "version": stored.version,
        "state": run.state.value,
        "trigger": stored.trigger,
        "parent_id": stored.parent,
        "cancel_requested": run.cancel,
        "error": run.error,
        "output": run.output,
        "created_at": stored.created_at,
        "finished_at": stored.finished_at,
        "due_at": run.due_at,
    }


def _mermaid(text: str) -> Response:
    return Response(text, content_type="text/vnd.mermaid; charset=utf-8")

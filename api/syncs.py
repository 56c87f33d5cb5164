"""Syncs with the business's other systems, and the catalogue's imports; for the operator.

The front door changes nothing itself: it asks the data sync agent by tasks, and reads what that
agent declares.
"""

import re
from typing import Any

from apiflask import APIBlueprint
from flask import request

from api import pages, schemas
from api import sync_schemas as shapes
from api.asking import accepted, ended
from api.auth import Access, Caller
from api.errors import AlreadyDecided, SyncsUnstaffed, TaskFailed
from api.inputs import idempotency_key
from api.promptness import prompt
from orchestrator.engine import Engine
from orchestrator.errors import NotFound
from orchestrator.tasks import Request, State, Task

SYNCS, RUNS, CONFLICTS, IMPORTS = "syncs", "sync_runs", "sync_conflicts", "catalogue_imports"
MAX_SYNCS = 200
VERSION = re.compile(r"[1-9][0-9]{0,8}")
OPERATING: dict[Any, Any] = {
    401: "Credentials are missing or unknown.",
    403: "Only the operator may.",
    503: "The store is unavailable.",
}
ONE = OPERATING | {404: "There is none of this name."}
ASKING = ONE | {
    202: "Accepted, and still under way: read the task that `Location` names.",
    500: "It could not be done.",
    503: "Unknown whether it was accepted: send it again.",
}
TELLING = ASKING | {
    400: "The body or a header cannot be read.",
    413: "The body is larger than 64 kB.",
    415: "The body is not JSON in UTF-8.",
    422: "A field is not valid, or the Idempotency-Key came with another body.",
}
DECIDING = TELLING | {409: "It is decided already."}


def routes(engine: Engine, access: Access) -> APIBlueprint:
    """Everything under `/api/syncs` and `/api/catalogue`."""
    syncs = APIBlueprint("syncs", __name__, tag="Syncs")

    def stored(resource: str, document_id: str) -> dict[str, Any]:
        with prompt(engine):
            return engine.resources.get(resource, document_id)

    def page(
        resource: str, name: str, query: pages.PageQuery, **filters: str
    ) -> tuple[Any, int, dict[str, str]]:
        with prompt(engine), pages.positions():
            try:
                found, following = engine.resources.page(
                    resource, query.filters() | filters, query.page_size, query.position()
                )
            except NotFound:  # nobody syncs yet
                found, following = [], None
        return query.answer(name, found, following)

    def asked(
        caller: Caller, task_type: str, payload: dict[str, Any], wait_s: float | None
    ) -> Task:
        return ended(
            engine,
            Request(
                type=task_type,
                payload=payload,
                caller=caller.name,
                idempotency_key=idempotency_key(request),
            ),
            wait_s,
            unstaffed=SyncsUnstaffed,
        )

    def done(task: Task) -> Any:
        if task.state is State.COMPLETED:
            return task.result
        error = task.error or {}
        match error.get("code"):
            case "not_found" | "no_such_sync" | "version_not_found":
                raise NotFound(error.get("detail"))
            case "already_decided":
                raise AlreadyDecided(error.get("detail"))
        raise TaskFailed(
            "The task ended without a result.", task_id=task.id, task_error=error.get("code")
        )

    def of_sync(name: str, resource: str, document_id: str) -> dict[str, Any]:
        found = stored(resource, document_id)
        if found["sync"] != name:
            raise NotFound()
        return found

    # -- syncs -----------------------------------------------------------------------------

    @syncs.get("/api/syncs")
    @access.operator
    @syncs.output(shapes.SyncList)
    @syncs.doc(summary="List syncs", security="operator", responses=OPERATING)
    def index(caller: Caller) -> Any:
        """The syncs of the settings file, and how their last runs went."""
        with prompt(engine):
            try:
                return {"syncs": engine.resources.all(SYNCS, MAX_SYNCS)}
            except NotFound:
                return {"syncs": []}

    @syncs.get("/api/syncs/<sync>")
    @access.operator
    @syncs.output(shapes.Sync)
    @syncs.doc(summary="Read a sync", security="operator", responses=ONE)
    def read(sync: str, caller: Caller) -> Any:
        """A sync as it stands."""
        return stored(SYNCS, sync)

    @syncs.post("/api/syncs/<sync>/runs")
    @access.operator
    @syncs.output(shapes.SyncRun, description="The run, over.")
    @syncs.input(shapes.SyncStart)
    @syncs.input(schemas.Waiting, location="query")
    @syncs.doc(summary="Run a sync", security="operator", responses=TELLING)
    def run(
        sync: str, caller: Caller, json_data: shapes.SyncStart, query_data: schemas.Waiting
    ) -> Any:
        """Read what is new, decide row by row, write. The run has the task's id; the task's events
        tell how far it is. An `Idempotency-Key` makes repetitions safe."""
        stored(SYNCS, sync)
        task = asked(caller, "run_sync", {"sync": sync} | json_data.model_dump(), query_data.wait)
        if not task.state.final:
            return accepted(task)
        if task.state is not State.COMPLETED:
            try:
                # A run that failed is told as one.
                return stored(RUNS, task.id)
            except NotFound:
                done(task)
        return stored(RUNS, task.id)

    @syncs.get("/api/syncs/<sync>/runs")
    @access.operator
    @syncs.output(shapes.SyncRuns, description="A page; `Link` leads to the next.")
    @syncs.input(shapes.SyncRunQuery, location="query")
    @syncs.doc(summary="List runs of a sync", security="operator", responses=ONE)
    def runs(sync: str, caller: Caller, query_data: shapes.SyncRunQuery) -> Any:
        """Runs, the newest first."""
        stored(SYNCS, sync)
        return page(RUNS, "runs", query_data, sync=sync)

    @syncs.get("/api/syncs/<sync>/runs/<run_id>")
    @access.operator
    @syncs.output(shapes.SyncRun)
    @syncs.doc(summary="Read a run of a sync", security="operator", responses=ONE)
    def read_run(sync: str, run_id: str, caller: Caller) -> Any:
        """A run with its counts so far, and the cells that are wrong."""
        return of_sync(sync, RUNS, run_id)

    @syncs.get("/api/syncs/<sync>/conflicts")
    @access.operator
    @syncs.output(shapes.SyncConflicts, description="A page; `Link` leads to the next.")
    @syncs.input(shapes.SyncConflictQuery, location="query")
    @syncs.doc(summary="List conflicts of a sync", security="operator", responses=ONE)
    def conflicts(sync: str, caller: Caller, query_data: shapes.SyncConflictQuery) -> Any:
        """Rows that both sides changed, the newest first; `state=open` wait for a person."""
        stored(SYNCS, sync)
        return page(CONFLICTS, "conflicts", query_data, sync=sync)

    @syncs.post("/api/syncs/<sync>/conflicts/<conflict_id>/resolve")
    @access.operator
    @syncs.output(shapes.SyncConflict)
    @syncs.input(shapes.SyncConflictDecision)
    @syncs.input(schemas.Waiting, location="query")
    @syncs.doc(summary="Decide a conflict", security="operator", responses=DECIDING)
    def resolve(
        sync: str,
        conflict_id: str,
        caller: Caller,
        json_data: shapes.SyncConflictDecision,
        query_data: schemas.Waiting,
    ) -> Any:
        """Let one side be right; it is written at once."""
        of_sync(sync, CONFLICTS, conflict_id)
        payload = {"conflict_id": conflict_id, "winner": json_data.winner}
        task = asked(caller, "resolve_sync_conflict", payload, query_data.wait)
        if not task.state.final:
            return accepted(task)
        done(task)
        return stored(CONFLICTS, conflict_id)

    # -- the catalogue ---------------------------------------------------------------------

    @syncs.get("/api/catalogue/imports")
    @access.operator
    @syncs.output(shapes.CatalogueImports, description="A page; `Link` leads to the next.")
    @syncs.input(shapes.CatalogueImportQuery, location="query")
    @syncs.doc(summary="List imports", security="operator", responses=OPERATING)
    def imports(caller: Caller, query_data: shapes.CatalogueImportQuery) -> Any:
        """Imports of the catalogue, the newest first; `state=held` wait for a person."""
        return page(IMPORTS, "imports", query_data)

    @syncs.get("/api/catalogue/imports/<import_id>")
    @access.operator
    @syncs.output(shapes.CatalogueImport)
    @syncs.doc(summary="Read an import", security="operator", responses=ONE)
    def read_import(import_id: str, caller: Caller) -> Any:
        """An import, with what it changes and why it waits."""
        return stored(IMPORTS, import_id)

    @syncs.post("/api/catalogue/imports/<import_id>/decide")
    @access.operator
    @syncs.output(shapes.CatalogueImport)
    @syncs.input(shapes.CatalogueImportDecision)
    @syncs.input(schemas.Waiting, location="query")
    @syncs.doc(summary="Decide about an import", security="operator", responses=DECIDING)
    def decide(
        import_id: str,
        caller: Caller,
        json_data: shapes.CatalogueImportDecision,
        query_data: schemas.Waiting,
    ) -> Any:
        """Let a held import go live, onto the catalogue that is in force now, or keep it out."""
        stored(IMPORTS, import_id)
        payload = {"import_id": import_id, "decision": json_data.decision}
        task = asked(caller, "decide_catalogue_import", payload, query_data.wait)
        if not task.state.final:
            return accepted(task)
        done(task)
        return stored(IMPORTS, import_id)

    @syncs.get("/api/catalogue/versions")
    @access.operator
    @syncs.output(shapes.CatalogueVersions)
    @syncs.doc(summary="List versions of the catalogue", security="operator", responses=ASKING)
    def versions(caller: Caller) -> Any:
        """The newest 200 versions, and which is in force."""
        task = asked(caller, "catalogue_versions", {}, None)
        return done(task) if task.state.final else accepted(task)

    @syncs.post("/api/catalogue/versions/<version_number>/restore")
    @access.operator
    @syncs.output(shapes.CatalogueRestored)
    @syncs.input(schemas.Waiting, location="query")
    @syncs.doc(summary="Restore a version", security="operator", responses=TELLING)
    def restore(version_number: str, caller: Caller, query_data: schemas.Waiting) -> Any:
        """Put the catalogue of a version in force again, as a new version: quotes keep theirs. An
        `Idempotency-Key` makes repetitions safe."""
        if not VERSION.fullmatch(version_number):
            raise NotFound("There is no such version.")
        wanted = {"version": int(version_number)}
        task = asked(caller, "restore_catalogue", wanted, query_data.wait)
        return done(task) if task.state.final else accepted(task)

    return syncs

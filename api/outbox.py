"""What leaves the desk, for the operator to see, and to decide where nobody else can."""

from typing import Any

from apiflask import APIBlueprint

from api import pages, schemas
from api.auth import Access, Caller
from api.promptness import prompt
from orchestrator.engine import Engine
from orchestrator.outbox import Entry

OPERATING = {
    401: "Credentials are missing or unknown.",
    403: "Only the operator may.",
    503: "The task store is unavailable.",
}
DECIDING = OPERATING | {
    400: "The body or a header cannot be read.",
    413: "The body is larger than 64 kB.",
    415: "The body is not JSON in UTF-8.",
    422: "A field is not valid.",
}


def routes(engine: Engine, access: Access) -> APIBlueprint:
    """Everything under `/api/outbox`."""
    outbox = APIBlueprint("outbox", __name__, tag="Outbox")

    @outbox.get("/api/outbox")
    @access.operator
    @outbox.output(schemas.OutboxEntries, description="A page; `Link` leads to the next.")
    @outbox.input(schemas.OutboxQuery, location="query")
    @outbox.doc(summary="List what leaves", responses=OPERATING)
    def index(caller: Caller, query_data: schemas.OutboxQuery) -> Any:
        """Entries, the newest first; `state=uncertain` and `state=failed` wait for a person."""
        with prompt(engine), pages.positions():
            found, following = engine.outbox.page(
                query_data.wanted(), query_data.page_size, query_data.position()
            )
        return query_data.answer("entries", [_entry(entry) for entry in found], following)

    @outbox.get("/api/outbox/<entry_id>")
    @access.operator
    @outbox.output(schemas.OutboxEntryInFull)
    @outbox.doc(
        summary="Read an entry",
        responses=OPERATING | {404: "No such entry."},
    )
    def read(entry_id: str, caller: Caller) -> Any:
        """An entry with what it says."""
        with prompt(engine):
            entry = engine.outbox.get(entry_id)
        receipts = (entry.receipt or {}).get("times", {})
        return _entry(entry) | {"body": entry.body, "receipts": receipts}

    @outbox.post("/api/outbox/<entry_id>/resolve")
    @access.operator
    @outbox.output(schemas.OutboxEntry)
    @outbox.input(schemas.OutboxDecision)
    @outbox.doc(
        summary="Decide about an entry",
        responses=DECIDING | {404: "No such entry.", 409: "It is neither failed nor uncertain."},
    )
    def resolve(entry_id: str, caller: Caller, json_data: schemas.OutboxDecision) -> Any:
        """Have an entry that failed or is uncertain sent again, or give it up."""
        with prompt(engine):
            return _entry(engine.outbox.resolve(entry_id, json_data.decision, by=caller.name))

    @outbox.post("/api/outbox/resolve")
    @access.operator
    @outbox.output(schemas.OutboxDecided)
    @outbox.input(schemas.OutboxDecisions)
    @outbox.doc(summary="Decide about many entries", responses=DECIDING)
    def resolve_all(caller: Caller, json_data: schemas.OutboxDecisions) -> Any:
        """Decide about those that the filters find, the newest `limit` of them."""
        return engine.outbox.resolve_all(
            json_data.wanted(), json_data.decision, json_data.limit, by=caller.name
        )

    return outbox


def _entry(entry: Entry) -> dict[str, Any]:
    told = {name: getattr(entry, name) for name in schemas.OutboxEntry.model_fields}
    return told | {"receipt": (entry.receipt or {}).get("status")}

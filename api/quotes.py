"""Quotes: price directly, list, read, download, accept and reject.

The front door prices and changes nothing itself: it asks the quote agent by tasks and waits
for them, and reads what that agent declares. A quote's id cannot be guessed: who holds it, as
a customer does by the link in the reply, may read and answer that one quote.
"""

from collections.abc import Sequence
from typing import Any

from apiflask import APIBlueprint
from flask import Response, request

from api import chat, pages, schemas
from api.asking import accepted, ended
from api.auth import Access, Caller
from api.errors import (
    Erased,
    Forbidden,
    QuoteClosed,
    QuoteNotFound,
    QuotePending,
    QuoteRefused,
    QuotesUnstaffed,
    TaskCancelled,
    TaskFailed,
)
from api.inputs import idempotency_key, pointer
from api.promptness import prompt
from orchestrator.engine import Engine
from orchestrator.errors import Invalid, NotFound
from orchestrator.files import File
from orchestrator.tasks import Request, State, Task, digest

RESOURCE = "quotes"
HOLDING = "Whoever has the id, which cannot be guessed, may: no credentials are needed."
READING: dict[Any, Any] = {
    401: "Credentials that are not known here.",
    404: "No such quote.",
    503: "The store is unavailable.",
}
PDF = {
    200: {
        "description": "The document.",
        "content": {"application/pdf": {"schema": {"type": "string", "contentEncoding": "binary"}}},
    },
    304: "It is the one you have.",
    500: "It could not be made.",
    503: "It is being made: ask again; or the store is unavailable.",
}
ANSWERING = READING | {
    202: "Accepted, and still under way: read the task that `Location` names.",
    409: "It can no longer be answered; `standing` says what it is.",
    410: "The request was made before with this key, and erased since.",
    500: "It could not be done.",
    400: "The `Idempotency-Key` cannot be read.",
    503: "Unknown whether it was accepted: send it again with the same key.",
}


def routes(engine: Engine, access: Access) -> APIBlueprint:
    """Everything under `/api/quotes`."""
    quotes = APIBlueprint("quotes", __name__, tag="Quotes")

    def stored(quote_id: str) -> dict[str, Any]:
        with prompt(engine):
            try:
                return engine.resources.get(RESOURCE, quote_id)
            except NotFound:
                raise QuoteNotFound() from None

    def asked(wanted: Request, wait_s: float | None) -> Task:
        """The task of a request, completed, or under way when the wait is over."""
        task = ended(engine, wanted, wait_s, unstaffed=QuotesUnstaffed)
        if task.state.final and task.state is not State.COMPLETED:
            raise _not_done(task)
        return task

    def own_session(session_id: str, caller: Caller) -> bool:
        try:
            return caller.may_see(engine.sessions.get(session_id).caller)
        except NotFound:
            return False

    @quotes.post("/api/quotes")
    @access.customer
    @quotes.output(schemas.QuoteDetails, status_code=201, description="The quote.")
    @quotes.input(schemas.QuoteRequest)
    @quotes.input(schemas.Waiting, location="query")
    @quotes.doc(
        summary="Price directly",
        responses={
            202: "Accepted, and still under way: read the task that `Location` names.",
            400: "The body or a header cannot be read.",
            401: "Credentials are missing or unknown.",
            410: "The request was made before with this key, and erased since.",
            413: "The body is larger than 64 kB.",
            415: "The body is not JSON in UTF-8.",
            422: "A field is not valid, or there is no price for it; `allowed` says what there is.",
            500: "It could not be done.",
            503: "Unknown whether it was accepted: send it again with the same key.",
        },
    )
    def create(caller: Caller, json_data: schemas.QuoteRequest, query_data: schemas.Waiting) -> Any:
        """Price items by the catalogue in force, and keep the quote.

        With `supersedes` it corrects an earlier quote. An `Idempotency-Key` makes repetitions
        safe.
        """
        wanted = json_data.payload()
        with prompt(engine):
            if json_data.session_id and not own_session(json_data.session_id, caller):
                raise _invalid("session_id", "is no conversation of this caller")
        if json_data.supersedes is not None:
            try:
                stored(json_data.supersedes)
            except QuoteNotFound:
                raise _invalid("supersedes", "is no quote") from None
        task = asked(
            Request(
                type="create_quote",
                payload=wanted,
                caller=caller.name,
                idempotency_key=idempotency_key(request),
            ),
            query_data.wait,
        )
        if not task.state.final:
            return accepted(task)
        return shown(stored(task.id)), 201, {"Location": f"/api/quotes/{task.id}"}

    @quotes.get("/api/quotes")
    @access.customer
    @quotes.output(schemas.Quotes, description="A page; `Link` and the token lead to the next.")
    @quotes.input(schemas.QuoteQuery, location="query")
    @quotes.doc(
        summary="List quotes",
        responses={
            401: "Credentials are missing or unknown.",
            403: "Only the operator may list quotes of all conversations.",
            404: "No such conversation, or none that this caller may see.",
            503: "The store is unavailable.",
        },
    )
    def index(caller: Caller, query_data: schemas.QuoteQuery) -> Any:
        """Quotes, the newest first, a page at a time.

        The operator may list all; others name one of their own conversations.
        """
        session_id = query_data.session_id
        if session_id is None and not caller.operator:
            raise Forbidden("Name one of your own conversations in session_id.")
        given = {"number": query_data.number, "session": session_id, "state": query_data.state}
        with prompt(engine), pages.positions():
            if session_id is not None and not caller.operator:
                session = engine.sessions.get(session_id)
                if not caller.may_see(session.caller):
                    raise NotFound("No such session")
            found, following = engine.resources.page(
                RESOURCE,
                {name: value for name, value in given.items() if value is not None},
                query_data.page_size,
                query_data.position(),
                query_data.since,
            )
        return query_data.answer("quotes", [shown(each) for each in found], following)

    # Before the route of the quote itself, whose id may hold a dot.
    @quotes.get("/api/quotes/<quote_id>.pdf")
    @access.bearer
    @quotes.doc(summary="A quote as PDF", responses=READING | PDF)
    def pdf(quote_id: str, caller: Caller) -> Any:
        """The document to print and to send. No credentials are needed but the id."""
        quote = stored(quote_id)
        file_id = f"{quote_id}.{quote['edition']}"
        with prompt(engine):
            file = engine.files.get(file_id)
        if file is None:
            task = asked(
                Request(
                    type="render_quote",
                    payload={"quote_id": quote_id},
                    caller=caller.name,
                    # Who asks while it is being made waits for the same one.
                    twin=digest(f"render {file_id}"),
                ),
                None,
            )
            if not task.state.final:
                raise QuotePending()
            with prompt(engine):
                file = engine.files.get(task.result["file_id"])
        if file is None:
            raise QuotePending()
        return _download(file)

    @quotes.get("/api/quotes/<quote_id>")
    @access.bearer
    @quotes.output(schemas.QuoteDetails)
    @quotes.doc(summary="Read a quote", description=HOLDING, responses=READING)
    def read(quote_id: str, caller: Caller) -> Any:
        """A quote as it stands. No credentials are needed but the id."""
        return shown(stored(quote_id))

    def answered(quote_id: str, caller: Caller, task_type: str, wait_s: float | None) -> Any:
        key = idempotency_key(request)
        quote = stored(quote_id)
        target = {"accept_quote": "accepted", "reject_quote": "rejected"}[task_type]
        if quote["state"] == target:
            return shown(quote)
        standing = "superseded" if quote["superseded_by"] else quote["state"]
        if standing not in ("draft", "sent"):
            # No task for what cannot be: the id is all that is needed to get here.
            raise QuoteClosed(standing=standing)
        task = asked(
            Request(
                type=task_type,
                payload={"quote_id": quote_id},
                caller=caller.name,
                idempotency_key=key,
                twin=None if key else digest(f"{task_type} {quote_id}"),
            ),
            wait_s,
        )
        return shown(stored(quote_id)) if task.state.final else accepted(task)

    @quotes.post("/api/quotes/<quote_id>/accept")
    @access.bearer
    @quotes.output(schemas.QuoteDetails)
    @quotes.input(schemas.Waiting, location="query")
    @quotes.doc(summary="Accept a quote", responses=ANSWERING)
    def accept(quote_id: str, caller: Caller, query_data: schemas.Waiting) -> Any:
        """The customer takes it. Doing it again changes nothing. The id is all it needs."""
        return answered(quote_id, caller, "accept_quote", query_data.wait)

    @quotes.post("/api/quotes/<quote_id>/reject")
    @access.bearer
    @quotes.output(schemas.QuoteDetails)
    @quotes.input(schemas.Waiting, location="query")
    @quotes.doc(summary="Reject a quote", responses=ANSWERING)
    def reject(quote_id: str, caller: Caller, query_data: schemas.Waiting) -> Any:
        """The customer does not take it. Doing it again changes nothing. The id is all it
        needs."""
        return answered(quote_id, caller, "reject_quote", query_data.wait)

    return quotes


def shown(quote: dict[str, Any]) -> dict[str, Any]:
    """A stored quote as it is shown."""
    return quote | {"session_id": quote["session"], "pdf": chat.pdf_path(quote["id"])}


def _download(file: File) -> Any:
    response = Response(file.content, content_type=file.content_type)
    response.headers["Content-Disposition"] = f'inline; filename="{file.name}"'
    # It may be kept, and must be asked about: a name may have been added since.
    response.headers["Cache-Control"] = "private, no-cache"
    response.set_etag(file.etag)
    return response.make_conditional(request)


def _not_done(task: Task) -> Exception:
    error = task.error or {}
    facts = error.get("facts") or {}
    match error.get("code"):
        case "quote_refused":
            return QuoteRefused(errors=[_problem(each) for each in facts["problems"]])
        case "quote_closed":
            return QuoteClosed(standing=facts["standing"])
        case "quote_not_found":
            return QuoteNotFound()
        case Erased.code:
            return Erased(task_id=task.id)
    kind = TaskCancelled if task.state is State.CANCELLED else TaskFailed
    return kind("The task ended without a result.", task_id=task.id, task_error=error.get("code"))


def _problem(problem: dict[str, Any]) -> dict[str, Any]:
    """A reason of the quote agent's why there is no price, for the one who sent the body."""
    allowed = problem["allowed"]
    return {
        "pointer": pointer(*problem["field"].split(".")),
        "detail": _reason(problem["code"], allowed),
        "allowed": allowed,
    }


def _reason(code: str, allowed: Sequence[Any]) -> str:
    listed = ", ".join(map(str, allowed))
    reasons = {
        "missing": "is missing",
        "unknown": f"is not known here; there are: {listed}",
        "not_made": f"is not made; there are: {listed}",
        "out_of_range": f"must be more than 0 and at most {listed}",
        "too_precise": f"may have at most {listed} decimals",
        "too_many": f"may be at most {listed}",
        "too_small": f"so little costs less than {listed}",
        "conflict": f"cannot be given together with: {listed}",
    }
    return reasons.get(code, f"is not possible ({code}); possible: {listed}")


def _invalid(field: str, detail: str) -> Invalid:
    return Invalid(errors=[{"pointer": pointer(field), "detail": detail}])

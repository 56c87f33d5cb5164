"""Errors as RFC 9457 problem documents: the only place that knows a code's HTTP status.

A problem names facts about the request; it never repeats a customer's text, and says
nothing of the inside of an unexpected error.
"""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from apiflask import APIFlask
from flask import Response, g, json, request
from werkzeug.exceptions import HTTPException

from orchestrator.errors import (
    Conflict,
    Invalid,
    KeyBusy,
    NotFound,
    OrchestratorError,
    Overloaded,
    TooManyWaiting,
    Unavailable,
)
from orchestrator.logs import log, where

PROBLEM_TYPE = "urn:agent-orchestrator:problem:"
ERRORS_SHOWN = 20


class Malformed(OrchestratorError):
    """The request cannot be read: broken JSON, a header of the wrong form."""

    code = "malformed_request"
    title = "The request cannot be read"


class WrongContentType(OrchestratorError):
    """The body is not JSON in UTF-8, or is compressed."""

    code = "unsupported_content_type"
    title = "Send JSON in UTF-8 with Content-Type: application/json"


class Unauthenticated(OrchestratorError):
    """Credentials are missing, or are not known here."""

    code = "unauthenticated"
    title = "Credentials are needed"


class Forbidden(OrchestratorError):
    """The caller is known, and may not do this."""

    code = "forbidden"
    title = "This caller may not do this"


class ChatUnstaffed(Unavailable):
    """No agent that answers customers has been declared yet; nothing was stored."""

    code = "chat_unstaffed"
    title = "Nobody is there yet to answer"


class QuotesUnstaffed(Unavailable):
    """No agent that makes quotes has been declared yet; nothing was stored."""

    code = "quotes_unstaffed"
    title = "Nobody is there yet to make quotes"


class QuotePending(Unavailable):
    """What was asked of a quote is under way; it was accepted, and asking again is harmless."""

    code = "quote_pending"
    title = "This takes a moment longer"


class ReportsUnstaffed(Unavailable):
    """No agent that makes reports has been declared yet; nothing was stored."""

    code = "reports_unstaffed"
    title = "Nobody is there yet to make reports"


class ReportPending(Unavailable):
    """The file of a report is being made; asking again is harmless."""

    code = "report_pending"
    title = "This takes a moment longer"


class QuoteRefused(Invalid):
    """The catalogue has no price for what was asked.

    Facts: `errors`, each with `pointer`, `detail`, and `allowed`, what is possible instead.
    """

    code = "quote_refused"
    title = "There is no price for this"


class QuoteNotFound(NotFound):
    """No such quote, or none that this caller may see."""

    code = "quote_not_found"
    title = "No such quote"


class QuoteClosed(Conflict):
    """The quote can no longer be accepted or rejected; its fact `standing` says what it is:
    accepted, rejected, expired or superseded."""

    code = "quote_closed"
    title = "This quote can no longer be answered"


class FollowupsUnstaffed(Unavailable):
    """No agent that writes to customers has been declared yet; nothing was stored."""

    code = "followups_unstaffed"
    title = "Nobody is there yet to follow up"


class FollowupNotFound(NotFound):
    """No such follow-up."""

    code = "followup_not_found"
    title = "No such follow-up"


class FollowupGone(Conflict):
    """The follow-up can no longer be cancelled; its fact `standing` says what it is: sent, done
    or skipped."""

    code = "followup_gone"
    title = "This follow-up can no longer be cancelled"


class SyncsUnstaffed(Unavailable):
    """No agent that syncs has been declared yet; nothing was stored."""

    code = "syncs_unstaffed"
    title = "Nobody is there yet to sync"


class AlreadyDecided(Conflict):
    """A person, or a rule, has decided about this before."""

    code = "already_decided"
    title = "This is decided already"


class TooManyStreams(Unavailable):
    """As many event streams are open as this front door keeps."""

    code = "too_many_streams"
    title = "Too many event streams are open"


class RequestInFlight(Conflict):
    """The key came with a request that is under way. Facts: `task_id`, `location`."""

    code = "request_in_flight"
    title = "The request with this Idempotency-Key is still under way"


class NotReady(Unavailable):
    """A dependency is away, or nobody rescues tasks."""

    code = "not_ready"
    title = "Not ready"


class TaskFailed(OrchestratorError):
    """A chat message's task ended without a reply, and will not run again by itself."""

    code = "task_failed"
    title = "The message could not be answered"


class TaskCancelled(TaskFailed):
    """A chat message's task was cancelled, or its deadline passed."""

    code = "task_cancelled"
    title = "The message was cancelled before it was answered"


class Erased(OrchestratorError):
    """What came of the request was erased with all that was kept of its customer."""

    code = "erased"
    title = "What came of this request was erased with its customer's data"


# The first of an error's classes that is named here decides; what is not named is a 500.
STATUS: dict[type[OrchestratorError], int] = {
    Malformed: 400,
    Unauthenticated: 401,
    Forbidden: 403,
    NotFound: 404,
    Conflict: 409,
    Erased: 410,
    WrongContentType: 415,
    Invalid: 422,
    TooManyWaiting: 429,
    Overloaded: 503,
    TaskFailed: 500,
    Unavailable: 503,
}
BUSY_RETRY_AFTER_S = 1
RETRY_AFTER_S = {429: 5, 503: 2}
# Werkzeug's own errors: names that are ours to keep stable.
# Of a request that is no HTTP, or none that is read here.
UNREADABLE = "unreadable_request"
HTTP_CODES = {413: "body_too_large", 415: WrongContentType.code, 500: "internal_error"}


def status_of(error: OrchestratorError) -> int:
    """The HTTP status of an error."""
    return next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 500)


def problem(
    status: int, code: str, title: str, detail: str, facts: Mapping[str, Any] | None = None
) -> Response:
    """A problem document for the current request; `facts` become members of it."""
    members = dict(facts or {})
    if "errors" in members:
        members["errors"] = members["errors"][:ERRORS_SHOWN]
    body = {
        "type": PROBLEM_TYPE + code,
        "title": title,
        "status": status,
        "detail": detail,
        "instance": quote(request.path),
        "code": code,
        "request_id": g.get("request_id"),
    }
    body |= {name: fact for name, fact in members.items() if name not in body}
    response = Response(json.dumps(body), status, content_type="application/problem+json")
    if status in RETRY_AFTER_S:
        # Where it can be told, it is; else soon.
        retry_after_s = members.get("retry_after_s", RETRY_AFTER_S[status])
        response.headers["Retry-After"] = str(retry_after_s)
    if status == 401:
        response.headers["WWW-Authenticate"] = 'Bearer realm="agent-orchestrator"'
    return response


def register(app: APIFlask) -> None:
    """Let every error of `app` leave as a problem document."""
    app.register_error_handler(OrchestratorError, _ours)
    app.register_error_handler(HTTPException, _http)
    app.register_error_handler(Exception, _unexpected)


def _ours(error: OrchestratorError) -> Response:
    status = status_of(error)
    if status >= 500:
        log.warning("http.refused", code=error.code, status=status)
    response = problem(status, error.code, error.title, error.detail, error.facts)
    if isinstance(error, RequestInFlight | KeyBusy):
        response.headers["Retry-After"] = str(BUSY_RETRY_AFTER_S)
    if isinstance(error, RequestInFlight):
        response.headers["Location"] = error.facts["location"]
    return response


def _http(error: HTTPException) -> Response | HTTPException:
    if error.code is None or error.code < 400:
        return error  # a redirect, or a response that was raised
    code = HTTP_CODES.get(error.code) or re.sub(r"\W+", "_", error.name.lower())
    response = problem(error.code, code, error.name, error.description or error.name)
    if error.code == 405:
        response.headers["Allow"] = ", ".join(sorted(getattr(error, "valid_methods", None) or ()))
    return response


def _unexpected(error: Exception) -> Response:
    # Without the exception's message: that may quote a customer.
    name, trace = type(error).__name__, error.__traceback__
    log.error("http.unexpected", error=name, where=where(trace))
    return problem(
        500,
        "internal_error",
        "Something went wrong",
        "An unexpected error; its request_id finds it in the log.",
    )

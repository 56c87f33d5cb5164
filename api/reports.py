"""Reports: have one made, list, read, download; who is told of the regular ones.

The front door makes nothing itself: it asks the analytics agent by tasks and waits for them, and
reads what that agent declares.
"""

from typing import Any

from apiflask import APIBlueprint
from flask import Response, request

from api import pages, schemas
from api import report_schemas as shapes
from api.asking import accepted, ended
from api.auth import Access, Caller
from api.errors import ReportPending, ReportsUnstaffed, TaskFailed
from api.inputs import idempotency_key
from api.promptness import prompt
from orchestrator.engine import Engine
from orchestrator.errors import Invalid, NotFound
from orchestrator.files import File
from orchestrator.tasks import Request, State, Task, digest

# A page stands alone; what got into it as markup could not run.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'"
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
    422: "A field is not valid.",
    500: "It could not be done.",
    503: "Unknown whether it was accepted: send it again with the same key.",
}
MAX_SUBSCRIPTIONS = 100


def routes(engine: Engine, access: Access) -> APIBlueprint:
    """Everything under `/api/reports`, and `/api/alerts`; for the operator."""
    reports = APIBlueprint("reports", __name__, tag="Reports")

    def asked(wanted: Request, wait_s: float | None = None) -> Task:
        """The task of a request, completed, or under way when the wait is over."""
        task = ended(engine, wanted, wait_s, unstaffed=ReportsUnstaffed)
        if task.state.final and task.state is not State.COMPLETED:
            raise _not_done(task)
        return task

    def stored(report_id: str) -> dict[str, Any]:
        with prompt(engine):
            try:
                return engine.resources.get("report", report_id)
            except NotFound:
                raise NotFound("No such report") from None

    @reports.get("/api/reports")
    @access.operator
    @reports.output(shapes.ReportList, description="A page; `Link` leads to the next.")
    @reports.input(shapes.ReportQuery, location="query")
    @reports.doc(summary="List reports", responses=OPERATING)
    def index(caller: Caller, query_data: shapes.ReportQuery) -> Any:
        """Reports that were made, the newest first, a page at a time."""
        given = {} if query_data.kind is None else {"kind": query_data.kind}
        with prompt(engine), pages.positions():
            try:
                found, following = engine.resources.page(
                    "reports", given, query_data.page_size, query_data.position(), query_data.since
                )
            except NotFound:  # nobody makes any yet
                found, following = [], None
        return query_data.answer("reports", found, following)

    @reports.post("/api/reports")
    @access.operator
    @reports.output(shapes.Report, status_code=201, description="The report.")
    @reports.input(shapes.ReportRequest)
    @reports.input(schemas.Waiting, location="query")
    @reports.doc(summary="Have a report made", responses=ASKING)
    def create(caller: Caller, json_data: shapes.ReportRequest, query_data: schemas.Waiting) -> Any:
        """Count up to now, and make a report of a day, a week, or a time of at most 366 days."""
        task = asked(
            Request(
                type="make_report",
                payload=json_data.payload(),
                caller=caller.name,
                idempotency_key=idempotency_key(request),
            ),
            query_data.wait,
        )
        if not task.state.final:
            return accepted(task)
        return shown(stored(task.id)), 201, {"Location": f"/api/reports/{task.id}"}

    @reports.get("/api/reports/subscriptions")
    @access.operator
    @reports.output(shapes.Subscriptions)
    @reports.doc(summary="Who is told", responses=OPERATING)
    def subscriptions(caller: Caller) -> Any:
        """Who is told of reports and alerts, the newest subscription first."""
        return {"subscriptions": _subscriptions(engine)}

    @reports.post("/api/reports/subscriptions")
    @access.operator
    @reports.output(shapes.Subscription, status_code=201, description="The subscription.")
    @reports.input(shapes.SubscriptionRequest)
    @reports.doc(
        summary="Let somebody be told",
        responses=ASKING | {404: "It was asked for with this key before, and removed since."},
    )
    def subscribe(caller: Caller, json_data: shapes.SubscriptionRequest) -> Any:
        """Send reports or alerts by webhook (signed as Standard Webhooks), n8n or WhatsApp.

        The same once more is the same subscription.
        """
        key = idempotency_key(request)
        task = asked(
            Request(
                type="subscribe_report",
                payload=json_data.model_dump(mode="json"),
                caller=caller.name,
                idempotency_key=key,
            )
        )
        if not task.state.final:
            return accepted(task)
        with prompt(engine):
            kept = engine.resources.get("report_subscriptions", task.result["subscription_id"])
        return kept, 201, {"Location": "/api/reports/subscriptions"}

    @reports.post("/api/reports/subscriptions/<subscription_id>/remove")
    @access.operator
    @reports.output(shapes.Unsubscribed)
    @reports.doc(
        summary="Tell somebody no more",
        responses=OPERATING | {202: ASKING[202], 500: ASKING[500], 503: ASKING[503]},
    )
    def unsubscribe(subscription_id: str, caller: Caller) -> Any:
        """End a subscription; to end it again changes nothing."""
        if not subscription_id.isascii() or len(subscription_id) > 200:
            return {"removed": False}
        task = asked(
            Request(
                type="unsubscribe_report",
                payload={"subscription_id": subscription_id},
                caller=caller.name,
            )
        )
        return task.result if task.state.final else accepted(task)

    def rendered(report_id: str, caller: Caller, form: str, language: str) -> Any:
        stored(report_id)
        file_id = f"{report_id}.{form}" if form == "csv" else f"{report_id}.{language}.{form}"
        with prompt(engine):
            file = engine.files.get(file_id)
        if file is None:
            task = asked(
                Request(
                    type="render_report",
                    payload={"report_id": report_id, "format": form, "language": language},
                    caller=caller.name,
                    # Who asks while it is being made waits for the same one.
                    twin=digest(f"render {file_id}"),
                )
            )
            if not task.state.final:
                raise ReportPending()
            with prompt(engine):
                file = engine.files.get(file_id)
        if file is None:
            raise ReportPending()
        return _download(file)

    # Before the route of the report itself, whose id may hold a dot.
    @reports.get("/api/reports/<report_id>.html")
    @access.operator
    @reports.input(shapes.ReportLanguage, location="query")
    @reports.doc(summary="A report as a page", responses=_file("text/html"))
    def html(report_id: str, caller: Caller, query_data: shapes.ReportLanguage) -> Any:
        """With charts, and without any script."""
        return rendered(report_id, caller, "html", query_data.language)

    @reports.get("/api/reports/<report_id>.pdf")
    @access.operator
    @reports.input(shapes.ReportLanguage, location="query")
    @reports.doc(summary="A report as PDF", responses=_file("application/pdf"))
    def pdf(report_id: str, caller: Caller, query_data: shapes.ReportLanguage) -> Any:
        """To print and to send."""
        return rendered(report_id, caller, "pdf", query_data.language)

    @reports.get("/api/reports/<report_id>.csv")
    @access.operator
    @reports.doc(summary="A report's figures as CSV", responses=_file("text/csv"))
    def csv(report_id: str, caller: Caller) -> Any:
        """A line for each figure: date, measure, dimension, part, unit, value."""
        return rendered(report_id, caller, "csv", "es")

    @reports.get("/api/reports/<report_id>")
    @access.operator
    @reports.output(shapes.Report)
    @reports.doc(summary="Read a report", responses=OPERATING | {404: "No such report."})
    def read(report_id: str, caller: Caller) -> Any:
        """All figures of a report, and what they say."""
        return shown(stored(report_id))

    @reports.get("/api/alerts")
    @access.operator
    @reports.output(shapes.AlertList, description="A page; `Link` leads to the next.")
    @reports.input(shapes.AlertQuery, location="query")
    @reports.doc(summary="List alerts", responses=OPERATING)
    def alerts(caller: Caller, query_data: shapes.AlertQuery) -> Any:
        """Numbers that were not what they usually are, the newest first; `state=open` still."""
        given = {"state": query_data.state, "watch": query_data.watch}
        with prompt(engine), pages.positions():
            try:
                found, following = engine.resources.page(
                    "alerts",
                    {name: value for name, value in given.items() if value is not None},
                    query_data.page_size,
                    query_data.position(),
                    query_data.since,
                )
            except NotFound:  # nobody watches yet
                found, following = [], None
        return query_data.answer("alerts", found, following)

    return reports


def shown(report: dict[str, Any]) -> dict[str, Any]:
    """A stored report as it is shown."""
    at = f"/api/reports/{report['id']}"
    return report | {"page": f"{at}.html", "pdf": f"{at}.pdf", "csv": f"{at}.csv"}


def _subscriptions(engine: Engine) -> list[dict[str, Any]]:
    with prompt(engine):
        try:
            return engine.resources.page("report_subscriptions", {}, MAX_SUBSCRIPTIONS)[0]
        except NotFound:  # nobody keeps any yet
            return []


def _file(media_type: str) -> dict[int, Any]:
    schema = {"type": "string", "contentEncoding": "binary"}
    return OPERATING | {
        200: {"description": "The document.", "content": {media_type: {"schema": schema}}},
        304: "It is the one you have.",
        404: "No such report.",
        500: "It could not be made.",
        503: "It is being made: ask again; or the store is unavailable.",
    }


def _download(file: File) -> Any:
    response = Response(file.content, content_type=file.content_type)
    response.headers["Content-Disposition"] = f'inline; filename="{file.name}"'
    response.headers["Content-Security-Policy"] = POLICY
    response.headers["Cache-Control"] = "private, no-cache"
    response.set_etag(file.etag)
    return response.make_conditional(request)


def _not_done(task: Task) -> Exception:
    error = task.error or {}
    match error.get("code"):
        case "report_period":
            detail = "must have begun, and be at most 366 days before until"
            return Invalid(errors=[{"pointer": "/since", "detail": detail}])
        case "report_not_found":
            return NotFound("No such report")
        case "too_many_subscriptions":
            detail = f"there are {MAX_SUBSCRIPTIONS} subscriptions: remove one first"
            return Invalid(errors=[{"pointer": "", "detail": detail}])
    return TaskFailed(
        "The task ended without a result.", task_id=task.id, task_error=error.get("code")
    )

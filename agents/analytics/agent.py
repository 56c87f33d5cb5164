"""The analytics agent: counts what happened, and tells the business's owner how it goes."""

import datetime as dt
from typing import Annotated, Any, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from agents.analytics.alerts import RESOURCE as ALERTS
from agents.analytics.desk import AlertEvent, desk_of
from agents.analytics.reports import RESOURCES, Format, Kind, Subscription, Wants, set_timers
from agents.catalogue import Language
from agents.stores import prepare
from orchestrator import Agent, TaskContext, TaskError
from orchestrator.declarations import Holding
from orchestrator.engine import Engine
from orchestrator.phones import e164


def open_books(engine: Engine) -> None:
    """Stores and their indexes, and the times of the regular reports."""
    prepare(engine)
    desk_of(engine).ensure_indexes()
    set_timers(engine.timers, engine.settings)


agent = Agent(
    role="analytics",
    name="Analytics agent",
    capabilities=[
        "data_analysis",
        "report_generation",
        "performance_metrics",
        "anomaly_detection",
        "insights",
    ],
    slots=3,
    setup=open_books,
    resources=(*RESOURCES, ALERTS),
    # Who subscribes with a phone is a person, too.
    holdings=[Holding("report_subscriptions", phone="recipient")],
)

LONGEST = dt.timedelta(days=366)


class Period(BaseModel):
    """Payload of `period_report`: from `since` to before `until`, both with their zone; at
    most 366 days. Both count from the hour that they are in."""

    model_config = ConfigDict(extra="forbid")

    since: AwareDatetime
    until: AwareDatetime

    @model_validator(mode="after")
    def _forward(self) -> Self:
        if not dt.timedelta(0) < self.until - self.since <= LONGEST:
            raise ValueError(f"until must be after since, by at most {LONGEST.days} days")
        return self


class ReportWanted(BaseModel):
    """Payload of `make_report`: the last whole day or week of the business, or a time of one's
    own (`asked`), of which what is still to come is left out."""

    model_config = ConfigDict(extra="forbid")

    kind: Kind = "asked"
    since: AwareDatetime | None = None
    until: AwareDatetime | None = None

    @model_validator(mode="after")
    def _one_time(self) -> Self:
        given = (self.since is not None, self.until is not None)
        if self.kind != "asked" and any(given):
            raise ValueError("a daily or weekly report has its own time")
        if self.kind == "asked" and self.since is None:
            raise ValueError("since is missing")
        if self.since is not None and self.until is not None:
            Period(since=self.since, until=self.until)
        return self


class RenderWanted(BaseModel):
    """Payload of `render_report`."""

    model_config = ConfigDict(extra="forbid")

    report_id: Annotated[str, Field(min_length=1, max_length=200)]
    format: Format
    language: Language = "es"


class SubscriptionWanted(BaseModel):
    """Payload of `subscribe_report`. The recipient is a URL of a webhook, a phone of WhatsApp,
    and nothing for n8n, whose address is in the settings."""

    model_config = ConfigDict(extra="forbid")

    wants: Wants
    channel: Literal["webhook", "n8n", "whatsapp"]
    recipient: Annotated[str, Field(max_length=500)] = ""
    language: Language = "es"

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        match self.channel:
            case "webhook":
                if not self.recipient.startswith(("https://", "http://")):
                    raise ValueError("recipient must be a URL")
            case "whatsapp":
                try:
                    self.recipient = e164(self.recipient)
                except ValueError as error:
                    raise ValueError(f"recipient {error}") from None
            case "n8n":
                self.recipient = "reports"
        return self


class SubscriptionNamed(BaseModel):
    """Payload of `unsubscribe_report`."""

    model_config = ConfigDict(extra="forbid")

    subscription_id: Annotated[str, Field(min_length=1, max_length=200)]


class AlertNamed(BaseModel):
    """Payload of `tell_alert`."""

    model_config = ConfigDict(extra="forbid")

    alert_id: Annotated[str, Field(min_length=1, max_length=200)]
    event: AlertEvent


class Nothing(BaseModel):
    """Payload of what needs none."""

    model_config = ConfigDict(extra="forbid")


@agent.handles("roll_up", needs=["data_analysis"])
def roll_up(context: TaskContext, payload: Nothing) -> dict[str, Any]:
    """Count what has happened since the last time, and judge the hours that have ended. Returns
    {hours, conversations, quotes, judged}: how many were worked out anew, and judged."""
    return dict(desk_of(context.engine).keep_up())


@agent.handles("period_report", needs=["report_generation", "performance_metrics"])
def period_report(context: TaskContext, period: Period) -> dict[str, Any]:
    """The figures of a period (`figures.figures`), counted up to this moment; not kept."""
    return desk_of(context.engine).figures_of(period.since, period.until)


@agent.handles("make_report", needs=["report_generation", "insights"])
def make_report(context: TaskContext, wanted: ReportWanted) -> dict[str, Any]:
    """Make a report and keep it; a regular one is told to who subscribes to it. Returns
    {report_id, kind, since, until, insights: how many, told: to how many}.

    Raises:
        TaskError: `report_period`, the time has not begun yet, or is too long.
    """
    desk = desk_of(context.engine)
    began = context.task.created_at
    since, until = wanted.since, wanted.until
    if since is None:
        since, until = desk.period_of(wanted.kind, began)
    until = min(until or began, began)
    if not dt.timedelta(0) < until - since <= LONGEST:
        raise TaskError(
            "report_period",
            f"A report is of a time that has begun, of at most {LONGEST.days} days.",
        )
    report, told = desk.make_report(context.task, wanted.kind, since, until)
    return {
        "report_id": report["_id"],
        "kind": report["kind"],
        "since": report["figures"]["since"],
        "until": report["figures"]["until"],
        "insights": len(report["insights"]),
        "told": told,
    }


@agent.handles("render_report", needs=["report_generation"])
def render_report(context: TaskContext, wanted: RenderWanted) -> dict[str, Any]:
    """Make a report's page, PDF or CSV, and keep it. Returns {file_id}.

    Raises:
        TaskError: `report_not_found`.
    """
    file_id = desk_of(context.engine).render(wanted.report_id, wanted.format, wanted.language)
    if file_id is None:
        raise TaskError("report_not_found", "There is no such report.")
    return {"file_id": file_id}


# Asked for by the front door for the operator: where reports go is not everybody's to say.
@agent.handles("subscribe_report", needs=["report_generation"], public=False)
def subscribe_report(context: TaskContext, wanted: SubscriptionWanted) -> dict[str, Any]:
    """Let reports or alerts be sent; who has subscribed already has one subscription still.
    Returns {subscription_id}.

    Raises:
        TaskError: `too_many_subscriptions`.
    """
    new = Subscription(id=context.task.id, **wanted.model_dump())
    kept = desk_of(context.engine).reports.subscribe(new)
    if kept is None:
        raise TaskError("too_many_subscriptions", "Remove one first.")
    return {"subscription_id": kept.id}


@agent.handles("unsubscribe_report", needs=["report_generation"], public=False)
def unsubscribe_report(context: TaskContext, named: SubscriptionNamed) -> dict[str, Any]:
    """End a subscription. Returns {removed: whether there was one}."""
    removed = desk_of(context.engine).reports.unsubscribe(named.subscription_id)
    return {"removed": removed}


# Asked for by `roll_up`, once for each event of an alert.
@agent.handles("tell_alert", needs=["anomaly_detection"], public=False)
def tell_alert(context: TaskContext, named: AlertNamed) -> dict[str, Any]:
    """Tell who subscribes to alerts that one has begun, or is over. Returns {told: to how many}."""
    desk = desk_of(context.engine)
    return {"told": desk.tell_alert(context.task, named.alert_id, named.event)}


agent.every(60, "roll_up")

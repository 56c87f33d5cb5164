"""The analytics agent: counts what happened."""

import datetime as dt
from typing import Any, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, model_validator

from agents.analytics.desk import desk_of
from agents.stores import prepare
from orchestrator import Agent, TaskContext
from orchestrator.engine import Engine


def open_books(engine: Engine) -> None:
    """Stores and their indexes."""
    prepare(engine)
    desk_of(engine).ensure_indexes()


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


class Nothing(BaseModel):
    """Payload of what needs none."""

    model_config = ConfigDict(extra="forbid")


@agent.handles("roll_up", needs=["data_analysis"])
def roll_up(context: TaskContext, payload: Nothing) -> dict[str, Any]:
    """Count what has happened since the last time. Returns {hours, conversations, quotes}: how
    many were worked out anew."""
    return dict(desk_of(context.engine).keep_up())


@agent.handles("period_report", needs=["report_generation", "performance_metrics"])
def period_report(context: TaskContext, period: Period) -> dict[str, Any]:
    """The figures of a period (`figures.figures`), counted up to this moment; not kept."""
    return desk_of(context.engine).figures_of(period.since, period.until)


agent.every(60, "roll_up")

"""The analytics agent: counts what happened."""

import datetime as dt
from typing import Any, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, model_validator

from agents.analytics.measures import (
    messages_of,
    quotes_of,
    session_counts,
    task_groups,
    tasks_by_type,
)
from agents.stores import prepare, stores_of
from orchestrator import Agent, TaskContext

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
    setup=prepare,
)

LONGEST = dt.timedelta(days=366)


class Period(BaseModel):
    """Payload of `period_report`: from `since` to before `until`, both with their zone; at
    most 366 days."""

    model_config = ConfigDict(extra="forbid")

    since: AwareDatetime
    until: AwareDatetime

    @model_validator(mode="after")
    def _forward(self) -> Self:
        if not dt.timedelta(0) < self.until - self.since <= LONGEST:
            raise ValueError(f"until must be after since, by at most {LONGEST.days} days")
        return self


@agent.handles("period_report", needs=["report_generation", "performance_metrics"])
def period_report(context: TaskContext, period: Period) -> dict[str, Any]:
    """Count messages, sessions, quotes and tasks of a period (`agents.analytics.measures`).

    Returns {since, until, messages, sessions, quotes, tasks}.
    """
    database = context.engine.database
    by_type = tasks_by_type(task_groups(database, period.since, period.until))
    return {
        "since": period.since.isoformat(),
        "until": period.until.isoformat(),
        "messages": messages_of(by_type),
        "sessions": session_counts(database, period.since, period.until),
        "quotes": quotes_of(stores_of(context.engine).quotes.sums(period.since, period.until)),
        "tasks": by_type,
    }

"""What happened in a period, counted from the store.

Every count is an aggregation over a range that an index serves: tasks by their ids, which
begin with the time of acceptance, quotes by `created_at`. A measure:

    messages   `process_message` tasks accepted in the period, by state
    sessions   ordering keys of those messages: `active` ones, and `new` ones, whose first
               message (seq 1) is among them
    tasks      accepted in the period, by type and state; `run_ms` is the time from the last
               claim to the end of those that completed, mean and 95th percentile
    quotes     made in the period, by their state now, and their value per currency
"""

import datetime as dt
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from pymongo.database import Database

from agents.quotes import QuoteState, QuoteSum
from orchestrator.tasks import State, id_at, store_errors

Document = dict[str, Any]
MESSAGE = "process_message"


def task_groups(
    database: Database[Document], since: dt.datetime, until: dt.datetime
) -> list[Document]:
    """Tasks accepted from `since` to before `until`, by type and state:
    [{type, state, count, mean_ms, p95_ms}]; the times are null where none has ended.

    Raises:
        StoreUnavailable: MongoDB does not answer.
    """
    # A date minus a date is wrong on the embedded server.
    run_ms = {
        "$dateDiff": {"startDate": "$started_at", "endDate": "$finished_at", "unit": "millisecond"}
    }
    with store_errors():
        groups = database["tasks"].aggregate(
            [
                {"$match": _accepted(since, until)},
                {
                    "$group": {
                        "_id": {"type": "$type", "state": "$state"},
                        "count": {"$sum": 1},
                        "mean_ms": {"$avg": run_ms},
                        "p95_ms": {
                            "$percentile": {"input": run_ms, "p": [0.95], "method": "approximate"}
                        },
                    }
                },
            ]
        )
        return [
            {
                **group["_id"],
                "count": group["count"],
                "mean_ms": group["mean_ms"],
                "p95_ms": group["p95_ms"][0],
            }
            for group in groups
        ]


def session_counts(
    database: Database[Document], since: dt.datetime, until: dt.datetime
) -> Document:
    """{active, new}: sessions with a message accepted in the period, and with their first.

    Raises:
        StoreUnavailable: MongoDB does not answer.
    """
    with store_errors():
        groups = list(
            database["tasks"].aggregate(
                [
                    {"$match": _accepted(since, until)},
                    {"$match": {"type": MESSAGE}},
                    {"$group": {"_id": "$key", "first": {"$min": "$seq"}}},
                    {
                        "$group": {
                            "_id": None,
                            "active": {"$sum": 1},
                            "new": {"$sum": {"$cond": [{"$eq": ["$first", 1]}, 1, 0]}},
                        }
                    },
                ]
            )
        )
    counted = groups[0] if groups else {"active": 0, "new": 0}
    return {"active": counted["active"], "new": counted["new"]}


def tasks_by_type(groups: Iterable[Document]) -> Document:
    """`task_groups` as {type: {total, by_state: {state: n}, run_ms: {mean, p95} | null}}; pure."""
    types: dict[str, Document] = {}
    for group in sorted(groups, key=lambda each: (each["type"], each["state"])):
        kind = types.setdefault(group["type"], {"total": 0, "by_state": {}, "run_ms": None})
        kind["total"] += group["count"]
        kind["by_state"][group["state"]] = group["count"]
        if group["state"] == State.COMPLETED.value and group["mean_ms"] is not None:
            kind["run_ms"] = {
                "mean": round(float(group["mean_ms"]), 1),
                "p95": round(float(group["p95_ms"]), 1),
            }
    return types


def messages_of(by_type: Document) -> Document:
    """The messages among `tasks_by_type`: {total, by_state}; pure."""
    kind = by_type.get(MESSAGE, {"total": 0, "by_state": {}})
    return {"total": kind["total"], "by_state": kind["by_state"]}


def quotes_of(sums: Iterable[QuoteSum]) -> Document:
    """{total, by_state: {state: n}, value: {currency: {total, by_state}}}; pure. Money as
    strings of Decimals."""
    by_state: dict[str, int] = {}
    values: dict[str, dict[QuoteState, Decimal]] = {}
    for each in sums:
        by_state[each.state.value] = by_state.get(each.state.value, 0) + each.count
        values.setdefault(each.currency, {})[each.state] = each.total
    return {
        "total": sum(by_state.values()),
        "by_state": by_state,
        "value": {
            currency: {
                "total": str(sum(totals.values(), Decimal(0))),
                "by_state": {state.value: str(total) for state, total in totals.items()},
            }
            for currency, totals in values.items()
        },
    }


def _accepted(since: dt.datetime, until: dt.datetime) -> Document:
    return {"_id": {"$gte": id_at(since), "$lt": id_at(until)}}

"""What an operator wants to know of the whole desk at a glance. Reads only."""

import datetime as dt
from typing import Any

from orchestrator.engine import Engine
from orchestrator.errors import BrokerUnavailable
from orchestrator.tasks import State, id_at, store_errors

Document = dict[str, Any]
DEAD_LETTERS_OF = dt.timedelta(days=1)


def housekeeping(engine: Engine) -> Document:
    """The desk as it stands, as JSON:

        {at, tasks: {state: n}, oldest_queued_s, oldest_queued: {queue: s},
         queues: as `Service.queues` tells them, null without Redis,
         workers: {live, error, offline}, agents_without_worker: [agent id],
         dead_letters: {last_day, by: [{type, code, count}]} of what was accepted in it,
         rescue_age_s: since the rescuer last showed itself, null if it never did}

    Raises:
        StoreUnavailable: MongoDB does not answer.
    """
    now = engine.clock.now()
    oldest = _oldest_queued_s(engine, now)
    agents = engine.service.agents()
    statuses = [worker["status"] for agent in agents for worker in agent["workers"]]
    rescue_age_s = engine.service.rescue_age_s()
    return {
        "at": now.isoformat(),
        "tasks": {state.value: n for state, n in engine.store.counts().items()},
        "oldest_queued_s": max(oldest.values(), default=None),
        "oldest_queued": oldest,
        "queues": _queues(engine),
        "workers": {
            "live": sum(status in ("idle", "busy") for status in statuses),
            "error": statuses.count("error"),
            "offline": statuses.count("offline"),
        },
        "agents_without_worker": [
            agent["agent_id"] for agent in agents if agent["status"] == "offline"
        ],
        "dead_letters": _dead_letters(engine, now - DEAD_LETTERS_OF),
        "rescue_age_s": None if rescue_age_s is None else round(rescue_age_s, 1),
    }


def _queues(engine: Engine) -> list[Document] | None:
    try:
        queues: list[Document] = engine.service.queues()["queues"]
    except BrokerUnavailable:
        return None
    return queues


def _oldest_queued_s(engine: Engine, now: dt.datetime) -> dict[str, float]:
    """Queue -> how long its oldest queued task has been ready."""
    with store_errors():
        groups = engine.database["tasks"].aggregate(
            [
                {"$match": {"state": State.QUEUED.value}},
                {"$group": {"_id": "$queue", "oldest": {"$min": "$queued_at"}}},
            ]
        )
        return {group["_id"]: round((now - group["oldest"]).total_seconds(), 1) for group in groups}


def _dead_letters(engine: Engine, since: dt.datetime) -> Document:
    with store_errors():
        groups = engine.database["tasks"].aggregate(
            [
                {"$match": {"state": State.FAILED.value, "_id": {"$gte": id_at(since)}}},
                {
                    "$group": {
                        "_id": {"type": "$type", "code": "$error.code"},
                        "count": {"$sum": 1},
                    }
                },
            ]
        )
        found = [{**group["_id"], "count": group["count"]} for group in groups]
    found.sort(key=lambda each: (-each["count"], each["type"]))
    return {"last_day": sum(each["count"] for each in found), "by": found}

"""How long a year takes: to count its hours, and to report it.

A year of tasks is written into the store as the front door and the workers leave them, then
every hour is counted anew, as after a loss of all numbers. The yardstick for the counting is
MongoDB's own grouping of the same tasks by type and state, which comes to four numbers.
"""

import datetime as dt
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pymongo import MongoClient

from agents.analytics.desk import desk_of
from agents.analytics.rollup import HOUR, hours_between
from agents.business import load_business
from agents.catalogue import load_catalogue
from agents.stores import prepare
from orchestrator.engine import Engine
from orchestrator.settings import Settings
from orchestrator.tasks import id_at

BATCH = 500
Document = dict[str, Any]


@dataclass(frozen=True)
class Year:
    """A year of so many messages: seconds to count its hours, to group its tasks, to report it,
    and to make page and PDF of the report."""

    messages: int
    count_s: float
    group_s: float
    report_s: float
    render_s: float

    @property
    def counted_per_s(self) -> float:
        """Messages counted in a second."""
        return self.messages / self.count_s


def year(messages: int, days: int, mongo_url: str, redis_url: str) -> Year:
    """Measure a year, or some days, of so many messages, on fresh collections."""
    settings = Settings(
        mongodb_uri=mongo_url,
        redis_url=redis_url,
        mongodb_database="bench_year",
        task_retention_days=400,
        store_timeout_s=30,
    )
    engine = Engine(settings)
    try:
        engine.init([])
        prepare(engine)
        desk = desk_of(engine)
        desk.ensure_indexes()
        until = engine.clock.now().replace(minute=0, second=0, microsecond=0)
        since = until - dt.timedelta(days=days)
        # Without the deadlines of a front door.
        patient = MongoClient(mongo_url)["bench_year"]["tasks"]
        for batch in _batches(_tasks(messages, since, until)):
            patient.insert_many(batch, ordered=False)
        began = time.perf_counter()
        desk.rollup.recount(hours_between(since, until))
        count_s = time.perf_counter() - began
        # What came before is known to be counted.
        engine.database["report_progress"].insert_one({"_id": "rollup", "seen_at": until})
        return Year(
            messages,
            count_s,
            _timed(lambda: list(patient.aggregate(_GROUPED))),
            _timed(lambda: desk.figures_of(since, until)),
            _timed(lambda: _rendered(engine, since, until)),
        )
    finally:
        engine.database.client.drop_database("bench_year")
        engine.close()


_GROUPED = [{"$group": {"_id": {"type": "$type", "state": "$state"}, "n": {"$sum": 1}}}]


def _rendered(engine: Engine, since: dt.datetime, until: dt.datetime) -> None:
    desk = desk_of(engine)
    told = desk.figures_of(since, until)
    report = {"_id": "r", "figures": told, "insights": [], "created_at": until}
    report |= {"kind": "asked", "since": since, "until": until}
    for form in ("html", "pdf"):
        desk.reports.render(report, form, "es", load_business(), load_catalogue())


def _timed(act: Any) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def _tasks(messages: int, since: dt.datetime, until: dt.datetime) -> Iterator[Document]:
    rng, span = random.Random(1), (until - HOUR - since).total_seconds()
    for n in range(messages):
        at = since + dt.timedelta(seconds=span * n / messages)
        ended = at + dt.timedelta(milliseconds=rng.lognormvariate(6, 0.7))
        key = f"session:{n // 4}"
        yield {
            "_id": f"{id_at(at)}{n:020x}",
            "type": "process_message",
            "agent": "conversation_agent",
            "state": "completed" if n % 200 else "failed",
            # Indexes that are unique over these.
            "idempotency": f"i{n}",
            "twin": f"t{n}",
            "key": key,
            "seq": n % 4 + 1,
            "fence": 3,
            "failures": 0,
            "crashes": 0,
            "queued_at": at,
            "started_at": at + dt.timedelta(milliseconds=rng.lognormvariate(3, 0.7)),
            "finished_at": ended,
            "payload": {"channel": "web" if n % 3 else "whatsapp", "message": "x" * 60},
            "result": {"owner": "bot", "intent": "quote", "text": "y" * 200},
            "timeline": [],
        }


def _batches(tasks: Iterator[Document]) -> Iterator[list[Document]]:
    batch: list[Document] = []
    for task in tasks:
        batch.append(task)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch

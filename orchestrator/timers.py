"""Timers: tasks that are to be accepted at a time, once or again and again.

Keeps secret how a time is kept whatever dies: a timer is a document with a due time. Whoever
picks it up first accepts the task under (timer, due), then marks the timer: two that do it at
once make one task, one that dies between the two leaves it due. Nothing waits in a process or
in Redis; what was due while nobody looked runs when somebody does, once.

Collection `timers`, one document per timer:

    _id         its name: putting it again changes it
    due_at      when it is due next; gone when it will not be again
    cron, zone  the times of one that comes again, or null
    request     {type, payload, capabilities, prefers, priority, strategy} of its task
    caller      in whose name
    fired_at    the last due time for which a task was accepted
    task_id     of that task
    created_at
    expire_at   set once it will not be due again

Written by this module only. Picked up by the rescuer.
"""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo

from cronsim import CronSim
from pymongo.database import Database
from pymongo.errors import DuplicateKeyError

from orchestrator.clock import Clock
from orchestrator.errors import NotFound, OrchestratorError, StoreUnavailable
from orchestrator.logs import log
from orchestrator.mending import each
from orchestrator.tasks import Document, Request, earlier_than, ensure_index, store_errors

if TYPE_CHECKING:
    from orchestrator.coordinator import Coordinator

KEPT: Final = dt.timedelta(days=7)
# A timer whose task cannot be accepted (no agent declares it) is tried again after this.
RETRY: Final = dt.timedelta(seconds=30)


@dataclass(frozen=True)
class Timer:
    """A timer as it was read."""

    id: str
    due_at: dt.datetime | None
    request: Request
    cron: str | None = None
    zone: str = "UTC"
    fired_at: dt.datetime | None = None
    task_id: str | None = None

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "Timer":
        """Read what the collection holds."""
        request = Request.from_document(document["request"])
        return cls(
            id=document["_id"],
            due_at=document.get("due_at"),
            request=Request(**(vars(request) | {"caller": document["caller"]})),
            cron=document["cron"],
            zone=document["zone"],
            fired_at=document.get("fired_at"),
            task_id=document.get("task_id"),
        )


def next_time(cron: str, zone: str, after: dt.datetime) -> dt.datetime:
    """The first time of a cron expression after a moment, in UTC.

    Times that a change of the clock leaves out are made good, those that it repeats come once
    (as Debian's cron does it).

    Raises:
        StopIteration: there is none, as for "0 0 30 2 *".
    """
    return next(CronSim(cron, after.astimezone(ZoneInfo(zone)))).astimezone(dt.UTC)


class Timers:
    """Raises StoreUnavailable as the task store does."""

    def __init__(
        self, database: Database[Document], clock: Clock, coordinator: "Coordinator"
    ) -> None:
        self._timers = database["timers"]
        self._clock = clock
        self._coordinator = coordinator

    def ensure_indexes(self) -> None:
        """Make every index that a query here relies on."""
        ensure_index(self._timers, "due", "due_at")
        ensure_index(self._timers, "mark", "_id due_at")
        ensure_index(self._timers, "expiry", "expire_at", expireAfterSeconds=0)

    def put(
        self,
        timer_id: str,
        request: Request,
        *,
        due_at: dt.datetime | None = None,
        cron: str | None = None,
        zone: str = "UTC",
    ) -> Timer:
        """Set a timer, once at `due_at` or at the times of `cron`.

        One of this name that is the same is left as it is, also when it has fired; one that
        is another is changed.
        """
        if due_at is None:
            if cron is None:
                raise ValueError("a timer needs a time")
            due_at = next_time(cron, zone, self._clock.now())
        fields: Document = {
            "cron": cron,
            "zone": zone,
            "request": request.to_document(),
            "caller": request.caller,
        }
        with store_errors():
            known = self._timers.find_one({"_id": timer_id})
            if known is None:
                document = {"_id": timer_id, **fields, "due_at": due_at}
                document["created_at"] = self._clock.now()
                try:
                    self._timers.insert_one(document)
                except DuplicateKeyError:
                    return self.get(timer_id)
                return Timer.from_document(document)
            same = all(known[name] == value for name, value in fields.items())
            if not (same and (cron is not None or known.get("due_at") in (None, due_at))):
                self._timers.update_one(
                    {"_id": timer_id},
                    {"$set": fields | {"due_at": due_at}, "$unset": {"expire_at": ""}},
                )
        return self.get(timer_id)

    def get(self, timer_id: str) -> Timer:
        """Read a timer.

        Raises:
            NotFound: there is none of this name.
        """
        with store_errors():
            document = self._timers.find_one({"_id": timer_id})
        if document is None:
            raise NotFound("No such timer")
        return Timer.from_document(document)

    def remove(self, timer_id: str) -> bool:
        """Let a timer not fire any more; False where it was not going to."""
        with store_errors():
            return self._timers.delete_one({"_id": timer_id}).deleted_count == 1

    def names(self, prefix: str) -> list[str]:
        """The timers whose names begin with a prefix."""
        with store_errors():
            found = self._timers.find(
                {"_id": {"$gte": prefix, "$lt": prefix + "\uffff"}}, {"_id": 1}
            )
            return [document["_id"] for document in found]

    def fire_due(self, limit: int) -> int:
        """Accept the tasks of timers that are due, the longest due first; returns how many."""
        now = self._clock.now()
        with store_errors():
            due = self._timers.find({"due_at": earlier_than(now)}).sort("due_at", 1).limit(limit)
            found = list(due)
        return each(
            "timers",
            found,
            lambda document: self._fire(Timer.from_document(document), now),
            lambda document: str(document["_id"]),
        )

    def _fire(self, timer: Timer, now: dt.datetime) -> bool:
        assert timer.due_at is not None
        key = f"timer/{timer.id}/{timer.due_at.isoformat()}"
        try:
            task, _ = self._coordinator.submit(
                Request(**(vars(timer.request) | {"idempotency_key": key}))
            )
        except StoreUnavailable:
            raise
        except OrchestratorError as error:
            log.warning("timer.not_accepted", timer=timer.id, code=error.code)
            self._mark(timer, {"$set": {"due_at": max(timer.due_at, now) + RETRY}})
            return False
        fired: Document = {"fired_at": timer.due_at, "task_id": task.id}
        try:
            if timer.cron is None:
                raise StopIteration
            following = next_time(timer.cron, timer.zone, max(timer.due_at, now))
            self._mark(timer, {"$set": fired | {"due_at": following}})
        except StopIteration:
            fired["expire_at"] = now + KEPT
            self._mark(timer, {"$set": fired, "$unset": {"due_at": ""}})
        log.info("timer.fired", timer=timer.id, task_id=task.id)
        return True

    def _mark(self, timer: Timer, update: Document) -> None:
        with store_errors():
            # Another that fired it too has marked it alike, or it was changed meanwhile.
            self._timers.update_one({"_id": timer.id, "due_at": timer.due_at}, update)

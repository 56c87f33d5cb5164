"""What was first answered under an idempotency key, where the task does not tell.

A task that has ended is answered alike however often it is asked for. One that was answered
while it was under way is not: what was said then is kept here, and said again.

Collection `responses`: {_id: task id, status, body, expire_at}. The first insert stands.
"""

import datetime as dt
from dataclasses import dataclass
from typing import Any

from pymongo.database import Database
from pymongo.errors import DuplicateKeyError

from orchestrator.clock import Clock
from orchestrator.settings import Settings
from orchestrator.tasks import ensure_index, store_errors

Document = dict[str, Any]


@dataclass(frozen=True)
class FirstResponse:
    """A status and a body that were given."""

    status: int
    body: Document


class Responses:
    """Keep first responses. Raises StoreUnavailable as the task store does."""

    def __init__(self, database: Database[Document], clock: Clock, settings: Settings) -> None:
        self._responses = database["responses"]
        self._clock = clock
        self._kept = dt.timedelta(hours=settings.idempotency_hours)

    def ensure_indexes(self) -> None:
        """Make every index that a query here relies on."""
        ensure_index(self._responses, "expiry", "expire_at", expireAfterSeconds=0)
        ensure_index(self._responses, "customer", "body.session_id")

    def get(self, task_id: str) -> FirstResponse | None:
        """What was first answered about a task, if it was kept."""
        with store_errors():
            kept = self._responses.find_one({"_id": task_id})
        return None if kept is None else FirstResponse(kept["status"], kept["body"])

    def keep(self, task_id: str, status: int, body: Document) -> FirstResponse:
        """Keep an answer, unless there is one already; returns the one that stands."""
        kept = {
            "_id": task_id,
            "status": status,
            "body": body,
            "expire_at": self._clock.now() + self._kept,
        }
        try:
            with store_errors():
                self._responses.insert_one(kept)
        except DuplicateKeyError:
            return self.get(task_id) or FirstResponse(status, body)
        return FirstResponse(status, body)

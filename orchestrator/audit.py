"""Who did what to other people's data and tasks, and when.

Keeps secret where that is kept. An entry is written before the act, and completed after it:
an act that was cut short is seen to have begun.

Collection `audit`, one document per act:

    _id        rises with time, as a task's id does
    at         when it began
    actor      "operator", "cli:<user of the machine>"
    action     "dead_letter.replay", "customer.erase", ...
    subject    what it was done to, never in the clear where that is a person
    facts      what was asked for
    outcome    what came of it; null while it goes on, or where it was cut short
    expire_at  when it goes

Written by this module only.
"""

import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pymongo.database import Database

from orchestrator.clock import Clock
from orchestrator.pages import newest_first
from orchestrator.settings import Settings
from orchestrator.tasks import BY_ID, ensure_index, new_id, store_errors

Document = dict[str, Any]


class Audit:
    """Raises StoreUnavailable as the task store does: nothing is done that cannot be recorded."""

    def __init__(self, database: Database[Document], clock: Clock, settings: Settings) -> None:
        self._audit = database["audit"]
        self._clock = clock
        self._kept = dt.timedelta(days=settings.audit_retention_days)

    def ensure_indexes(self) -> None:
        """Make every index that a query here relies on."""
        ensure_index(self._audit, "list_action", "action _id")
        ensure_index(self._audit, "expiry", "expire_at", expireAfterSeconds=0)

    @contextmanager
    def act(self, actor: str, action: str, subject: str | None, **facts: Any) -> Iterator[Document]:
        """Record an act around its doing; what the block puts into the document is its outcome."""
        now = self._clock.now()
        entry = {"_id": new_id(now), "at": now, "actor": actor, "action": action}
        entry |= {
            "subject": subject,
            "facts": facts,
            "outcome": None,
            "expire_at": now + self._kept,
        }
        with store_errors():
            self._audit.insert_one(entry)
        outcome: Document = {}
        try:
            yield outcome
        except Exception as error:
            outcome["error"] = getattr(error, "code", type(error).__name__)
            raise
        finally:
            with store_errors():
                self._audit.update_one({"_id": entry["_id"]}, {"$set": {"outcome": outcome}})

    def page(
        self, limit: int, position: str | None = None, *, action: str | None = None
    ) -> tuple[list[Document], str | None]:
        """Acts, the newest first, and where the next page begins; None at the end.

        Raises:
            ValueError: the position is none that was given here.
        """
        equal = {} if action is None else {"action": action}
        with store_errors():
            page = newest_first(
                self._audit, equal, BY_ID, now=self._clock.now(), limit=limit, position=position
            )
        return page.documents, page.next

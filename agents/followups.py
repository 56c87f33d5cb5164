"""Follow-ups as they are kept: each reason to write to a customer counts once.

Keeps secret how a follow-up is planned, sent and measured once whatever dies. Its reason (the
rule and what it is about) is unique, so planning it again finds it; every change is one
compare-and-set on its version. How many may go to one customer, and on one day, is decided by
books: a follow-up goes out only when its name is in the customer's book and in the day's, and it
is entered under one version of each.

Collection `followups`, one document per follow-up:

    _id            rises with time, as a task's id does
    reason         what nobody is written to twice for, unique; gone when the customer is erased
    rule           id of the rule, or "by_hand"
    message        what kind of message (`agents.messages.MessageKind`)
    text           what is to be said, where a person wrote it, or null
    session_id     whom it goes to
    customer       keyed hash of the customer's phone, or of the session where there is none
    quote_id       what it is about, or null
    by             who scheduled it: "rule", or a caller
    priority       of several for one customer the highest goes first
    state          planned -> sent -> done; planned -> skipped | cancelled
    version        rises with every change
    round          rises when one that was skipped is planned again: each round is a workflow run
    due_at         when it goes out next, as far as is known
    why            {code, ...}: what the last look at it found, or null
    run_id         of the workflow run that it lives in, or null
    unstarted_at   since when it has none; gone once it has
    created_at, updated_at
    sent_at        when it was committed to the session
    entries        ids of the outbox's entries
    answer         {task_id, at}: the customer's first message after it, or null
    counts         {answered, accepted, rejected, opted_out, not_delivered}: 0 or 1 each
    expire_at      a while after its last change, or after it is due

Collection `followup_books`, what went out lately:

    _id            "customer {keyed hash}", or "day {date}"
    version        rises with every change
    entries        [{id, rule, at}]
    expire_at      when no limit looks at it any more

Collection `followup_scans`: {_id: what is scanned, through: up to when}.

Written by `FollowupStore` only; the front door reads `followups` as the follow-up agent declares
it. Analytics reads `effects`.
"""

import datetime as dt
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

from pymongo.database import Database
from pymongo.errors import DuplicateKeyError

from orchestrator.clock import Clock
from orchestrator.declarations import Holding, Resource
from orchestrator.errors import NotFound
from orchestrator.settings import Settings
from orchestrator.tasks import earlier_than, ensure_index, new_id, store_errors

Document = dict[str, Any]
BY_HAND: Final = "by_hand"
EFFECTS: Final = ("answered", "accepted", "rejected", "opted_out", "not_delivered")


class FollowupState(StrEnum):
    """Where a follow-up stands."""

    PLANNED = "planned"  # it goes out when its time has come, if nothing speaks against it
    SENT = "sent"  # it is in the conversation; its effect is being measured
    DONE = "done"  # its effect is known
    SKIPPED = "skipped"  # something spoke against it; planned again if that passes
    CANCELLED = "cancelled"  # a person did not want it


@dataclass(frozen=True)
class NewFollowup:
    """What is known of a follow-up before it is stored."""

    reason: str
    rule: str
    message: str
    session_id: str
    customer: str
    due_at: dt.datetime
    quote_id: str | None = None
    text: str | None = None
    by: str = "rule"
    priority: int = 0
    why: Document | None = None


@dataclass(frozen=True)
class Followup:
    """A follow-up as it was read. What an erasure took is None."""

    id: str
    reason: str | None
    rule: str
    message: str
    text: str | None
    session_id: str | None
    customer: str | None
    quote_id: str | None
    by: str
    priority: int
    state: FollowupState
    version: int
    round: int
    due_at: dt.datetime
    why: Document | None
    run_id: str | None
    created_at: dt.datetime
    updated_at: dt.datetime
    sent_at: dt.datetime | None
    entries: tuple[str, ...]
    answer: Document | None
    counts: Document

    @classmethod
    def from_document(cls, document: Document) -> "Followup":
        """Read what the collection holds."""
        known: Document = {name: document.get(name) for name in _FIELDS}
        known["state"] = FollowupState(document["state"])
        known["entries"] = tuple(document.get("entries") or ())
        known["counts"] = document.get("counts") or dict.fromkeys(EFFECTS, 0)
        return cls(id=document["_id"], **known)


_FIELDS: Final = frozenset(Followup.__dataclass_fields__) - {"id"}


@dataclass(frozen=True)
class Entry:
    """One follow-up in a book."""

    id: str
    rule: str
    at: dt.datetime


@dataclass(frozen=True)
class Effect:
    """What the follow-ups of one rule that went out in a period came to.

    One may count in several: a customer answers, and accepts. `silent` are those that came to
    nothing of it, `open` those of them that may still. "by_hand" is a rule here.
    """

    rule: str
    sent: int
    answered: int
    accepted: int
    rejected: int
    opted_out: int
    not_delivered: int
    open: int

    @property
    def silent(self) -> int:
        """Delivered, and not answered so far."""
        return self.sent - self.answered - self.not_delivered


# What stays of a customer that is erased: that a rule wrote, and what came of it.
HOLDING: Final = Holding(
    collection="followups",
    session="session_id",
    anonymise=("reason", "text", "session_id", "customer", "answer"),
    revision="version",
)

# What the front door lists and shows.
RESOURCE: Final = Resource(
    name="followups",
    collection="followups",
    fields=(
        "rule",
        "message",
        "text",
        "session_id",
        "quote_id",
        "by",
        "priority",
        "state",
        "due_at",
        "why",
        "run_id",
        "created_at",
        "updated_at",
        "sent_at",
        "answer",
        "counts",
    ),
    filters=("session_id", "state", "rule"),
)


class FollowupNotFound(NotFound):
    """No follow-up has this id."""

    code = "followup_not_found"
    title = "No such follow-up"


class FollowupStore:
    """Every method raises StoreUnavailable when MongoDB does not answer in time."""

    def __init__(self, database: Database[Document], clock: Clock, settings: Settings) -> None:
        self._followups = database["followups"]
        self._books = database["followup_books"]
        self._scans = database["followup_scans"]
        self._clock = clock
        self._kept = dt.timedelta(days=settings.session_retention_days)

    def ensure_indexes(self) -> None:
        """Make every index that a query here, or a list at the front door, relies on."""
        ensure_index(
            self._followups, "reason", "reason", unique=True, where={"reason": {"$gt": ""}}
        )
        ensure_index(self._followups, "change", "_id version")
        ensure_index(self._followups, "unstarted", "unstarted_at")
        ensure_index(self._followups, "customer", "customer state")
        ensure_index(self._followups, "sent", "sent_at")
        for equal in RESOURCE.filters:
            ensure_index(self._followups, f"list_{equal}", f"{equal} _id")
        ensure_index(self._followups, "expiry", "expire_at", expireAfterSeconds=0)
        ensure_index(self._books, "change", "_id version")
        ensure_index(self._books, "expiry", "expire_at", expireAfterSeconds=0)
        ensure_index(self._scans, "change", "_id through")

    # -- what analytics reads ----------------------------------------------------------

    def effects(self, since: dt.datetime, until: dt.datetime) -> list[Effect]:
        """What came of the follow-ups that went out from `since` to before `until`, by rule.

        Counted from the follow-ups themselves: what is learnt later changes the counts of the
        period in which it went out. An erased customer's count stays.
        """
        summed = {name: {"$sum": f"$counts.{name}"} for name in EFFECTS}
        with store_errors():
            groups = list(
                self._followups.aggregate(
                    [
                        {"$match": {"sent_at": {"$gte": since, "$lt": until}}},
                        {
                            "$group": {
                                "_id": {"rule": "$rule", "state": "$state"},
                                "sent": {"$sum": 1},
                                **summed,
                            }
                        },
                    ]
                )
            )
        told = []
        for rule in sorted({group["_id"]["rule"] for group in groups}):
            of_rule = [group for group in groups if group["_id"]["rule"] == rule]
            counts = {name: sum(int(each[name]) for each in of_rule) for name in ("sent", *EFFECTS)}
            still_open = sum(
                int(each["sent"])
                for each in of_rule
                if each["_id"]["state"] == FollowupState.SENT.value
            )
            told.append(Effect(rule=rule, open=still_open, **counts))
        return told

    # -- reading -----------------------------------------------------------------------

    def get(self, followup_id: str) -> Followup:
        """Read a follow-up.

        Raises:
            FollowupNotFound: there is none of this id.
        """
        with store_errors():
            document = self._followups.find_one({"_id": followup_id})
        if document is None:
            raise FollowupNotFound()
        return Followup.from_document(document)

    def of_reason(self, reason: str) -> Followup | None:
        """The follow-up that was planned for a reason, if one was."""
        with store_errors():
            document = self._followups.find_one({"reason": reason})
        return None if document is None else Followup.from_document(document)

    def planned_for(self, customer: str) -> list[Followup]:
        """What is planned for a customer."""
        planned = {"customer": customer, "state": FollowupState.PLANNED.value}
        with store_errors():
            return [Followup.from_document(each) for each in self._followups.find(planned)]

    def unstarted(self, before: dt.datetime, limit: int) -> list[Followup]:
        """Planned ones that have had no run since before a time."""
        with store_errors():
            found = self._followups.find({"unstarted_at": earlier_than(before)}).limit(limit)
            return [Followup.from_document(document) for document in found]

    # -- planning ----------------------------------------------------------------------

    def plan(self, new: NewFollowup) -> tuple[Followup, bool]:
        """Plan a follow-up, once for its reason; False where it was planned before.

        One that was skipped is planned again: what spoke against it has passed.
        """
        now = self._clock.now()
        document: Document = {
            "_id": new_id(now),
            **vars(new),
            "state": FollowupState.PLANNED.value,
            "version": 0,
            "round": 0,
            "run_id": None,
            "unstarted_at": now,
            "created_at": now,
            "updated_at": now,
            "sent_at": None,
            "entries": [],
            "answer": None,
            "counts": dict.fromkeys(EFFECTS, 0),
            "expire_at": max(now, new.due_at) + self._kept,
        }
        while True:
            try:
                with store_errors():
                    self._followups.insert_one(document)
                return Followup.from_document(document), True
            except DuplicateKeyError:
                known = self.of_reason(new.reason)
            if known is None:
                # The embedded server refuses a reason that an erasure took: let it be.
                return Followup.from_document(document), False
            if known.state is not FollowupState.SKIPPED:
                return known, False
            again = {
                "state": FollowupState.PLANNED.value,
                "round": known.round + 1,
                "run_id": None,
                "unstarted_at": now,
                "due_at": new.due_at,
                "why": new.why,
                "quote_id": new.quote_id,
            }
            planned = self._change(known, again)
            if planned is not None:
                return planned, True

    def started(self, followup: Followup, run_id: str) -> None:
        """Note the run that a follow-up lives in from now on."""
        with store_errors():
            # Not a change that others compare with: only who starts runs looks at it.
            self._followups.update_one(
                {"_id": followup.id}, {"$set": {"run_id": run_id}, "$unset": {"unstarted_at": ""}}
            )

    def put_off(self, followup: Followup, until: dt.datetime, why: Document) -> None:
        """Note that it goes out later, and why. One that has moved on is left alone."""
        if followup.due_at != until or followup.why != why:
            self._change(followup, {"due_at": until, "why": why})

    def skip(self, followup: Followup, why: Document) -> bool:
        """Do not send it, since something speaks against it; False where it has moved on."""
        return self._end(followup, FollowupState.SKIPPED, why)

    def cancel(self, followup_id: str, by: str) -> Followup:
        """Do not send it: a person's decision. The follow-up as it is then: one that has been
        sent, or skipped, stays what it is.

        Raises:
            FollowupNotFound: there is none of this id.
        """
        while True:
            followup = self.get(followup_id)
            if followup.state is not FollowupState.PLANNED:
                return followup
            if self._end(followup, FollowupState.CANCELLED, {"code": "cancelled", "by": by}):
                return self.get(followup_id)

    def _end(self, followup: Followup, state: FollowupState, why: Document) -> bool:
        if followup.state is not FollowupState.PLANNED:
            return False
        fields = {"state": state.value, "why": why}
        return self._change(followup, fields, gone=("unstarted_at",)) is not None

    # -- sending and measuring ---------------------------------------------------------

    def sent(self, followup: Followup, at: dt.datetime, entries: Iterable[str]) -> Followup:
        """Note that it was committed to its session, whatever it had become meanwhile."""
        while followup.sent_at is None:
            fields: Document = {
                "state": FollowupState.SENT.value,
                "sent_at": at,
                "due_at": at,
                "why": None,
                "entries": list(entries),
            }
            done = self._change(followup, fields, gone=("unstarted_at",))
            followup = done or self.get(followup.id)
        return followup

    def measured(
        self, followup: Followup, counts: Document, answer: Document | None, *, over: bool
    ) -> None:
        """Note what came of one that was sent; with `over` nothing more is expected of it."""
        while followup.state in (FollowupState.SENT, FollowupState.DONE):
            fields: Document = {"counts": counts, "answer": answer}
            if over and followup.state is FollowupState.SENT:
                fields["state"] = FollowupState.DONE.value
            if self._change(followup, fields) is not None:
                return
            followup = self.get(followup.id)

    def _change(
        self, followup: Followup, fields: Document, gone: tuple[str, ...] = ()
    ) -> Followup | None:
        """The one compare-and-set: version -> version + 1; None when it has moved on."""
        now = self._clock.now()
        lasts = max(now, fields.get("due_at", followup.due_at))
        fields = fields | {"updated_at": now, "expire_at": lasts + self._kept}
        update: Document = {"$set": fields, "$inc": {"version": 1}}
        if gone:
            update["$unset"] = dict.fromkeys(gone, "")
        with store_errors():
            matched = self._followups.update_one(
                {"_id": followup.id, "version": followup.version}, update
            ).matched_count
        if not matched:
            return None
        known = {name: value for name, value in fields.items() if name in _FIELDS}
        if "state" in known:
            known["state"] = FollowupState(known["state"])
        if "entries" in known:
            known["entries"] = tuple(known["entries"])
        return replace(followup, **known | {"version": followup.version + 1})

    # -- books -------------------------------------------------------------------------

    def book(self, name: str) -> tuple[Entry, ...]:
        """What is in a book: "customer {hash}" or "day {date}"."""
        with store_errors():
            found = self._books.find_one({"_id": name})
        return _entries(found)

    def enter(
        self,
        name: str,
        entry: Entry,
        room: Callable[[tuple[Entry, ...]], bool],
        keep: dt.timedelta,
    ) -> bool:
        """Enter a follow-up into a book, if there is room beside the others that are in it.

        One that is in it already is entered anew, at its new time. Entries older than `keep`
        leave the book.
        """
        while True:
            with store_errors():
                found = self._books.find_one({"_id": name})
            others = tuple(
                each
                for each in _entries(found)
                if each.id != entry.id and each.at > entry.at - keep
            )
            if not room(others):
                return False
            fields = {
                "entries": [vars(each) for each in (*others, entry)],
                "expire_at": entry.at + keep,
            }
            with store_errors():
                if found is None:
                    try:
                        self._books.insert_one({"_id": name, "version": 0, **fields})
                        return True
                    except DuplicateKeyError:
                        continue
                query = {"_id": name, "version": found["version"]}
                update = {"$set": fields, "$inc": {"version": 1}}
                if self._books.update_one(query, update).matched_count:
                    return True

    def leave(self, name: str, followup_id: str) -> None:
        """Take a follow-up out of a book."""
        while True:
            with store_errors():
                found = self._books.find_one({"_id": name})
                if found is None or all(each["id"] != followup_id for each in found["entries"]):
                    return
                left = [each for each in found["entries"] if each["id"] != followup_id]
                query = {"_id": name, "version": found["version"]}
                update = {"$set": {"entries": left}, "$inc": {"version": 1}}
                if self._books.update_one(query, update).matched_count:
                    return

    # -- scans -------------------------------------------------------------------------

    def scanned_through(self, name: str) -> dt.datetime | None:
        """Up to when something was scanned; None where it never was."""
        with store_errors():
            found = self._scans.find_one({"_id": name})
        return None if found is None else found["through"]

    def scanned(self, name: str, before: dt.datetime | None, through: dt.datetime) -> None:
        """Go on from here the next time; who is not the first to say so changes nothing."""
        with store_errors():
            if before is not None:
                self._scans.update_one(
                    {"_id": name, "through": before}, {"$set": {"through": through}}
                )
                return
            try:
                self._scans.insert_one({"_id": name, "through": through})
            except DuplicateKeyError:
                return


def _entries(document: Document | None) -> tuple[Entry, ...]:
    return tuple(Entry(**each) for each in (document or {}).get("entries", ()))

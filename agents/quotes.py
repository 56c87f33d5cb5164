"""Quotes as they are kept: each made once, under a code that people can say on the phone.

Keeps secret how a quote is stored once however often its task runs (its id is the task's, so
the insert is the commit point, and a duplicate means that it is done), and how its state
changes once: every change is one compare-and-set on its revision.

Collection `quotes`, one document per quote, never deleted:

    _id                id of the task that made it; rises with time
    code               "COT-2026-000123", of a later version "COT-2026-000123-2"; unique
    number             "COT-2026-000123": year (UTC) and a number of that year, the same for
                       all versions. Numbers rise, with gaps where a process died between two
                       writes.
    version            1, or one more than the version that it corrects
    supersedes         id of the quote that it corrects, or null
    superseded_by      id of the quote that corrects it, or null: it cannot be accepted then
    state              "draft" | "sent" | "accepted" | "rejected" | "expired"
    revision           rises with every change
    edition            rises with every change that its PDF shows
    session            session id, or null
    customer           {name, phone}, each a string or null
    language           "es" | "en": the customer's
    product, description   in words, in that language
    items              [priced item], as `agents.quote.pricing.PricedItem.to_document`, with
                       `description`
    unit_price_per_m2  string of a Decimal, or null where items differ
    total, tax         Decimal128, in `currency`; the tax is a part of the total
    tax_rate           string of a Decimal
    currency           three letters
    catalogue_version  int: the catalogue that it was priced by
    created_at, valid_until
    untold             rises with time: there is word of it to be told; gone when it is told
    history            [{at, state}]: when it became what
    state_at           since when it is what it is
    channel            of its conversation ("web"), null where there was none; stays when that goes
    changed_at         of the last change

Collection `counters`: {_id: "quotes-2026", n: the last number given}.

Written by `QuoteStore` only; the front door reads it as the quote agent declares it.
"""

import datetime as dt
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final, Literal

from bson.decimal128 import Decimal128
from pymongo import ReturnDocument
from pymongo.database import Database
from pymongo.errors import DuplicateKeyError

from agents.catalogue import Language
from orchestrator.clock import Clock
from orchestrator.declarations import Holding, Lapse, Resource
from orchestrator.tasks import ensure_index, new_id, store_errors

Document = dict[str, Any]


class QuoteState(StrEnum):
    """Where a quote stands."""

    DRAFT = "draft"  # priced and stored; nobody has recorded that the customer has it
    SENT = "sent"
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    EXPIRED = "expired"

    @property
    def open(self) -> bool:
        """The customer may still answer."""
        return self in OPEN


OPEN: Final = frozenset({QuoteState.DRAFT, QuoteState.SENT})
QuoteAction = Literal["send", "accept", "reject", "expire"]
_LEADS_TO: Final[dict[QuoteAction, QuoteState]] = {
    "send": QuoteState.SENT,
    "accept": QuoteState.ACCEPTED,
    "reject": QuoteState.REJECTED,
    "expire": QuoteState.EXPIRED,
}


class QuoteClosed(ValueError):
    """The customer can no longer answer a quote; `standing` says what it is instead: a state,
    or "superseded"."""

    def __init__(self, standing: str) -> None:
        self.standing = standing
        super().__init__(standing)


def state_at(state: QuoteState, valid_until: dt.datetime, now: dt.datetime) -> QuoteState:
    """The state of a quote at a moment: one that is open is expired once its time is over."""
    return QuoteState.EXPIRED if state.open and now >= valid_until else state


def next_state(
    state: QuoteState,
    action: QuoteAction,
    *,
    valid_until: dt.datetime,
    superseded: bool,
    now: dt.datetime,
) -> QuoteState:
    """What a quote becomes by an action; the same state where the action changes nothing.

    draft -> sent -> accepted | rejected | expired, and from draft to each of these three. What
    the customer has decided stands. A quote that a newer version supersedes is no longer
    sent, accepted or rejected.

    Raises:
        QuoteClosed: it cannot be accepted or rejected any more.
    """
    current = state_at(state, valid_until, now)
    target = _LEADS_TO[action]
    if action == "expire":
        return current
    if action == "send":
        return target if current is QuoteState.DRAFT and not superseded else current
    if current is target:
        return current
    if superseded:
        raise QuoteClosed("superseded")
    if not current.open:
        raise QuoteClosed(current.value)
    return target


@dataclass(frozen=True)
class NewQuote:
    """What is known of a quote before it is stored. Money in `currency`.

    `product`, `description` and each item's "description" are for people, in `language`.
    """

    id: str
    session: str | None
    customer_name: str | None
    customer_phone: str | None
    language: Language
    product: str
    description: str
    items: tuple[Document, ...]
    total: Decimal
    tax: Decimal
    tax_rate: Decimal
    currency: str
    validity_days: int
    catalogue_version: int
    supersedes: str | None = None
    channel: str | None = None


@dataclass(frozen=True)
class Quote:
    """A quote as it was read; `state` is that of the moment."""

    id: str
    code: str
    number: str
    version: int
    supersedes: str | None
    superseded_by: str | None
    state: QuoteState
    revision: int
    edition: int
    session: str | None
    customer_name: str | None
    customer_phone: str | None
    language: Language
    product: str
    description: str
    items: tuple[Document, ...]
    total: Decimal
    tax: Decimal
    tax_rate: Decimal
    currency: str
    catalogue_version: int
    created_at: dt.datetime
    valid_until: dt.datetime
    state_at: dt.datetime

    @classmethod
    def from_document(cls, document: Document, now: dt.datetime) -> "Quote":
        """Read what the collection holds, as it is now."""
        stored = QuoteState(document["state"])
        state = state_at(stored, document["valid_until"], now)
        since: dt.datetime = document.get("state_at") or document["created_at"]
        return cls(
            id=document["_id"],
            code=document["code"],
            number=document["number"],
            version=document["version"],
            supersedes=document["supersedes"],
            superseded_by=document["superseded_by"],
            state=state,
            revision=document["revision"],
            edition=document["edition"],
            session=document["session"],
            customer_name=document["customer"]["name"],
            customer_phone=document["customer"]["phone"],
            language=document["language"],
            product=document["product"],
            description=document["description"],
            items=tuple(document["items"]),
            total=document["total"].to_decimal(),
            tax=document["tax"].to_decimal(),
            tax_rate=Decimal(document["tax_rate"]),
            currency=document["currency"],
            catalogue_version=document["catalogue_version"],
            created_at=document["created_at"],
            valid_until=document["valid_until"],
            state_at=since if state is stored else document["valid_until"],
        )

    @property
    def unit_price_per_m2(self) -> str | None:
        """The digits of the one price per m² of all items, or None where they differ."""
        prices = {item["unit_price_per_m2"] for item in self.items}
        return prices.pop() if len(prices) == 1 else None

    @property
    def file_id(self) -> str:
        """Where its PDF is kept: another edition is another file."""
        return f"{self.id}.{self.edition}"


# What stays of a customer that is erased: what was quoted, and for how much.
HOLDING: Final = Holding(
    collection="quotes",
    session="session",
    phone="customer.phone",
    anonymise=("session", "customer.name", "customer.phone"),
    revision="revision",
    files=True,
)

# What the front door lists and shows.
RESOURCE: Final = Resource(
    name="quotes",
    collection="quotes",
    fields=(
        "code",
        "number",
        "version",
        "supersedes",
        "superseded_by",
        "state",
        "edition",
        "session",
        "customer",
        "language",
        "product",
        "description",
        "items",
        "unit_price_per_m2",
        "total",
        "tax",
        "tax_rate",
        "currency",
        "catalogue_version",
        "created_at",
        "valid_until",
        "history",
    ),
    filters=("number", "session", "state"),
    lapse=Lapse(
        field="state",
        values=tuple(sorted(state.value for state in OPEN)),
        becomes=QuoteState.EXPIRED.value,
        at="valid_until",
    ),
)


class QuoteNotFound(LookupError):
    """No quote has this id."""


@dataclass(frozen=True)
class QuoteSum:
    """How many quotes of a state and currency a period saw, and their value."""

    state: QuoteState
    currency: str
    count: int
    total: Decimal


class QuoteStore:
    """Every method raises StoreUnavailable when MongoDB does not answer in time."""

    def __init__(self, database: Database[Document], clock: Clock) -> None:
        self._quotes = database["quotes"]
        self._counters = database["counters"]
        self._clock = clock

    def ensure_indexes(self) -> None:
        """Make every index that a query here, or a list at the front door, relies on."""
        ensure_index(self._quotes, "code", "code", unique=True)
        ensure_index(self._quotes, "number", "number _id")
        ensure_index(self._quotes, "transition", "_id revision")
        ensure_index(self._quotes, "session", "session _id")
        ensure_index(self._quotes, "state", "state _id")
        ensure_index(self._quotes, "validity", "state valid_until")
        ensure_index(self._quotes, "period", "created_at")
        ensure_index(self._quotes, "standing", "state state_at")
        ensure_index(self._quotes, "changed", "changed_at")
        ensure_index(self._quotes, "untold", "untold", where={"untold": {"$gt": ""}})

    def get(self, quote_id: str) -> Quote | None:
        """The quote that a task made, if it did."""
        with store_errors():
            document = self._quotes.find_one({"_id": quote_id})
        return None if document is None else self._read(document)

    def store_once(self, new: NewQuote) -> Quote:
        """Store a quote under the next code, as a draft.

        The commit point of a `create_quote` task: if a quote of this id is there already, it
        is returned as it is. A quote that supersedes another has its number and the next
        version; the older versions can no longer be accepted when this returns, and if it
        does not return, a repetition sees to it.
        """
        older = None if new.supersedes is None else self.get(new.supersedes)
        if older is not None:
            # Before the new one is there: of the two at most one can ever be accepted from now.
            self._mark_superseded(older, new.id)
        done = self.get(new.id)
        while done is None:
            now = self._clock.now()
            if older is None:
                number, version = self._next_number(now.year), 1
            else:
                number = older.number
                version = 1 + max(each.version for each in self._versions(number))
            document = {
                "_id": new.id,
                "code": number if version == 1 else f"{number}-{version}",
                "number": number,
                "version": version,
                "supersedes": None if older is None else older.id,
                "superseded_by": None,
                "state": QuoteState.DRAFT.value,
                "revision": 0,
                "edition": 1,
                "session": new.session,
                "customer": {"name": new.customer_name, "phone": new.customer_phone},
                "language": new.language,
                "product": new.product,
                "description": new.description,
                "items": list(new.items),
                "total": Decimal128(new.total),
                "tax": Decimal128(new.tax),
                "tax_rate": str(new.tax_rate),
                "currency": new.currency,
                "catalogue_version": new.catalogue_version,
                "created_at": now,
                "valid_until": now + dt.timedelta(days=new.validity_days),
                "untold": new_id(now),
                "history": [{"at": now, "state": QuoteState.DRAFT.value}],
                "state_at": now,
                "channel": new.channel,
                "changed_at": now,
            }
            document["unit_price_per_m2"] = self._read(document).unit_price_per_m2
            try:
                with store_errors():
                    self._quotes.insert_one(document)
            except DuplicateKeyError:
                # The id: done meanwhile. The code: another correction, or the counter was set
                # back; take the next.
                done = self.get(new.id)
            else:
                done = self._read(document)
        if done.version > 1:
            for each in self._versions(done.number):
                if each.version < done.version:
                    self._mark_superseded(each, done.id)
        return done

    def change(self, quote_id: str, action: QuoteAction) -> Quote:
        """Do what `next_state` says, once; the quote as it is then.

        Raises:
            QuoteNotFound: no such quote.
            QuoteClosed: it cannot be accepted or rejected any more.
        """
        while True:
            quote, stored = self._stored(quote_id)
            now = self._clock.now()
            state = next_state(
                stored,
                action,
                valid_until=quote.valid_until,
                superseded=quote.superseded_by is not None,
                now=now,
            )
            if state is stored:
                return quote
            if self._write(
                quote,
                {
                    "$set": {"state": state.value, "state_at": now},
                    "$push": {"history": {"at": now, "state": state.value}},
                },
            ):
                return replace(quote, state=state, state_at=now, revision=quote.revision + 1)

    def name_customer(self, quote_id: str, name: str) -> None:
        """Make a quote out to somebody; one that is not kept any more is left alone."""
        while True:
            try:
                quote, _ = self._stored(quote_id)
            except QuoteNotFound:
                return
            if quote.customer_name == name:
                return
            edition = quote.edition + 1
            if self._write(quote, {"$set": {"customer.name": name, "edition": edition}}):
                return

    def expire_due(self, limit: int) -> int:
        """Mark open quotes whose time is over, at most `limit`; how many were marked."""
        marked = 0
        for state in OPEN:
            with store_errors():
                due = self._quotes.find(
                    {"state": state.value, "valid_until": {"$lt": self._clock.now()}}, {"_id": 1}
                ).limit(limit - marked)
                found = [document["_id"] for document in due]
            for quote_id in found:
                self.change(quote_id, "expire")
            marked += len(found)
            if marked >= limit:
                break
        return marked

    def ending(
        self, state: QuoteState, since: dt.datetime, until: dt.datetime, limit: int
    ) -> list[tuple[str, dt.datetime]]:
        """Session and end of the quotes of a state whose time ends from `since` to before
        `until`, the first to end first."""
        return self._in_time(state, "valid_until", since, until, limit)

    def standing(
        self, state: QuoteState, since: dt.datetime, until: dt.datetime, limit: int
    ) -> list[tuple[str, dt.datetime]]:
        """Session and time of the quotes that came to a state from `since` to before `until` and
        are in it, the longest ago first."""
        return self._in_time(state, "state_at", since, until, limit)

    def _in_time(
        self, state: QuoteState, field: str, since: dt.datetime, until: dt.datetime, limit: int
    ) -> list[tuple[str, dt.datetime]]:
        query = {"state": state.value, field: {"$gte": since, "$lt": until}}
        with store_errors():
            found = self._quotes.find(query, {"session": 1, field: 1}).sort(field, 1).limit(limit)
            # One without a conversation has none to be found, and counts for the limit.
            return [(each["session"] or "", each[field]) for each in found]

    def untold(self, limit: int) -> list[Quote]:
        """Quotes that are new or have changed since they were last `told`, the longest first."""
        with store_errors():
            found = self._quotes.find({"untold": {"$gt": ""}}).sort("untold", 1).limit(limit)
            return [self._read(document) for document in found]

    def told(self, quote: Quote) -> None:
        """Word of the quote, as it was read, is on its way; what has changed since stays untold."""
        with store_errors():
            self._quotes.update_one(
                {"_id": quote.id, "revision": quote.revision}, {"$unset": {"untold": ""}}
            )

    def newest_of(self, sessions: Iterable[str]) -> dict[str, Quote]:
        """Session id -> its newest quote; sessions without one are left out."""
        with store_errors():
            found = list(self._quotes.find({"session": {"$in": list(sessions)}}))
        quotes = sorted(map(self._read, found), key=lambda quote: quote.created_at)
        return {quote.session: quote for quote in quotes if quote.session is not None}

    def sums(self, since: dt.datetime, until: dt.datetime) -> list[QuoteSum]:
        """The quotes made from `since` to before `until`, by their state now and currency; of
        several versions of one, the last."""
        with store_errors():
            groups = self._quotes.aggregate(
                [
                    {
                        "$match": {
                            "created_at": {"$gte": since, "$lt": until},
                            "superseded_by": None,
                        }
                    },
                    {
                        "$group": {
                            "_id": {"state": "$state", "currency": "$currency"},
                            "count": {"$sum": 1},
                            "total": {"$sum": "$total"},
                        }
                    },
                ]
            )
            sums = [
                QuoteSum(
                    state=QuoteState(group["_id"]["state"]),
                    currency=group["_id"]["currency"],
                    count=group["count"],
                    total=group["total"].to_decimal(),
                )
                for group in groups
            ]
        return sorted(sums, key=lambda each: (each.currency, list(QuoteState).index(each.state)))

    def _read(self, document: Document) -> Quote:
        return Quote.from_document(document, self._clock.now())

    def _stored(self, quote_id: str) -> tuple[Quote, QuoteState]:
        """A quote, and the state that is stored: it may be due to expire."""
        with store_errors():
            document = self._quotes.find_one({"_id": quote_id})
        if document is None:
            raise QuoteNotFound(quote_id)
        return self._read(document), QuoteState(document["state"])

    def _versions(self, number: str) -> list[Quote]:
        with store_errors():
            return [self._read(each) for each in self._quotes.find({"number": number})]

    def _mark_superseded(self, quote: Quote, by: str) -> None:
        while quote.superseded_by is None:
            if self._write(quote, {"$set": {"superseded_by": by}}):
                return
            quote, _ = self._stored(quote.id)

    def _write(self, quote: Quote, update: Document) -> bool:
        """The one compare-and-set. One whose acknowledgement was lost is found done by the
        next reading, as every change here is its own proof."""
        now = self._clock.now()
        update["$set"] = update["$set"] | {"changed_at": now, "untold": new_id(now)}
        with store_errors():
            written = self._quotes.update_one(
                {"_id": quote.id, "revision": quote.revision}, update | {"$inc": {"revision": 1}}
            )
        return written.matched_count == 1

    def _next_number(self, year: int) -> str:
        counter = {"_id": f"quotes-{year}"}
        while True:
            with store_errors():
                # No upsert: of several at once, the embedded server answers some with nothing.
                counted = self._counters.find_one_and_update(
                    counter, {"$inc": {"n": 1}}, return_document=ReturnDocument.AFTER
                )
                if counted is not None:
                    return f"COT-{year}-{counted['n']:06d}"
                with suppress(DuplicateKeyError):
                    self._counters.insert_one({**counter, "n": 0})

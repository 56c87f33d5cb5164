"""Quotes as they are kept: each made once, under a code that people can say on the phone.

Keeps secret how a quote is stored once however often its task runs: its id is the task's,
so the insert is the commit point, and a duplicate means that it is done.

Collection `quotes`, one document per quote, never deleted:

    _id                id of the task that made it
    code               "COT-2026-000123": year (UTC) and a number of that year; unique.
                       Numbers rise, with gaps where a process died between two writes.
    state              "draft" | "sent" | "accepted" | "rejected" | "expired"
    session            session id, or null
    customer           {name, phone}, each a string or null
    language           "es" | "en": the customer's
    items              [priced item], as `agents.quote.pricing.PricedItem.to_document`
    total, tax         Decimal128, in `currency`; the tax is a part of the total
    tax_rate           string of a Decimal
    currency           three letters
    catalogue_version  int: the catalogue that it was priced by
    created_at, valid_until

Collection `counters`: {_id: "quotes-2026", n: the last number given}.

Written by `QuoteStore.store_once` (the quote agent); read by the agents that follow up
and count.
"""

import datetime as dt
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Any

from bson.decimal128 import Decimal128
from pymongo import ReturnDocument
from pymongo.database import Database
from pymongo.errors import DuplicateKeyError

from agents.catalogue import Language
from orchestrator.clock import Clock
from orchestrator.tasks import store_errors

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
        return self in (QuoteState.DRAFT, QuoteState.SENT)


@dataclass(frozen=True)
class NewQuote:
    """What is known of a quote before it is stored. Money in `currency`."""

    id: str
    session: str | None
    customer_name: str | None
    customer_phone: str | None
    language: Language
    items: tuple[Document, ...]
    total: Decimal
    tax: Decimal
    tax_rate: Decimal
    currency: str
    validity_days: int
    catalogue_version: int


@dataclass(frozen=True)
class Quote:
    """A quote as it was read."""

    id: str
    code: str
    state: QuoteState
    session: str | None
    customer_name: str | None
    customer_phone: str | None
    language: Language
    items: tuple[Document, ...]
    total: Decimal
    tax: Decimal
    tax_rate: Decimal
    currency: str
    catalogue_version: int
    created_at: dt.datetime
    valid_until: dt.datetime

    @classmethod
    def from_document(cls, document: Document) -> "Quote":
        """Read what the collection holds."""
        return cls(
            id=document["_id"],
            code=document["code"],
            state=QuoteState(document["state"]),
            session=document["session"],
            customer_name=document["customer"]["name"],
            customer_phone=document["customer"]["phone"],
            language=document["language"],
            items=tuple(document["items"]),
            total=document["total"].to_decimal(),
            tax=document["tax"].to_decimal(),
            tax_rate=Decimal(document["tax_rate"]),
            currency=document["currency"],
            catalogue_version=document["catalogue_version"],
            created_at=document["created_at"],
            valid_until=document["valid_until"],
        )


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
        """Make every index that a query here relies on; harmless when they exist."""
        with store_errors():
            self._quotes.create_index("code", name="code", unique=True)
            self._quotes.create_index("session", name="session")
            self._quotes.create_index("created_at", name="period")

    def get(self, quote_id: str) -> Quote | None:
        """The quote that a task made, if it did."""
        with store_errors():
            document = self._quotes.find_one({"_id": quote_id})
        return None if document is None else Quote.from_document(document)

    def store_once(self, new: NewQuote) -> Quote:
        """Store a quote under the next code, as a draft.

        The commit point of a `create_quote` task: if a quote of this id is there already, it
        is returned as it is, and nothing is written.
        """
        done = self.get(new.id)
        while done is None:
            now = self._clock.now()
            document = {
                "_id": new.id,
                "code": self._next_code(now.year),
                "state": QuoteState.DRAFT.value,
                "session": new.session,
                "customer": {"name": new.customer_name, "phone": new.customer_phone},
                "language": new.language,
                "items": list(new.items),
                "total": Decimal128(new.total),
                "tax": Decimal128(new.tax),
                "tax_rate": str(new.tax_rate),
                "currency": new.currency,
                "catalogue_version": new.catalogue_version,
                "created_at": now,
                "valid_until": now + dt.timedelta(days=new.validity_days),
            }
            try:
                with store_errors():
                    self._quotes.insert_one(document)
            except DuplicateKeyError:
                # The id: done meanwhile. The code: the counter was set back; take the next.
                done = self.get(new.id)
            else:
                done = Quote.from_document(document)
        return done

    def newest_of(self, sessions: Iterable[str]) -> dict[str, Quote]:
        """Session id -> its newest quote; sessions without one are left out."""
        with store_errors():
            found = list(self._quotes.find({"session": {"$in": list(sessions)}}))
        quotes = sorted(map(Quote.from_document, found), key=lambda quote: quote.created_at)
        return {quote.session: quote for quote in quotes if quote.session is not None}

    def sums(self, since: dt.datetime, until: dt.datetime) -> list[QuoteSum]:
        """The quotes made from `since` to before `until`, by their state now and currency."""
        with store_errors():
            groups = self._quotes.aggregate(
                [
                    {"$match": {"created_at": {"$gte": since, "$lt": until}}},
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

    def _next_code(self, year: int) -> str:
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

"""Reading a collection newest first, a page at a time, at a cost that does not grow with it.

Keeps secret how a page is found. SecantusDB 0.6 reads every entry of an index range, whatever
the limit, and uses an index for equalities followed by one range: so a page is looked for in
windows of time that grow as they go back, and what an index does not serve is compared here.
With a real MongoDB each window is a short backward scan of the same index.
"""

import datetime as dt
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pymongo.collection import Collection

Document = dict[str, Any]

FIRST_WINDOW = dt.timedelta(seconds=2)
WINDOW_GROWS = 4
# Nothing here is older.
EPOCH = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
# Clocks of hosts that make ids may be ahead of the database's.
AHEAD = dt.timedelta(days=1)
# Documents compared per page. Where hardly any is wanted a page ends before it is full.
COMPARED = 2000


@dataclass(frozen=True)
class Page:
    """Documents, newest first, and the position after which the next page begins.

    A page may be short, or empty, and still have a position: then it is worth asking on.
    """

    documents: list[Document]
    next: str | None


@dataclass(frozen=True)
class Order:
    """What a collection is read by: a field that rises with time, and is the second key of
    the indexes that serve its equalities."""

    field: str
    at: Callable[[dt.datetime], Any]  # below every value of this time or later
    time_of: Callable[[Any], dt.datetime]
    position_of: Callable[[Any], str]
    value_of: Callable[[str], Any]  # ValueError for what `position_of` never gave


def newest_first(
    collection: Collection[Document],
    equal: Mapping[str, Any],
    order: Order,
    *,
    now: dt.datetime,
    limit: int,
    position: str | None = None,
    since: dt.datetime | None = None,
    wanted: Callable[[Document], bool] | None = None,
    fields: Mapping[str, int] | None = None,
) -> Page:
    """A page of the documents that equal `equal`, newest first, from `position` on.

    There must be an index on the fields of `equal` and then the order's field. `wanted`
    compares what no index does.

    Raises:
        ValueError: the position is none of this order.
        PyMongoError: for the caller to translate.
    """
    below = order.at(now + AHEAD) if position is None else order.value_of(position)
    top = now if position is None else min(order.time_of(below), now)
    oldest = EPOCH if since is None else max(since, EPOCH)
    found: list[Document] = []
    compared = 0
    width = FIRST_WINDOW
    while True:
        start = max(top - width, oldest) if top - oldest > width else oldest
        window = {"$gte": order.at(start), "$lt": below}
        most = (limit - len(found) if wanted is None else COMPARED - compared) + 1
        documents = collection.find({**equal, order.field: window}, fields)
        for document in documents.sort(order.field, -1).limit(most):
            if len(found) == limit or compared == COMPARED:
                # There is more: the next page begins after the last one looked at.
                return Page(found, order.position_of(below))
            compared += 1
            below = document[order.field]
            if wanted is None or wanted(document):
                found.append(document)
        if start == oldest:
            return Page(found, None)
        top, below = start, order.at(start)
        width *= WINDOW_GROWS


def oldest_first(
    collection: Collection[Document],
    equal: Mapping[str, Any],
    order: Order,
    *,
    start: dt.datetime,
    end: dt.datetime,
) -> Iterator[Document]:
    """The documents that equal `equal`, from a time to before another, oldest first.

    Read in short stretches, as few documents at a time as in a page; needs the same index.

    Raises:
        PyMongoError: for the caller to translate.
    """
    width = dt.timedelta(hours=1)
    while start < end:
        stop = min(start + width, end)
        window = {"$gte": order.at(start), "$lt": order.at(stop)}
        found = list(collection.find({**equal, order.field: window}).sort(order.field, 1))
        yield from found
        start = stop
        width = width * 2 if len(found) < 100 else max(width / 2, dt.timedelta(seconds=1))

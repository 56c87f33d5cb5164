"""What a sync needs of each side: rows to read since a cursor, rows to write under keys.

A connector speaks to one kind of system (a file, a shop, a sheet). It knows nothing of syncs:
not what rows mean, nor which of two sides is right.
"""

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

Document = dict[str, Any]
# A row as one side has it: column or field -> cell.
Values = Mapping[str, Any]

# Rows of one page: what is in memory at once, and what a killed sync does again at most.
PAGE_ROWS: Final = 500


@dataclass(frozen=True)
class Abilities:
    """What a connector can do."""

    reads: bool = False
    # From no cursor a read gives every row that there is: so what is missing is gone.
    complete: bool = False
    writes: bool = False
    # It tells what is there under a key.
    looks_up: bool = False
    deletes: bool = False


@dataclass(frozen=True)
class SourceRow:
    """A row that was read. `place` is its number as people count it in the source, where it
    has one that stays; `changed_at` where the source tells."""

    values: Values
    place: int | None = None
    changed_at: dt.datetime | None = None


@dataclass(frozen=True)
class Page:
    """Some rows, and the cursor (JSON) to go on from after them.

    After the `last` page the cursor is where the next sync begins. `start_over` says that the
    source has changed so that what was read before does not count: rows begin anew with this
    page.
    """

    rows: tuple[SourceRow, ...]
    cursor: Document
    last: bool = False
    start_over: bool = False


@dataclass(frozen=True)
class Fault:
    """Why the other side did not take a row. `reason` never holds what the row holds."""

    column: str
    reason: str


class Connector(Protocol):
    """One side of a sync.

    Every method raises `RetryLater` where the other side surely may be asked again (a limit, an
    outage, a cut connection), and `TaskError` where that would not help.
    """

    @property
    def abilities(self) -> Abilities:
        """What it can do; what it cannot is not asked of it."""

    def read(self, cursor: Document | None) -> Iterator[Page]:
        """Pages from a cursor on, or from the beginning; the last one says so.

        A page may come twice, and rows in it may come twice: whoever reads knows them by key.
        """

    def current(self, keys: Iterable[str]) -> dict[str, Values]:
        """What is there under these keys; keys that are not there are left out."""

    def write(self, rows: Mapping[str, Values]) -> dict[str, Fault]:
        """Put rows under their keys, changed in place where they are there; those that were
        refused. Doing it again changes nothing."""

    def delete(self, keys: Iterable[str]) -> None:
        """Take rows away; keys that are not there are no error."""

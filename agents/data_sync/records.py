"""Rows that the desk keeps for others, as a side of a sync."""

from collections.abc import Iterable, Iterator, Mapping

from agents.data_sync.connector import (
    PAGE_ROWS,
    Abilities,
    Document,
    Fault,
    Page,
    SourceRow,
    Values,
)
from agents.data_sync.store import Records


class RecordsSide:
    """A dataset of `Records`, by the order of its keys."""

    abilities = Abilities(reads=True, complete=True, writes=True, looks_up=True, deletes=True)

    def __init__(self, records: Records, dataset: str) -> None:
        self._records = records
        self._dataset = dataset

    def read(self, cursor: Document | None) -> Iterator[Page]:
        """All rows; one that changes while it is read comes with what it is then."""
        after = "" if cursor is None else str(cursor.get("after", ""))
        while True:
            found = self._records.page(self._dataset, after, PAGE_ROWS)
            rows = tuple(
                SourceRow(each["values"], changed_at=each["changed_at"]) for _, each in found
            )
            last = len(found) < PAGE_ROWS
            after = "" if last else found[-1][0]
            yield Page(rows, {"after": after}, last=last)
            if last:
                return

    def current(self, keys: Iterable[str]) -> dict[str, Values]:
        """Rows under their keys."""
        found = self._records.find(self._dataset, keys)
        return {
            key: each["values"] | {"@changed_at": each["changed_at"]} for key, each in found.items()
        }

    def write(self, rows: Mapping[str, Values]) -> dict[str, Fault]:
        """Put rows; fields that are not given stay."""
        self._records.put(self._dataset, rows)
        return {}

    def delete(self, keys: Iterable[str]) -> None:
        """Take rows away."""
        self._records.delete(self._dataset, keys)

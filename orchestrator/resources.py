"""What agents keep and others may look at, read as the agents declare it.

Keeps secret how a declared collection is read: newest first by its id, a page at a time, with
the fields that are shown, as JSON. Only the agent that declares a resource writes it.
"""

import datetime as dt
from collections.abc import Mapping
from typing import Any

from bson.decimal128 import Decimal128
from pymongo.database import Database

from orchestrator.clock import Clock
from orchestrator.declarations import DeclarationStore, Resource
from orchestrator.errors import NotFound
from orchestrator.pages import newest_first
from orchestrator.tasks import BY_ID, store_errors

Document = dict[str, Any]


class Resources:
    """Every method raises StoreUnavailable when MongoDB does not answer, and NotFound where
    no agent has declared the resource."""

    def __init__(
        self, database: Database[Document], declarations: DeclarationStore, clock: Clock
    ) -> None:
        self._database = database
        self._declarations = declarations
        self._clock = clock

    def get(self, name: str, document_id: str) -> Document:
        """One document: `id` and its fields. Decimals are strings, times aware.

        Raises:
            NotFound: there is none of this id.
        """
        resource = self._declared(name)
        with store_errors():
            found = self._database[resource.collection].find_one({"_id": document_id})
        if found is None:
            raise NotFound()
        return self._shown(resource, found)

    def all(self, name: str, limit: int) -> list[Document]:
        """The documents of a resource that has few, by their ids, at most `limit`."""
        resource = self._declared(name)
        with store_errors():
            found = list(self._database[resource.collection].find().sort("_id", 1).limit(limit))
        return [self._shown(resource, each) for each in found]

    def page(
        self,
        name: str,
        filters: Mapping[str, str],
        limit: int,
        position: str | None = None,
        since: dt.datetime | None = None,
    ) -> tuple[list[Document], str | None]:
        """Documents, newest first, and where the next page begins, None at the end.

        Raises:
            ValueError: the position is none that was given here, or there is no such filter.
        """
        resource = self._declared(name)
        if unknown := set(filters) - set(resource.filters):
            raise ValueError(f"no filters of {name}: {sorted(unknown)}")
        # One index for each filter, not for each combination: what is left is compared.
        given = [each for each in resource.filters if each in filters]
        equal = {each: filters[each] for each in given[:1]}
        lapse = resource.lapse
        if lapse is not None and equal.get(lapse.field) == lapse.becomes:
            # What has lapsed is stored as it was for a while yet.
            equal = {}

        def fits(document: Document) -> bool:
            shown = self._lapsed(resource, document)
            return all(shown.get(field) == value for field, value in filters.items())

        with store_errors():
            page = newest_first(
                self._database[resource.collection],
                equal,
                BY_ID,
                now=self._clock.now(),
                limit=limit,
                position=position,
                since=since,
                wanted=fits if filters else None,
            )
        return [self._shown(resource, each) for each in page.documents], page.next

    def _declared(self, name: str) -> Resource:
        resource = self._declarations.resource(name)
        if resource is None:
            raise NotFound(f"No agent keeps {name}")
        return resource

    def _shown(self, resource: Resource, document: Document) -> Document:
        shown = self._lapsed(resource, document)
        return {"id": document["_id"]} | {
            field: _json(shown[field]) for field in resource.fields if field in shown
        }

    def _lapsed(self, resource: Resource, document: Document) -> Document:
        lapse = resource.lapse
        if lapse is None or document.get(lapse.field) not in lapse.values:
            return document
        over = self._clock.now() >= document[lapse.at]
        return document | {lapse.field: lapse.becomes} if over else document


def _json(value: Any) -> Any:
    if isinstance(value, Decimal128):
        return str(value.to_decimal())
    if isinstance(value, dict):
        return {name: _json(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_json(part) for part in value]
    return value

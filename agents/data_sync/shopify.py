"""A Shopify shop's product variants, as a side of a sync.

Keeps secret the GraphQL Admin API: its cursors, its points (a query that costs more than there are
is THROTTLED with 200), and that variants are changed product by product. Rows are variants as the
API has them (`price`, `product.title`, ...), under their SKU or the number of their id.

https://shopify.dev/docs/api/admin-graphql/latest/queries/productVariants
https://shopify.dev/docs/api/admin-graphql/latest/mutations/productVariantsBulkUpdate
https://shopify.dev/docs/api/usage/limits
"""

import datetime as dt
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import islice
from typing import Any, Final

from agents.data_sync.connector import Abilities, Document, Fault, Page, SourceRow, Values
from agents.data_sync.definitions import ShopifySide
from agents.data_sync.web import Refused, Web
from orchestrator import TaskError
from orchestrator.errors import RetryLater

# The API's limit of a page.
PAGE_VARIANTS: Final = 250
LOOKED_UP: Final = 50
# What of a variant can be changed without more ado.
WRITABLE: Final = frozenset({"price", "compareAtPrice", "barcode", "taxable"})
ID: Final = "gid://shopify/ProductVariant/"

_READ: Final = """
query Variants($first: Int!, $after: String, $query: String) {
  productVariants(first: $first, after: $after, query: $query, sortKey: ID) {
    nodes {
      id sku title price compareAtPrice barcode taxable inventoryQuantity updatedAt
      product { id title handle status vendor productType }
    }
    pageInfo { hasNextPage endCursor }
  }
}
"""
_WRITE: Final = """
mutation Change($productId: ID!, $variants: [ProductVariantsBulkInput!]!) {
  productVariantsBulkUpdate(
    productId: $productId, variants: $variants, allowPartialUpdates: true
  ) {
    productVariants { id }
    userErrors { field message }
  }
}
"""


class Shopify:
    """A shop by its definition. `now` is the time that a read begins at."""

    abilities = Abilities(reads=True, writes=True, looks_up=True)

    def __init__(self, web: Web, side: ShopifySide, now: Callable[[], dt.datetime]) -> None:
        self._web = web
        self._side = side
        self._now = now
        self._url = f"{side.url.rstrip('/')}/admin/api/{side.version}/graphql.json"

    def read(self, cursor: Document | None) -> Iterator[Page]:
        """Variants by their id, so that a change while they are read moves none; since a cursor
        those that have changed."""
        at = dict(cursor or {})
        if at.get("done") or not at:
            at = {"since": at.get("began"), "began": self._now().isoformat(), "after": None}
        while True:
            since = f"updated_at:>='{at['since']}'" if at["since"] else None
            found = self._ask(
                _READ, {"first": PAGE_VARIANTS, "after": at["after"], "query": since}
            )["productVariants"]
            rows = tuple(
                SourceRow(self._keyed(node), changed_at=_time(node.get("updatedAt")))
                for node in found["nodes"]
            )
            last = not found["pageInfo"]["hasNextPage"]
            at = at | {"after": None if last else found["pageInfo"]["endCursor"], "done": last}
            yield Page(rows, at, last=last)
            if last:
                return

    def current(self, keys: Iterable[str]) -> dict[str, Values]:
        """Variants under their keys."""
        return {
            key: found[0] | {"@changed_at": _time(found[0].get("updatedAt"))}
            for key, found in self._found(keys).items()
        }

    def write(self, rows: Mapping[str, Values]) -> dict[str, Fault]:
        """Change variants that there are; what is in no shop cannot be made up from a row."""
        refused: dict[str, Fault] = {}
        known = self._found(rows)
        by_product: dict[str, list[tuple[str, Document]]] = defaultdict(list)
        for key, values in rows.items():
            wanted = {name: value for name, value in values.items() if name != self._side.key}
            foreign = sorted(set(wanted) - WRITABLE)
            found = known.get(key, [])
            if foreign:
                refused[key] = Fault(foreign[0], "cannot be written to Shopify")
            elif len(found) != 1:
                reason = "is in no variant of the shop" if not found else "is of several variants"
                refused[key] = Fault(self._side.key, reason)
            elif wanted:
                variant = {"id": found[0]["id"]} | wanted
                by_product[found[0]["product"]["id"]].append((key, variant))
        for product, changed in by_product.items():
            for start in range(0, len(changed), PAGE_VARIANTS):
                refused |= self._change(product, changed[start : start + PAGE_VARIANTS])
        return refused

    def delete(self, keys: Iterable[str]) -> None:
        raise NotImplementedError

    def _change(self, product: str, changed: list[tuple[str, Document]]) -> dict[str, Fault]:
        variables = {"productId": product, "variants": [variant for _, variant in changed]}
        told = self._ask(_WRITE, variables)["productVariantsBulkUpdate"]
        refused = {}
        for error in told["userErrors"]:
            # ["variants", "0", "price"]
            field = [str(part) for part in error.get("field") or ()]
            fault = Fault(field[-1] if field else "", "was refused by Shopify")
            at = next((int(part) for part in field if part.isdigit()), None)
            for key, _ in changed if at is None else [changed[at]]:
                refused[key] = fault
        return refused

    def _found(self, keys: Iterable[str]) -> dict[str, list[Document]]:
        """Key -> the variants that have it."""
        found: dict[str, list[Document]] = defaultdict(list)
        remaining = iter(keys)
        while some := list(islice(remaining, LOOKED_UP)):
            asked = " OR ".join(self._term(key) for key in some)
            after = None
            while True:
                page = self._ask(_READ, {"first": PAGE_VARIANTS, "after": after, "query": asked})
                variants = page["productVariants"]
                for node in variants["nodes"]:
                    row = self._keyed(node)
                    # The search finds more than what is equal.
                    if row[self._side.key] in some:
                        found[row[self._side.key]].append(row | {"id": node["id"]})
                if not variants["pageInfo"]["hasNextPage"]:
                    break
                after = variants["pageInfo"]["endCursor"]
        return found

    def _term(self, key: str) -> str:
        if self._side.key == "id":
            return f"id:{key}" if key.isdigit() else 'id:"0"'
        return 'sku:"{}"'.format(key.replace("\\", "\\\\").replace('"', '\\"'))

    def _keyed(self, node: Document) -> Document:
        """A variant whose id is a number: as people see it in the address of its page."""
        return node | {"id": str(node["id"]).removeprefix(ID)}

    def _ask(self, query: str, variables: Document) -> Any:
        try:
            reply = self._web.ask("POST", self._url, body={"query": query, "variables": variables})
        except Refused as refused:
            raise refused.error() from None
        told = reply.data if isinstance(reply.data, dict) else {}
        errors = told.get("errors")
        if errors:
            codes = {
                str((error.get("extensions") or {}).get("code"))
                for error in errors
                if isinstance(error, dict)
            }
            if "THROTTLED" in codes:
                raise RetryLater(
                    "Shopify's points are spent.", after_s=_pause_s(told), reason="throttled"
                )
            if "INTERNAL_SERVER_ERROR" in codes:
                raise RetryLater("Shopify has an error.", reason="status_500")
            raise TaskError(
                "other_side_refused", "Shopify refuses this request.", codes=sorted(codes)
            )
        if not isinstance(told.get("data"), dict):
            raise TaskError("source_unreadable", "The answer is not Shopify's.")
        return told["data"]


def _pause_s(told: Document) -> float | None:
    """How long it takes until there are enough points again."""
    with suppress(KeyError, TypeError, ZeroDivisionError):
        cost = told["extensions"]["cost"]
        status = cost["throttleStatus"]
        lacking = float(cost["requestedQueryCost"]) - float(status["currentlyAvailable"])
        return min(max(lacking / float(status["restoreRate"]), 0.5), 60.0)
    return None


def _time(text: Any) -> dt.datetime | None:
    with suppress(TypeError, ValueError):
        return dt.datetime.fromisoformat(text)
    return None

"""Bringing rows into the catalogue: staged, looked at as a whole, published once or held back.

Keeps secret when an import does not go live by itself. A price of 0, too many products gone, or a
price that moves too far are more likely a mistake in a file than news: the import is held then,
with its reasons, until a person lets it in or not. Its rows wait beside it and are put onto the
catalogue that is in force when they are let in.

    collection         document                                                  goes
    sync_rows          _id: "{import}/{key}"; import; n: the row's place;        `expire_at`
                       product: as the data file has it, or null: to be taken
                       away
    catalogue_imports  _id: the task's id; sync, or null; state: published |     `expire_at`
                       held | rejected | unchanged; doubts: [{code, ...}];
                       base_version, version; changes, shortened; wrong_rows;
                       at; by, decided_at: the person's

Written here only; the front door reads imports as a resource.
"""

import datetime as dt
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from typing import Any, Final, Literal

from pymongo.database import Database

from agents.catalogue import Catalogue, CatalogueChanges, CatalogueStore, Product, changes
from agents.data_sync.connector import Abilities, Fault, Page, SourceRow, Values
from agents.data_sync.rows import Applied, NothingLeft, Row, apply_rows
from agents.data_sync.store import insert_new
from agents.data_sync.versions import ImportedCatalogues
from orchestrator import TaskError
from orchestrator.clock import Clock
from orchestrator.declarations import Resource
from orchestrator.errors import Conflict, NotFound
from orchestrator.settings import Settings
from orchestrator.tasks import ensure_index, store_errors

Document = dict[str, Any]
ImportState = Literal["published", "held", "rejected", "unchanged"]

# What of a change is kept beside an import; all of it is in the versions.
SHOWN_CHANGES: Final = 200
SHOWN_PRODUCTS: Final = 50
PAGE_PRODUCTS: Final = 500

IMPORTS: Final = Resource(
    name="catalogue_imports",
    collection="catalogue_imports",
    fields=(
        "sync",
        "state",
        "doubts",
        "base_version",
        "version",
        "changes",
        "wrong_rows",
        "at",
        "by",
        "decided_at",
    ),
    filters=("state",),
)


@dataclass(frozen=True)
class Imported:
    """What came of an import. `version` holds it where it is published or nothing changed."""

    state: ImportState
    base: Catalogue
    applied: Applied
    version: int | None
    doubts: tuple[Document, ...] = ()

    @property
    def changes(self) -> CatalogueChanges:
        """What it changes, or would."""
        return changes(self.base, self.applied.catalogue)


def doubts(
    base: Catalogue,
    new: Catalogue,
    rows: Iterable[Row],
    *,
    max_price_change_pct: float,
    max_gone_pct: float,
) -> tuple[Document, ...]:
    """Why a new catalogue should not go live without a person's word; pure."""
    found: list[Document] = []
    free = [str(row.product.get("id")) for row in rows if _is_zero(row.product)]
    if free:
        found.append({"code": "price_zero", "count": len(free), "products": free[:SHOWN_PRODUCTS]})
    kept = {product.id: product for product in new.products}
    gone = [product.id for product in base.products if product.id not in kept]
    if 100 * len(gone) > max_gone_pct * len(base.products):
        found.append(
            {
                "code": "products_gone",
                "count": len(gone),
                "of": len(base.products),
                "products": gone[:SHOWN_PRODUCTS],
            }
        )
    moved = [
        (product.id, product.base_price_per_m2, kept[product.id].base_price_per_m2)
        for product in base.products
        if product.id in kept and _moved(product, kept[product.id]) > Decimal(max_price_change_pct)
    ]
    if moved:
        found.append(
            {
                "code": "price_moved",
                "count": len(moved),
                "more_than_pct": max_price_change_pct,
                "products": [
                    {"id": each, "old": format(old, "f"), "new": format(now, "f")}
                    for each, old, now in moved[:SHOWN_PRODUCTS]
                ],
            }
        )
    return tuple(found)


def _is_zero(product: Mapping[str, Any]) -> bool:
    try:
        return Decimal(str(product["base_price_per_m2"])) == 0
    except (KeyError, InvalidOperation):
        return False


def _moved(old: Product, new: Product) -> Decimal:
    """By how many percent of the old a price has moved."""
    return abs(new.base_price_per_m2 - old.base_price_per_m2) / old.base_price_per_m2 * 100


class CatalogueImports:
    """Imports of one process. Raises StoreUnavailable where MongoDB does not answer."""

    def __init__(
        self,
        database: Database[Document],
        catalogues: CatalogueStore,
        clock: Clock,
        settings: Settings,
    ) -> None:
        self._rows = database["sync_rows"]
        self._imports = database["catalogue_imports"]
        self._versions = ImportedCatalogues(database)
        self._catalogues = catalogues
        self._clock = clock
        self._settings = settings
        self._kept = dt.timedelta(days=settings.task_retention_days)

    def ensure_indexes(self) -> None:
        """Make every index that a query here, or a list at the front door, relies on."""
        ensure_index(self._rows, "import", "import n")
        ensure_index(self._rows, "expiry", "expire_at", expireAfterSeconds=0)
        ensure_index(self._imports, "state", "state _id")
        ensure_index(self._imports, "sync", "sync version")
        ensure_index(self._imports, "expiry", "expire_at", expireAfterSeconds=0)

    # -- staging -------------------------------------------------------------------------

    def stage(self, import_id: str, products: Mapping[str, tuple[int, Document | None]]) -> None:
        """Keep rows for an import, each under its key; None takes a product away. Repeatable."""
        expire_at = self._clock.now() + self._kept
        documents = [
            {
                "_id": f"{import_id}/{key}",
                "import": import_id,
                "n": n,
                "product": _storable(product),
                "expire_at": expire_at,
            }
            for key, (n, product) in products.items()
        ]
        if documents:
            with store_errors():
                # In place of what an attempt that died has staged; nobody else looks at them.
                self._rows.delete_many({"_id": {"$in": [each["_id"] for each in documents]}})
            insert_new(self._rows, documents)

    def unstage(self, import_id: str) -> None:
        """Forget the rows of an import."""
        with store_errors():
            self._rows.delete_many({"import": import_id})

    def staged(self, import_id: str) -> tuple[list[Row], list[str]]:
        """The rows of an import in their order, and the keys that it takes away."""
        rows, gone = [], []
        skip = len(import_id) + 1
        with store_errors():
            found = self._rows.find({"import": import_id, "n": {"$gte": 0}}).sort("n", 1)
            for each in found:
                if each["product"] is None:
                    gone.append(each["_id"][skip:])
                else:
                    rows.append(Row(each["n"], each["product"]))
        return rows, gone

    # -- publishing ----------------------------------------------------------------------

    def bring_in(
        self,
        import_id: str,
        rows: Sequence[Row],
        gone: Sequence[str] = (),
        *,
        source_key: str | None = None,
        sync: str | None = None,
        confirmed: bool = False,
        dry_run: bool = False,
    ) -> Imported:
        """Put rows onto the catalogue in force as one new version, once for its source key,
        never over another import's that came in between; or hold it.

        Raises:
            TaskError: `source_key_reused`, for another content; `catalogue_empty`.
        """
        key = f"import:{source_key or import_id}"
        while True:
            version = self._versions.published_as(key)
            if version is not None:
                base = self._versions.version(version - 1)
                applied = _applied(base, rows, gone)
                if applied.catalogue != self._versions.version(version):
                    raise TaskError(
                        "source_key_reused", "Other content was imported under this source_key."
                    )
                done = Imported("published", base, applied, version)
                break
            base = self._versions.current()
            applied = _applied(base, rows, gone)
            why = doubts(
                base,
                applied.catalogue,
                rows,
                max_price_change_pct=self._settings.catalogue_max_price_change_pct,
                max_gone_pct=self._settings.catalogue_max_gone_pct,
            )
            if why and not confirmed:
                done = Imported("held", base, applied, None, why)
                break
            if applied.catalogue == base:
                done = Imported("unchanged", base, applied, base.version)
                break
            if dry_run:
                return Imported("unchanged", base, applied, None)
            # Where another import was first, this one is put onto that one's version.
            self._versions.publish_after(base.version, applied.catalogue, key)
        if not dry_run:
            self._note(import_id, done, rows, sync)
        return done

    def _note(self, import_id: str, done: Imported, rows: Sequence[Row], sync: str | None) -> None:
        if done.state == "held":
            self.stage(
                import_id,
                {str(row.product.get("id", row.number)): (row.number, row.product) for row in rows},
            )
        changed = done.changes.to_document()
        document = {
            "sync": sync,
            "state": done.state,
            "base_version": done.base.version,
            "version": done.version,
            "changes": {
                "products_added": changed["products_added"][:SHOWN_PRODUCTS],
                "products_removed": changed["products_removed"][:SHOWN_PRODUCTS],
                "fields": changed["fields"][:SHOWN_CHANGES],
                "counts": {name: len(each) for name, each in changed.items()},
            },
            "wrong_rows": done.applied.wrong_rows,
        }
        now = self._clock.now()
        with store_errors():
            known = self._imports.find_one({"_id": import_id})
            if known is not None and known["state"] != "held":
                return
            fresh: Document = {}
            if known is None:
                fresh = {"at": now, "by": None, "decided_at": None, "doubts": list(done.doubts)}
            expiring = {} if done.state == "held" else {"expire_at": now + self._kept}
            self._imports.update_one(
                {"_id": import_id}, {"$set": document | fresh | expiring}, upsert=True
            )

    def published_by(self, sync: str) -> Catalogue | None:
        """The last version that a sync has made, if it has made one that is remembered."""
        with store_errors():
            found = list(
                self._imports.find({"sync": sync, "version": {"$gt": 0}})
                .sort("version", -1)
                .limit(1)
            )
        return self._catalogues.version(found[0]["version"]) if found else None

    # -- people --------------------------------------------------------------------------

    def held(self, import_id: str) -> Document:
        """An import that waits for a person.

        Raises:
            NotFound: no such import.
            Conflict: it does not wait (any more).
        """
        with store_errors():
            found = self._imports.find_one({"_id": import_id})
        if found is None:
            raise NotFound("No such import")
        if found["state"] != "held":
            raise Conflict("This import does not wait for anybody.", state=found["state"])
        return found

    def approve(self, import_id: str, by: str) -> Imported:
        """Let a held import in; repeatable."""
        with store_errors():
            held = self._imports.find_one({"_id": import_id}) or {}
        if not (held.get("state") == "published" and held["by"] is None and held["doubts"]):
            # Else it was let in by an attempt that died before it could say so.
            held = self.held(import_id)
        rows, gone = self.staged(import_id)
        done = self.bring_in(import_id, rows, gone, sync=held["sync"], confirmed=True)
        self._decide(import_id, by, {})
        return done

    def reject(self, import_id: str, by: str) -> None:
        """Keep a held import out."""
        self.held(import_id)
        self._decide(
            import_id, by, {"state": "rejected", "expire_at": self._clock.now() + self._kept}
        )

    def _decide(self, import_id: str, by: str, fields: Document) -> None:
        decided = {"by": by, "decided_at": self._clock.now()} | fields
        with store_errors():
            self._imports.update_one({"_id": import_id}, {"$set": decided})

    def restore(self, version: int, key: str) -> int:
        """Make the catalogue of an old version the current one again: as a new version, since
        quotes name versions; once for each key."""
        return self._catalogues.publish(self._catalogues.version(version), f"restore:{key}")


def _applied(base: Catalogue, rows: Sequence[Row], gone: Sequence[str]) -> Applied:
    taken = set(gone)
    left = tuple(product for product in base.products if product.id not in taken)
    try:
        return apply_rows(replace(base, products=left), list(rows))
    except NothingLeft:
        raise TaskError("catalogue_empty", "A catalogue needs at least one product.") from None


def _storable(value: Any) -> Any:
    """Decimals of a JSON file as strings, which the catalogue reads alike; BSON has no such."""
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, dict):
        return {str(name): _storable(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_storable(part) for part in value]
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return str(value)
    return value


# --- The catalogue as a side of a sync ----------------------------------------------------


def product_values(product: Product) -> dict[str, Any]:
    """A product as a record of a sync."""
    return {
        "id": product.id,
        "name_es": product.name.es,
        "name_en": product.name.en,
        "aliases": list(product.aliases),
        "thicknesses_mm": [str(each) for each in product.thicknesses_mm],
        "base_price_per_m2": format(product.base_price_per_m2, "f"),
        "description_es": product.description.es,
        "description_en": product.description.en,
    }


def product_document(record: Mapping[str, Any]) -> Document:
    """A record of a sync in the shape of the catalogue's data file."""
    product: Document = {}
    for name, value in record.items():
        if name.startswith(("name_", "description_")):
            field, _, language = name.rpartition("_")
            product.setdefault(field, {})[language] = value
        else:
            product[name] = value
    return product


def staged_rows(records: Mapping[str, Values], first: int = 1) -> list[Row]:
    """Records of a sync as rows of an import, in their order."""
    return [
        Row(n, product_document(dict(values) | {"id": key}))
        for n, (key, values) in enumerate(records.items(), start=first)
    ]


class CatalogueSide:
    """The catalogue in force. What is written is staged; `CatalogueImports` brings it in.

    `begins_at` numbers the first row that is written next, so that rows stay in their order
    also when a page is written again."""

    abilities = Abilities(reads=True, complete=True, writes=True, looks_up=True, deletes=True)

    def __init__(
        self,
        imports: CatalogueImports,
        catalogues: CatalogueStore,
        import_id: str,
        begins_at: Callable[[], int] = lambda: 1,
    ) -> None:
        self._imports = imports
        self._catalogues = catalogues
        self._import_id = import_id
        self._begins_at = begins_at

    def read(self, cursor: Document | None) -> Iterator[Page]:
        """All products, unless the catalogue is still the one that was read."""
        catalogue = self._catalogues.current()
        position: Document = {"version": catalogue.version}
        if cursor == position:
            yield Page((), position, last=True)
            return
        rows = [SourceRow(product_values(product)) for product in catalogue.products]
        for start in range(0, len(rows), PAGE_PRODUCTS):
            last = start + PAGE_PRODUCTS >= len(rows)
            # Within a catalogue nothing is gone on with: it is read in a moment.
            yield Page(
                tuple(rows[start : start + PAGE_PRODUCTS]), position if last else {}, last=last
            )

    def current(self, keys: Iterable[str]) -> dict[str, Values]:
        """Products under their ids."""
        return products_of(self._catalogues.current(), keys)

    def write(self, rows: Mapping[str, Values]) -> dict[str, Fault]:
        """Stage rows; those that are wrong are told when they are brought in."""
        staged = staged_rows(rows, self._begins_at())
        self._imports.stage(
            self._import_id, {each.product["id"]: (each.number, each.product) for each in staged}
        )
        return {}

    def delete(self, keys: Iterable[str]) -> None:
        """Stage that products are taken away."""
        self._imports.stage(self._import_id, dict.fromkeys(keys, (0, None)))


def products_of(catalogue: Catalogue, keys: Iterable[str]) -> dict[str, Values]:
    """Products of a catalogue under their ids, as records; other names do not count."""
    found: dict[str, Values] = {}
    for key in keys:
        product = catalogue.product(key)
        if product is not None and product.id == key:
            found[key] = product_values(product)
    return found

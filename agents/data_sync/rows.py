"""Products in rows of a CSV or JSON file, and a catalogue with those rows put in; pure.

Keeps secret how a file is read and how a row that is wrong is told from its neighbours.

A row describes one product by its `id`. What it leaves out stays as it is; a product that
the catalogue does not have yet needs everything but aliases and facts. Products that no row
names stay.

    CSV    UTF-8 with a header; commas, semicolons or tabs between the cells. Columns: `id,
           name_es, name_en, aliases, thicknesses_mm, base_price_per_m2, description_es,
           description_en`, in any order; an empty cell leaves out. Several aliases or
           thicknesses in one cell are separated by `|`. Numbers have a decimal point: a
           comma could mean a thousand.
    JSON   a list of products (or an object with that list as `products`) in the shape of
           the catalogue's data file.

Rows are counted as a spreadsheet shows them: the header of a CSV file is row 1, the first
product of a JSON file is row 1.
"""

import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, Literal

from agents.catalogue import Catalogue, CatalogueFault, CatalogueInvalid

Document = dict[str, Any]
Format = Literal["csv", "json"]

MAX_ROWS: Final = 5000


@dataclass(frozen=True)
class Row:
    """What a row says of a product, in the shape of the data file."""

    number: int
    product: Document


@dataclass(frozen=True)
class WrongCell:
    """Why a row did not go in. Never holds what the cell holds."""

    row: int
    column: str
    reason: str

    def to_document(self) -> Document:
        """As JSON."""
        return {"row": self.row, "column": self.column, "reason": self.reason}


class FileUnreadable(ValueError):
    """The file as a whole is not what it should be; its message says why and names no value."""


class NothingLeft(ValueError):
    """A catalogue without products, and no row that brings one."""


@dataclass(frozen=True)
class Applied:
    """A catalogue with the right rows put in, and the wrong ones in the file's order."""

    catalogue: Catalogue
    wrong: tuple[WrongCell, ...]

    @property
    def wrong_rows(self) -> int:
        """How many rows did not go in."""
        return len({cell.row for cell in self.wrong})


def read_rows(content: str, form: Format) -> list[Row]:
    """The rows of a file; what they hold is looked at by `apply_rows`.

    Raises:
        FileUnreadable: it is not CSV or JSON of this shape, or has too many rows.
    """
    content = content.removeprefix("\ufeff")
    rows = list(_csv_rows(content) if form == "csv" else _json_rows(content))
    if not rows:
        raise FileUnreadable("it holds no rows")
    return rows


def apply_rows(catalogue: Catalogue, rows: list[Row]) -> Applied:
    """Put rows into a catalogue, leaving out those that are wrong.

    Equal rows on an equal catalogue give an equal result, and putting them in a second time
    changes nothing.

    Raises:
        NothingLeft: the catalogue has no products, and no row brings one.
    """
    document = catalogue.to_document()
    known: dict[str, Document] = {product["id"]: product for product in document["products"]}
    wrong: list[WrongCell] = []
    right: list[Row] = []
    seen: set[str] = set()
    for row in rows:
        product_id = row.product.get("id")
        if not isinstance(product_id, str):
            wrong.append(WrongCell(row.number, "id", _reason("id", "is missing")))
        elif product_id in seen:
            wrong.append(WrongCell(row.number, "id", "comes more than once in the file"))
        else:
            seen.add(product_id)
            right.append(row)
    # Where two products claim a name, the later one is at fault: those that keep their names
    # come first, then the rows that bring new ones, in the order of the file.
    right.sort(key=lambda row: _names_change(known.get(row.product["id"], {}), row.product))
    while True:
        merged = [_merge(known.get(row.product["id"], {}), row.product) for row in right]
        touched = {product["id"] for product in merged}
        kept = [product for product in document["products"] if product["id"] not in touched]
        if not (kept or merged):
            raise NothingLeft
        try:
            Catalogue.from_document({**document, "products": kept + merged}, source="rows")
        except CatalogueInvalid as invalid:
            faulty = _wrong_cells(invalid.faults, len(kept), right)
            wrong += faulty
            numbers = {cell.row for cell in faulty}
            # A row that is left out brings the old product back, which may clash in turn.
            right = [row for row in right if row.number not in numbers]
        else:
            break
    new = {product["id"]: product for product in merged}
    products = [new.pop(product["id"], product) for product in document["products"]]
    # Those that are left are new ones, which all bring names: still in the file's order.
    document["products"] = products + list(new.values())
    wrong.sort(key=lambda cell: cell.row)
    return Applied(Catalogue.from_document(document, source="rows"), tuple(wrong))


def _names_change(old: Document, said: Document) -> bool:
    merged = _merge(old, said)
    return any(merged.get(key) != old.get(key) for key in ("id", "name", "aliases"))


def _merge(old: Document, said: Document) -> Document:
    """The old product with what a row says; texts are replaced language by language."""
    merged = {**old, **said}
    for key in ("name", "description", "facts"):
        if isinstance(old.get(key), dict) and isinstance(said.get(key), dict):
            merged[key] = {**old[key], **said[key]}
    return merged


_PLACE: Final = re.compile(r"products\[(\d+)\](?:\.(.*))?", re.DOTALL)
_INDEX: Final = re.compile(r"\[\d+\]")
_MAX_COLUMN_CHARS: Final = 60
# What the catalogue says without quoting a value.
_SAFE_PROBLEMS: Final = frozenset({"is missing", "is empty", "is not a known key"})
_REASONS: Final = {
    "id": "must be small letters, digits and _, and begin with a letter",
    "name": "must have a letter or digit, and be the name of no other product",
    "aliases": "must have letters or digits, each once, and be the names of no other product",
    "thicknesses_mm": "must be whole millimetres, each once and with a thickness factor",
    "base_price_per_m2": "must be a number above 0, with a decimal point, such as 149.90",
    "description": "must be a text of at most 2000 characters",
    "facts": "must be topics of the catalogue, each with a text in every language",
}


def _reason(column: str, problem: str) -> str:
    if problem in _SAFE_PROBLEMS:
        return problem
    return _REASONS.get(column.partition(".")[0], "is not a known column")


def _wrong_cells(
    faults: tuple[CatalogueFault, ...], first: int, rows: list[Row]
) -> list[WrongCell]:
    cells: dict[WrongCell, None] = {}
    for fault in faults:
        place = _PLACE.fullmatch(fault.field)
        # What the catalogue held before is sound, so every fault is a row's.
        assert place is not None
        assert int(place[1]) >= first, fault.field
        column = _INDEX.sub("", place[2] or "id")[:_MAX_COLUMN_CHARS]
        # A key of a JSON file may hold what no encoding can.
        column = column.encode(errors="replace").decode()
        row = rows[int(place[1]) - first]
        cells[WrongCell(row.number, column, _reason(column, fault.problem))] = None
    return list(cells)


# --- CSV ----------------------------------------------------------------------------------

_DELIMITERS: Final = ",;\t"
# Column -> where it goes in a product.
_COLUMNS: Final = {
    "id": ("id",),
    "name_es": ("name", "es"),
    "name_en": ("name", "en"),
    "aliases": ("aliases",),
    "thicknesses_mm": ("thicknesses_mm",),
    "base_price_per_m2": ("base_price_per_m2",),
    "description_es": ("description", "es"),
    "description_en": ("description", "en"),
}
_LISTS: Final = frozenset({"aliases", "thicknesses_mm"})


def _csv_rows(content: str) -> Iterator[Row]:
    header, _, _ = content.partition("\n")
    delimiter = max(_DELIMITERS, key=header.count)
    reader = csv.reader(io.StringIO(content, newline=""), delimiter=delimiter, strict=True)
    columns: list[str] = []
    number = 0
    try:
        for number, cells in enumerate(reader, start=1):
            if number == 1:
                columns = _header([cell.strip().lower() for cell in cells])
            elif any(cell.strip() for cell in cells):
                yield _csv_row(number, columns, cells)
            if number > MAX_ROWS:
                raise FileUnreadable(f"it has more than {MAX_ROWS} rows")
    except csv.Error:
        raise FileUnreadable(f"row {number + 1} is not CSV") from None


def _header(columns: list[str]) -> list[str]:
    if "id" not in columns:
        raise FileUnreadable("its first row names no column `id`")
    for place, column in enumerate(columns, start=1):
        if column not in _COLUMNS:
            raise FileUnreadable(f"column {place} is not one of {', '.join(_COLUMNS)}")
        if columns.index(column) != place - 1:
            raise FileUnreadable(f"column {place} ({column}) comes twice")
    return columns


def _csv_row(number: int, columns: list[str], cells: list[str]) -> Row:
    product: Document = {}
    for column, cell in zip(columns, cells, strict=False):
        value = cell.strip()
        if not value:
            continue
        *outer, key = _COLUMNS[column]
        within = product.setdefault(outer[0], {}) if outer else product
        within[key] = [part.strip() for part in value.split("|")] if column in _LISTS else value
    if len(cells) > len(columns):
        # Refused with the row by the catalogue, which knows no such key.
        product["more cells than columns"] = ""
    return Row(number, product)


# --- JSON ---------------------------------------------------------------------------------


def _json_rows(content: str) -> Iterator[Row]:
    try:
        # Prices must not pass through floats.
        read = json.loads(content, parse_float=Decimal, parse_constant=str)
    except (ValueError, RecursionError):
        raise FileUnreadable("it is not JSON") from None
    products = read.get("products") if isinstance(read, dict) else read
    if not isinstance(products, list):
        raise FileUnreadable("it is neither a list of products nor an object with `products`")
    if len(products) > MAX_ROWS:
        raise FileUnreadable(f"it has more than {MAX_ROWS} rows")
    for number, product in enumerate(products, start=1):
        yield Row(number, product if isinstance(product, dict) else {})

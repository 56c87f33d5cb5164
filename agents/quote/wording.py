"""A quote in words, in the customer's language; pure."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from babel.numbers import format_decimal

from agents.catalogue import Catalogue, Language
from agents.quotes import Quote

Document = dict[str, Any]

_WITHOUT = {
    "anchors": {"es": "sin anclajes", "en": "without anchors"},
    "freight": {"es": "sin flete", "en": "without freight"},
}
_OF = {"es": "de", "en": "of"}
# Uruguay's separators in Spanish: the shipped business is there.
_LOCALES = {"es": "es_UY", "en": "en_US"}


def describe_item(item: Document, catalogue: Catalogue, language: Language) -> str:
    """A priced item in one line: "Isodec 100 mm, 10 × 5 m, gris, gotero × 4, sin flete".

    `item` is one that was priced by this catalogue, in the shape in which quotes keep it.
    """
    product = catalogue.product(item["product"])
    colour = catalogue.colour(item["colour"])
    assert product is not None
    assert colour is not None
    words = [
        f"{product.name.in_language(language)} {item['thickness_mm']} mm",
        _size(item, language),
        colour.name.in_language(language),
    ]
    for finish_id in dict.fromkeys(item["finishes"]):
        finish = catalogue.finish(finish_id)
        assert finish is not None
        sides = item["finishes"].count(finish_id)
        words.append(f"{finish.name.in_language(language)} × {sides}")
    words += [words_of[language] for field, words_of in _WITHOUT.items() if not item[field]]
    return ", ".join(words)


def name_products(items: Sequence[Document], catalogue: Catalogue, language: Language) -> str:
    """The products of priced items, each once: "Isodec, Lana de roca"."""
    products = [catalogue.product(item["product"]) for item in items]
    names = dict.fromkeys(each.name.in_language(language) for each in products if each)
    return ", ".join(names)


def quote_document(quote: Quote) -> Document:
    """All that a reply needs of a quote, as JSON; Decimals are strings, times ISO 8601 in UTC.

    `product` and `description` are for people; the items have the catalogue's ids.
    `unit_price_per_m2` is null where the items have different ones; each item has its own.
    """
    return {
        "quote_id": quote.id,
        "code": quote.code,
        "number": quote.number,
        "version": quote.version,
        "supersedes": quote.supersedes,
        "superseded_by": quote.superseded_by,
        "state": quote.state.value,
        "session_id": quote.session,
        "language": quote.language,
        "product": quote.product,
        "description": quote.description,
        "items": list(quote.items),
        "unit_price_per_m2": quote.unit_price_per_m2,
        "total": str(quote.total),
        "tax": str(quote.tax),
        "tax_rate": str(quote.tax_rate),
        "currency": quote.currency,
        "catalogue_version": quote.catalogue_version,
        "created_at": quote.created_at.isoformat(),
        "valid_until": quote.valid_until.isoformat(),
    }


def _size(item: Document, language: Language) -> str:
    if item["length_m"] is None:
        return f"{_number(item['area_m2'], language)} m²"
    size = f"{_number(item['length_m'], language)} × {_number(item['width_m'], language)} m"
    return size if item["quantity"] == 1 else f"{item['quantity']} {_OF[language]} {size}"


def _number(digits: str, language: Language) -> str:
    shown: str = format_decimal(
        Decimal(digits), locale=_LOCALES[language], decimal_quantization=False
    )
    return shown
